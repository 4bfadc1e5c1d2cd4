//! Trove's serializer: read from and written to peers that have nothing better, through exemptions alone.
//!
//! Each argument, the result and the context are encrypted by themselves ([`LegacyKey`]). Method, version,
//! namespace, names of arguments and failures are in clear, and nothing is authenticated. What this does
//! about it is little: every value has to open and to be JSON, the label has to name the peer whose key
//! opens it, nothing in clear stands beside what is encrypted, no value and no context is taken twice in a
//! day, and whoever fails learns nothing. What it can't do: whoever has the broker can hold a message back
//! and deliver it once with another method's name, or other arguments' names, or altered values.

mod cipher;
mod file;
mod seen;

use std::collections::HashMap;
use std::sync::Arc;

use bulla_seal::{Principal, Refusal};
use serde_json::{Map, Value};
use subtle::Choice;

pub use cipher::{BadKey, LegacyKey};
pub use file::{LegacyFile, LegacyFileError};

use crate::digest::{self, Digest};
use crate::wire::{PlainRequest, json};
use cipher::Opened;
use seen::Seen;

/// Names the guest whose key encrypted.
const LABEL: &str = "csz-instance-id";
const CONTEXT: &str = "context";
const ENTITY: &str = "entity";

/// Whose key has which label: guests of one Trove, by their instance's id.
pub trait GuestKeys: Send + Sync + 'static {
    /// The agent that an instance is, and its key.
    fn guest(&self, instance: &str) -> Option<(Principal, Arc<LegacyKey>)>;
}

impl GuestKeys for HashMap<String, (Principal, Arc<LegacyKey>)> {
    fn guest(&self, instance: &str) -> Option<(Principal, Arc<LegacyKey>)> {
        self.get(instance).cloned()
    }
}

/// A request whose values were opened.
pub(crate) struct Decrypted {
    pub(crate) args: Map<String, Value>,
    pub(crate) context: Map<String, Value>,
    /// Over what was encrypted of the context: a request has one of its own.
    pub(crate) digest: Digest,
}

/// Which of Trove's two forms a request has.
pub(crate) enum Shape<'a> {
    /// One key for both ends.
    Secure { context: &'a str },
    /// A guest's, which says whose.
    Guest { label: &'a str, context: &'a str },
}

/// The form of a request, by its context; `None` is neither.
pub(crate) fn shape(request: &PlainRequest) -> Option<Shape<'_>> {
    let text = |name: &str| request.context.get(name).and_then(Value::as_str);
    match (text(CONTEXT), text(LABEL), request.context.len()) {
        (Some(context), None, 1) => Some(Shape::Secure { context }),
        (Some(context), Some(label), 2) => Some(Shape::Guest { label, context }),
        _ => None,
    }
}

/// Opens requests, and remembers what was in them.
#[derive(Default)]
pub(crate) struct Reader {
    seen: Seen,
}

impl Reader {
    /// Opens every value of a request before it looks at whether one of them failed.
    pub(crate) fn open(
        &self,
        request: &PlainRequest,
        (key, label): (&LegacyKey, Option<&str>),
        context: &str,
        now: u64,
    ) -> Result<Decrypted, Refusal> {
        let mut all = All { key, ok: Choice::from(1), marks: Vec::new() };
        let opened = all.value(Some(context));
        let of = all.marks.first().copied();
        let mut args = Map::new();
        for (name, value) in &request.args {
            let value = all.value(entity(value, label).as_deref());
            args.insert(name.clone(), value);
        }
        let (Value::Object(context), true, Some(of)) = (opened, bool::from(all.ok), of) else {
            return Err(Refusal::NotAuthentic);
        };
        let [_, values @ ..] = all.marks.as_slice() else { return Err(Refusal::NotAuthentic) };
        if !self.seen.note(values, of, now) {
            return Err(Refusal::NotAuthentic);
        }
        Ok(Decrypted { args, context, digest: digest::of("legacy", &[&of]) })
    }
}

/// The encrypted text of an argument, which a guest's has beside its label.
fn entity(value: &Value, label: Option<&str>) -> Option<String> {
    let text = value.as_str()?;
    let Some(label) = label else { return Some(text.to_owned()) };
    let Ok(Value::Object(members)) = json::value(text) else { return None };
    let same = members.get(LABEL).and_then(Value::as_str) == Some(label) && members.len() == 2;
    members.get(ENTITY).and_then(Value::as_str).filter(|_| same).map(str::to_owned)
}

struct All<'a> {
    key: &'a LegacyKey,
    ok: Choice,
    marks: Vec<[u8; 16]>,
}

impl All<'_> {
    /// One value; null if anything is wrong with it, which is only noted.
    fn value(&mut self, text: Option<&str>) -> Value {
        let opened = text.and_then(|text| self.key.open(text));
        let value = opened.as_ref().map(Opened::value).unwrap_or_default();
        let parsed = std::str::from_utf8(value).ok().and_then(|text| json::value(text).ok());
        let padded = opened.as_ref().map_or(Choice::from(0), Opened::ok);
        self.ok &= padded & Choice::from(u8::from(parsed.is_some()));
        let mark =
            opened.map_or(digest::Digest([0; 32]), |opened| digest::of("value", &[&opened.mark]));
        self.marks.push(digest::short(mark));
        parsed.unwrap_or_default()
    }
}

/// Encrypts arguments and context as Trove's control plane does; `None` if the machine has no random
/// bytes.
pub(crate) fn encrypt(
    key: &LegacyKey,
    args: &Map<String, Value>,
    context: &Map<String, Value>,
) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let sealed = |value: &Value| key.seal(value.to_string().as_bytes()).map(Value::String);
    let args = args.iter().map(|(name, value)| Some((name.clone(), sealed(value)?)));
    let context = sealed(&Value::Object(context.clone()))?;
    Some((args.collect::<Option<_>>()?, Map::from_iter([(CONTEXT.to_owned(), context)])))
}

/// Encrypts a result.
pub(crate) fn encrypt_result(key: &LegacyKey, result: &Value) -> Option<Value> {
    key.seal(result.to_string().as_bytes()).map(Value::String)
}

/// Opens the result of a call to a peer.
pub(crate) fn decrypt_result(key: &LegacyKey, result: &Value) -> Option<Value> {
    let opened = key.open(result.as_str()?)?;
    let parsed = std::str::from_utf8(opened.value()).ok().and_then(|text| json::value(text).ok());
    parsed.filter(|_| bool::from(opened.ok()))
}

/// Opens a key as Trove's database has it, under the key that wraps all of them there.
pub fn unwrap_key(stored: &str, wrapping: &LegacyKey) -> Option<zeroize::Zeroizing<String>> {
    let opened = wrapping.open(stored)?;
    let text = String::from_utf8(opened.value().to_vec()).ok().map(zeroize::Zeroizing::new);
    text.filter(|text| bool::from(opened.ok()) && !text.is_empty())
}
