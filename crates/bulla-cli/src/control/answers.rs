//! The first answers to requests with an idempotency key. They are claims like those on messages:
//! one atomic insert-or-compare that all control-plane processes share, with the answer beside it,
//! wrapped under the key-encryption key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulla_api::{CallFailure, Claimed, RequestKey, Turn};
use bulla_guard::{
    ClaimKey, ClaimOutcome, ClaimRequest, ClaimStore, Completion, Duplicate, Grant, Refused, Reply,
    Scope, StoreError, Worker,
};
use bulla_keystore::Keystore;
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{Digest, MessageId, Party};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(86_400);
/// After which time without a word a process counts as lost, and what it did as unknown.
const LEASE: Duration = Duration::from_secs(30);
/// What the claims are apart from those on messages by.
const TOPIC: &str = "bulla/1 api answers";

/// Remembers them.
pub(super) struct Answers {
    keystore: Keystore,
    claims: Arc<dyn ClaimStore>,
    scope: Scope,
    sender: Party,
    worker: Worker,
}

impl Answers {
    pub(super) fn new(
        keystore: &Keystore,
        claims: Arc<dyn ClaimStore>,
        sender: Party,
        worker: Worker,
    ) -> Self {
        let scope = Scope::shared(&sender, TOPIC);
        Self { keystore: keystore.clone(), claims, scope, sender, worker }
    }

    /// The right to serve a request, or the answer that was given before.
    pub(super) async fn claim(&self, request: &RequestKey) -> Result<Claimed, CallFailure> {
        let name = format!("{TOPIC}\0{}\0{}\0{}", request.by, request.key, request.attempt);
        let Digest(named) = Digest::of(name.as_bytes());
        let (first, _) = named.split_first_chunk::<16>().ok_or_else(too_short)?;
        let key = ClaimKey::new(self.scope.clone(), self.sender.clone(), MessageId(*first));
        // The key is in the digest: who reads the store can't try requests against it.
        let asked = [&named, &request.digest, request.key.as_bytes()].concat();
        let now = SystemClock.now();
        let claim = ClaimRequest {
            key: key.clone(),
            digest: Digest::of(&asked),
            iat: now.secs(),
            exp: now.secs().saturating_add(KEPT.as_secs()),
            idempotent: false,
            worker: self.worker,
            now_ms: now.ns / 1_000_000,
            lease_ms: lease_ms(),
            envelope: None,
        };
        let unknown = |why: &str| CallFailure::OutcomeUnknown { why: why.to_owned() };
        match self.claims.claim(claim).await.map_err(broken)? {
            ClaimOutcome::Granted(grant) => Ok(Claimed::First(Box::new(OurTurn {
                keystore: self.keystore.clone(),
                claims: self.claims.clone(),
                key,
                grant,
            }))),
            ClaimOutcome::Duplicate(Duplicate::Held { .. }) => Err(CallFailure::KeyInUse),
            ClaimOutcome::Duplicate(Duplicate::Done { reply }) => {
                let kept = reply.and_then(Reply::into_sealed).ok_or_else(|| {
                    unknown("it was served, but too much is kept already to keep its answer")
                })?;
                let opened = self.keystore.open_answer(&key.id.to_string(), &kept);
                let opened = opened.map_err(|_| unknown("its answer can't be opened any more"))?;
                Ok(Claimed::Done(opened.to_vec()))
            }
            ClaimOutcome::Duplicate(Duplicate::InDoubt { .. }) => {
                Err(unknown("the process that served it was lost"))
            }
            ClaimOutcome::Refused(Refused::IdConflict) => Err(CallFailure::KeyReused),
            ClaimOutcome::Refused(Refused::Purged | Refused::BeforeStart) => {
                let why = "what was answered before was lost, and for two minutes nothing is served \
                           that may be asked for again";
                Err(CallFailure::Busy { why: why.to_owned() })
            }
            ClaimOutcome::Refused(refused) => {
                let why = format!("no more idempotency keys can be remembered ({refused})");
                Err(CallFailure::Busy { why })
            }
        }
    }
}

