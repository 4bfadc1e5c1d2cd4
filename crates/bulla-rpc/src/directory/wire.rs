//! The methods by which the control plane's directory is asked, version 1.0 of namespace
//! `directory`, and what they take and give. Binary values are base64, kids 16 hexadecimal
//! digits.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_seal::{Kid, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Their namespace.
pub const NAMESPACE: &str = "directory";
/// How to seal to a principal: [`PeerArgs`] to [`PeerAnswer`] or nothing.
pub const PEER: &str = "peer";
/// Which pair key a kid names: [`PairArgs`] to [`PeerAnswer`] or nothing.
pub const PAIR: &str = "pair";
/// The groups that the asking principal is in: [`GroupsArgs`] to a list of names.
pub const GROUPS: &str = "groups";
/// The groups that a principal is in: [`PeerArgs`] to a list of names. Agents ask about components
/// and themselves.
pub const GROUPS_OF: &str = "groups_of";
/// A group's key: [`GroupKeyArgs`] to [`GroupKeyAnswer`] or nothing.
pub const GROUP_KEY: &str = "group_key";

/// The newest statement of revocation: [`StatementArgs`] to [`StatementAnswer`].
pub const STATEMENT: &str = "statement";

/// Roots that followed, and the issuers: [`TrustArgs`] to [`TrustAnswer`].
pub const TRUST: &str = "trust";

/// What is said of policies, if it is newer than what is held: [`PolicyArgs`] to [`PolicyAnswer`].
pub const POLICY: &str = "policy";

/// What the policy in the shadow would have decided otherwise: [`DifferencesArgs`] to
/// [`DifferencesAnswer`].
pub const POLICY_DIFFERENCES: &str = "policy_differences";

/// What is held by who asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyArgs {
    /// The sequence of the document; 0 for none.
    pub held: u64,
}

/// A document as signed, if there is a newer one: it proves itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Differences that were counted since the last report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DifferencesArgs {
    /// The sequence of the document whose policies were compared.
    pub sequence: u64,
    /// At most [`MAX_DIFFERENCES`].
    pub differences: Vec<DifferenceText>,
}

/// Most differences in one report.
pub const MAX_DIFFERENCES: usize = 2048;

/// One of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DifferenceText {
    /// Whose requests; empty for those that were too many to tell apart.
    pub sender: String,
    /// What they asked for.
    pub method: String,
    /// Whether the active policy allows them.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: String,
    /// The rule of the policy in the shadow.
    pub shadow_rule: String,
    /// How often.
    pub count: u64,
}

/// The report was taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DifferencesAnswer {
    /// How many differences were news.
    pub noted: u64,
}

/// What is trusted by who asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustArgs {
    /// The sequence of its root.
    pub root: u32,
}

/// What follows; all of it proves itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The announcements of later roots, oldest first, at most 16.
    #[serde(default)]
    pub announcements: Vec<String>,
    /// Issuers' credentials, signed by the newest root.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// Credentials of peers to know: the control plane's newest.
    #[serde(default)]
    pub peers: Vec<String>,
}

/// Nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StatementArgs {}

/// A statement of revocation as signed: it proves itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatementAnswer {
    /// Base64.
    pub statement: String,
}

/// Whom to look up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerArgs {
    /// `agent/<id>` or `component/<type>`.
    pub principal: String,
}

/// Which pair key to look up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PairArgs {
    /// Its name.
    pub kid: String,
}

/// Nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GroupsArgs {}

/// Which group key to look up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupKeyArgs {
    /// The group's bare name.
    pub group: String,
    /// Its epoch; the newest if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
}

/// How to seal to a peer: a credential, or a pair key. Of a pair key, a component gets the key; an
/// agent gets its name and epoch and derives the key itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// The peer of a pair key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The credential as signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The pair key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The pair key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyText>,
    /// The peer's incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u32>,
    /// The pair epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
}

/// A group's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupKeyAnswer {
    /// Its epoch.
    pub epoch: u32,
    /// The key.
    pub key: KeyText,
}

/// A key as text, wiped when dropped and never printed.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// From a key.
    pub fn new(key: &Secret<32>) -> Self {
        Self(Zeroizing::new(BASE64.encode(key.expose())))
    }

    /// The key; `None` if this is not the base64 of 32 bytes.
    pub fn key(&self) -> Option<Secret<32>> {
        let bytes = Zeroizing::new(BASE64.decode(self.0.as_bytes()).ok()?);
        Secret::from_slice(&bytes)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(..)")
    }
}

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A credential as signed, as text.
pub fn credential_text(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The statement in a text; `None` if it is not base64.
pub fn statement_bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// The credential in a text; `None` if it is not base64.
pub fn credential_bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// The kid in a text; `None` if it is not 16 hexadecimal digits.
pub fn kid(text: &str) -> Option<Kid> {
    if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(|n| Kid(n.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn answers_round_trip_and_print_no_key() {
        let answer = PeerAnswer {
            kid: Some(Kid([9; 8]).to_string()),
            key: Some(KeyText::new(&Secret::new([0x41; 32]))),
            incarnation: Some(2),
            epoch: Some(3),
            ..PeerAnswer::default()
        };
        let bytes = value::to_vec(&Some(&answer)).unwrap();
        let back: Option<PeerAnswer> = value::decode(&bytes).unwrap();
        let back = back.unwrap();
        assert_eq!(kid(&back.kid.clone().unwrap()), Some(Kid([9; 8])));
        assert!(back.key.as_ref().unwrap().key().unwrap().ct_eq(&Secret::new([0x41; 32])));
        assert_eq!((back.incarnation, back.epoch, &back.credential), (Some(2), Some(3), &None));
        assert!(!format!("{back:?}").contains("QUFB"), "{back:?}");
        let nothing = value::to_vec(&None::<PeerAnswer>).unwrap();
        assert!(value::decode::<Option<PeerAnswer>>(&nothing).unwrap().is_none());
        value::decode::<GroupsArgs>(&value::to_vec(&GroupsArgs {}).unwrap()).unwrap();
        assert_eq!(kid("+123456789abcdef"), None);
    }
}
