//! The keystore's operations, whatever the database.

mod access_keys;
mod agents;
mod answers;
mod component_keystore;
mod components;
mod convert;
mod copies;
mod enrolment;
mod floors;
mod groups;
mod init;
mod issue;
mod legacy;
mod lookup;
mod news;
mod pairs;
mod policies;
mod recall;
mod renewal;
mod revocation;
mod rewrap;
mod rights;
mod roots;
mod rotation;
mod schedule;
mod schema;
mod services;
mod summary;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_seal::{Kid, OsRandom, Principal, Random, RandomFailed, TrustStore, UnixTime};

pub use access_keys::{AccessKey, AccessKeyRecord, AccessKeyRefusal, ApiUser, SecretKey};
pub use agents::{
    AgentDetails, AgentKeys, AgentPage, AgentRecord, CredentialRecord, KeyType, Page,
};
pub use component_keystore::ComponentKeystore;
pub use components::ComponentRecord;
pub use convert::Converted;
pub use enrolment::{
    EnrolRefusal, Enrolment, Invitation, JoinState, TOKEN_LIFETIME, TOKEN_LIFETIMES,
};
pub use floors::{KeystoreFloors, Sighting};
pub use groups::{EVERY_AGENT, GroupRecord};
pub use init::Initialized;
pub use issue::{
    AGENT_LIFETIME, AGENT_LIFETIMES, CREDENTIAL_LIFETIME, HAND_OUT_AFTER, HOST_LIFETIME,
    ISSUER_LIFETIME, MAX_SIGNING_LIFETIME, SIGNING_LIFETIME, SKEW,
};
pub use legacy::Imported;
pub use news::News;
pub use pairs::{PairKey, PairKeyId, PeerKeys};
pub use policies::{PolicyDifference, PolicyOrigin, PolicyRecord, PolicyText};
pub use recall::Recalled;
pub use renewal::{RenewRefusal, Renewal, Renewed};
pub use revocation::STATEMENT_LIFETIME;
use rewrap::current_kek;
pub use rewrap::{KekCount, KekState, REWRAP_BATCH, Rewrapped};
use roots::Trust;
pub use roots::{ROOT_OVERLAP, ROOTS_AT_ONCE, RootHandover, RootRecord, RootState};
pub use rotation::{Reach, RevokedHost};
pub use schedule::KEY_LIFETIMES;
pub use schema::{MigrationStep, SchemaStatus};
pub use summary::{ENDS_WITHIN, KeyEnds, LevelCount, Summary};

use crate::db::Db;
use crate::error::{KeystoreError, Result};
use crate::kek::KekRing;

/// How many fresh kids are tried before the random source is called broken. One collision among
/// a million kids has a chance of 2^-44.
const KID_TRIES: u32 = 16;

/// Who exists and which keys they hold. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Keystore {
    db: Db,
    keks: KekRing,
    trust: Trust,
    sources: Sources,
    /// How long agents' credentials live.
    agent_life: Duration,
    /// How long component types' keys to receive with live.
    key_life: Duration,
    /// The epoch of the newest statement that was issued through this one or a clone of it.
    issued: Arc<AtomicU64>,
}

/// Where time and key ids come from.
#[derive(Clone)]
struct Sources {
    clock: Arc<dyn Fn() -> UnixTime + Send + Sync>,
    kids: Arc<dyn Fn() -> Result<Kid, RandomFailed> + Send + Sync>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { clock: Arc::new(system_time), kids: Arc::new(random_kid) }
    }
}

impl Keystore {
    /// This keystore with another clock, for tests and for machines whose time comes from
    /// elsewhere.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        self.sources.clock = Arc::new(clock);
        self
    }

    /// This keystore with another life of agents' credentials.
    ///
    /// # Errors
    /// It is not [one hour to a year](AGENT_LIFETIMES).
    pub fn with_agent_life(mut self, life: Duration) -> Result<Self> {
        let (least, most) = AGENT_LIFETIMES;
        if !(least..=most).contains(&life) {
            return Err(KeystoreError::AgentLifetime { asked: life.as_secs() });
        }
        self.agent_life = life;
        Ok(self)
    }

    /// The root public key, the trust domain and the issuers: what a receiver trusts, and what
    /// goes with every key file.
    pub fn trust_store(&self) -> TrustStore {
        TrustStore::clone(&self.trust())
    }

    fn trust(&self) -> Arc<TrustStore> {
        self.trust.get()
    }

    /// Closes the database after what is under way. A keystore that is dropped loses nothing
    /// either; this only waits until its files are tidied up.
    pub async fn close(self) {
        self.db.close().await;
    }

    fn now(&self) -> UnixTime {
        (self.sources.clock)()
    }

    fn kid(&self) -> Result<Kid, RandomFailed> {
        (self.sources.kids)()
    }
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystore").field("domain", self.trust().domain()).finish_non_exhaustive()
    }
}

