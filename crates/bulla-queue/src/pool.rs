//! Pools and flavors: where queues may be, and what a user may ask for. Kept as records.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::{Before, NEVER, Record, RecordKind};
use crate::service::{Service, now};
use crate::store::{Store, StoreError};

/// Records that are read at a time.
const AT_ONCE: usize = 500;
/// In the place of a password.
const HIDDEN: &str = "***";
/// Longest name, address or flavor's name.
pub(crate) const LONGEST: usize = 255;

/// A pool: a store, and how many queues it is to have beside the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Where it is; kept without a password.
    pub uri: String,
    /// Its share.
    pub weight: u32,
    /// The flavor that it belongs to, if it does.
    pub flavor: Option<String>,
    /// More about it.
    pub options: Map<String, Value>,
}

/// A flavor: what a queue's metadata name in `_flavor`. Its pools name it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Flavor {}

impl Pool {
    /// Its address as it may be shown: without a password.
    #[must_use]
    pub fn shown_uri(&self) -> String {
        let Ok(mut url) = url::Url::parse(&self.uri) else { return self.uri.clone() };
        let is_secret = |key: &str| key.to_ascii_lowercase().contains("password");
        let in_query = url.query_pairs().any(|(key, _)| is_secret(&key));
        if url.password().is_none() && !in_query {
            return self.uri.clone();
        }
        if url.password().is_some() {
            // It has a host, or it would have no password.
            let _ = url.set_password(Some(HIDDEN));
        }
        if in_query {
            let pairs: Vec<_> = url.query_pairs().into_owned().collect();
            let shown = |(key, value): (String, String)| {
                let value = if is_secret(&key) { HIDDEN.to_owned() } else { value };
                (key, value)
            };
            url.query_pairs_mut().clear().extend_pairs(pairs.into_iter().map(shown));
        }
        url.into()
    }
}

/// Whether a pool or flavor can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(known)
}

/// The service's pools and flavors.
pub(crate) struct Catalogue<'a> {
    store: &'a dyn Store,
}

impl<'a> Catalogue<'a> {
    pub(crate) fn of(service: &'a Service) -> Self {
        Self { store: service.store.as_ref() }
    }

    /// Whether the store is made of pools, which its settings say.
    pub(crate) fn is_settled(&self) -> bool {
        self.store.pools().is_some()
    }

    pub(crate) async fn pool(&self, name: &str) -> Result<Option<Pool>, StoreError> {
        match self.store.pools() {
            Some(pools) => Ok(pools.into_iter().find(|(is, _)| is == name).map(|(_, pool)| pool)),
            None => self.get(RecordKind::Pool, name).await,
        }
    }

    pub(crate) async fn flavor(&self, name: &str) -> Result<Option<Flavor>, StoreError> {
        if let Some(pools) = self.store.pools() {
            let has = pools.iter().any(|(_, pool)| pool.flavor.as_deref() == Some(name));
            return Ok(has.then(Flavor::default));
        }
        self.get(RecordKind::Flavor, name).await
    }

    pub(crate) async fn pools(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Pool)>, StoreError> {
        if let Some(mut pools) = self.store.pools() {
            pools.retain(|(name, _)| name.as_str() > after);
            pools.sort_by(|(a, _), (b, _)| a.cmp(b));
            pools.truncate(limit);
            return Ok(pools);
        }
        let found = self.store.records(RecordKind::Pool, "", (after, limit), now()).await?;
        let read = |record: Record| Some((record.name, serde_json::from_str(&record.value).ok()?));
        Ok(found.into_iter().filter_map(read).collect())
    }

    pub(crate) async fn flavors(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        if let Some(pools) = self.store.pools() {
            let mut names: Vec<_> = pools.into_iter().filter_map(|(_, pool)| pool.flavor).collect();
            names.retain(|name| name.as_str() > after);
            names.sort_unstable();
            names.dedup();
            names.truncate(limit);
            return Ok(names);
        }
        let found = self.store.records(RecordKind::Flavor, "", (after, limit), now()).await?;
        Ok(found.into_iter().map(|record| record.name).collect())
    }

    /// The pools of a flavor, by name.
    pub(crate) async fn pools_of(&self, flavor: &str) -> Result<Vec<String>, StoreError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.pools(&after, AT_ONCE).await?;
            let is_last = page.len() < AT_ONCE;
            for (name, pool) in page {
                after.clone_from(&name);
                if pool.flavor.as_deref() == Some(flavor) {
                    all.push(name);
                }
            }
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Without its password: nothing here connects to it, so there is no need to have it.
    pub(crate) async fn put_pool(&self, name: &str, pool: &Pool) -> Result<(), StoreError> {
        let pool = Pool { uri: pool.shown_uri(), ..pool.clone() };
        self.put(RecordKind::Pool, name, &pool).await
    }

    /// Gives a flavor these pools and no others; false if one of them is not there.
    pub(crate) async fn put_flavor(
        &self,
        name: &str,
        pools: &[String],
    ) -> Result<bool, StoreError> {
        let mut given = Vec::with_capacity(pools.len());
        for pool in pools {
            let Some(found) = self.pool(pool).await? else { return Ok(false) };
            given.push((pool, found));
        }
        self.put(RecordKind::Flavor, name, &Flavor {}).await?;
        for former in self.pools_of(name).await? {
            if !pools.contains(&former) {
                self.set_flavor(&former, None).await?;
            }
        }
        for (pool, found) in given {
            if found.flavor.as_deref() != Some(name) {
                self.set_flavor(pool, Some(name)).await?;
            }
        }
        Ok(true)
    }

    pub(crate) async fn remove_pool(&self, name: &str) -> Result<(), StoreError> {
        self.store.forget(RecordKind::Pool, "", Some(name)).await
    }

    pub(crate) async fn remove_flavor(&self, name: &str) -> Result<(), StoreError> {
        self.store.forget(RecordKind::Flavor, "", Some(name)).await?;
        for pool in self.pools_of(name).await? {
            self.set_flavor(&pool, None).await?;
        }
        Ok(())
    }

    async fn set_flavor(&self, pool: &str, flavor: Option<&str>) -> Result<(), StoreError> {
        let Some(found) = self.pool(pool).await? else { return Ok(()) };
        self.put_pool(pool, &Pool { flavor: flavor.map(str::to_owned), ..found }).await
    }

    async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        kind: RecordKind,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let found = self.store.record(kind, "", name, now()).await?;
        Ok(found.and_then(|record| serde_json::from_str(&record.value).ok()))
    }

    async fn put(
        &self,
        kind: RecordKind,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let at = self.store.name().to_owned();
        let value = serde_json::to_string(value)
            .map_err(|error| StoreError::Io { at, why: error.to_string() })?;
        let (owner, name) = (String::new(), name.to_owned());
        let record = Record { kind, owner, name, value, until: NEVER };
        self.store.keep(record, Before::Any, now()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let pool = |uri: &str| {
            let (uri, options) = (uri.to_owned(), Map::new());
            Pool { uri, weight: 1, flavor: None, options }.shown_uri()
        };
        let plain = "redis://127.0.0.1:26390?dbid=1";
        assert_eq!(pool(plain), plain);
        assert_eq!(pool("postgres://ada:hush@db/queues"), "postgres://ada:***@db/queues");
        assert!(!pool("redis://:hush@db").contains("hush"));
        let in_query = pool("postgres://db/queues?user=ada&sslpassword=hush&password=hush");
        assert!(in_query.contains("user=ada") && !in_query.contains("hush"), "{in_query}");
    }
}
