//! Addresses of servers: what messages show of them, and whether they are this machine.

#[cfg(any(test, feature = "redis", feature = "postgres"))]
use url::Host;
use url::Url;

/// Scheme, host, port and path of `url`: never its user, password or query.
pub(crate) fn without_credentials(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Whether a host is this machine: a socket's folder, a loopback address, `localhost`.
#[cfg(any(test, feature = "redis", feature = "postgres"))]
pub(crate) fn is_local(host: &str) -> bool {
    let folder =
        host.starts_with('/') || host.get(..3).is_some_and(|at| at == "%2F" || at == "%2f");
    if host.is_empty() || folder {
        return true;
    }
    // A name that this parser does not take for an address is none.
    match Host::parse(host) {
        Ok(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_password_and_other_machines_are_told_apart() {
        let shown = |url: &str| without_credentials(&Url::parse(url).unwrap());
        assert_eq!(shown("rediss://u:secret@h:7/0?x=secret"), "rediss://h:7/0");
        for here in ["", "localhost", "127.0.0.1", "127.9.9.9", "[::1]", "%2Frun%2Fpg"] {
            assert!(is_local(here), "{here}");
        }
        for there in ["db", "10.0.0.1", "[::2]", "localhost.example", "127.0.0.1.example"] {
            assert!(!is_local(there), "{there}");
        }
    }
}
