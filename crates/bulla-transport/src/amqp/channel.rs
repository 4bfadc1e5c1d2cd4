//! A channel: what can be asked, sent and taken there.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::confirms::{Confirmation, Confirms, Mandatory};
use super::connection::Connection;
use super::content::{Message, Publish};
use super::error::AmqpError;
use super::method::{
    ACK, Answer, CANCEL, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_OPEN, CONFIRM_SELECT, CONSUME,
    EXCHANGE_DECLARE, EXCHANGE_DELETE, ExchangeDeclare, MethodId, NACK, QOS, QUEUE_BIND,
    QUEUE_DECLARE, QUEUE_DELETE, QueueDeclare, QueueState, Value, answer_to,
};
use super::state::{Backlog, Chan, ChanState, Consuming};
use super::write::{bits, method, short, table};

/// A channel. It is closed when its last clone is gone.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Handle>);

struct Handle {
    chan: Arc<Chan>,
    connection: Connection,
}

/// The messages of a consumer; the end of the channel ends them.
pub(crate) struct Deliveries {
    messages: mpsc::UnboundedReceiver<Message>,
    backlog: Arc<Backlog>,
    tag: String,
}

impl Deliveries {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = self.messages.recv().await?;
        self.backlog.remove(message.body.len());
        Some(message)
    }

    /// The same, polled.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let polled = self.messages.poll_recv(cx);
        if let Poll::Ready(Some(message)) = &polled {
            self.backlog.remove(message.body.len());
        }
        polled
    }

    /// A message that is here already.
    pub(crate) fn next_now(&mut self) -> Option<Message> {
        let message = self.messages.try_recv().ok()?;
        self.backlog.remove(message.body.len());
        Some(message)
    }

    /// What the broker calls this consumer.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }
}

impl Channel {
    pub(super) async fn open(connection: Connection) -> Result<Self, AmqpError> {
        let chan = connection.core().add_channel()?;
        let channel = Self(Arc::new(Handle { chan, connection }));
        let opened = channel.ask(CHANNEL_OPEN, |out| {
            out.push(0);
            Ok(())
        });
        opened.await?;
        Ok(channel)
    }

    /// Whether it can be used.
    pub(crate) fn is_open(&self) -> bool {
        self.0.chan.state.lock().ended.is_none()
    }

    /// Puts a question, which is sent when this returns, and waits for its answer.
    fn ask<F: FnOnce(&mut Vec<u8>) -> Result<(), AmqpError>>(
        &self,
        id: MethodId,
        arguments: F,
    ) -> impl Future<Output = Result<Answer, AmqpError>> + Send + use<F> {
        let asked = self.put(|state, out, channel| {
            method(out, channel, id, arguments)?;
            Ok(state.asks(answer_to(id)))
        });
        async move {
            asked?.await.unwrap_or_else(|_| Err(AmqpError::Lost("the connection was lost".into())))
        }
    }

    /// Puts frames of this channel into the outbox.
    fn put<T>(
        &self,
        write: impl FnOnce(&mut ChanState, &mut Vec<u8>, u16) -> Result<T, AmqpError>,
    ) -> Result<T, AmqpError> {
        let Handle { chan, connection } = &*self.0;
        let mut state = chan.state.lock();
        let state = state.open()?;
        connection.core().outbox.put(|out| write(state, out, chan.id))
    }

    pub(crate) async fn exchange_declare(
        &self,
        exchange: &ExchangeDeclare<'_>,
    ) -> Result<(), AmqpError> {
        self.ask(EXCHANGE_DECLARE, |out| exchange.write(out)).await.map(drop)
    }

