//! Where a store is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use url::Url;

use crate::address;
use crate::sqlite::SqliteQueues;
use crate::store::{Millis, Store, StoreError};

/// Where a store is: a SQLite file, a Redis, or a PostgreSQL database.
///
/// From text: `rediss://[user@]host[:port][/number]`, `postgres://user@host[:port]/database`;
/// `sqlite:PATH`, or anything without `://`, is a file. A server on another machine has to show a
/// certificate. What is printed has neither user nor password.
///
/// ```
/// use bulla_queue::StoreAddress;
///
/// let address: StoreAddress = "rediss://:hush@queues.example/1".parse()?;
/// assert_eq!(address.to_string(), "rediss://queues.example/1");
/// assert!(!format!("{address:?}").contains("hush"));
/// # Ok::<(), bulla_queue::StoreError>(())
/// ```
#[derive(Clone)]
pub struct StoreAddress {
    kind: Kind,
    authorities: Option<PathBuf>,
}

#[derive(Clone)]
enum Kind {
    File(PathBuf),
    Redis(Url),
    Postgres(Url),
}

impl FromStr for StoreAddress {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let bad = |why: &str| StoreError::Address { why: why.to_owned() };
        let kind = if let Some(path) = text.strip_prefix("sqlite:") {
            // Also as a URL.
            match path.strip_prefix("//").unwrap_or(path) {
                "" => return Err(bad("`sqlite:` needs the path of a file")),
                path => Kind::File(path.into()),
            }
        } else if text.contains("://") {
            // What the parser says could quote the password.
            let url = Url::parse(text).map_err(|_| bad("it can't be parsed"))?;
            match url.scheme() {
                "redis" | "rediss" => Kind::Redis(url),
                "postgres" | "postgresql" => Kind::Postgres(url),
                _ => {
                    let why = "it is none of sqlite:PATH, redis://, rediss:// and postgres://";
                    return Err(bad(why));
                }
            }
        } else {
            Kind::File(text.into())
        };
        Ok(Self { kind, authorities: None })
    }
}

impl StoreAddress {
    /// A SQLite file.
    #[must_use]
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        Self { kind: Kind::File(path.into()), authorities: None }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.kind {
            Kind::File(path) => Some(path),
            Kind::Redis(_) | Kind::Postgres(_) => None,
        }
    }

    /// Whether a password is in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match &self.kind {
            Kind::File(_) => false,
            Kind::Redis(url) | Kind::Postgres(url) => {
                url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
            }
        }
    }

    /// With this password, which then need not be in the address. Of no use for a file.
    ///
    /// # Errors
    /// The address has no place for one.
    pub fn password(mut self, password: &str) -> Result<Self, StoreError> {
        let shown = self.to_string();
        let done = match &mut self.kind {
            Kind::File(_) => true,
            Kind::Redis(url) => url.set_password(Some(password)).is_ok(),
            Kind::Postgres(url) => {
                !url.username().is_empty() && url.set_password(Some(password)).is_ok()
            }
        };
        let why = || format!("`{shown}` has no user for whom the password could be");
        if done { Ok(self) } else { Err(StoreError::Address { why: why() }) }
    }

    /// The certificate authorities (a PEM file) that alone are believed, instead of the machine's.
    #[must_use]
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// Opens the store. `now` is the wall clock.
    ///
    /// # Errors
    /// It can't be used, or this program was built without what it takes.
    pub async fn open(&self, now: Millis) -> Result<Arc<dyn Store>, StoreError> {
        match &self.kind {
            Kind::File(path) => Ok(Arc::new(SqliteQueues::open(path, now).await?)),
            Kind::Redis(url) => self.redis(url).await,
            Kind::Postgres(url) => self.postgres(url).await,
        }
    }

    #[cfg(feature = "redis")]
    async fn redis(&self, url: &Url) -> Result<Arc<dyn Store>, StoreError> {
        let mut options = crate::RedisOptions::new(url.as_str());
        if let Some(path) = &self.authorities {
            let read = std::fs::read(path).map_err(|error| StoreError::Io {
                at: path.display().to_string(),
                why: error.to_string(),
            })?;
            options = options.authorities(read);
        }
        Ok(Arc::new(crate::RedisQueues::open(options).await?))
    }

    #[cfg(feature = "postgres")]
    async fn postgres(&self, url: &Url) -> Result<Arc<dyn Store>, StoreError> {
        let mut options = crate::PostgresOptions::new(url.as_str());
        if let Some(path) = &self.authorities {
            options = options.authorities(path);
        }
        Ok(Arc::new(crate::PostgresQueues::open(options).await?))
    }

    #[cfg(not(feature = "redis"))]
    async fn redis(&self, url: &Url) -> Result<Arc<dyn Store>, StoreError> {
        Err(missing(url, "Redis"))
    }

    #[cfg(not(feature = "postgres"))]
    async fn postgres(&self, url: &Url) -> Result<Arc<dyn Store>, StoreError> {
        Err(missing(url, "PostgreSQL"))
    }
}

#[cfg(not(all(feature = "redis", feature = "postgres")))]
fn missing(url: &Url, what: &str) -> StoreError {
    StoreError::Unfit {
        at: address::without_credentials(url),
        why: format!("this program was built without {what}"),
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File(path) => path.display().fmt(f),
            Kind::Redis(url) | Kind::Postgres(url) => {
                f.write_str(&address::without_credentials(url))
            }
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreAddress").field(&self.to_string()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<StoreAddress, StoreError> {
        text.parse()
    }

    #[test]
    fn addresses_are_read_and_never_shown_whole() {
        for (text, shown) in [
            ("/var/lib/q.db", "/var/lib/q.db"),
            ("sqlite:///var/lib/q.db", "/var/lib/q.db"),
            ("rediss://u:secret@h:7/1", "rediss://h:7/1"),
            ("postgres://u:secret@h/d?password=secret", "postgres://h/d"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), shown);
        }
        for bad in ["sqlite:", "amqp://u:secret@h", "redis://[secret"] {
            let error = address(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn passwords_go_where_there_is_a_place_for_them() {
        assert!(address("redis://:a@h").unwrap().has_password());
        assert!(address("postgres://u@h/d?password=a").unwrap().has_password());
        let with = |text: &str| address(text).unwrap().password("p");
        assert!(!address("rediss://h").unwrap().has_password());
        assert!(with("rediss://h").unwrap().has_password());
        assert!(with("postgres://u@h/d").unwrap().has_password());
        assert!(with("postgres://h/d").is_err());
    }
}
