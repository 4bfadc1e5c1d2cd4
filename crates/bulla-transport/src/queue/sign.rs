//! Requests signed with a key of the principal's own (RFC 9421), so that it needs no password.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

/// What requests are signed with.
pub trait RequestKey: Send + Sync + 'static {
    /// Whose key it is, and which: what the service finds its own half by. Printable ASCII without
    /// quotes and backslashes.
    fn id(&self) -> String;

    /// Its algorithm's registered name: `ed25519`, `hmac-sha256`.
    fn algorithm(&self) -> &'static str;

    /// Signs a text.
    fn sign(&self, text: &[u8]) -> Vec<u8>;

    /// The service does not take it (any more); there may be a newer one.
    fn refused(&self) {}
}

/// Signs method, address and body of a request. `None` if there is no randomness.
pub(super) fn sign(
    key: &dyn RequestKey,
    (method, target): (&Method, &str),
    body: &[u8],
    headers: &mut HeaderMap,
) -> Option<()> {
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).ok()?;
    let nonce = BASE64.encode(nonce);
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut base = format!("\"@method\": {method}\n\"@target-uri\": {target}\n");
    let mut list = "\"@method\" \"@target-uri\"".to_owned();
    if !body.is_empty() {
        let digest = format!("sha-256=:{}:", BASE64.encode(digest(&SHA256, body).as_ref()));
        base += &format!("\"content-digest\": {digest}\n");
        list += " \"content-digest\"";
        let name = HeaderName::from_static("content-digest");
        headers.insert(name, HeaderValue::from_str(&digest).ok()?);
    }
    let parameters = format!(
        "({list});created={created};keyid=\"{}\";nonce=\"{nonce}\";alg=\"{}\"",
        key.id(),
        key.algorithm()
    );
    base += &format!("\"@signature-params\": {parameters}");
    let signature = BASE64.encode(key.sign(base.as_bytes()));
    for (name, value) in [("signature-input", parameters), ("signature", format!(":{signature}:"))]
    {
        let value = HeaderValue::from_str(&format!("bulla={value}")).ok()?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Some(())
}