    pub(crate) async fn exchange_delete(&self, name: &str) -> Result<(), AmqpError> {
        let asked = self.ask(EXCHANGE_DELETE, |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, name)?;
            out.push(0);
            Ok(())
        });
        asked.await.map(drop)
    }

    pub(crate) async fn queue_declare(
        &self,
        queue: &QueueDeclare<'_>,
    ) -> Result<QueueState, AmqpError> {
        match self.ask(QUEUE_DECLARE, |out| queue.write(out)).await? {
            Answer::Queue(state) => Ok(state),
            _ => Err(AmqpError::Lost("the broker answered something else".into())),
        }
    }

    pub(crate) async fn queue_bind(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
    ) -> Result<(), AmqpError> {
        let asked = self.ask(QUEUE_BIND, |out| {
            out.extend_from_slice(&[0, 0]);
            for name in [queue, exchange, key] {
                short(out, name)?;
            }
            out.push(0);
            table(out, &[])
        });
        asked.await.map(drop)
    }

    pub(crate) async fn queue_delete(&self, name: &str) -> Result<(), AmqpError> {
        let asked = self.ask(QUEUE_DELETE, |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, name)?;
            out.push(0);
            Ok(())
        });
        asked.await.map(drop)
    }

    /// Takes messages from a queue, once on a channel. `prefetch` messages may be unacknowledged at the
    /// most; 0 for no limit.
    pub(crate) async fn consume(
        &self,
        queue: &str,
        prefetch: u16,
        no_ack: bool,
        with_route: bool,
        arguments: &[(&str, Value<'_>)],
    ) -> Result<Deliveries, AmqpError> {
        let limited = self.ask(QOS, |out| {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&prefetch.to_be_bytes());
            out.push(0);
            Ok(())
        });
        limited.await?;
        let (sender, messages) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::new(prefetch, no_ack));
        let consuming = Consuming {
            messages: sender,
            backlog: Arc::clone(&backlog),
            acks: !no_ack,
            with_route,
        };
        // Before the question: the first message may come right behind its answer.
        self.0.chan.state.lock().open()?.consumer = Some(consuming);
        let asked = self.ask(CONSUME, |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, queue)?;
            short(out, "")?;
            bits(out, &[false, no_ack, false, false]);
            table(out, arguments)
        });
        match asked.await? {
            Answer::Consumer(tag) => Ok(Deliveries { messages, backlog, tag }),
            _ => Err(AmqpError::Lost("the broker answered something else".into())),
        }
    }

    /// Takes no more; what arrived before the answer is still there.
    pub(crate) async fn cancel(&self, tag: &str) -> Result<(), AmqpError> {
        let asked = self.ask(CANCEL, |out| {
            short(out, tag)?;
            out.push(0);
            Ok(())
        });
        asked.await.map(drop)
    }

    /// From now on the broker answers for each message that is published here.
    pub(crate) async fn confirm(&self) -> Result<(), AmqpError> {
        let asked = self.ask(CONFIRM_SELECT, |out| {
            out.push(0);
            Ok(())
        });
        asked.await?;
        self.0.chan.state.lock().open()?.confirms = Some(Confirms::new());
        Ok(())
    }

    /// Waits until there is room for another message.
    pub(crate) async fn room(&self) {
        self.0.connection.core().outbox.room().await;
    }

    /// Whether there is room for another message.
    pub(crate) fn has_room(&self) -> bool {
        self.0.connection.core().outbox.has_room()
    }

    /// Sends a message for which nobody waits.
    pub(crate) fn publish(&self, message: &Publish<'_>) -> Result<(), AmqpError> {
        let frame_max = self.0.connection.core().tuned.frame_max as usize;
        self.put(|_, out, channel| message.write(out, channel, frame_max))
    }

    /// Sends a message on a channel with [`confirm`](Self::confirm): it has left when this returns, and
    /// what is returned waits for the broker's answer.
    pub(crate) fn publish_confirmed(
        &self,
        message: &Publish<'_>,
    ) -> Result<impl Future<Output = Result<Confirmation, AmqpError>> + Send + use<>, AmqpError>
    {
        let frame_max = self.0.connection.core().tuned.frame_max as usize;
        let told = self.put(|state, out, channel| {
            let Some(confirms) = &mut state.confirms else {
                return Err(AmqpError::Lost("the channel confirms nothing".into()));
            };
            message.write(out, channel, frame_max)?;
            Ok(confirms.sent(message.mandatory.then(|| Mandatory {
                exchange: message.exchange.to_owned(),
                routing_key: message.routing_key.to_owned(),
                body: message.body.clone(),
            })))
        })?;
        Ok(async move {
            told.await.unwrap_or_else(|_| Err(AmqpError::Lost("the connection was lost".into())))
        })
    }

    /// Settles a delivery, or all up to it.
    pub(crate) fn ack(&self, tag: u64, multiple: bool) -> Result<(), AmqpError> {
        self.settle(ACK, tag, u8::from(multiple))
    }

    /// Gives a delivery back to its queue.
    pub(crate) fn put_back(&self, tag: u64) -> Result<(), AmqpError> {
        const REQUEUE: u8 = 2;
        self.settle(NACK, tag, REQUEUE)
    }

    fn settle(&self, id: MethodId, tag: u64, bits: u8) -> Result<(), AmqpError> {
        self.put(|_, out, channel| {
            method(out, channel, id, |out| {
                out.extend_from_slice(&tag.to_be_bytes());
                out.push(bits);
                Ok(())
            })
        })
    }

    /// Closes it, and waits until the broker has done everything that was sent there before.
    pub(crate) async fn close(&self) {
        let closing = self.put(|state, out, channel| {
            close(out, channel)?;
            state.ended = Some(AmqpError::Lost("the channel was closed".into()));
            Ok(state.asks(CHANNEL_CLOSE_OK))
        });
        if let Ok(closed) = closing {
            // One that is gone already is as good.
            let _ = closed.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.chan.state.lock();
        if state.ended.is_none() {
            state.ended = Some(AmqpError::Lost("the channel was closed".into()));
            state.consumer = None;
            // Of a connection that is gone nothing is left to close.
            let _ = self.connection.core().outbox.put(|out| close(out, self.chan.id));
        }
    }
}

fn close(out: &mut Vec<u8>, channel: u16) -> Result<(), AmqpError> {
    method(out, channel, CHANNEL_CLOSE, |out| {
        out.extend_from_slice(&200_u16.to_be_bytes());
        short(out, "done")?;
        out.extend_from_slice(&[0; 4]);
        Ok(())
    })
}
