//! The way of a received message: Open → Authorize → Claim → Dispatch (protocol section 9).
//!
//! Each step is a [`tower::Service`] that takes what only the step before can make: bytes become
//! an [`Opened`](open::Opened) only in `Open`, that becomes an
//! [`Authorized`](authorize::Authorized) only in `Authorize`, and a handler takes nothing else. So
//! a message that was not verified can't reach a handler, by its type.
//!
//! A message goes through all four at once as long as nothing has to be waited for; from where
//! something has to be, the rest is a future (see [`MaybeReady`]).

pub(crate) mod authorize;
pub(crate) mod claim;
pub(crate) mod dispatch;
mod maybe;
pub(crate) mod open;
mod policy;
pub(crate) mod running;
pub(crate) mod shares;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bulla_transport::Address;
use bytes::Bytes;
use tower::ServiceBuilder;

use crate::endpoint::Endpoint;
use crate::router::Router;
use crate::server::ServerOptions;

pub(crate) use maybe::MaybeReady;

pub use authorize::{Authorization, Decision, DefaultRule, Question};
pub use policy::{Difference, PolicyRule, Taken, UNREADABLE};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

/// What to do with a delivery after the pipeline.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// Dealt with, and that is durable: send `reply` if there is one, then acknowledge.
    Done {
        reply: Option<(Arc<Address>, Bytes)>,
        /// What went wrong at the method, by its stable name, if anybody traces it.
        error: Option<String>,
    },
    /// Refused: acknowledge it away, answer nothing.
    Refused,
    /// Another worker holds it: keep it unacknowledged that long, then give it back.
    Hold(Duration),
    /// It could not be judged just now (a store failed): give it back after a moment.
    Retry,
}

/// The whole pipeline. A type of its own and not a box: it is cloned for every message.
pub(crate) type Pipeline = open::Open<authorize::Authorize<claim::Claim<dispatch::Dispatch>>>;

/// A reply and where it goes.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) address: Arc<Address>,
    pub(crate) bytes: Bytes,
}

/// Builds the pipeline, from the outside in.
pub(crate) fn build(endpoint: &Endpoint, router: Arc<Router>, options: &ServerOptions) -> Pipeline {
    let running = running::Running::default();
    ServiceBuilder::new()
        // Bytes become a message with a proven sender, or a counted refusal.
        .layer(open::OpenLayer::new(endpoint.clone(), options))
        // The method is found, and the sender may run it or not.
        .layer(authorize::AuthorizeLayer::new(endpoint.clone(), router, options))
        // It has not run before.
        .layer(claim::ClaimLayer::new(endpoint.clone(), options))
        // It runs, and its outcome is sealed.
        .service(dispatch::Dispatch::new(endpoint.clone(), running))
}
