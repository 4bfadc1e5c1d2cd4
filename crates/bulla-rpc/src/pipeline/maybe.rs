//! What is here at once, or comes later.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::BoxFuture;

/// A step's outcome. Most messages wait for nothing: what is ready costs no allocation and no task.
pub(crate) enum MaybeReady<T> {
    /// It is here.
    Ready(T),
    /// It has to be waited for.
    Pending(BoxFuture<T>),
    /// It was given out.
    Taken,
}

impl<T> MaybeReady<T> {
    /// What comes when `future` ends.
    pub(crate) fn later<F>(future: F) -> Self
    where
        F: Future<Output = Result<T, Infallible>> + Send + 'static,
    {
        Self::Pending(Box::pin(future))
    }
}

impl<T: Unpin> Future for MaybeReady<T> {
    type Output = Result<T, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match mem::replace(&mut *self, Self::Taken) {
            Self::Ready(outcome) => Poll::Ready(Ok(outcome)),
            Self::Pending(mut future) => {
                let polled = future.as_mut().poll(cx);
                if polled.is_pending() {
                    *self = Self::Pending(future);
                }
                polled
            }
            // As with any future, nobody asks again.
            Self::Taken => Poll::Pending,
        }
    }
}

impl<T> std::fmt::Debug for MaybeReady<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Pending(_) => "Pending",
            Self::Taken => "Taken",
        })
    }
}
