//! What is to be sent: one buffer that everybody writes to, and the task that sends it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::error::AmqpError;

/// Bytes that may wait to be sent; more, and publishers wait.
const ROOM: usize = 4 << 20;
/// A buffer that grew beyond this is given back once it is empty.
const KEEP: usize = 256 << 10;

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Nothing more is taken.
    ended: bool,
    /// What is there is not sent either.
    dropped: bool,
}

#[derive(Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    /// There is something to send, or it has ended.
    filled: Notify,
    /// There is room again.
    emptied: Notify,
    /// Writes so far.
    writes: AtomicU64,
}

impl Outbox {
    /// Adds frames, which `write` writes whole or not at all.
    pub(super) fn put<T>(
        &self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, AmqpError>,
    ) -> Result<T, AmqpError> {
        let mut pending = self.pending.lock();
        if pending.ended {
            return Err(AmqpError::Lost("the connection was lost".into()));
        }
        let idle = pending.bytes.is_empty();
        let written = write(&mut pending.bytes)?;
        drop(pending);
        if idle {
            self.filled.notify_one();
        }
        Ok(written)
    }

    /// Waits until there is room for a message, or nothing more is taken.
    pub(super) async fn room(&self) {
        if self.has_room() {
            return;
        }
        loop {
            let emptied = self.emptied.notified();
            let mut emptied = std::pin::pin!(emptied);
            emptied.as_mut().enable();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let pending = self.pending.lock();
        pending.bytes.len() < ROOM || pending.ended
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.lock().bytes.is_empty()
    }

    /// Takes no more. What is there is still sent, unless `now`.
    pub(super) fn end(&self, now: bool) {
        let mut pending = self.pending.lock();
        pending.ended = true;
        pending.dropped |= now;
        drop(pending);
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Swaps the filled buffer for an empty one. Whether to go on after sending it.
    fn take(&self, into: &mut Vec<u8>) -> bool {
        into.clear();
        if into.capacity() > KEEP {
            *into = Vec::new();
        }
        let mut pending = self.pending.lock();
        if pending.dropped {
            return false;
        }
        std::mem::swap(&mut pending.bytes, into);
        let (ended, was_full) = (pending.ended, into.len() >= ROOM);
        drop(pending);
        if was_full {
            self.emptied.notify_waiters();
        }
        !ended || !into.is_empty()
    }

    /// Sends what is put in until the end.
    pub(super) async fn send(&self, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            self.filled.notified().await;
            loop {
                // Whoever can run now may have something to send along.
                tokio::task::yield_now().await;
                if !self.take(&mut bytes) {
                    return socket.shutdown().await;
                }
                if bytes.is_empty() {
                    break;
                }
                socket.write_all(&bytes).await?;
                // TLS keeps what it could not send at once.
                socket.flush().await?;
                self.writes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn put(outbox: &Outbox, bytes: &[u8]) -> Result<(), AmqpError> {
        outbox.put(|out| {
            out.extend_from_slice(bytes);
            Ok(())
        })
    }

    #[tokio::test]
    async fn what_is_there_goes_in_one_write_and_before_the_end() {
        let outbox = Arc::new(Outbox::default());
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let sending = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.send(ours).await }
        });
        for n in 0..100_u8 {
            put(&outbox, &[n]).unwrap();
        }
        let mut read = vec![0; 100];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(read, (0..100).collect::<Vec<u8>>());
        assert_eq!(outbox.writes(), 1);
        put(&outbox, b"last").unwrap();
        outbox.end(false);
        assert!(matches!(put(&outbox, b"late"), Err(AmqpError::Lost(_))));
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
        sending.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn publishers_wait_while_it_is_full() {
        let outbox = Arc::new(Outbox::default());
        put(&outbox, &vec![0; ROOM]).unwrap();
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, outbox.room()).await.is_err());
        let (ours, mut theirs) = tokio::io::duplex(ROOM);
        tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.send(ours).await }
        });
        tokio::time::timeout(wait, outbox.room()).await.unwrap();
        let mut read = vec![0; ROOM];
        theirs.read_exact(&mut read).await.unwrap();
        // An end lets everybody go on, to hear of it.
        put(&outbox, &vec![0; ROOM]).unwrap();
        outbox.end(true);
        tokio::time::timeout(wait, outbox.room()).await.unwrap();
    }
}
