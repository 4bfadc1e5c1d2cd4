//! A queue's metadata: what of it means something here, and how it is changed.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::limits::Limits;
use crate::require::{REQUIRE, Require};
use crate::store::Metadata;

pub(crate) const TTL: &str = "_default_message_ttl";
pub(crate) const DELAY: &str = "_default_message_delay";
pub(crate) const POST_SIZE: &str = "_max_messages_post_size";
pub(crate) const DEAD_LETTER: &str = "_dead_letter_queue";
pub(crate) const DEAD_LETTER_TTL: &str = "_dead_letter_queue_messages_ttl";
pub(crate) const MAX_CLAIMS: &str = "_max_claim_count";
pub(crate) const FLAVOR: &str = "_flavor";
pub(crate) const ENCRYPT: &str = "_enable_encrypt_messages";

/// What a queue's metadata mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long a message lives that does not say, in seconds.
    pub ttl: Option<u32>,
    /// How long one is held back that does not say, in seconds; messages may say so only if this is
    /// set.
    pub delay: Option<u32>,
    /// Largest body of a request that posts messages, in bytes.
    pub max_post: Option<usize>,
    /// Where messages go that were claimed too often, and how long they live there.
    pub dead_letter: Option<DeadLetter>,
    /// What messages have to be.
    pub require: Option<Require>,
}

/// Where messages go that were claimed too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue of the same project.
    pub queue: String,
    /// How often a message is claimed at the most.
    pub max_claims: u32,
    /// How long it lives there, in seconds; as long as it would have unless set.
    pub ttl: Option<u32>,
}

impl Settings {
    /// From metadata that were checked.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
        let small = |key: &str| number(key).and_then(|n| u32::try_from(n).ok());
        let dead_letter = metadata.get(DEAD_LETTER).and_then(Value::as_str);
        let dead_letter = dead_letter.zip(small(MAX_CLAIMS).filter(|max| *max > 0));
        Self {
            ttl: small(TTL),
            delay: small(DELAY).filter(|delay| *delay > 0),
            max_post: number(POST_SIZE).and_then(|n| usize::try_from(n).ok()),
            dead_letter: dead_letter.map(|(queue, max_claims)| DeadLetter {
                queue: queue.to_owned(),
                max_claims,
                ttl: small(DEAD_LETTER_TTL),
            }),
            require: metadata.get(REQUIRE).and_then(Value::as_str).and_then(Require::parse),
        }
    }
}

/// The metadata as they are shown: what is reserved has its default.
#[must_use]
pub(crate) fn shown(metadata: &Metadata, limits: &Limits) -> Metadata {
    let mut shown = Map::new();
    for (key, default) in [
        (POST_SIZE, json!(limits.max_post)),
        (TTL, json!(limits.default_message_ttl)),
        (DELAY, json!(0)),
        (DEAD_LETTER, Value::Null),
        (DEAD_LETTER_TTL, Value::Null),
        (MAX_CLAIMS, Value::Null),
        (ENCRYPT, json!(false)),
    ] {
        shown.insert(key.to_owned(), default);
    }
    for (key, value) in metadata {
        // One that is reserved and null is not set.
        if !value.is_null() || !shown.contains_key(key) {
            shown.insert(key.clone(), value.clone());
        }
    }
    shown
}

