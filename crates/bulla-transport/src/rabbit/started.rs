//! Futures that have begun.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future that was polled once.
pub(super) enum Started<T> {
    Waiting(Pin<Box<dyn Future<Output = T> + Send>>),
    Ready(Option<T>),
}

impl<T: Unpin> Future for Started<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Waiting(future) => future.as_mut().poll(context),
            Self::Ready(done) => done.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

/// Polls a future once. The client library queues a frame at the first poll; the rest is waiting
/// for it to be written. Doing the first poll under a lock fixes the order of frames without
/// holding the lock while anybody waits.
pub(super) fn started<T>(future: impl Future<Output = T> + Send + 'static) -> Started<T> {
    let mut future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Started::Ready(Some(done)),
        Poll::Pending => Started::Waiting(future),
    }
}
