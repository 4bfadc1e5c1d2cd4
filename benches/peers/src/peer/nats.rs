//! Request and reply over NATS, in the clear, JSON.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::serve;
use crate::Failure;
use crate::load::Call;

const SUBJECT: &str = "peer.echo";

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    method: String,
    text: String,
}

pub(super) struct Calls(async_nats::Client);

pub(super) async fn start(address: &str) -> Result<Calls, Failure> {
    let url = address.to_owned();
    serve(async move |ready| {
        let client = async_nats::connect(&url).await?;
        let mut requests = client.subscribe(SUBJECT).await?;
        client.flush().await?;
        let _ = ready.send(());
        while let Some(request) = requests.next().await {
            let client = client.clone();
            tokio::spawn(async move {
                let answered = async {
                    let echo: Echo = serde_json::from_slice(&request.payload)?;
                    let to = request.reply.ok_or("nobody to answer")?;
                    client.publish(to, serde_json::to_vec(&echo)?.into()).await?;
                    Ok::<_, Failure>(())
                };
                if let Err(error) = answered.await {
                    eprintln!("a request was not answered: {error}");
                }
            });
        }
        Ok(())
    })
    .await?;
    Ok(Calls(async_nats::connect(address).await?))
}

impl Call for Calls {
    async fn call(&self, text: &str) -> Result<String, Failure> {
        let request = Echo { method: "echo".to_owned(), text: text.to_owned() };
        let body = serde_json::to_vec(&request)?;
        let reply = self.0.request(SUBJECT, body.into()).await?;
        let echo: Echo = serde_json::from_slice(&reply.payload)?;
        Ok(echo.text)
    }
}
