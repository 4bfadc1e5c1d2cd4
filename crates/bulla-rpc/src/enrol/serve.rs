//! The control plane's end: takes requests from the bus, has them judged, answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulla_journal::{Text, events};
use bulla_seal::enrol::Request;
use bulla_seal::{Principal, Refusal};
use bulla_transport::{Address, Consumer, Delivery, Inbox, Outbound, TransportError};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::TOPIC;
use super::gate::Gate;
use crate::directory::DirectoryError;
use crate::endpoint::Endpoint;

/// How long an answer may wait for its agent, which asks again anyway.
const ANSWER_TTL: Duration = Duration::from_secs(60);

/// Who decides about requests to join: the keystore.
#[async_trait]
pub trait Enroller: Send + Sync + 'static {
    /// Judges a request.
    ///
    /// # Errors
    /// It can't be judged now; whoever asks will ask again.
    async fn enrol(&self, request: Bytes) -> Result<Verdict, DirectoryError>;
}

/// What is to be done about a request.
#[derive(Debug)]
pub enum Verdict {
    /// Answer it.
    Answer {
        /// Who enrolled.
        agent: Principal,
        /// The sealed answer.
        answer: Bytes,
        /// The request came before.
        again: bool,
    },
    /// Don't.
    Refused(Refused),
}

/// Why a request is not answered: for the log and the counters.
#[derive(Debug)]
pub struct Refused {
    /// A stable name.
    pub name: &'static str,
    /// In words.
    pub why: String,
    /// Its token does not exist: it is not looked up again for a while.
    pub unknown: bool,
    /// Somebody holds a token that is not theirs: told each time.
    pub alarm: bool,
}

/// Answers requests to join until it is dropped or stopped.
#[derive(Debug)]
pub struct EnrolServer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl EnrolServer {
    /// Starts taking requests.
    ///
    /// # Errors
    /// The bus can't be consumed from.
    pub async fn start(
        endpoint: Endpoint,
        enroller: Arc<dyn Enroller>,
    ) -> Result<Self, TransportError> {
        let inbox =
            Inbox::Topic { exchange: endpoint.options.exchange.clone(), topic: TOPIC.to_owned() };
        let consumer = endpoint.transport.consume(&inbox, &endpoint.options.queues).await?;
        let stop = CancellationToken::new();
        let desk = Desk { endpoint, enroller, gate: Gate::new() };
        let task = desk.start(consumer, stop.clone());
        Ok(Self { stop, task })
    }

    /// Takes nothing new, and waits for the request in hand.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "enrolment ended badly");
        }
    }
}

impl Drop for EnrolServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Desk {
    endpoint: Endpoint,
    enroller: Arc<dyn Enroller>,
    gate: Gate,
}

impl Desk {
    // Not async: what runs is compiled here, as this crate is optimised (docs/adr/0008).
    #[inline(never)]
    fn start(
        self,
        consumer: Box<dyn Consumer>,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.take(consumer, stop))
    }

    async fn take(self, mut consumer: Box<dyn Consumer>, stop: CancellationToken) {
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                delivery = consumer.next() => delivery,
            };
            let Some(delivery) = delivery else { break };
            if let Err(refusal) = self.judge(&delivery).await {
                self.endpoint.refused(refusal, "a request to join was refused");
                // A flood must not keep this thread from the rest.
                tokio::task::coop::consume_budget().await;
            }
            // Whoever was not answered asks again by itself.
            delivery.acker.ack();
        }
        consumer.stop().await;
    }

    async fn judge(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let token = Request::parse(&delivery.payload)?.token();
        if !self.endpoint.events().room() {
            // It asks again.
            return Ok(());
        }
        self.gate.enter(token)?;
        match self.enroller.enrol(delivery.payload.clone()).await {
            Ok(Verdict::Answer { agent, answer, again }) => {
                let enrolled = events::AgentEnrolled { agent: agent.clone(), again };
                self.endpoint.events().emit(enrolled);
                self.answer(delivery, &agent, answer).await;
            }
            Ok(Verdict::Refused(refused)) => {
                if refused.unknown {
                    self.gate.unknown(token);
                }
                self.tell(&refused);
            }
            Err(error) => tracing::error!(%error, "a request to join could not be judged"),
        }
        Ok(())
    }

    fn tell(&self, refused: &Refused) {
        let Refused { name, why, alarm, .. } = refused;
        let counted = self.endpoint.counters.refuse_sampled(name);
        if let Some(count) = counted.or(alarm.then_some(1)) {
            let (why, alarm) = (Text::new(why), *alarm);
            let refused = events::EnrolmentRefused { refusal: name, count, alarm, why };
            self.endpoint.events().emit(refused);
        }
    }

    /// The answer opens with that very request, so its way does not matter; but nothing goes into
    /// another principal's name space.
    async fn answer(&self, delivery: &Delivery, agent: &Principal, answer: Bytes) {
        let hint = delivery.reply_hint.clone();
        let Some(to) = hint.filter(|name| name.belongs_to(agent.as_str())) else {
            tracing::warn!(%agent, "a request to join named no place of its own for the answer");
            return;
        };
        let exchange = self.endpoint.options.exchange.clone();
        let from = self.endpoint.identity.principal().to_string();
        let address = Address::Reply { exchange, to, from };
        let outbound = Outbound { ttl: Some(ANSWER_TTL), ..Outbound::new(answer) };
        if let Err(error) = self.endpoint.transport.publish(&address, outbound).await {
            tracing::warn!(%error, %agent, "the answer to a new agent could not be sent");
        }
    }
}
