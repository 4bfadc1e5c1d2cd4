//! What a keystore holds, in sums: for metrics, and of bounded size whatever the number of agents.

use bulla_seal::Level;

use super::{Keystore, seconds};
use crate::db::summary::{self as rows, EndsRow};
use crate::error::{KeystoreError, Result};

/// Keys that end within these times are counted, in seconds: an hour, a day, a week, 30 and 90 days.
pub const ENDS_WITHIN: [u64; 5] = [3600, 86_400, 604_800, 2_592_000, 7_776_000];

/// What a keystore holds, in sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Principals that are there: kind (`agent`, `component`), key type (`pair`, `shared`), how many.
    pub principals: Vec<(String, String, u64)>,
    /// When keys end.
    pub keys: Vec<KeyEnds>,
    /// Peers by the lowest level that is taken from them.
    pub floors: Vec<LevelCount>,
    /// Peers by the levels at which they were seen.
    pub seen: Vec<LevelCount>,
}

/// When keys of one sort end: each principal's newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEnds {
    /// `agent` (a key pair's credential), `audience` (what a component type receives with) or
    /// `issuer`.
    pub purpose: String,
    /// How many there are.
    pub count: u64,
    /// When the next one ends, in Unix seconds; `None` if all are over.
    pub next: Option<u64>,
    /// How many are over.
    pub over: u64,
    /// How many are over, or end within each of [`ENDS_WITHIN`].
    pub within: [u64; ENDS_WITHIN.len()],
}

/// How many peers there are at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelCount {
    /// The level.
    pub level: Level,
    /// Peers.
    pub peers: u64,
    /// Of these, those of which more is demanded in rehearsal ([`Summary::floors`]), or that were below
    /// what is demanded ([`Summary::seen`]).
    pub marked: u64,
}

impl Keystore {
    /// Whether its database answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        rows::ping(&mut self.db.read().await?).await
    }

    /// What it holds, in sums.
    ///
    /// # Errors
    /// The database can't be read, or what it says makes no sense.
    pub async fn summary(&self) -> Result<Summary> {
        let now = seconds(self.now());
        let [a, b, c, d, e] = ENDS_WITHIN.map(|within| now.saturating_add_unsigned(within));
        let mut conn = self.db.read().await?;
        let principals = rows::principals(&mut conn).await?;
        let keys = rows::ends(&mut conn, [now, a, b, c, d, e]).await?;
        let floors = rows::floors(&mut conn).await?;
        let seen = rows::seen(&mut conn).await?;
        Ok(Summary {
            principals: principals.into_iter().map(|(k, t, n)| (k, t, count(n))).collect(),
            keys: keys.into_iter().map(ends).collect(),
            floors: floors.into_iter().map(level).collect::<Result<_>>()?,
            seen: seen.into_iter().map(level).collect::<Result<_>>()?,
        })
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn ends((purpose, all, next, over, a, b, c, d, e): EndsRow) -> KeyEnds {
    KeyEnds {
        purpose,
        count: count(all),
        next: next.map(count),
        over: count(over),
        within: [a, b, c, d, e].map(count),
    }
}

fn level((level, peers, marked): (i64, i64, i64)) -> Result<LevelCount> {
    let level = u64::try_from(level).ok().and_then(Level::from_wire);
    let level = level.ok_or_else(|| KeystoreError::damaged("level of a peer"))?;
    Ok(LevelCount { level, peers: count(peers), marked: count(marked) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bulla_guard::floor::{CensusRow, FloorStore};
    use bulla_seal::{Principal, Suite, SuiteSet, TrustDomain, UnixTime};

    use super::*;
    use crate::kek::Kek;
    use crate::{AGENT_LIFETIME, AgentKeys, KeyType};

    #[tokio::test]
    async fn keys_are_summed_up_by_when_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let path = folder.path().join("keystore.db");
        let keystore = Keystore::init(path, &domain, kek).await.unwrap().keystore;
        let now = Arc::new(AtomicU64::new(keystore.now().secs()));
        let clock = now.clone();
        let keystore =
            keystore.with_clock(move || UnixTime::from_secs(clock.load(Ordering::Relaxed)));
        keystore.add_component("control", &[], SuiteSet::only(Suite::X25519)).await.unwrap();
        let mut parties = Vec::new();
        for id in ["a", "b"] {
            let keys = keystore.add_agent(id, KeyType::Pair, Suite::X25519).await.unwrap();
            let AgentKeys::Pair { credential, .. } = keys else { panic!("{keys:?}") };
            parties.push((credential.party.clone(), credential.validity.not_after));
        }
        keystore.add_agent("s", KeyType::Shared, Suite::Shared).await.unwrap();
        let gone = Principal::agent("gone").unwrap();
        keystore.add_agent(gone.name(), KeyType::Pair, Suite::X25519).await.unwrap();
        keystore.remove_agent(gone.name()).await.unwrap();
        let row = |party: &bulla_seal::Party, level, below| CensusRow {
            peer: party.clone(),
            method: "m".to_owned(),
            level,
            count: 3,
            last: 1,
            below,
            last_below: below,
        };
        let rows = [row(&parties[0].0, Level::Sealed, 0), row(&parties[1].0, Level::Signed, 2)];
        keystore.floors().add_census(&rows).await.unwrap();

        let agents = |summary: &Summary| {
            summary.keys.iter().find(|keys| keys.purpose == "agent").cloned().unwrap()
        };
        let summary = keystore.summary().await.unwrap();
        let of = |kind: &str, key_type: &str, n| (kind.to_owned(), key_type.to_owned(), n);
        assert_eq!(
            summary.principals,
            [of("agent", "pair", 2), of("agent", "shared", 1), of("component", "pair", 1)]
        );
        let keys = agents(&summary);
        assert_eq!((keys.count, keys.over, keys.next), (2, 0, Some(parties[0].1)));
        assert_eq!(keys.within, [0, 0, 0, 2, 2]);
        assert!(summary.keys.iter().any(|keys| keys.purpose == "issuer" && keys.count > 1));
        let seen = |level, peers, marked| LevelCount { level, peers, marked };
        assert_eq!(summary.seen, [seen(Level::Signed, 1, 1), seen(Level::Sealed, 1, 0)]);

        now.fetch_add(AGENT_LIFETIME.as_secs() + 7200, Ordering::Relaxed);
        let keys = agents(&keystore.summary().await.unwrap());
        assert_eq!((keys.count, keys.over, keys.next), (2, 2, None));
        keystore.close().await;
    }
}
