//! Claims on a server that several hosts share, by its address.

use std::fmt;
use std::sync::Arc;

use bulla_guard::{ClaimStore, NewStore};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

use crate::error::ConnectError;

/// Where hosts that consume from one queue keep their claims together: the address of a Redis,
/// PostgreSQL or MariaDB, each behind the feature of that name.
#[derive(Clone)]
pub struct SharedClaims {
    url: Zeroizing<String>,
    /// Scheme, host, port and path.
    place: String,
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Redis,
    Postgres,
    MariaDb,
}

/// The address of a shared claim store can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is no URL. It is not quoted: it may hold a password.
    #[error("the address of the claim store can't be parsed; write redis://host:6379/0")]
    NoUrl,
    /// No store has such an address.
    #[error(
        "no claim store has an address that begins with `{scheme}:`; use redis://, rediss://, \
         postgres:// or mysql://"
    )]
    Scheme {
        /// What it begins with.
        scheme: String,
    },
    /// The program can't use that store.
    #[error(
        "claims in {place} need the feature `{feature}`, which this program was built without; \
         build it with `--features {feature}`"
    )]
    NotBuilt {
        /// The address, without credentials.
        place: String,
        /// The missing feature.
        feature: &'static str,
    },
    /// A password needs a place to go.
    #[error("{place} takes no password; give a host, and a user to PostgreSQL and MariaDB")]
    Password {
        /// The address, without credentials.
        place: String,
    },
}

impl SharedClaims {
    /// `redis://[user@]host[:port][/number]` (`rediss://` for TLS),
    /// `postgres://user@host[:port]/database` or `mysql://…` for MariaDB. It may hold a password;
    /// [`SharedClaims::password`] keeps it out of the address.
    ///
    /// # Errors
    /// It is no such address, or the program was built without the feature that it needs.
    pub fn new(url: &str) -> Result<Self, AddressError> {
        // What the parser says could quote the password.
        let parsed = Url::parse(url).map_err(|_| AddressError::NoUrl)?;
        let (server, feature, built) = match parsed.scheme() {
            "redis" | "rediss" => (Server::Redis, "redis", cfg!(feature = "redis")),
            "postgres" | "postgresql" => (Server::Postgres, "postgres", cfg!(feature = "postgres")),
            "mysql" | "mariadb" => (Server::MariaDb, "mariadb", cfg!(feature = "mariadb")),
            scheme => return Err(AddressError::Scheme { scheme: scheme.to_owned() }),
        };
        let place = place(&parsed);
        if !built {
            return Err(AddressError::NotBuilt { place, feature });
        }
        Ok(Self { url: Zeroizing::new(url.to_owned()), place, server })
    }

    /// The same with this password.
    ///
    /// # Errors
    /// The address has no place for one.
    pub fn password(mut self, password: &str) -> Result<Self, AddressError> {
        let refused = || AddressError::Password { place: self.place.clone() };
        let mut parsed = Url::parse(&self.url).map_err(|_| AddressError::NoUrl)?;
        let nobody = parsed.username().is_empty() && self.server != Server::Redis;
        if nobody || parsed.set_password(Some(password)).is_err() {
            return Err(refused());
        }
        self.url = Zeroizing::new(parsed.into());
        Ok(self)
    }

    /// The address without user, password and query.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Connects, checks that the server keeps what it is given, and judges what its state means.
    /// `name` keeps several stores on one Redis apart; a SQL database holds one store.
    ///
    /// # Errors
    /// The server can't be reached, or does not promise what claims need.
    pub async fn open(
        &self,
        name: &str,
        new_store: NewStore,
    ) -> Result<Arc<dyn ClaimStore>, ConnectError> {
        match self.server {
            #[cfg(feature = "redis")]
            Server::Redis => {
                use bulla_guard::{RedisClaims, RedisOptions};
                let mut options = RedisOptions::new(self.url.as_str(), new_store);
                options.prefix = format!("bulla:{name}");
                Ok(Arc::new(RedisClaims::open(options).await?))
            }
            #[cfg(any(feature = "mariadb", feature = "postgres"))]
            Server::Postgres | Server::MariaDb => {
                use bulla_guard::{SqlClaims, SqlOptions};
                let options = SqlOptions::new(self.url.as_str(), new_store);
                Ok(Arc::new(SqlClaims::open(options).await?))
            }
            #[cfg(not(all(feature = "redis", any(feature = "mariadb", feature = "postgres"))))]
            _ => {
                // `new` makes none of these.
                let _ = (name, new_store);
                let place = self.place.clone();
                Err(AddressError::NotBuilt { place, feature: "redis, postgres or mariadb" }.into())
            }
        }
    }
}

impl fmt::Debug for SharedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedClaims({})", self.place)
    }
}

fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_without_being_quoted() {
        for bad in ["secret", "http://u:secret@h/", "sqlite:secret", ""] {
            let error = SharedClaims::new(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn a_missing_feature_is_named() {
        let error = SharedClaims::new("redis://u:secret@h:1/0").unwrap_err().to_string();
        assert!(error.contains("--features redis") && error.contains("redis://h:1/0"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[cfg(all(feature = "redis", feature = "postgres"))]
    #[test]
    fn passwords_go_in_and_are_not_shown() {
        let claims = SharedClaims::new("redis://h:1/0?x=secret").unwrap();
        let claims = claims.password("s/cr@t").unwrap();
        assert_eq!(*claims.url, "redis://:s%2Fcr%40t@h:1/0?x=secret");
        assert_eq!(format!("{claims:?}"), "SharedClaims(redis://h:1/0)");
        let nobody = SharedClaims::new("postgres://h/d").unwrap().password("secret").unwrap_err();
        assert!(!nobody.to_string().contains("secret"), "{nobody}");
    }
}
