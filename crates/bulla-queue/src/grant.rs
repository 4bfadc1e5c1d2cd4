//! Pre-signed grants: who shows one may do in one queue what it says, until it ends.
//!
//! It travels in the four headers that Zaqar's clients know. What Zaqar's does not have: a key for
//! each queue, named by its id, so that all grants of a queue end when that changes; a method for one
//! path (`POST:messages`) beside one for all; an end that is not far; paths that are compared whole.

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use thiserror::Error;

use crate::date;
use crate::name::Place;

/// Where a grant is shown.
pub(crate) const SIGNATURE: &str = "url-signature";
pub(crate) const EXPIRES: &str = "url-expires";
pub(crate) const METHODS: &str = "url-methods";
pub(crate) const PATHS: &str = "url-paths";
/// The fields of a grant: a request that shows one of them is judged by it, and by nothing else.
pub const HEADERS: &[&str] = &[SIGNATURE, EXPIRES, METHODS, PATHS];

/// Where a queue's metadata say which of its keys counts. It is no secret.
pub(crate) const KEY_ID: &str = "_grant_key";

/// What of a queue can be granted.
pub(crate) const RESOURCES: [&str; 3] = ["claims", "messages", "subscriptions"];
/// Methods that mean something on them.
const KNOWN: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

const SECRET: usize = 32;

/// Makes grants, and knows its own.
pub struct Grants {
    key: hmac::Key,
}

/// The secret can't be used.
#[derive(Debug, Error)]
#[error("the secret of grants must be {SECRET} bytes")]
pub struct GrantError;

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grants(redacted)")
    }
}

/// What is granted: everything that is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) paths: Vec<String>,
    pub(crate) methods: Vec<String>,
    /// As it was written.
    pub(crate) expires: String,
}

impl Grants {
    /// From a secret of 32 bytes, of which the keys of queues are made.
    ///
    /// # Errors
    /// It has another length.
    pub fn new(secret: &[u8]) -> Result<Self, GrantError> {
        let fits = secret.len() == SECRET;
        fits.then(|| Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }).ok_or(GrantError)
    }

    /// What goes into the signature's header.
    pub(crate) fn sign(&self, at: &Place, key_id: &str, grant: &Grant) -> String {
        let key = self.key_of(at, key_id);
        let tag = hmac::sign(&key, &grant.bytes());
        format!("{key_id}.{}", hex::encode(tag.as_ref()))
    }

    /// Whether it is signed with the key of this queue that counts now.
    pub(crate) fn is_ours(&self, at: &Place, key_id: &str, grant: &Grant, signature: &str) -> bool {
        let Some((shown, tag)) = signature.split_once('.') else { return false };
        let Ok(tag) = hex::decode(tag) else { return false };
        let key = self.key_of(at, key_id);
        // In constant time; the key's id is public.
        hmac::verify(&key, &grant.bytes(), &tag).is_ok() && shown == key_id
    }

    fn key_of(&self, at: &Place, key_id: &str) -> hmac::Key {
        let mut context = hmac::Context::with_key(&self.key);
        for part in ["bulla queue grant", at.project(), at.name(), key_id] {
            context.update(&length(part.len()));
            context.update(part.as_bytes());
        }
        hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
    }
}

fn length(of: usize) -> [u8; 8] {
    (of as u64).to_be_bytes()
}

impl Grant {
    /// From the headers; `None` unless each is there once.
    pub(crate) fn read(headers: &HeaderMap) -> Option<(Self, String)> {
        let only = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(value)
        };
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        let grant = Self {
            paths: list(only(PATHS)?),
            methods: list(only(METHODS)?),
            expires: only(EXPIRES)?.to_owned(),
        };
        Some((grant, only(SIGNATURE)?.to_owned()))
    }

    /// Whether it allows this now.
    pub(crate) fn allows(&self, method: &str, path: &str, now_s: u64) -> bool {
        let alive = date::parse(&self.expires).is_some_and(|end| now_s < end);
        alive
            && self.paths.iter().any(|granted| {
                let below = path.strip_prefix(granted.as_str());
                let within = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                let resource = granted.rsplit('/').next().unwrap_or_default();
                within
                    && self.methods.iter().any(|granted| match granted.split_once(':') {
                        None => granted == method,
                        Some((granted, of)) => granted == method && of == resource,
                    })
            })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for list in [&self.paths, &self.methods] {
            bytes.extend(length(list.len()));
            for text in list {
                bytes.extend(length(text.len()));
                bytes.extend(text.as_bytes());
            }
        }
        bytes.extend(self.expires.as_bytes());
        bytes
    }
}

/// Whether a method can be granted: `GET`, or `GET:messages`.
pub(crate) fn is_method(text: &str) -> bool {
    match text.split_once(':') {
        None => KNOWN.contains(&text),
        Some((method, of)) => KNOWN.contains(&method) && RESOURCES.contains(&of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn grant(paths: &[&str], methods: &[&str]) -> Grant {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let expires = "2026-11-23T05:50:26".to_owned();
        Grant { paths: texts(paths), methods: texts(methods), expires }
    }

    #[test]
    fn a_grant_is_for_one_queue_and_one_key_of_it() {
        let grants = Grants::new(&[7; 32]).unwrap();
        let limits = Limits::default();
        let place = |project: &str, name: &str| Place::new(project.into(), name, &limits).unwrap();
        let one = grant(&["/v2/queues/q/messages"], &["GET"]);
        let signed = grants.sign(&place("p", "q"), "k1", &one);
        let ours = |at: &Place, key: &str, grant: &Grant| grants.is_ours(at, key, grant, &signed);
        assert!(ours(&place("p", "q"), "k1", &one));
        assert!(!ours(&place("p", "r"), "k1", &one));
        assert!(!ours(&place("pq", "q"), "k1", &one));
        assert!(!ours(&place("p", "q"), "k2", &one), "a key that was changed");
        assert!(!ours(&place("p", "q"), "k1", &grant(&["/v2/queues/q/messages"], &["POST"])));
        assert!(!ours(&place("p", "q"), "k1", &grant(&["/v2/queues/q/messages,GET"], &[])));
        let other = Grants::new(&[8; 32]).unwrap();
        assert!(!other.is_ours(&place("p", "q"), "k1", &one, &signed));
        for bad in ["", ".", "k1.", "k1", "k1.00", "k1.zz"] {
            assert!(!grants.is_ours(&place("p", "q"), "k1", &one, bad), "{bad}");
        }
        assert!(Grants::new(&[7; 31]).is_err());
    }

    #[test]
    fn it_allows_what_it_says_and_no_more() {
        let both = ["/v2/queues/q/messages", "/v2/queues/q/claims"];
        let now = 1_795_413_025;
        let one = grant(&both, &["GET", "POST:claims"]);
        assert!(one.allows("GET", "/v2/queues/q/messages", now));
        assert!(one.allows("GET", "/v2/queues/q/messages/1", now));
        assert!(one.allows("POST", "/v2/queues/q/claims", now));
        assert!(!one.allows("POST", "/v2/queues/q/messages", now));
        assert!(!one.allows("GET", "/v2/queues/q/messages", now + 1), "over");
        assert!(!one.allows("GET", "/v2/queues/q/messagesx", now));
        assert!(!one.allows("GET", "/x/v2/queues/q/messages", now));
        assert!(!one.allows("GET", "/v2/queues/q", now));
        assert!(is_method("DELETE:messages") && !is_method("DELETE:queue") && !is_method("get"));
    }
}
