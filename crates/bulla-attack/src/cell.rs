//! The matrix: which key type, which kind of message.

use std::fmt;

use serde::Serialize;

/// What sort of keys the agents hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// A key pair of their own.
    Pair,
    /// One symmetric key that the keystore holds too.
    Shared,
}

impl KeyType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pair, Self::Shared];
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pair => "key pair",
            Self::Shared => "shared key",
        })
    }
}

/// What sort of message is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A request that is answered.
    Call,
    /// A request that is not answered.
    Cast,
    /// A request to a group.
    Fanout,
    /// An answer.
    Reply,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Call, Self::Cast, Self::Fanout, Self::Reply];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::Cast => "cast",
            Self::Fanout => "fanout",
            Self::Reply => "reply",
        })
    }
}

/// One place of the matrix, on one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// The agents' key type.
    pub key: KeyType,
    /// The kind of message.
    pub kind: Kind,
}

impl Cell {
    /// Every place.
    pub fn all() -> impl Iterator<Item = Self> {
        KeyType::ALL.into_iter().flat_map(|key| Kind::ALL.map(|kind| Self { key, kind }))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.kind, self.key)
    }
}
