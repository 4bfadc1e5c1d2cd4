//! Where a keystore is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;
use zeroize::Zeroizing;

use crate::db::Dialect;
use crate::error::KeystoreError;

/// Where a keystore is: a SQLite file, or a database of its own on a PostgreSQL or MariaDB server.
///
/// From text: `postgres://user[:password]@host[:port]/database`, `mysql://…` or `mariadb://…`;
/// `sqlite:PATH`, or anything without `://`, is a file. TLS with the server's certificate checked is
/// demanded of servers on other machines ([`bulla_guard::demanding_tls`]); `sslrootcert` (`ssl-ca`)
/// names the certificate authority. What is printed has neither user nor password.
///
/// ```
/// use bulla_keystore::StoreAddress;
///
/// let address: StoreAddress = "postgres://bulla:hush@db.example/keys".parse()?;
/// assert_eq!(address.to_string(), "postgres://db.example/keys");
/// assert!(!format!("{address:?}").contains("hush"));
/// # Ok::<(), bulla_keystore::KeystoreError>(())
/// ```
#[derive(Clone)]
pub struct StoreAddress(pub(crate) Place);

#[derive(Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Server(Server),
}

/// A database on a server.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) dialect: Dialect,
    /// With the password.
    url: Zeroizing<String>,
    /// Without user, password and query.
    pub(crate) shown: String,
}

impl StoreAddress {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Place::File(path) => Some(path),
            Place::Server(_) => None,
        }
    }

    /// With this password, which then need not be in the address. Of no use for a file.
    pub fn with_password(self, password: &str) -> Result<Self, KeystoreError> {
        let Place::Server(server) = self.0 else { return Ok(self) };
        let bad = || KeystoreError::Address { why: "it takes no password".to_owned() };
        let mut url = Url::parse(&server.url).map_err(|_| bad())?;
        url.set_password(Some(password)).map_err(|()| bad())?;
        let url = Zeroizing::new(String::from(url));
        Ok(Self(Place::Server(Server { url, ..server })))
    }
}

#[cfg_attr(
    not(any(feature = "postgres", feature = "mariadb")),
    allow(dead_code, reason = "for the servers that are built in")
)]
impl Server {
    /// The address with its password, as sqlx takes it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The feature that such a server needs.
    pub(crate) fn feature(&self) -> &'static str {
        match self.dialect {
            Dialect::MariaDb => "mariadb",
            _ => "postgres",
        }
    }
}

impl FromStr for StoreAddress {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        let bad = |why: &str| Err(KeystoreError::Address { why: why.to_owned() });
        if let Some(path) = text.strip_prefix("sqlite:") {
            // Also as a URL.
            return file(path.strip_prefix("//").unwrap_or(path));
        }
        if !text.contains("://") {
            return file(text);
        }
        // What the parser says could quote the password.
        let Ok(mut url) = Url::parse(text) else { return bad("it can't be parsed") };
        let dialect = match url.scheme() {
            "postgres" | "postgresql" => Dialect::Postgres,
            "mysql" => Dialect::MariaDb,
            "mariadb" => {
                let Ok(()) = url.set_scheme("mysql") else { return bad("it can't be parsed") };
                Dialect::MariaDb
            }
            _ => return bad("it begins with neither postgres:// nor mysql:// nor mariadb://"),
        };
        if url.path().trim_matches('/').is_empty() {
            return bad("it names no database; write postgres://user@host/database");
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = url.host_str().unwrap_or_default();
        let shown = format!("{}://{host}{port}{}", url.scheme(), url.path());
        let url = Zeroizing::new(String::from(bulla_guard::demanding_tls(url)));
        Ok(Self(Place::Server(Server { dialect, url, shown })))
    }
}

fn file(path: &str) -> Result<StoreAddress, KeystoreError> {
    if path.is_empty() {
        return Err(KeystoreError::Address { why: "it names no file".to_owned() });
    }
    Ok(StoreAddress(Place::File(path.into())))
}

impl From<PathBuf> for StoreAddress {
    fn from(path: PathBuf) -> Self {
        Self(Place::File(path))
    }
}

impl From<&PathBuf> for StoreAddress {
    fn from(path: &PathBuf) -> Self {
        path.clone().into()
    }
}

impl From<&Path> for StoreAddress {
    fn from(path: &Path) -> Self {
        path.to_owned().into()
    }
}

impl From<&Self> for StoreAddress {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => path.display().fmt(f),
            Place::Server(server) => f.write_str(&server.shown),
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreAddress, KeystoreError> {
        text.parse()
    }

    #[test]
    fn files_and_servers_are_told_apart() {
        for text in ["/a/keystore.db", "sqlite:/a/keystore.db", "sqlite:///a/keystore.db"] {
            assert_eq!(parse(text).unwrap().file(), Some(Path::new("/a/keystore.db")), "{text}");
        }
        for (text, shown, dialect) in [
            ("postgres://u:p@h/d?sslmode=verify-full", "postgres://h/d", Dialect::Postgres),
            ("postgresql://h:77/d", "postgresql://h:77/d", Dialect::Postgres),
            ("mariadb://u@h/d", "mysql://h/d", Dialect::MariaDb),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            let Place::Server(server) = &address.0 else { panic!("{address}") };
            assert_eq!(server.dialect, dialect);
        }
    }

    #[test]
    fn a_password_is_taken_and_never_printed() {
        let address = parse("mysql://u@h/d").unwrap().with_password("hu/sh@").unwrap();
        let Place::Server(server) = &address.0 else { panic!("{address}") };
        assert_eq!(server.url(), "mysql://u:hu%2Fsh%40@h/d?ssl-mode=VERIFY_IDENTITY");
        assert!(!format!("{address} {address:?}").contains("hu"));
        for bad in
            ["postgres://u:secret@[::1/d", "redis://u:secret@h/d", "postgres://u:secret@h", ""]
        {
            let error = parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
