//! Fixed-size identifiers: key ids, session ids, message ids, digests.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// From exactly [`Self::LEN`] bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identifier!(
    /// Names a key: random, unique by a database constraint, never derived from a name
    /// (protocol section 2).
    Kid, 8
);
identifier!(
    /// Names a session: the first 16 bytes of the digest of its signed offer, computed by both
    /// sides and never chosen (protocol section 3).
    SessionId, 16
);
identifier!(
    /// Names a message (CWT claim `cti`), made by the hedged rule of protocol section 3.
    MessageId, 16
);
identifier!(
    /// Names an enrolment token: random, and no secret (protocol section 10).
    TokenId, 16
);
identifier!(
    /// A SHA-256 digest, for instance of a request envelope.
    Digest, 32
);

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    /// SHA-256 of `parts` one behind the other.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        Self::from_hash(context.finish())
    }

    fn from_hash(hash: aws_lc_rs::digest::Digest) -> Self {
        let mut out = [0; 32];
        out.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Self(out)
    }
}
