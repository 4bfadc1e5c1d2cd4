//! Taking messages from a queue, through losses of the connection.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::acks::{Acks, NoAck};
use super::declare::{self, refused};
use super::foreign;
use super::link::{Link, Live};
use crate::address::{Inbox, ReplyName};
use crate::amqp::{Channel, Deliveries, Message};
use crate::error::TransportError;
use crate::transport::{Acker, ConsumeOptions, Consumer, Delivery};

const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct RabbitConsumer {
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    options: ConsumeOptions,
    session: Option<Session>,
    /// Resolves when the transport is closed.
    closed: BoxFuture<'static, ()>,
    pause: Duration,
    stopped: bool,
}

/// Consuming on one channel.
struct Session {
    deliveries: Deliveries,
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
        let no_ack = inbox.is_own();
        let channel = declare::open(&live.connection).await?;
        let arguments = match inbox {
            Inbox::Foreign(queue) => foreign::arguments(&queue.consume),
            _ => Vec::new(),
        };
        let deliveries = channel
            .consume(&queue, options.prefetch, no_ack, false, &arguments)
            .await
            .map_err(|error| refused(what(), &error))?;
        let acks = (!no_ack).then(|| Acks::start(channel.clone(), options.prefetch));
        if let Some(acks) = &acks {
            link.watch_acks(acks);
        }
        Ok(Self { deliveries, channel, acks })
    }

    fn deliver(&self, inbox: &Arc<Inbox>, message: Message) -> Delivery {
        let acker = match &self.acks {
            Some(acks) => Acker::new(acks.deliver(message.tag)),
            None => Acker::new(NoAck),
        };
        Delivery {
            payload: message.body,
            inbox: Arc::clone(inbox),
            redelivered: message.redelivered,
            reply_hint: message.reply_to.and_then(ReplyName::from_text),
            acker,
        }
    }

    /// Takes no more, gives back what nobody has in hand; what somebody has can be settled.
    async fn end(mut self) {
        let cancelled = self.channel.cancel(self.deliveries.tag()).await;
        let Some(acks) = self.acks.take() else {
            return self.channel.close().await;
        };
        if cancelled.is_ok() {
            while let Some(message) = self.deliveries.next().await {
                drop(acks.deliver(message.tag));
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
        let closed = Box::pin({
            let link = Arc::clone(&link);
            async move { link.closed().await }
        });
        Ok(Self {
            closed,
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
        if !self.stopped && self.inbox.is_own() {
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
                message = session.deliveries.next() => message,
                () = &mut self.closed => return None,
            };
            if let Some(message) = message {
                return Some(session.deliver(&self.inbox, message));
            }
            // The channel is gone, and with it every tag of it.
            if let Some(acks) = self.session.take().and_then(|session| session.acks) {
                acks.end();
            }
        }
    }

    fn next_now(&mut self) -> Option<Delivery> {
        if self.stopped || self.link.is_closed() {
            return None;
        }
        let session = self.session.as_mut()?;
        let message = session.deliveries.next_now()?;
        Some(session.deliver(&self.inbox, message))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<Poll<Option<Delivery>>> {
        if self.stopped || self.link.is_closed() {
            return Some(Poll::Ready(None));
        }
        // Without a session, and at its end, `next` begins another.
        let session = self.session.as_mut()?;
        match session.deliveries.poll_next(cx) {
            Poll::Ready(message) => Some(Poll::Ready(Some(session.deliver(&self.inbox, message?)))),
            Poll::Pending => Some(self.closed.as_mut().poll(cx).map(|()| None)),
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
