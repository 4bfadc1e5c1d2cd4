//! Addresses of servers in messages.

use url::Url;

/// Scheme, host, port and path of `url`: never its user, password or query.
pub(crate) fn without_credentials(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
