//! A connection: its handle and its tasks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::channel::Channel;
use super::error::{AmqpError, DialError};
use super::frame::HEARTBEAT;
use super::handshake::{self, Hello, Tuned};
use super::method::CLOSE;
use super::reader::Reader;
use super::state::Core;
use super::stream::Stream;
use super::write::{close_frame, method, open_frame, short};

/// Events that nobody has taken yet; more are dropped.
const EVENTS: usize = 1024;
/// Heartbeats that may be missing.
const MISSED: u32 = 2;

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// The broker takes no messages for now.
    Blocked(String),
    /// It takes them again.
    Unblocked,
    /// A mandatory message for which nobody waits found no queue.
    Returned {
        /// Where it was sent to.
        routing_key: String,
        /// Its body.
        body: Bytes,
    },
}

/// A connection. It ends when the last of its handles and channels is gone, or when it is closed.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    reader: AbortHandle,
    pulse: AbortHandle,
}

impl Connection {
    /// Opens a connection over a socket; bodies of more than `max_body` bytes are not taken.
    pub(crate) async fn open(
        stream: Stream,
        hello: &Hello<'_>,
        max_body: usize,
    ) -> Result<(Self, mpsc::Receiver<Event>), DialError> {
        let mut read = BytesMut::with_capacity(64 << 10);
        match stream {
            Stream::Plain(mut socket) => {
                let tuned = handshake::open(&mut socket, &mut read, hello).await?;
                let (source, sink) = socket.into_split();
                Ok(Self::start(source, sink, read, tuned, max_body))
            }
            Stream::Tls(mut socket) => {
                let tuned = handshake::open(&mut *socket, &mut read, hello).await?;
                let (source, sink) = tokio::io::split(*socket);
                Ok(Self::start(source, sink, read, tuned, max_body))
            }
        }
    }

    pub(super) fn start(
        source: impl AsyncRead + Send + Unpin + 'static,
        sink: impl AsyncWrite + Send + Unpin + 'static,
        read: BytesMut,
        tuned: Tuned,
        max_body: usize,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let core = Arc::new(Core::new(tuned, events));
        let reader = tokio::spawn(Reader::new(Arc::clone(&core), max_body).run(source, read));
        tokio::spawn(write(Arc::clone(&core), sink, reader.abort_handle()));
        let pulse = tokio::spawn(pulse(Arc::clone(&core)));
        let (reader, pulse) = (reader.abort_handle(), pulse.abort_handle());
        (Self(Arc::new(Handle { core, reader, pulse })), receiver)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.core.is_up()
    }

    /// Resolves when it has ended: with the cause.
    pub(crate) async fn lost(&self) -> Arc<str> {
        let mut lost = self.0.core.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            _ => "the connection ended".into(),
        }
    }

    /// Opens a channel.
    pub(crate) async fn channel(&self) -> Result<Channel, AmqpError> {
        Channel::open(self.clone()).await
    }

    /// Says goodbye, and waits until the broker has done everything that was sent before and has
    /// said so too.
    pub(crate) async fn close(&self) {
        // One that is gone already is as good.
        if self.0.core.outbox.put(goodbye).is_ok() {
            self.lost().await;
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left who could wait for the answer.
        let _ = self.core.outbox.put(goodbye);
        self.core.end(&"the connection was closed".into(), false);
        self.reader.abort();
        self.pulse.abort();
    }
}

fn goodbye(out: &mut Vec<u8>) -> Result<(), AmqpError> {
    method(out, 0, CLOSE, |out| {
        out.extend_from_slice(&200_u16.to_be_bytes());
        short(out, "done")?;
        out.extend_from_slice(&[0; 4]);
        Ok(())
    })
}

async fn write(core: Arc<Core>, sink: impl AsyncWrite + Unpin, reader: AbortHandle) {
    if let Err(error) = core.outbox.send(sink).await {
        core.end(&error.to_string().into(), true);
        reader.abort();
    }
}

/// Shows that we are alive when nothing else does, and looks whether the broker is.
async fn pulse(core: Arc<Core>) {
    let heartbeat = core.tuned.heartbeat;
    if heartbeat == 0 {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_secs(heartbeat.into()) / 2);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut written, mut read, mut silent) = (0, 0, 0);
    tick.tick().await;
    while core.is_up() {
        tick.tick().await;
        let (writes, reads) = (core.outbox.writes(), core.reads.load(Ordering::Relaxed));
        if writes == written && core.outbox.is_empty() {
            // An end is noticed elsewhere.
            let _ = core.outbox.put(|out| {
                let mark = open_frame(out, HEARTBEAT, 0);
                close_frame(out, mark);
                Ok(())
            });
        }
        silent = if reads == read { silent + 1 } else { 0 };
        (written, read) = (writes, reads);
        if silent > MISSED * 2 {
            let seconds = u32::from(heartbeat) * MISSED;
            core.end(&format!("no sign of life from the broker for {seconds} s").into(), true);
        }
    }
}