fn system_time() -> UnixTime {
    // A clock before 1970 reads as 1970: every credential is then not valid yet.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_ns(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn random_kid() -> Result<Kid, RandomFailed> {
    let mut bytes = [0; Kid::LEN];
    OsRandom::default().fill(&mut bytes)?;
    Ok(Kid(bytes))
}

/// Seconds as the database holds them.
fn seconds(time: UnixTime) -> i64 {
    to_column(time.secs())
}

fn to_column(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

fn from_column(secs: i64) -> UnixTime {
    UnixTime::from_secs(u64::try_from(secs).unwrap_or_default())
}

fn kid_from(bytes: &[u8]) -> Result<Kid> {
    Kid::from_slice(bytes).ok_or_else(|| KeystoreError::damaged("key id"))
}

/// A name that the database gave: what was stored was checked, so it can only be tampering.
fn stored_agent(name: &str) -> Result<Principal> {
    Principal::agent(name).map_err(|_| KeystoreError::damaged("agent id"))
}

fn stored_component(name: &str) -> Result<Principal> {
    Principal::component(name).map_err(|_| KeystoreError::damaged("component type"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use bulla_seal::{Suite, SuiteSet, TrustDomain};

    use super::*;
    use crate::kek::Kek;

    /// A keystore whose kids come from a source that gives each `times` times.
    async fn repeating(folder: &tempfile::TempDir, times: u8) -> Keystore {
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let path = folder.path().join("keystore.db");
        let mut keystore = Keystore::init(path, &domain, kek).await.unwrap().keystore;
        let drawn = AtomicU8::new(0);
        let next = move || drawn.fetch_add(1, Ordering::Relaxed) / times;
        keystore.sources.kids = Arc::new(move || Ok(Kid([next(); Kid::LEN])));
        keystore
    }

    #[tokio::test]
    async fn a_kid_that_is_taken_is_drawn_again() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = repeating(&folder, 5).await;
        let (mut credentials, mut pairs) = (Vec::new(), Vec::new());
        for i in 0..4 {
            let (name, pair, shared) = (format!("c-{i}"), format!("p-{i}"), format!("s-{i}"));
            let added = keystore.add_component(&name, &[], SuiteSet::only(Suite::X25519)).await;
            credentials.push(added.unwrap().audience.kid);
            let keys = keystore.add_agent(&pair, KeyType::Pair, Suite::X25519).await.unwrap();
            let AgentKeys::Pair { credential, .. } = keys else { panic!("{keys:?}") };
            credentials.push(credential.kid);
            let keys = keystore.add_agent(&shared, KeyType::Shared, Suite::Shared).await.unwrap();
            let AgentKeys::Shared { pairs: named, .. } = keys else { panic!("{keys:?}") };
            pairs.extend(named.iter().map(|pair| pair.kid));
        }
        // And those that are named late.
        let agent = Principal::agent("s-0").unwrap();
        for i in 1..4 {
            let component = Principal::component(&format!("c-{i}")).unwrap();
            let pair = keystore.pair_key(&agent, &component).await.unwrap();
            pairs.push(pair.kid);
            let found = keystore.pair_by_kid(pair.kid).await.unwrap().unwrap();
            assert_eq!((found.agent, found.component), (pair.agent, component));
        }
        for kids in [&mut credentials, &mut pairs] {
            let count = kids.len();
            kids.sort_unstable();
            kids.dedup();
            assert_eq!(kids.len(), count);
        }
    }

    #[tokio::test]
    async fn a_source_that_only_repeats_itself_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = repeating(&folder, 255).await;
        keystore.add_agent("a", KeyType::Pair, Suite::X25519).await.unwrap();
        let error = keystore.add_agent("b", KeyType::Pair, Suite::X25519).await.unwrap_err();
        assert!(matches!(error, KeystoreError::NoFreeKid(KID_TRIES)), "{error}");
        let b = Principal::agent("b").unwrap();
        assert!(keystore.party(&b).await.is_err(), "nothing is half done");
    }
}
