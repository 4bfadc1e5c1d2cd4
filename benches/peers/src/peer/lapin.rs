//! RPC over RabbitMQ as one writes it with lapin: one queue of requests whose messages are acknowledged one by one, one
//! queue of replies, a map from correlation ids to waiting calls, JSON.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::serve;
use crate::Failure;
use crate::load::Call;

/// Unacknowledged messages, as many as Bulla's server takes.
const PREFETCH: u16 = 256;

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    method: String,
    text: String,
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>>;

pub(super) struct Calls {
    channel: Channel,
    requests: String,
    replies: String,
    waiting: Waiting,
    next: AtomicU64,
}

async fn connect(address: &str, ca: Option<String>) -> Result<Channel, Failure> {
    let properties = ConnectionProperties::default();
    let connection = match ca {
        Some(ca) => {
            let tls = OwnedTLSConfig { identity: None, cert_chain: Some(ca) };
            Connection::connect_with_config(
                address,
                properties,
                tls,
                lapin::runtime::default_runtime()?,
            )
            .await?
        }
        None => Connection::connect(address, properties).await?,
    };
    let channel = connection.create_channel().await?;
    // It lives as long as the process.
    std::mem::forget(connection);
    Ok(channel)
}

pub(super) async fn start(address: &str, ca: Option<String>) -> Result<Calls, Failure> {
    let requests = format!("peer-lapin-{}", std::process::id());
    let (url, queue, authority) = (address.to_owned(), requests.clone(), ca.clone());
    serve(async move |ready| {
        let channel = connect(&url, authority).await?;
        answer(channel, &queue, ready).await
    })
    .await?;
    let channel = connect(address, ca).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let replies = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?;
    let replies = replies.name().to_string();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = channel
        .basic_consume(replies.as_str().into(), "".into(), options, FieldTable::default())
        .await?;
    let waiting = Waiting::default();
    let answered = waiting.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let id = delivery.properties.correlation_id().as_ref().map(ToString::to_string);
            let call = id.and_then(|id| answered.lock().ok()?.remove(&id));
            if let Some(call) = call {
                let _ = call.send(delivery.data);
            }
        }
    });
    Ok(Calls { channel, requests, replies, waiting, next: AtomicU64::new(0) })
}

async fn answer(channel: Channel, queue: &str, ready: oneshot::Sender<()>) -> Result<(), Failure> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let _ = ready.send(());
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let channel = channel.clone();
        tokio::spawn(async move {
            let answered = async {
                let echo: Echo = serde_json::from_slice(&delivery.data)?;
                let reply = serde_json::to_vec(&echo)?;
                let properties = &delivery.properties;
                let to = properties.reply_to().as_ref().ok_or("no reply queue")?.clone();
                let id = properties.correlation_id().as_ref().ok_or("no id")?.clone();
                let own = BasicProperties::default().with_correlation_id(id);
                let options = BasicPublishOptions::default();
                channel.basic_publish("".into(), to, options, &reply, own).await?;
                delivery.ack(BasicAckOptions::default()).await?;
                Ok::<_, Failure>(())
            };
            if let Err(error) = answered.await {
                eprintln!("a request was not answered: {error}");
            }
        });
    }
    Ok(())
}

impl Call for Calls {
    async fn call(&self, text: &str) -> Result<String, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let request = Echo { method: "echo".to_owned(), text: text.to_owned() };
        let (sender, reply) = oneshot::channel();
        self.waiting.lock().map_err(|_| "poisoned")?.insert(id.clone(), sender);
        let properties = BasicProperties::default()
            .with_correlation_id(id.into())
            .with_reply_to(self.replies.as_str().into());
        let body = serde_json::to_vec(&request)?;
        let (to, options) = (self.requests.as_str().into(), BasicPublishOptions::default());
        self.channel.basic_publish("".into(), to, options, &body, properties).await?;
        let echo: Echo = serde_json::from_slice(&reply.await?)?;
        Ok(echo.text)
    }
}
