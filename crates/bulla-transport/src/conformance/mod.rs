//! What every transport must do. Each property is a function of its own over a factory that makes
//! one more party (a process, as the bus sees it); [`run_all`] runs them in turn. What a transport
//! says it can't do (see [`Capabilities`](crate::Capabilities)) is not asked of it.

mod delivery;
mod limits;
mod routing;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

pub use delivery::{
    bytes_arrive_unchanged, competing_consumers_share, dropped_deliveries_come_back,
    nothing_is_lost_or_doubled, one_publisher_is_in_order, put_back_comes_back,
    unsettled_deliveries_come_back, waiting_consumers_are_woken,
};
pub use limits::{
    closed_means_closed, deleted_inboxes_are_gone, expired_messages_go, largest_message_passes,
    prefetch_limits, unroutable_is_told,
};
pub use routing::{
    fanout_reaches_everybody, replies_reach_their_inbox_only, reply_hints_arrive,
    servers_are_addressed, topics_deliver,
};

use crate::address::{Address, Inbox};
use crate::error::{PublishError, TransportError};
use crate::transport::{ConsumeOptions, Consumer, Delivery, Outbound, Transport};

/// One party on the bus.
pub type Party = Arc<dyn Transport>;

/// Makes one more party.
pub type Factory<'a> = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Party, TransportError>> + Send>>
    + Send
    + Sync
    + 'a;

/// A property that does not hold.
#[derive(Debug, Error)]
#[error("{property}: {what}")]
pub struct Broken {
    /// The property, by the name of its function.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

/// What a property returns while it does not know its own name.
#[derive(Debug)]
pub struct Fault(String);

/// The result of one property.
pub type Verdict = Result<(), Fault>;

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! run {
    ($factory:expr, $($property:ident),+ $(,)?) => {
        $(
            tracing::debug!(property = stringify!($property), "conformance");
            $property($factory).await.map_err(|fault| Broken {
                property: stringify!($property),
                what: fault.0,
            })?;
        )+
    };
}

/// Runs every property.
///
/// # Errors
/// The first property that does not hold.
pub async fn run_all(factory: &Factory<'_>) -> Result<(), Broken> {
    run!(
        factory,
        topics_deliver,
        servers_are_addressed,
        fanout_reaches_everybody,
        replies_reach_their_inbox_only,
        reply_hints_arrive,
        bytes_arrive_unchanged,
        competing_consumers_share,
        waiting_consumers_are_woken,
        one_publisher_is_in_order,
        nothing_is_lost_or_doubled,
        put_back_comes_back,
        dropped_deliveries_come_back,
        unsettled_deliveries_come_back,
        expired_messages_go,
        prefetch_limits,
        unroutable_is_told,
        largest_message_passes,
        deleted_inboxes_are_gone,
        closed_means_closed,
    );
    Ok(())
}

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

const EXCHANGE: &str = "conformance";

/// A topic that nobody else uses.
fn fresh(word: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{word}-{}-{n}", std::process::id())
}

fn topic_of(topic: &str) -> (Inbox, Address) {
    (
        Inbox::Topic { exchange: EXCHANGE.to_owned(), topic: topic.to_owned() },
        Address::Topic { exchange: EXCHANGE.to_owned(), topic: topic.to_owned() },
    )
}

fn message(payload: impl Into<Bytes>) -> Outbound {
    Outbound { confirm: true, ..Outbound::new(payload.into()) }
}

fn text(text: &str) -> Outbound {
    message(text.to_owned().into_bytes())
}

async fn consume(party: &Party, inbox: &Inbox) -> Result<Box<dyn Consumer>, Fault> {
    Ok(party.consume(inbox, &ConsumeOptions::default()).await?)
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Result<Delivery, Fault> {
    match tokio::time::timeout(HANG, consumer.next()).await {
        Ok(Some(delivery)) => Ok(delivery),
        Ok(None) => Err(Fault("the consumer ended".to_owned())),
        Err(_) => Err(Fault("nothing arrived".to_owned())),
    }
}

/// The next message must be this one.
async fn expect(consumer: &mut Box<dyn Consumer>, wanted: &str) -> Result<Delivery, Fault> {
    let delivery = next(consumer).await?;
    check(delivery.payload == wanted.as_bytes(), || {
        format!("wanted {wanted:?}, got {:?}", String::from_utf8_lossy(&delivery.payload))
    })?;
    Ok(delivery)
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Fault(otherwise())) }
}

fn unexpected(wanted: &str, result: Result<(), PublishError>) -> Fault {
    match result {
        Ok(()) => Fault(format!("wanted {wanted}, but it was published")),
        Err(error) => Fault(format!("wanted {wanted}, got: {error}")),
    }
}
