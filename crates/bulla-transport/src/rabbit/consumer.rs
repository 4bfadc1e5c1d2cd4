//! Taking messages from a queue, through losses of the connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::Channel;
use lapin::message::Delivery as AmqpDelivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;

use super::acks::{Acks, NoAck};
use super::declare::{self, refused, short};
use super::link::{Link, Live};
use crate::address::{Inbox, ReplyName};
use crate::error::TransportError;
use crate::transport::{Acker, ConsumeOptions, Consumer, Delivery};

const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct RabbitConsumer {
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    options: ConsumeOptions,
    session: Option<Session>,
    pause: Duration,
    stopped: bool,
}

/// Consuming on one channel.
struct Session {
    stream: lapin::Consumer,
    channel: Channel,
    /// None where the broker wants no acknowledgements.
    acks: Option<Arc<Acks>>,
}

impl Session {
    async fn start(
        link: &Link,
        live: &Live,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Self, TransportError> {
        declare::inbox(&live.connection, &link.confined, inbox, options).await?;
        let queue = inbox.queue_name();
        let what = || format!("to consume from {queue}");
        let no_ack = matches!(inbox, Inbox::Reply { .. });
        let channel = declare::open(&live.connection).await?;
        channel
            .basic_qos(options.prefetch, BasicQosOptions::default())
            .await
            .map_err(|error| refused(what(), &error))?;
        let consume = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
        let stream = channel
            .basic_consume(short(&queue)?, "".into(), consume, FieldTable::default())
            .await
            .map_err(|error| refused(what(), &error))?;
        let acks = (!no_ack).then(|| Acks::start(channel.clone(), options.prefetch));
        if let Some(acks) = &acks {
            link.watch_acks(acks);
        }
        Ok(Self { stream, channel, acks })
    }

    fn deliver(&self, inbox: &Arc<Inbox>, message: AmqpDelivery) -> Delivery {
        let acker = match &self.acks {
            Some(acks) => Acker::new(acks.deliver(message.delivery_tag)),
            None => Acker::new(NoAck),
        };
        let hint = message.properties.reply_to().as_ref();
        Delivery {
            payload: Bytes::from(message.data),
            inbox: Arc::clone(inbox),
            redelivered: message.redelivered,
            reply_hint: hint.and_then(|hint| ReplyName::parse(hint.as_str())),
            acker,
        }
    }

    /// Takes no more, gives back what nobody has in hand; what somebody has can be settled.
    async fn end(mut self) {
        let tag = self.stream.tag();
        let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default()).await;
        let Some(acks) = self.acks.take() else {
            return declare::close(&self.channel).await;
        };
        if cancelled.is_ok() {
            while let Some(Ok(message)) = self.stream.next().await {
                drop(acks.deliver(message.delivery_tag));
            }
        }
        acks.end();
    }
}

impl RabbitConsumer {
    pub(super) async fn start(
        link: Arc<Link>,
        live: &Live,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Self, TransportError> {
        let session = Session::start(&link, live, inbox, options).await?;
        link.remember(inbox, options);
        Ok(Self {
            link,
            inbox: Arc::new(inbox.clone()),
            options: options.clone(),
            session: Some(session),
            pause: PAUSE,
            stopped: false,
        })
    }

    /// Consumes again after a loss. Dropping this on the way leaves nothing behind.
    async fn resume(&mut self) -> Result<(), TransportError> {
        let live = self.link.live().await?;
        match Session::start(&self.link, &live, &self.inbox, &self.options).await {
            Ok(session) => {
                self.session = Some(session);
                self.pause = PAUSE;
            }
            Err(error) => {
                tracing::warn!(inbox = ?self.inbox, %error, "can't consume yet");
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    /// What a reply inbox leaves behind is nothing, so there is nothing to declare again.
    fn leave(&mut self) -> Option<Session> {
        if !self.stopped && matches!(*self.inbox, Inbox::Reply { .. }) {
            self.link.forget(&self.inbox);
        }
        self.stopped = true;
        self.session.take()
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.stopped || self.link.is_closed() {
                return None;
            }
            let Some(session) = &mut self.session else {
                self.resume().await.ok()?;
                continue;
            };
            // Deliveries first: looking at the link costs more and can wait.
            let message = tokio::select! {
                biased;
                message = session.stream.next() => message,
                () = self.link.closed() => return None,
            };
            if let Some(Ok(message)) = message {
                return Some(session.deliver(&self.inbox, message));
            }
            // The channel is gone, and with it every tag of it.
            if let Some(acks) = self.session.take().and_then(|session| session.acks) {
                acks.end();
            }
        }
    }

    async fn stop(&mut self) {
        if let Some(session) = self.leave() {
            session.end().await;
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let Some(session) = self.leave() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(session.end())),
            // Without a runtime the channel closes when the last delivery is gone.
            Err(_) => drop(session),
        }
    }
}
