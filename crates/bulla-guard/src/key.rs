//! What names a claim: where a message was consumed, who sent it, and its id.

use std::fmt;
use std::sync::Arc;

use bulla_seal::{GroupName, MessageId, Party};

use crate::cbor::{self, Reader, Sink};

const SCOPE_LABEL: &str = "bulla/1 scope";
const KEY_LABEL: &str = "bulla/1 claim";

/// What a message was consumed from (protocol section 7): the same message is claimed once per
/// scope, so a fanout runs once on every server, and a message moved to another queue by the
/// broker does not pass for a duplicate there.
///
/// Cheap to clone. Build it once per consumer, not per message.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<[u8]>);

impl Scope {
    /// The queue that the servers of `audience` share for `topic`.
    pub fn shared(audience: &Party, topic: &str) -> Self {
        Self::build(audience, topic, None, None)
    }

    /// The queue of one `server` of the topic.
    pub fn server(audience: &Party, topic: &str, server: &str) -> Self {
        Self::build(audience, topic, Some(server), None)
    }

    /// What `server` gets of the fanouts to `group`.
    pub fn fanout(audience: &Party, topic: &str, server: &str, group: &GroupName) -> Self {
        Self::build(audience, topic, Some(server), Some(group.as_str()))
    }

    fn build(audience: &Party, topic: &str, server: Option<&str>, group: Option<&str>) -> Self {
        let mut out = Vec::with_capacity(64);
        cbor::array(&mut out, 6);
        cbor::text(&mut out, SCOPE_LABEL);
        cbor::text(&mut out, audience.principal.as_str());
        cbor::uint(&mut out, audience.incarnation.into());
        cbor::text(&mut out, topic);
        cbor::text_or_null(&mut out, server);
        cbor::text_or_null(&mut out, group);
        Self(out.into())
    }

    /// The deterministic CBOR array that stands for it: label, audience, its incarnation, topic,
    /// server or null, group or null.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = Reader::new(&self.0);
        let _ = (reader.array(), reader.text());
        write!(f, "Scope({}", reader.text().unwrap_or_default())?;
        write!(f, "#{}", reader.uint().unwrap_or_default())?;
        for _ in 0..3 {
            write!(f, ", {}", reader.text_or_null().flatten().unwrap_or("-"))?;
        }
        f.write_str(")")
    }
}

/// The key of a claim: (scope, sender principal, incarnation, message id), protocol section 7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// What the message was consumed from.
    pub scope: Scope,
    /// The verified sender.
    pub sender: Party,
    /// The authenticated message id.
    pub id: MessageId,
}

impl ClaimKey {
    /// A key from its parts.
    pub fn new(scope: Scope, sender: Party, id: MessageId) -> Self {
        Self { scope, sender, id }
    }

    /// Writes the deterministic CBOR array that stands for it.
    pub(crate) fn encode(&self, out: &mut impl Sink) {
        Self::encode_label(out);
        self.encode_rest(out);
    }

    /// What every key's encoding begins with.
    pub(crate) fn encode_label(out: &mut impl Sink) {
        cbor::array(out, 5);
        cbor::text(out, KEY_LABEL);
    }

    /// What follows the label.
    pub(crate) fn encode_rest(&self, out: &mut impl Sink) {
        cbor::bytes(out, self.scope.as_bytes());
        cbor::text(out, self.sender.principal.as_str());
        cbor::uint(out, self.sender.incarnation.into());
        cbor::bytes(out, self.id.as_bytes());
    }

    /// The encoding as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode(&mut out);
        out
    }

    /// From [`ClaimKey::to_bytes`]; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != 5 || reader.text()? != KEY_LABEL {
            return None;
        }
        let scope = Scope(reader.bytes()?.into());
        let principal = reader.text()?.parse().ok()?;
        let incarnation = u32::try_from(reader.uint()?).ok()?;
        let id = MessageId::from_slice(reader.bytes()?)?;
        reader.is_empty().then(|| Self::new(scope, Party::new(principal, incarnation), id))
    }
}

/// Names one living process that runs handlers. Take a new random one at every start: a claim
/// that an earlier life of the process held is nobody's any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker(pub u64);

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str, incarnation: u32) -> Party {
        Party::new(name.parse().unwrap(), incarnation)
    }

    #[test]
    fn every_part_of_a_scope_counts() {
        let me = party("component/control", 1);
        let group = GroupName::new("all").unwrap();
        let scopes = [
            Scope::shared(&me, "t"),
            Scope::shared(&me, "u"),
            Scope::shared(&party("component/control", 2), "t"),
            Scope::shared(&party("component/other", 1), "t"),
            Scope::server(&me, "t", "s"),
            Scope::server(&me, "t", "r"),
            Scope::fanout(&me, "t", "s", &group),
            Scope::fanout(&me, "t", "r", &group),
            Scope::fanout(&me, "t", "s", &GroupName::new("some").unwrap()),
        ];
        for (i, a) in scopes.iter().enumerate() {
            for (j, b) in scopes.iter().enumerate() {
                assert_eq!(a == b, i == j, "{a:?} {b:?}");
            }
        }
        assert_eq!(format!("{:?}", scopes[6]), "Scope(component/control#1, t, s, all)");
    }

    #[test]
    fn a_key_round_trips_and_nothing_else_parses() {
        let scope = Scope::server(&party("agent/a", 1), "guest", "a");
        let key = ClaimKey::new(scope, party("component/control", 300), MessageId([7; 16]));
        let bytes = key.to_bytes();
        assert_eq!(ClaimKey::from_bytes(&bytes), Some(key));
        for cut in 0..bytes.len() {
            assert_eq!(ClaimKey::from_bytes(&bytes[..cut]), None);
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(ClaimKey::from_bytes(&longer), None);
        // The label's length in one byte more than it needs.
        let (first, rest) = bytes.split_at(1);
        let wider = [first, &[0x78, rest[0] & 0x1f], &rest[1..]].concat();
        assert_eq!(ClaimKey::from_bytes(&wider), None);
    }
}
