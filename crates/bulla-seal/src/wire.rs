//! The small closed sets that appear in headers: suite, kind of message, level, outcome.

use std::fmt;
use std::str::FromStr;

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value),+ }

        impl $name {
            /// Every value, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The integer on the wire.
            pub const fn to_wire(self) -> u8 {
                self as u8
            }

            /// From the integer on the wire.
            pub const fn from_wire(value: u64) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName { known: &[$($text),+] }),
                }
            }
        }
    };
}

/// A name outside a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown name; known are: {}", known.join(", "))]
pub struct UnknownName {
    known: &'static [&'static str],
}

wire_enum!(
    /// How a session secret comes about (protocol sections 2 and 3).
    Suite {
        /// No key encapsulation: the pair key of a shared-key agent.
        Shared = 0 => "shared",
        /// HPKE with DHKEM(X25519, HKDF-SHA256).
        X25519 = 1 => "x25519",
        /// HPKE with X-Wing: X25519 and ML-KEM-768 together.
        XWing = 2 => "x-wing",
    }
);

wire_enum!(
    /// What a message is for.
    MessageKind {
        /// A request that is answered.
        Call = 1 => "call",
        /// A request that is not answered.
        Cast = 2 => "cast",
        /// An event for one component or a group.
        Notification = 3 => "notification",
        /// A request to every member of a group.
        Fanout = 4 => "fanout",
        /// An answer to a call.
        Reply = 5 => "reply",
    }
);

wire_enum!(
    /// How well a message is protected, in rising order (protocol section 8).
    Level {
        /// Not at all.
        Plaintext = 0 => "plaintext",
        /// Trove's AES-CBC serializer.
        AesCbc = 1 => "aes-cbc",
        /// Authenticated but readable (protocol section 5).
        Signed = 2 => "signed",
        /// Encrypted and authenticated; the default.
        Sealed = 3 => "sealed",
    }
);

wire_enum!(
    /// What a reply carries (protocol section 4).
    Outcome {
        /// The result; final.
        Value = 1 => "value",
        /// A failure; final.
        Error = 2 => "error",
        /// A sign of progress of a long call; more follows.
        Progress = 3 => "progress",
    }
);

impl Outcome {
    /// Whether a stream of replies ends with this one.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Progress)
    }
}

impl MessageKind {
    /// Whether this is a request (anything but a reply).
    pub const fn is_request(self) -> bool {
        !matches!(self, Self::Reply)
    }
}

/// The suites that a credential's holder accepts (protocol section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SuiteSet(u8);

impl SuiteSet {
    /// No suite.
    pub const EMPTY: Self = Self(0);

    /// A set of one.
    pub const fn only(suite: Suite) -> Self {
        Self(1 << suite.to_wire())
    }

    /// Every suite with a key encapsulation: what credentials may name.
    pub const fn all() -> Self {
        Self((1 << Suite::X25519.to_wire()) | (1 << Suite::XWing.to_wire()))
    }

    /// Every suite with a key encapsulation, and shared keys: for receivers that take all.
    pub const fn any() -> Self {
        Self::all().with(Suite::Shared)
    }

    /// This set and `suite`.
    #[must_use]
    pub const fn with(self, suite: Suite) -> Self {
        Self(self.0 | 1 << suite.to_wire())
    }

    /// Whether `suite` is in the set.
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & (1 << suite.to_wire()) != 0
    }

    /// Whether every suite of `other` is in this set.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The strongest suite that both sets hold.
    pub fn best_common(self, other: Self) -> Option<Suite> {
        Suite::ALL.iter().rev().copied().find(|s| self.contains(*s) && other.contains(*s))
    }

    /// The bits on the wire: bit n stands for suite n.
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// From the bits on the wire; unknown bits are kept out (`None`).
    pub const fn from_wire(bits: u64) -> Option<Self> {
        if bits & !(Self::all().0 as u64) != 0 { None } else { Some(Self(bits as u8)) }
    }
}
