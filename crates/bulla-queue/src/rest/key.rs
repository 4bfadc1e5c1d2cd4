//! What is stored, sealed: a text that no client can post, because no JSON begins so.
//!
//! ```text
//! root ── HKDF(project, queue) ──► queue's key ── HKDF(salt) ──► key of one message
//! ~1 QUEUE TIME base64(salt ‖ nonce ‖ AES-256-GCM(body))  data: project, queue, time of the post
//! ```
//!
//! Each body has a key of its own, made from a random salt: a queue may have any number of them.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bulla_seal::Secret;
use bulla_seal::cbor::Writer;
use bulla_seal::kdf;

use crate::name::Place;
use crate::record::Record;
use crate::store::Millis;

/// What sealed texts begin with, and no JSON does.
const MARK: &str = "~1 ";
const SALT: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;

/// The secret from which the keys of all queues are made.
#[derive(Clone)]
pub struct RestKey(Secret<32>);

/// Why what is stored does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shut {
    /// It is not sealed.
    Plain,
    /// It is cut off, or of a form that is not known here.
    Malformed,
    /// It was changed, or moved from elsewhere, or is under another key.
    Changed,
    /// It is of a queue whose messages may not be in this one.
    Elsewhere,
    /// It is of another time than its message.
    Time,
}

impl Shut {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Plain => "it is not encrypted; see `accept-plain` under [queue]",
            Self::Malformed => "it is cut off, or of a form that is not known here",
            Self::Changed => "it was changed, moved from elsewhere, or is under another key",
            Self::Time => "it was posted at another time than its message",
            Self::Elsewhere => "it is another queue's, whose messages may not be in this one",
        }
    }
}

/// A sealed body, as far as it can be read without a key.
pub(super) struct Sealed<'t> {
    /// The queue that it was posted to.
    pub(super) queue: &'t str,
    /// When.
    pub(super) posted: Millis,
    bytes: &'t str,
}

impl RestKey {
    /// Of a secret that only this service has.
    #[must_use]
    pub fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// Seals a body that is posted to a queue at this time; `None` if there is no randomness.
    pub(super) fn seal_body(&self, at: &Place, body: &str, posted: Millis) -> Option<String> {
        let (key, data) = (self.queue(at), body_data(at, posted));
        let head = format!("{MARK}{} {posted} ", at.name());
        let mut out = String::with_capacity(head.len() + room(body.len()));
        out.push_str(&head);
        seal(&key, &data, body, &mut out)?;
        Some(out)
    }

    /// Opens a body of a queue, which it must have been posted to.
    pub(super) fn open_body(&self, posted_to: &Place, sealed: &Sealed<'_>) -> Result<String, Shut> {
        open(&self.queue(posted_to), &body_data(posted_to, sealed.posted), sealed.bytes)
    }

    /// A digest that says nothing to who does not have the key.
    pub(super) fn digest(&self, at: &Place, digest: &str) -> String {
        let info = array(&["bulla/1 queue digest", digest]);
        hex::encode(kdf::expand(&self.queue(at), &info).expose())
    }

    /// Seals a record's value; `None` if there is no randomness.
    pub(super) fn seal_record(&self, record: &Record) -> Option<String> {
        let mut out = String::with_capacity(MARK.len() + room(record.value.len()));
        out.push_str(MARK);
        seal(&self.of_records(record), &record_data(record), &record.value, &mut out)?;
        Some(out)
    }

    /// Opens a record's value.
    pub(super) fn open_record(&self, record: &Record) -> Result<String, Shut> {
        let bytes = record.value.strip_prefix(MARK).ok_or(Shut::Plain)?;
        open(&self.of_records(record), &record_data(record), bytes)
    }

    fn queue(&self, at: &Place) -> Secret<32> {
        kdf::expand(&self.0, &array(&["bulla/1 queue key", at.project(), at.name()]))
    }

    fn of_records(&self, record: &Record) -> Secret<32> {
        kdf::expand(&self.0, &array(&["bulla/1 queue record key", record.kind.text()]))
    }
}

impl fmt::Debug for RestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestKey(redacted)")
    }
}

impl<'t> Sealed<'t> {
    /// Reads what is before the sealed bytes.
    pub(super) fn parse(text: &'t str) -> Result<Self, Shut> {
        let rest = text.strip_prefix(MARK).ok_or(Shut::Plain)?;
        let (queue, rest) = rest.split_once(' ').ok_or(Shut::Malformed)?;
        let (posted, bytes) = rest.split_once(' ').ok_or(Shut::Malformed)?;
        let posted = posted.parse().map_err(|_| Shut::Malformed)?;
        Ok(Self { queue, posted, bytes })
    }
}

fn room(text: usize) -> usize {
    (SALT + NONCE + text + TAG).div_ceil(3) * 4
}

fn array(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut w = Writer::new(&mut out);
    w.array(texts.len());
    texts.iter().for_each(|text| w.text(text));
    out
}

/// Where a body belongs.
fn body_data(at: &Place, posted: Millis) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut w = Writer::new(&mut out);
    w.array(4);
    w.text("bulla/1 queue body");
    w.text(at.project());
    w.text(at.name());
    w.uint(posted);
    out
}

