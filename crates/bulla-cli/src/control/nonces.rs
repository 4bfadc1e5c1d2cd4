//! Signatures that were used, in the control plane's claim store: one that was used is refused after
//! a restart too, and where several processes share the store, by all of them.

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
    /// In `store`.
    pub(super) fn new(store: &Arc<dyn ClaimStore>, me: &Party) -> Result<Self> {
        let mut worker = [0; 8];
        OsRandom::default().fill(&mut worker)?;
        let (scope, worker) = (Scope::shared(me, TOPIC), Worker(u64::from_le_bytes(worker)));
        Ok(Self { store: store.clone(), scope, sender: me.clone(), worker })
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

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_guard::{NewStore, SqliteClaims, SqliteOptions};
    use bulla_seal::Principal;

    #[tokio::test]
    async fn a_used_signature_is_refused_by_others_and_after_a_restart() {
        let (dir, now) = (tempfile::tempdir().unwrap(), 1_800_000_000);
        let file = dir.path().join("claims.db");
        let me = Party { principal: Principal::component("control").unwrap(), incarnation: 1 };
        let open = async |new| {
            let store = SqliteClaims::open(&file, SqliteOptions::new(new, now * 1000)).await;
            Arc::new(store.unwrap()) as Arc<dyn ClaimStore>
        };
        let store = open(NewStore::NothingBefore).await;
        let seen = |key, nonce| Seen { key, nonce, created: now, until: now + 90 };
        let one = ClaimedNonces::new(&store, &me).unwrap();
        let other = ClaimedNonces::new(&store, &me).unwrap();
        assert!(one.first(seen("ops", "n-1"), now).await.unwrap());
        assert!(!one.first(seen("ops", "n-1"), now).await.unwrap());
        assert!(!other.first(seen("ops", "n-1"), now + 1).await.unwrap());
        assert!(other.first(seen("ops", "n-2"), now + 1).await.unwrap());
        // Neither key nor nonce can be chosen so that together they are another pair.
        assert!(other.first(seen("op", "sn-1"), now + 1).await.unwrap());
        drop((one, other, store));
        let again = ClaimedNonces::new(&open(NewStore::MayBeLost).await, &me).unwrap();
        assert!(!again.first(seen("ops", "n-1"), now + 2).await.unwrap());
    }
}
