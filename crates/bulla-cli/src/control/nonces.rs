//! Signatures that were used, in the claim store that the processes of the control plane share: one
//! that was used at any of them is refused by all.

use std::sync::Arc;

use async_trait::async_trait;
use bulla_guard::{ClaimKey, ClaimOutcome, ClaimRequest, ClaimStore, Completion, Scope, Worker};
use bulla_http::{NonceError, Nonces, Seen};
use bulla_seal::{Digest, MessageId, OsRandom, Party, Random};

use crate::failure::Result;

/// Keeps them apart from messages.
const TOPIC: &str = "http-signatures";
/// Longer than any signature counts: a claim that was not completed is forgotten before it is over.
const LEASE_MS: u64 = 600_000;

/// Nonces as claims.
pub(super) struct ClaimedNonces {
    store: Arc<dyn ClaimStore>,
    scope: Scope,
    sender: Party,
    worker: Worker,
}

impl ClaimedNonces {
    /// In `store`, if others use it, too.
    pub(super) fn shared(
        store: &Arc<dyn ClaimStore>,
        me: &Party,
    ) -> Result<Option<Arc<dyn Nonces>>> {
        if !store.is_shared() {
            return Ok(None);
        }
        let mut worker = [0; 8];
        OsRandom::default().fill(&mut worker)?;
        let (scope, worker) = (Scope::shared(me, TOPIC), Worker(u64::from_le_bytes(worker)));
        Ok(Some(Arc::new(Self { store: store.clone(), scope, sender: me.clone(), worker })))
    }
}

#[async_trait]
impl Nonces for ClaimedNonces {
    async fn first(&self, seen: Seen<'_>, now: u64) -> Result<bool, NonceError> {
        let named = format!("{}:{}{}", seen.key.len(), seen.key, seen.nonce);
        let digest = Digest::of(named.as_bytes());
        let id: [u8; 16] = *digest
            .as_bytes()
            .first_chunk()
            .ok_or_else(|| NonceError("a hash is too short".to_owned()))?;
        let key = ClaimKey::new(self.scope.clone(), self.sender.clone(), MessageId(id));
        let request = ClaimRequest {
            key: key.clone(),
            digest,
            iat: seen.created,
            exp: seen.until,
            idempotent: false,
            worker: self.worker,
            now_ms: now.saturating_mul(1000),
            lease_ms: LEASE_MS,
            envelope: None,
        };
        let claimed = self.store.claim(request).await;
        match claimed.map_err(|error| NonceError(error.to_string()))? {
            ClaimOutcome::Granted(grant) => {
                // It was used, whatever becomes of this.
                let done = Completion::Done { reply: None };
                if let Err(error) = self.store.complete(&key, grant, done).await {
                    tracing::debug!(%error, "a used signature is held, and not completed");
                }
                Ok(true)
            }
            ClaimOutcome::Duplicate(_) => Ok(false),
            ClaimOutcome::Refused(refused) => Err(NonceError(refused.to_string())),
        }
    }
}
