//! Sending to every member of a group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bulla_seal::{
    Audience, FanoutSpec, GroupName, GroupSession, MessageId, MessageKind, Principal, Route,
};
use bulla_transport::Outbound;
use parking_lot::Mutex;
use serde::Serialize;

use super::Client;
use super::request::{Request, whole_seconds};
use crate::error::CallError;
use crate::standing::fitting;
use crate::target::Target;

/// Group sessions in use, and queues known to be there.
#[derive(Default)]
pub(super) struct FanoutState {
    sessions: Mutex<HashMap<GroupName, Arc<GroupSession>>>,
    declared: Mutex<HashSet<Principal>>,
}

impl Client {
    pub(super) async fn send_fanout<A: Serialize + ?Sized>(
        &self,
        request: &Request<'_>,
        args: &A,
    ) -> Result<MessageId, CallError> {
        let no_group = || CallError::Usage("a fanout goes to a group: group/<name>".into());
        let group = request.target.group().ok_or_else(no_group)?;
        let endpoint = self.endpoint();
        let signer = endpoint.identity.fanout_signer().and_then(Result::ok).ok_or_else(|| {
            CallError::Usage("only components with a key pair send fanouts".into())
        })?;
        let session = self.group_session(group).await?;
        let limit = endpoint.options.max_message;
        let buf = request.plaintext(args, None, limit)?;
        let hedge = endpoint.hedge()?;
        let audience = Audience::Group(group.clone());
        let exchange = request.target.exchange(&endpoint.options.exchange);
        let route = Route::new(exchange, &request.target.topic(), None, audience)
            .map_err(|e| CallError::Usage(e.to_string()))?;
        let spec = FanoutSpec {
            kind: MessageKind::Fanout,
            route: &route,
            expires: hedge.now.secs() + whole_seconds(request.ttl),
            sequence: endpoint.outgoing.next_in_sequence(group, hedge.now),
        };
        let frame = signer.sign(session.seal(&signer, &spec, &hedge, buf)?);
        let statement = endpoint.statement_for(0);
        let frame = match fitting(&statement, frame.bytes().len(), limit) {
            Some(statement) => frame.with_statement(statement),
            None => frame,
        };
        let size = frame.bytes().len();
        if size > limit {
            return Err(CallError::TooLarge { size, limit });
        }
        let outbound = Outbound {
            ttl: Some(request.ttl),
            persistent: true,
            confirm: true,
            ..Outbound::new(frame.bytes().clone())
        };
        let address = request.target.address(&endpoint.options.exchange);
        endpoint.transport.publish(&address, outbound).await?;
        Ok(frame.id())
    }

    /// The newest epoch's keys; asked for at each fanout, because an epoch may have begun.
    async fn group_session(&self, group: &GroupName) -> Result<Arc<GroupSession>, CallError> {
        let target = || group.to_string();
        let unknown = |why: String| CallError::UnknownTarget { target: target(), why };
        let key = self
            .endpoint()
            .directory
            .group_key(group, None)
            .await
            .map_err(|e| unknown(e.to_string()))?
            .ok_or_else(|| unknown("there is no such group, or its key is not held here".into()))?;
        let stale = |_| unknown("its newest key is not held here yet: try again".into());
        self.endpoint().check_group_epoch(group, key.epoch).map_err(stale)?;
        let mut sessions = self.0.fanout.sessions.lock();
        if let Some(session) = sessions.get(group)
            // Epochs only rise (protocol section 6).
            && session.epoch() >= key.epoch
        {
            return Ok(session.clone());
        }
        let session = Arc::new(GroupSession::new(&key));
        sessions.insert(group.clone(), session.clone());
        Ok(session)
    }

    /// Makes sure that the target's queue is there, so that a cast waits for a target that never
    /// listened yet. Best effort: a confined broker user may not declare another's queue, and
    /// then the message is published all the same and comes back if there is no queue.
    pub(super) async fn declare_target(&self, target: &Target) {
        let endpoint = self.endpoint();
        let (Some(principal), Some(inbox)) =
            (target.principal(), target.inbox(&endpoint.options.exchange))
        else {
            return;
        };
        let may = endpoint.identity.principal().is_component() && principal.is_agent();
        if !may || !self.0.fanout.declared.lock().insert(principal.clone()) {
            return;
        }
        if let Err(error) = endpoint.transport.declare(&inbox, &endpoint.options.queues).await {
            tracing::debug!(%error, %principal, "the queue could not be declared by the sender");
            self.0.fanout.declared.lock().remove(principal);
        }
    }
}
