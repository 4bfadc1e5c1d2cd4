//! Addresses of servers: what messages show of them, and that a connection to one is not
//! downgraded.

use url::{Host, Url};

/// Scheme, host, port and path of `url`: never its user, password or query.
#[cfg(any(feature = "mariadb", feature = "postgres", feature = "redis"))]
pub(crate) fn without_credentials(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The address of a database (`postgres://…`, `mysql://…`), with TLS and the server's certificate
/// and name checked, unless it says otherwise itself (`sslmode`, `ssl-mode`) or the server is on
/// this machine. Left to itself, the client would take a connection in the clear from whoever
/// answers for the server.
pub fn demanding_tls(mut url: Url) -> Url {
    let says = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    let elsewhere = says("socket").or_else(|| says("host")).or_else(|| says("hostaddr"));
    let local = is_local(elsewhere.as_deref().or_else(|| url.host_str()).unwrap_or_default());
    if local || says("sslmode").is_some() || says("ssl-mode").is_some() {
        return url;
    }
    let (name, mode) = match url.scheme() {
        "mysql" | "mariadb" => ("ssl-mode", "VERIFY_IDENTITY"),
        _ => ("sslmode", "verify-full"),
    };
    url.query_pairs_mut().append_pair(name, mode);
    url
}

/// Whether a host is this machine: a socket's folder, a loopback address, `localhost`.
fn is_local(host: &str) -> bool {
    // A folder with a socket, as it stands in the place of a host too.
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
    fn another_machines_certificate_is_checked_unless_the_address_says_otherwise() {
        for (given, demanded) in [
            ("postgres://u:p@db/d", "postgres://u:p@db/d?sslmode=verify-full"),
            (
                "postgres://db/d?sslrootcert=/ca",
                "postgres://db/d?sslrootcert=%2Fca&sslmode=verify-full",
            ),
            ("mysql://10.0.0.1:7/d", "mysql://10.0.0.1:7/d?ssl-mode=VERIFY_IDENTITY"),
            ("mariadb://[::2]/d", "mariadb://[::2]/d?ssl-mode=VERIFY_IDENTITY"),
            // The name in the query is what counts.
            (
                "postgres://localhost/d?host=db",
                "postgres://localhost/d?host=db&sslmode=verify-full",
            ),
        ] {
            let url = demanding_tls(given.parse().unwrap());
            let same = |a: &Url, b: &Url| {
                a[..url::Position::AfterPath] == b[..url::Position::AfterPath]
                    && a.query_pairs().eq(b.query_pairs())
            };
            assert!(same(&url, &demanded.parse().unwrap()), "{url}");
        }
        for left in [
            "postgres://127.0.0.1:5/d",
            "mysql://localhost/d",
            "postgres://[::1]/d",
            "postgres:///d",
            "postgres://%2Frun%2Fpostgresql/d",
            "mysql://db/d?socket=/run/mysqld/mysqld.sock",
            "postgres://db/d?host=/run/postgresql",
            "postgres://db/d?sslmode=disable",
            "mysql://db/d?ssl-mode=REQUIRED",
        ] {
            assert_eq!(demanding_tls(left.parse().unwrap()).as_str(), left);
        }
    }
}