/// Whether reserved values can be; otherwise why not.
///
/// # Errors
/// One can't.
pub(crate) fn check(metadata: &Metadata, limits: &Limits) -> Result<(), String> {
    let nullable = |key: &str| metadata.get(key).filter(|value| !value.is_null());
    let within = |key: &str, least: u64, most: u64| match nullable(key) {
        None => Ok(()),
        Some(value) => match value.as_u64() {
            Some(n) if (least..=most).contains(&n) => Ok(()),
            _ => Err(format!("{key} must be a whole number from {least} to {most}.")),
        },
    };
    let (ttl, delay) = (&limits.message_ttl, &limits.delay);
    within(TTL, (*ttl.start()).into(), (*ttl.end()).into())?;
    within(DELAY, (*delay.start()).into(), (*delay.end()).into())?;
    within(POST_SIZE, 1, limits.max_post as u64)?;
    within(MAX_CLAIMS, 1, u64::from(u32::MAX))?;
    within(DEAD_LETTER_TTL, (*ttl.start()).into(), (*ttl.end()).into())?;
    if let Some(queue) = nullable(DEAD_LETTER) {
        let name = queue.as_str().unwrap_or_default();
        if crate::name::Place::new("".into(), name, limits).is_none() {
            return Err(format!("{DEAD_LETTER} must be the name of a queue."));
        }
    }
    crate::retry::check(metadata)?;
    if let Some(require) = nullable(REQUIRE)
        && require.as_str().and_then(Require::parse).is_none()
    {
        return Err(format!("{REQUIRE} must be \"signed\" or \"sealed\"."));
    }
    match nullable(ENCRYPT) {
        None | Some(Value::Bool(false)) => Ok(()),
        // A key that the server holds would protect nothing from it: sealed messages do.
        Some(Value::Bool(true)) => Err(format!("{ENCRYPT} is not offered here: seal messages.")),
        Some(_) => Err(format!("{ENCRYPT} must be true or false.")),
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Add(String, Value),
    Default(String, Value),
    Replace(String, Value),
    Remove(String),
}

/// Changes of a queue's metadata, and the limits that the outcome has to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    changes: Vec<Change>,
    limits: Limits,
}

/// Why metadata can't be changed so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchFault {
    /// What is to be replaced or removed is not there.
    Missing(String),
    /// A reserved value can't be.
    Value(String),
}

#[derive(Deserialize)]
struct Step {
    op: String,
    path: String,
    /// One that is null is there, too (RFC 6902).
    #[serde(default, deserialize_with = "there")]
    value: Option<Value>,
}

fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Patch {
    /// From the body of a request: an array of `{op, path, value}`.
    ///
    /// # Errors
    /// It can't be one; says why.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, String> {
        let steps: Vec<Value> = serde_json::from_slice(body)
            .map_err(|_| "The body must be a JSON array of changes.".to_owned())?;
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            let step: Step = serde_json::from_value(step)
                .map_err(|_| "A change needs the texts `op` and `path`.".to_owned())?;
            let key = step.path.strip_prefix("/metadata/").filter(|key| !key.is_empty());
            let key = key.filter(|key| !key.contains('/')).ok_or_else(|| {
                format!("The path {:?} is not of the form /metadata/KEY.", step.path)
            })?;
            let key = key.replace("~1", "/").replace("~0", "~");
            let value = || {
                let missing = || format!("The change of {:?} has no `value`.", step.path);
                step.value.clone().ok_or_else(missing)
            };
            changes.push(match step.op.as_str() {
                "add" => Change::Add(key, value()?),
                "replace" => Change::Replace(key, value()?),
                "remove" => Change::Remove(key),
                op => return Err(format!("The op {op:?} is none of add, replace and remove.")),
            });
        }
        Ok(Self { changes, limits: limits.clone() })
    }

    /// What it sets a key to, at the end.
    pub(crate) fn value(&self, of: &str) -> Option<&Value> {
        self.changes.iter().rev().find_map(|change| match change {
            Change::Add(key, value) | Change::Replace(key, value) if key == of => Some(value),
            _ => None,
        })
    }

    /// Whether it changes a key.
    pub(crate) fn concerns(&self, of: &str) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Add(key, _)
            | Change::Default(key, _)
            | Change::Replace(key, _)
            | Change::Remove(key) => key == of,
        })
    }

    /// One that says something where nothing is said yet, so that of many only the first counts.
    pub(crate) fn default(key: &str, value: Value, limits: &Limits) -> Self {
        Self { changes: vec![Change::Default(key.to_owned(), value)], limits: limits.clone() }
    }

    /// The metadata after it.
    ///
    /// # Errors
    /// They can't be changed so.
    pub fn apply(&self, metadata: &Metadata) -> Result<Metadata, PatchFault> {
        let mut changed = metadata.clone();
        let reserved = |key: &str| shown(&Map::new(), &self.limits).contains_key(key);
        for change in &self.changes {
            match change {
                Change::Add(key, value) => {
                    changed.insert(key.clone(), value.clone());
                }
                Change::Default(key, value) => {
                    let said = changed.get(key).and_then(Value::as_str);
                    if said.is_none_or(str::is_empty) {
                        changed.insert(key.clone(), value.clone());
                    }
                }
                Change::Replace(key, value) => {
                    if !changed.contains_key(key) && !reserved(key) {
                        return Err(PatchFault::Missing(key.clone()));
                    }
                    changed.insert(key.clone(), value.clone());
                }
                Change::Remove(key) => {
                    if changed.shift_remove(key).is_none() && !reserved(key) {
                        return Err(PatchFault::Missing(key.clone()));
                    }
                }
            }
        }
        check(&changed, &self.limits).map_err(PatchFault::Value)?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Metadata {
        value.as_object().unwrap().clone()
    }

    fn patch(steps: Value) -> Result<Patch, String> {
        Patch::parse(steps.to_string().as_bytes(), &Limits::default())
    }

    #[test]
    fn reserved_values_have_bounds() {
        let limits = Limits::default();
        let fits = |value: Value| check(&map(value), &limits).is_ok();
        assert!(fits(json!({ "a": { "b": 1 }, TTL: 60, DELAY: 0, POST_SIZE: 262_144 })));
        assert!(fits(json!({ MAX_CLAIMS: null, DEAD_LETTER: null, ENCRYPT: false })));
        assert!(fits(json!({ TTL: null, DELAY: null, POST_SIZE: null, ENCRYPT: null })));
        for bad in [
            json!({ TTL: 59 }),
            json!({ TTL: 1_209_601 }),
            json!({ TTL: "60" }),
            json!({ DELAY: 901 }),
            json!({ DELAY: -1 }),
            json!({ POST_SIZE: 0 }),
            json!({ POST_SIZE: 262_145 }),
            json!({ MAX_CLAIMS: 0 }),
            json!({ DEAD_LETTER: "a b" }),
            json!({ ENCRYPT: true }),
            json!({ ENCRYPT: 1 }),
            json!({ REQUIRE: "secret" }),
            json!({ REQUIRE: true }),
        ] {
            assert!(!fits(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn changes_are_made_in_turn_or_not_at_all() {
        let before = map(json!({ "a": 1, "b": 2 }));
        let steps = json!([
            { "op": "replace", "path": "/metadata/a", "value": 3 },
            { "op": "add", "path": "/metadata/c", "value": [1] },
            { "op": "remove", "path": "/metadata/b" },
            { "op": "remove", "path": "/metadata/_default_message_ttl" },
        ]);
        let after = patch(steps).unwrap().apply(&before).unwrap();
        assert_eq!(Value::Object(after), json!({ "a": 3, "c": [1] }));
        // Null is a value; of what is reserved it means the default.
        let null = json!([
            { "op": "add", "path": "/metadata/c", "value": null },
            { "op": "replace", "path": "/metadata/a", "value": null },
            { "op": "add", "path": "/metadata/_default_message_ttl", "value": null },
        ]);
        let after = patch(null).unwrap().apply(&before).unwrap();
        assert_eq!(after["a"], Value::Null);
        assert!(after.contains_key("c") && after["c"].is_null());
        let shown = shown(&after, &Limits::default());
        assert_eq!((&shown[TTL], &shown["c"]), (&json!(3600), &Value::Null));
        let missing = patch(json!([{ "op": "replace", "path": "/metadata/x", "value": 1 }]));
        assert_eq!(missing.unwrap().apply(&before), Err(PatchFault::Missing("x".into())));
        let bad = patch(json!([{ "op": "add", "path": "/metadata/_max_claim_count", "value": 0 }]));
        assert!(matches!(bad.unwrap().apply(&before), Err(PatchFault::Value(_))));
        for bad in [
            json!({ "op": "add" }),
            json!([{ "op": "move", "path": "/metadata/a" }]),
            json!([{ "op": "add", "path": "/metadata/a" }]),
            json!([{ "op": "add", "path": "/a", "value": 1 }]),
            json!([{ "op": "add", "path": "/metadata/a/b", "value": 1 }]),
            json!([1]),
        ] {
            assert!(patch(bad.clone()).is_err(), "{bad}");
        }
    }
}
