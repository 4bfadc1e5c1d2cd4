//! What can go wrong with the broker's users.

use std::time::Duration;

use thiserror::Error;

/// A broker user could not be made, changed, found or removed. No message holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The management API's address, or the bus's, can't be used.
    #[error("the address can't be used: {why}")]
    BadUrl {
        /// Why, without repeating it.
        why: String,
    },
    /// The management API can't be reached.
    #[error("can't reach RabbitMQ's management API at {address}: {why}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The cause.
        why: String,
    },
    /// TLS failed.
    #[error("TLS with RabbitMQ's management API at {address} failed: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// The cause.
        why: String,
    },
    /// It took too long.
    #[error("RabbitMQ's management API at {address} did not answer within {} s", limit.as_secs_f32())]
    TooSlow {
        /// Host and port.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
    /// It does not take our login, or the login may not administer.
    #[error(
        "RabbitMQ's management API at {address} does not let `{user}` administer: {why}. The user \
         needs the tag `administrator` and the right password"
    )]
    NotAllowed {
        /// Host and port.
        address: String,
        /// Our user there.
        user: String,
        /// What it said.
        why: String,
    },
    /// Something else answers there.
    #[error("what answers at {address} is not RabbitMQ's management API: {why}")]
    NotManagement {
        /// Host and port.
        address: String,
        /// What is odd about it.
        why: String,
    },
    /// The broker refused.
    #[error("RabbitMQ refused {what}: {why} ({status})")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        why: String,
    },
    /// There is a user of that name that somebody else made.
    #[error(
        "RabbitMQ has a user `{name}` already that this deployment did not make (it lacks the tag \
         `{tag}`); it is left alone. Choose another prefix in [broker-users], or remove that user"
    )]
    NotOurs {
        /// The user.
        name: String,
        /// What ours are marked with.
        tag: String,
    },
    /// The agent has no broker user to change.
    #[error("agent/{id} has no broker user `{name}`; `bulla broker sync` lists who has none")]
    NoUser {
        /// The agent.
        id: String,
        /// The user that was looked for.
        name: String,
    },
    /// The machine gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}
