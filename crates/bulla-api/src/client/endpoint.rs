//! Where the control plane is, and how to prove who asks.

use std::path::PathBuf;

use axum::http::Uri;
use bulla_http::ClientTls;

use super::error::ClientError;

/// A control plane, as the operator's settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `https://host:port`, with the operator's certificate.
    Tls {
        /// The URL.
        url: String,
        /// CA, certificate and key.
        files: ClientTls,
    },
    /// `http://127.0.0.1:port`, with the token from a file.
    Loopback {
        /// The URL.
        url: String,
        /// The token's file.
        token: PathBuf,
    },
    /// `https://host:port`, or `http://127.0.0.1:port`, with something that each request shows.
    Shown {
        /// The URL.
        url: String,
        /// The CA that signs the server's certificate; not looked at without TLS.
        ca: PathBuf,
        /// What is shown.
        credential: Credential,
    },
}

/// What a request shows, instead of a client certificate; each from a file that only its owner may
/// reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A signature with an access key.
    AccessKey(PathBuf),
    /// A token of Keystone's.
    KeystoneToken(PathBuf),
}

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    /// The URL as given, without a slash at its end.
    pub(super) url: String,
    pub(super) scheme: &'static str,
    /// What goes into the `Host` header.
    pub(super) authority: String,
}

impl Place {
    /// Takes apart `scheme://host[:port][/]`.
    pub(super) fn parse(
        url: &str,
        scheme: &'static str,
        default_port: u16,
    ) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::BadUrl { url: url.to_owned(), why: why.to_owned() };
        let parsed: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        if parsed.scheme_str() != Some(scheme) {
            return Err(bad(&format!("it should begin with {scheme}://")));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            return Err(bad("it should hold a host and a port only"));
        }
        let authority = parsed.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            // The URL itself is not repeated: it may hold a password.
            return Err(ClientError::BadUrl {
                url: format!("{scheme}://…@{}", authority.host()),
                why: "it should hold no user name".to_owned(),
            });
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            url: url.trim_end_matches('/').to_owned(),
            scheme,
            authority: authority.as_str().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let place = Place::parse("https://[::1]:9000/", "https", 443).unwrap();
        assert_eq!((place.host.as_str(), place.port), ("::1", 9000));
        assert_eq!(place.url, "https://[::1]:9000");
        let place = Place::parse("http://localhost", "http", 80).unwrap();
        assert_eq!((place.host.as_str(), place.port), ("localhost", 80));
    }

    #[test]
    fn other_urls_are_refused_without_repeating_a_password() {
        for bad in ["", "localhost:1", "http://h:1", "https://h/path", "https://h?x", "https://"] {
            assert!(Place::parse(bad, "https", 443).is_err(), "{bad}");
        }
        let refused = Place::parse("https://ada:secret@h", "https", 443).unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("secret"));
    }
}
