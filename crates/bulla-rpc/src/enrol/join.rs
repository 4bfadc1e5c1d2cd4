//! The agent's end: asks with one request until it is answered.

use std::sync::Arc;
use std::time::Duration;

use bulla_seal::enrol::{Application, Enrolled};
use bulla_seal::{OsRandom, Random, RandomFailed, Refusal, TrustStore};
use bulla_transport::{
    Address, ConsumeOptions, Consumer, Inbox, Outbound, PublishError, ReplyName, Transport,
    TransportError,
};
use thiserror::Error;
use tokio::time::Instant;

use super::TOPIC;
use crate::clock::{Clock, SystemClock};

/// How long an answer is waited for before the same request goes out again: at first, and at the
/// most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// An agent could not join.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody answered, or nobody who was to.
    #[error(
        "the control plane did not answer within {after:?}{}. It answers no request that is not in order, so: is it running (`bulla serve`)? Was the join file used before, or its time over? Does this machine's broker login reach the topic {TOPIC}? The control plane's log says more",
        refused.map(|refusal| format!(" (an answer came and was refused: {refusal})")).unwrap_or_default()
    )]
    NoAnswer {
        /// How long was waited.
        after: Duration,
        /// Why the last thing that came in was not taken for the answer.
        refused: Option<Refusal>,
    },
    /// The bus can't be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The request can't be sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The bus was closed.
    #[error("the bus was closed before the control plane answered")]
    Closed,
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}

/// Sends `application`'s request, the same bytes again and again, until its answer is there or
/// `patience` is over. `root` is what the join file says of the root.
pub async fn join(
    transport: &Arc<dyn Transport>,
    exchange: &str,
    application: &Application,
    root: &TrustStore,
    patience: Duration,
) -> Result<Enrolled, JoinError> {
    let name = reply_name(application)?;
    let inbox = Inbox::Reply { exchange: exchange.to_owned(), name: name.clone() };
    let mut consumer = transport.consume(&inbox, &ConsumeOptions::default()).await?;
    let asking = Asking { transport, exchange, name, application, root };
    let joined = asking.ask(&mut *consumer, patience).await;
    consumer.stop().await;
    joined
}

struct Asking<'a> {
    transport: &'a Arc<dyn Transport>,
    exchange: &'a str,
    name: ReplyName,
    application: &'a Application,
    root: &'a TrustStore,
}

impl Asking<'_> {
    async fn ask(
        &self,
        consumer: &mut dyn Consumer,
        patience: Duration,
    ) -> Result<Enrolled, JoinError> {
        let end = Instant::now() + patience;
        let (mut pause, mut refused) = (ASK_AGAIN.0, None);
        loop {
            self.send(pause).await?;
            let next = (Instant::now() + pause).min(end);
            while let Ok(delivery) = tokio::time::timeout_at(next, consumer.next()).await {
                let delivery = delivery.ok_or(JoinError::Closed)?;
                delivery.acker.ack();
                let now = SystemClock.now();
                match self.application.open_answer(&delivery.payload, self.root, now) {
                    Ok(enrolled) => return Ok(enrolled),
                    // Anybody may send here: the answer may still come.
                    Err(refusal) => refused = Some(refusal),
                }
            }
            if Instant::now() >= end {
                return Err(JoinError::NoAnswer { after: patience, refused });
            }
            pause = (pause * 2).min(ASK_AGAIN.1);
        }
    }

    /// A request that is not taken in time would only be answered again.
    async fn send(&self, ttl: Duration) -> Result<(), PublishError> {
        let address =
            Address::Topic { exchange: self.exchange.to_owned(), topic: TOPIC.to_owned() };
        let outbound = Outbound {
            ttl: Some(ttl),
            reply_hint: Some(self.name.clone()),
            ..Outbound::new(self.application.request().clone())
        };
        self.transport.publish(&address, outbound).await
    }
}

/// An inbox of this attempt's own, in the agent's name space.
fn reply_name(application: &Application) -> Result<ReplyName, RandomFailed> {
    let mut process = [0; 8];
    OsRandom::default().fill(&mut process)?;
    let process = format!("{:016x}", u64::from_be_bytes(process));
    let agent = application.parts().party.principal.as_str();
    ReplyName::new(agent, &process).ok_or(RandomFailed)
}
