//! Both carriers of one broker as one transport: the deployment's own exchange natively, all others in
//! oslo.messaging's bodies.

use std::sync::Arc;

use async_trait::async_trait;
use bulla_rpc::{CallError, Client};
use bulla_transport::{
    Address, Capabilities, ConsumeOptions, Consumer, Inbox, Logins, Outbound, PublishError,
    Transport, TransportError, TransportEvent,
};
use tokio::sync::broadcast;

use crate::queues::Queues;
use crate::transport::OsloTransport;
use crate::wire;

/// For a service among oslo.messaging's: its control plane is on the `native` carrier, its peers are on
/// theirs. Which carrier a message takes follows from its exchange, and a reply's from its queue.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use bulla_oslo::{Carriers, Queues};
/// # use bulla_transport::Transport;
/// # fn open(native: Arc<dyn Transport>) {
/// // The second argument of `bulla::Connection::open_around` makes of the connection to the broker:
/// let both = Carriers::new(native, Queues::default(), "bulla");
/// # }
/// ```
pub struct Carriers {
    native: Arc<dyn Transport>,
    oslo: OsloTransport,
    exchange: String,
}

impl Carriers {
    /// Over `native`; `exchange` is the one that the control plane is on, and `queues` the options that the
    /// peers' services have. Sealed messages may have three quarters of the bytes that `native` takes.
    ///
    /// To be called within a Tokio runtime.
    pub fn new(native: Arc<dyn Transport>, queues: Queues, exchange: impl Into<String>) -> Self {
        let max_frame = wire::max_frame(native.capabilities().max_message);
        let oslo = OsloTransport::new(native.clone(), queues, max_frame);
        Self { native, oslo, exchange: exchange.into() }
    }

    /// A client beside `client`, of the same process, whose replies come over the oslo carrier: for calls
    /// to [named](bulla_rpc::Target::Named) targets.
    ///
    /// # Errors
    /// None but for names that no principal has.
    pub fn client(client: &Client) -> Result<Client, CallError> {
        client.with_reply_queue(&format!("reply_{}", client.reply_name()))
    }

    fn of_exchange(&self, exchange: &str) -> &dyn Transport {
        if exchange == self.exchange { &*self.native } else { &self.oslo }
    }

    fn of_inbox(&self, inbox: &Inbox) -> &dyn Transport {
        match inbox {
            Inbox::Topic { exchange, .. }
            | Inbox::Server { exchange, .. }
            | Inbox::Fanout { exchange, .. } => self.of_exchange(exchange),
            Inbox::Reply { name, .. } if name.is_queue() => &self.oslo,
            Inbox::Reply { .. } | Inbox::Foreign(_) => &*self.native,
        }
    }

    fn of_address(&self, to: &Address) -> &dyn Transport {
        match to {
            Address::Topic { exchange, .. }
            | Address::Server { exchange, .. }
            | Address::Fanout { exchange, .. } => self.of_exchange(exchange),
            Address::Reply { to, .. } if to.is_queue() => &self.oslo,
            Address::Reply { .. } | Address::Foreign { .. } => &*self.native,
        }
    }
}

#[async_trait]
impl Transport for Carriers {
    fn name(&self) -> &'static str {
        "oslo"
    }

    fn capabilities(&self) -> Capabilities {
        self.oslo.capabilities()
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        self.of_inbox(inbox).declare(inbox, options).await
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        self.of_address(to).publish(to, message).await
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        self.of_inbox(inbox).consume(inbox, options).await
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.of_inbox(inbox).delete(inbox).await
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        self.of_inbox(inbox).consumers(inbox).await
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        self.of_inbox(inbox).waiting(inbox).await
    }

    fn logins(&self) -> Option<&Logins> {
        self.native.logins()
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        // What the native carrier tells passes through it unchanged.
        self.oslo.events()
    }

    async fn close(&self) {
        self.native.close().await;
    }
}

impl std::fmt::Debug for Carriers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carriers({}, exchange {} natively)", self.native.name(), self.exchange)
    }
}
