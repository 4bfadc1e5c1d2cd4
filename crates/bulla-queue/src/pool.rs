//! Pools and flavors: where queues may be, and what a user may ask for. Kept as records.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::{Before, NEVER, Record, RecordKind};
use crate::service::{Service, now};
use crate::store::{Store, StoreError};

/// Records that are read at a time.
const AT_ONCE: usize = 500;

/// A pool: a store, and how many queues it is to have beside the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Where it is; it may hold a password.
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
        if url.password().is_none() {
            return self.uri.clone();
        }
        // It has a host, or it would have no password.
        let _ = url.set_password(Some("***"));
        url.into()
    }
}

/// The service's pools and flavors.
pub(crate) struct Catalogue<'a> {
    store: &'a dyn Store,
}

impl<'a> Catalogue<'a> {
    pub(crate) fn of(service: &'a Service) -> Self {
        Self { store: service.store.as_ref() }
    }

    pub(crate) async fn pool(&self, name: &str) -> Result<Option<Pool>, StoreError> {
        self.get(RecordKind::Pool, name).await
    }

    pub(crate) async fn flavor(&self, name: &str) -> Result<Option<Flavor>, StoreError> {
        self.get(RecordKind::Flavor, name).await
    }

    pub(crate) async fn pools(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Pool)>, StoreError> {
        let found = self.store.records(RecordKind::Pool, "", (after, limit), now()).await?;
        let read = |record: Record| Some((record.name, serde_json::from_str(&record.value).ok()?));
        Ok(found.into_iter().filter_map(read).collect())
    }

    pub(crate) async fn flavors(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
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

    pub(crate) async fn put_pool(&self, name: &str, pool: &Pool) -> Result<(), StoreError> {
        self.put(RecordKind::Pool, name, pool).await
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
    }
}