struct OurTurn {
    keystore: Keystore,
    claims: Arc<dyn ClaimStore>,
    key: ClaimKey,
    grant: Grant,
}

#[async_trait]
impl Turn for OurTurn {
    fn every(&self) -> Duration {
        LEASE / 3
    }

    async fn go_on(&mut self) {
        let until = (SystemClock.now().ns / 1_000_000).saturating_add(lease_ms());
        match self.claims.extend(&self.key, self.grant, until).await {
            Ok(Ok(grant)) => self.grant = grant,
            Ok(Err(lost)) => tracing::warn!(why = lost.as_str(), "an idempotency key was lost"),
            Err(error) => tracing::warn!(%error, "an idempotency key can't be held"),
        }
    }

    async fn done(self: Box<Self>, answer: Vec<u8>) {
        let Self { keystore, claims, key, grant } = *self;
        let kept = async {
            let wrapped = keystore.wrap_answer(&key.id.to_string(), &answer).await;
            let sealed = wrapped.map_err(|error| error.to_string())?;
            let reply = Some(Reply::new(sealed.into()));
            let completed = claims.complete(&key, grant, Completion::Done { reply }).await;
            completed.map_err(|error| error.to_string())
        };
        if let Err(error) = kept.await {
            tracing::error!(
                error,
                "an answer is not kept; who asks again hears that it is unknown"
            );
        }
    }
}

fn lease_ms() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

fn too_short() -> CallFailure {
    CallFailure::Internal { why: "a digest is too short".to_owned() }
}

fn broken(error: StoreError) -> CallFailure {
    CallFailure::Internal { why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use bulla_guard::{NewStore, SqliteClaims, SqliteOptions};
    use bulla_keystore::Kek;
    use bulla_seal::{Principal, TrustDomain};

    use super::*;

    const SECRET: &[u8] = b"a token that nobody else may read";

    #[tokio::test]
    async fn answers_are_given_again_and_lie_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let made = Keystore::init(folder.path().join("keystore.db"), &domain, kek).await.unwrap();
        let party = Party::new(Principal::component("control").unwrap(), 1);
        let path = folder.path().join("claims.db");
        let now_ms = SystemClock.now().ns / 1_000_000;
        let open = async || {
            let options = SqliteOptions::new(NewStore::NothingBefore, now_ms);
            let claims = Arc::new(SqliteClaims::open(&path, options).await.unwrap());
            Answers::new(&made.keystore, claims, party.clone(), Worker(7))
        };
        let request = |by: &str, digest| RequestKey {
            by: by.to_owned(),
            key: "one-key".to_owned(),
            attempt: 0,
            digest: [digest; 32],
        };
        let answers = open().await;
        let Ok(Claimed::First(mut turn)) = answers.claim(&request("ada", 1)).await else {
            panic!("it is the first")
        };
        let under_way = answers.claim(&request("ada", 1)).await.map(drop);
        assert_eq!(under_way, Err(CallFailure::KeyInUse));
        turn.go_on().await;
        turn.done(SECRET.to_vec()).await;
        // Another process with the same store.
        drop(answers);
        let answers = open().await;
        let Ok(Claimed::Done(kept)) = answers.claim(&request("ada", 1)).await else {
            panic!("it was answered")
        };
        assert_eq!(kept, SECRET);
        let other = answers.claim(&request("ada", 2)).await.map(drop);
        assert_eq!(other, Err(CallFailure::KeyReused));
        let bob = answers.claim(&request("bob", 2)).await;
        assert!(matches!(bob, Ok(Claimed::First(_))), "whose key it is counts");
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let holds = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
            assert!(!holds(SECRET) && !holds(b"one-key"));
        }
    }
}
