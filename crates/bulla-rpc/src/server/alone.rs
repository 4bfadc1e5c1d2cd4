//! Whether another host of this component consumes from its queue.

use std::sync::Arc;
use std::time::Duration;

use bulla_seal::Principal;
use bulla_transport::{ConsumeOptions, Inbox, Transport};

use super::{ServeError, ServerOptions};
use crate::endpoint::Endpoint;
use crate::target::Target;

/// How often and how many times the queue is looked at again: a process that was just stopped may
/// still be counted.
const AGAIN: Duration = Duration::from_millis(250);
const LOOKS: u32 = 20;

pub(super) struct Alone {
    transport: Arc<dyn Transport>,
    inbox: Inbox,
    queue: ConsumeOptions,
    /// The operator's word goes over what the bus says.
    word: bool,
}

impl Alone {
    pub(super) fn new(
        endpoint: &Endpoint,
        principal: &Principal,
        options: &ServerOptions,
    ) -> Option<Self> {
        let exchange = &endpoint.options.exchange;
        let inbox = Target::Principal(principal.clone()).inbox(exchange)?;
        let (transport, queue) = (endpoint.transport.clone(), endpoint.options.queues.clone());
        Some(Self { transport, inbox, queue, word: options.only_host })
    }

    /// Before consuming: nobody is there.
    pub(super) async fn before(&self) -> Result<(), ServeError> {
        // A queue that is not there can't be asked.
        self.transport.declare(&self.inbox, &self.queue).await?;
        self.at_most(0).await
    }

    /// When consuming: a host that started in the same moment saw nobody either.
    pub(super) async fn after(&self) -> Result<(), ServeError> {
        if self.word { Ok(()) } else { self.at_most(1).await }
    }

    async fn at_most(&self, consumers: u32) -> Result<(), ServeError> {
        let looks = if self.word { 1 } else { LOOKS };
        for look in 1..=looks {
            match self.transport.consumers(&self.inbox).await {
                Ok(count) if count <= consumers => return Ok(()),
                Ok(_) if look < looks => tokio::time::sleep(AGAIN).await,
                Ok(_) => break,
                // Who says that it is alone need not be able to ask.
                Err(_) if self.word => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let queue = self.inbox.queue_name();
        if !self.word {
            return Err(ServeError::NotAlone { queue });
        }
        tracing::warn!(
            queue,
            "another consumer is on this queue, and the claim store is not shared: unless it is \
             of a host that is gone, a message can run twice"
        );
        Ok(())
    }
}
