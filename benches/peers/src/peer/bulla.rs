//! Sealed calls of a component to an agent, over RabbitMQ. Every call makes a claim, in memory.

use std::sync::Arc;

use bulla::memory::{Deployment, server_options};
use bulla::{Client, HandlerResult, Router, Server, Target};
use bulla_transport::{RabbitOptions, RabbitTransport, Transport};
use serde::{Deserialize, Serialize};

use super::serve;
use crate::Failure;
use crate::load::Call;

const AGENT: &str = "db-1";

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    text: String,
}

pub(super) struct Calls {
    client: Client,
    target: Target,
}

pub(super) async fn start(address: &str) -> Result<Calls, Failure> {
    let deployment = Arc::new(Deployment::new()?);
    let (url, agents) = (address.to_owned(), deployment.clone());
    serve(async move |ready| {
        let agent = agents.agent_over(AGENT, connect(&url).await?)?;
        let echo = |_, args: Echo| std::future::ready(Ok(args) as HandlerResult<Echo>);
        let server = Server::start(agent, Router::new().method("echo", echo), server_options());
        let _server = server.await?;
        let _ = ready.send(());
        std::future::pending().await
    })
    .await?;
    let caller = deployment.component_over("control", "host-1", connect(address).await?)?;
    Ok(Calls { client: Client::new(caller), target: format!("agent/{AGENT}").parse()? })
}

async fn connect(url: &str) -> Result<Arc<dyn Transport>, Failure> {
    Ok(Arc::new(RabbitTransport::connect(RabbitOptions::new(url)?).await?))
}

impl Call for Calls {
    async fn call(&self, text: &str) -> Result<String, Failure> {
        let args = Echo { text: text.to_owned() };
        let echo: Echo = self.client.call(&self.target, "echo", &args).await?;
        Ok(echo.text)
    }
}