/// Where a record belongs, and until when.
fn record_data(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    let mut w = Writer::new(&mut out);
    w.array(5);
    w.text("bulla/1 queue record");
    w.text(record.kind.text());
    w.text(&record.owner);
    w.text(&record.name);
    w.uint(record.until);
    out
}

/// The key of one text.
fn own_key(of: &Secret<32>, salt: &[u8]) -> Option<LessSafeKey> {
    let mut info = Vec::with_capacity(64);
    let mut w = Writer::new(&mut info);
    w.array(2);
    w.text("bulla/1 queue text key");
    w.bytes(salt);
    UnboundKey::new(&AES_256_GCM, kdf::expand(of, &info).expose()).ok().map(LessSafeKey::new)
}

fn seal(of: &Secret<32>, data: &[u8], text: &str, out: &mut String) -> Option<()> {
    let mut bytes = Vec::with_capacity(SALT + NONCE + text.len() + TAG);
    bytes.resize(SALT + NONCE, 0);
    rand::fill(&mut bytes).ok()?;
    let (salt, nonce) = bytes.split_at_checked(SALT)?;
    let key = own_key(of, salt)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    bytes.extend_from_slice(text.as_bytes());
    let inner = bytes.get_mut(SALT + NONCE..)?;
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(data), inner).ok()?;
    bytes.extend_from_slice(tag.as_ref());
    STANDARD_NO_PAD.encode_string(&bytes, out);
    Some(())
}

fn open(of: &Secret<32>, data: &[u8], text: &str) -> Result<String, Shut> {
    let mut bytes = STANDARD_NO_PAD.decode(text).map_err(|_| Shut::Malformed)?;
    let (head, inner) = bytes.split_at_mut_checked(SALT + NONCE).ok_or(Shut::Malformed)?;
    let (salt, nonce) = head.split_at_checked(SALT).ok_or(Shut::Malformed)?;
    let key = own_key(of, salt).ok_or(Shut::Malformed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Shut::Malformed)?;
    let opened = key.open_in_place(nonce, Aad::from(data), inner).map_err(|_| Shut::Changed)?;
    String::from_utf8(opened.to_vec()).map_err(|_| Shut::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::record::{NEVER, RecordKind};

    const NOW: Millis = 1_800_000_000_000;

    fn place(project: &str, name: &str) -> Place {
        Place::new(project.into(), name, &Limits::default()).unwrap()
    }

    fn key(byte: u8) -> RestKey {
        RestKey::new(Secret::new([byte; 32]))
    }

    fn opened(key: &RestKey, at: &Place, text: &str) -> Result<String, Shut> {
        key.open_body(at, &Sealed::parse(text)?)
    }

    #[test]
    fn a_body_opens_in_its_place_and_nowhere_else() {
        let (at, body) = (place("p", "q"), "{\"a\": \"ä\"}");
        let sealed = key(1).seal_body(&at, body, NOW).unwrap();
        assert!(sealed.starts_with("~1 q 1800000000000 ") && !sealed.contains("\"a\""));
        assert_eq!(opened(&key(1), &at, &sealed).unwrap(), body);
        assert_ne!(sealed, key(1).seal_body(&at, body, NOW).unwrap());
        let later = sealed.replace("1800000000000", "1800000000001");
        for (key, at, sealed) in [
            (key(2), place("p", "q"), &sealed),
            (key(1), place("p", "r"), &sealed),
            (key(1), place("o", "q"), &sealed),
            (key(1), place("p", "q").topic(), &sealed),
            (key(1), place("p", "q"), &later),
        ] {
            assert_eq!(opened(&key, &at, sealed), Err(Shut::Changed));
        }
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        let at = place("p", "q");
        let sealed = key(1).seal_body(&at, "1", NOW).unwrap();
        let (head, text) = sealed.rsplit_once(' ').unwrap();
        let bytes = STANDARD_NO_PAD.decode(text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = format!("{head} {}", STANDARD_NO_PAD.encode(bad));
            assert_eq!(opened(&key(1), &at, &bad), Err(Shut::Changed), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(opened(&key(1), &at, &sealed[..len]).is_err(), "{len}");
        }
        // What a client can post is JSON, and no JSON passes for a sealed text, or the other way.
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&sealed).is_err());
        for plain in ["1", "\"~1 q 1 AAAA\"", "{}", " ~1 q 1 AAAA", "null"] {
            assert_eq!(opened(&key(1), &at, plain), Err(Shut::Plain), "{plain}");
        }
    }

    #[test]
    fn a_record_is_tied_to_its_name_and_its_end() {
        let record = Record {
            kind: RecordKind::Pool,
            owner: String::new(),
            name: "a".to_owned(),
            value: "redis://:hush@db".to_owned(),
            until: NEVER,
        };
        let kept = Record { value: key(1).seal_record(&record).unwrap(), ..record.clone() };
        assert_eq!(key(1).open_record(&kept).unwrap(), record.value);
        for moved in [
            Record { kind: RecordKind::Subscription, ..kept.clone() },
            Record { owner: "p/q".to_owned(), ..kept.clone() },
            Record { name: "b".to_owned(), ..kept.clone() },
            Record { until: NEVER - 1, ..kept.clone() },
        ] {
            assert_eq!(key(1).open_record(&moved), Err(Shut::Changed));
        }
        assert_eq!(key(1).open_record(&record), Err(Shut::Plain));
    }
}
