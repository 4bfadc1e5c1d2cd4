//! Switches for proving that the attack suite can fail.
//!
//! Every check that an attack of `bulla attack` runs into has a name here. In every ordinary build
//! [`off`] is the constant `false` and the switches do not exist. In one build for tests, made with
//! `--cfg bulla_mutants` (never a feature of Cargo, never read from the environment), single checks
//! can be switched off while the program runs, and a kept test shows each attack get through then.
//!
//! Some switches do more than skip a comparison: they put the mistake in the place of the check
//! that other systems made, such as taking what does not decrypt as it came.

#[cfg(not(bulla_mutants))]
use std::ops::Deref;

macro_rules! checks {
    ($($(#[$doc:meta])+ $name:ident => $text:literal,)+) => {
        /// A check that stands in the way of an attack.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Check {
            $($(#[$doc])+ $name,)+
        }

        impl Check {
            /// Every check.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

checks! {
    /// The content is encrypted.
    Encryption => "encryption",
    /// The tag of the cipher is compared.
    AeadTag => "aead-tag",
    /// What does not open is refused, and not taken as it came.
    NoFallback => "no-fallback",
    /// Bytes that are no frame are refused, and not read as a message in the clear.
    NoPlaintext => "no-plaintext",
    /// The header goes into the key and the tag.
    HeaderBound => "header-bound",
    /// The kind of message goes into the key and the tag.
    KindBound => "kind-bound",
    /// The exchange goes into the key and the tag.
    ExchangeBound => "exchange-bound",
    /// The topic goes into the key and the tag.
    TopicBound => "topic-bound",
    /// The server goes into the key and the tag.
    ServerBound => "server-bound",
    /// The audience goes into the key and the tag.
    AudienceBound => "audience-bound",
    /// A reply's key and tag hold its request's digest.
    RequestBound => "request-bound",
    /// Requests and replies, and each order of two parties, have keys of their own.
    Directions => "directions",
    /// A message's id, and so its key, comes from its content too.
    HedgedId => "hedged-id",
    /// Every agent has keys of its own.
    KeyPerAgent => "key-per-agent",
    /// The sender is whom the key belongs to, and not whom the header names.
    SenderName => "sender-name",
    /// The receiver is the one that the place stands for.
    Audience => "audience",
    /// A queue takes its own kind of message.
    QueueKind => "queue-kind",
    /// A suite that the receiver does not accept is refused.
    SuiteAllowed => "suite-allowed",
    /// A level below what the place demands is refused.
    LevelAllowed => "level-allowed",
    /// A reply below its request's level is refused.
    ReplyLevel => "reply-level",
    /// Issue and expiry of a message are judged.
    MessageTimes => "message-times",
    /// A message may not live longer than a day.
    Lifetime => "lifetime",
    /// A message must lie within its session's offer.
    OfferWindow => "offer-window",
    /// Issue and expiry of an offer are judged.
    OfferTimes => "offer-times",
    /// An offer's own signature is verified.
    OfferSignature => "offer-signature",
    /// A message names the very offer beside it.
    OfferNamed => "offer-named",
    /// The session's secret is bound to the offer as it was signed.
    OfferBound => "offer-bound",
    /// An offer names this receiver's own key.
    OfferAudience => "offer-audience",
    /// A credential's signature is verified.
    CredentialSignature => "credential-signature",
    /// A credential's issuer is one that the root signed.
    IssuerKnown => "issuer-known",
    /// An issuer signs only what it has the right to.
    IssuerRight => "issuer-right",
    /// A credential is judged by its time.
    CredentialTime => "credential-time",
    /// A lower incarnation or epoch than the highest verified is refused.
    Epoch => "epoch",
    /// A revoked key is refused, and one below the lowest epoch.
    Revoked => "revoked",
    /// A statement of revocation is signed by the revocation issuer.
    StatementSignature => "statement-signature",
    /// A lower statement than the highest verified moves nothing.
    StatementEpoch => "statement-epoch",
    /// An agent acts on components' messages only while it holds a current statement.
    StatementCurrent => "statement-current",
    /// A group's epoch below the statement's is refused.
    GroupEpoch => "group-epoch",
    /// A fanout's signature is verified.
    FanoutSignature => "fanout-signature",
    /// Only components sign fanouts.
    FanoutSigner => "fanout-signer",
    /// A signature inside the seal is demanded where that is configured.
    InnerSignature => "inner-signature",
    /// A reply comes from the principal that was called.
    ReplyParty => "reply-party",
    /// A call ends with its first final reply.
    ReplyOnce => "reply-once",
    /// A reply goes only into the caller's own name space.
    ReplyNameSpace => "reply-name-space",
    /// A reply goes where the sealed request says, and not where the message's properties say.
    ReplyAddress => "reply-address",
    /// A call is sent again with its offer once, however many notices ask for it.
    ResendOnce => "resend-once",
    /// Notices go only into the name space of the sender that they are for.
    NoticeNameSpace => "notice-name-space",
    /// Notices are held to a rate.
    NoticeRate => "notice-rate",
    /// Look-ups of unknown key ids are held to a rate.
    LookupRate => "lookup-rate",
    /// Verifying strangers' offers is held to a rate.
    OfferRate => "offer-rate",
    /// One proven sender's offers are held to a rate.
    SenderRate => "sender-rate",
    /// A frame is at most as large as configured.
    FrameSize => "frame-size",
    /// A content is nested at most so deep.
    Nesting => "nesting",
    /// A header has its own entries and no others.
    ClosedHeader => "closed-header",
    /// Only the one deterministic encoding is taken.
    Canonical => "canonical",
    /// Nothing may come behind a message.
    TrailingBytes => "trailing-bytes",
    /// A length is believed only as far as the bytes are there.
    Lengths => "lengths",
    /// A message runs once.
    ClaimOnce => "claim-once",
    /// A store that began anew refuses what was issued before.
    RestartGate => "restart-gate",
    /// A store refuses what is no younger than what it forgot.
    PurgeMark => "purge-mark",
    /// A sender has a quota of ids.
    SenderQuota => "sender-quota",
    /// No id is forgotten before its time.
    NoEviction => "no-eviction",
    /// A lost run of a method that is not idempotent is not run again.
    TakeOver => "take-over",
    /// The broker's redelivered flag is not looked at.
    FlagIgnored => "flag-ignored",
    /// The policy judges who may run a method.
    Policy => "policy",
    /// Only declared methods run.
    MethodDeclared => "method-declared",
    /// A run is stopped only by who asked for it.
    CancelOwn => "cancel-own",
    /// A refused message is acknowledged away and does not come back.
    RefusedGone => "refused-gone",
    /// Copies of what runs are not all held.
    HeldCopies => "held-copies",
    /// A token's proof stands on a request to join.
    TokenProof => "token-proof",
    /// The token's secret goes into a request's key.
    TokenBound => "token-bound",
    /// A token is good for one request.
    TokenOnce => "token-once",
    /// A token has an end.
    TokenExpiry => "token-expiry",
    /// An announcement of a root is signed by the root that is trusted now.
    RootSignature => "root-signature",
    /// An announcement of a root is signed by the new root too.
    RootConsent => "root-consent",
    /// An older announcement of a root moves nothing.
    RootSequence => "root-sequence",
    /// A gap in a signer's fanouts is noticed.
    FanoutGap => "fanout-gap",
}

/// Whether `check` is switched off: never, in this build.
#[cfg(not(bulla_mutants))]
#[inline(always)]
pub const fn off(_check: Check) -> bool {
    false
}

// No build but that of the mutants has a switch: this would not compile.
#[cfg(not(bulla_mutants))]
const _: () = {
    let mut at = 0;
    while at < Check::ALL.len() {
        #[allow(clippy::indexing_slicing, reason = "at compile time, below the length")]
        {
            assert!(!off(Check::ALL[at]));
        }
        at += 1;
    }
};

/// The structure that a cipher covers: as it is.
#[cfg(not(bulla_mutants))]
#[inline(always)]
pub(crate) fn structure(structure: &[u8]) -> impl Deref<Target = [u8]> {
    structure
}

/// A header: as it is.
#[cfg(not(bulla_mutants))]
#[inline(always)]
pub(crate) fn header(header: &[u8]) -> impl Deref<Target = [u8]> {
    header
}

/// The external AAD of a fanout, as it is signed: as it is.
#[cfg(not(bulla_mutants))]
#[inline(always)]
pub(crate) fn signed_aad(aad: &[u8]) -> impl Deref<Target = [u8]> {
    aad
}

#[cfg(bulla_mutants)]
pub use switches::{MARK, SwitchedOff, off, switch_off};
#[cfg(bulla_mutants)]
pub(crate) use weak::{claimed, header, open_anyway, signed_aad, structure};
#[cfg(bulla_mutants)]
pub use weak::{plaintext_reply, plaintext_request};

#[cfg(bulla_mutants)]
mod switches {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Check;

    static OFF: [AtomicBool; Check::ALL.len()] =
        [const { AtomicBool::new(false) }; Check::ALL.len()];

    /// Stands in every program of this build and in no other.
    pub static MARK: &str = "bulla: built with switches for checks (bulla_mutants)";

    /// Whether `check` is switched off now.
    pub fn off(check: Check) -> bool {
        OFF.get(check as usize).is_some_and(|off| off.load(Ordering::SeqCst))
    }

    /// Switches `checks` off in the whole process until the guard is dropped.
    pub fn switch_off(checks: &[Check]) -> SwitchedOff {
        set(checks, true);
        SwitchedOff(checks.to_vec())
    }

    /// Checks that are off; they are on again when this is dropped.
    #[must_use]
    #[derive(Debug)]
    pub struct SwitchedOff(Vec<Check>);

    impl Drop for SwitchedOff {
        fn drop(&mut self) {
            set(&self.0, false);
        }
    }

    fn set(checks: &[Check], to: bool) {
        for check in checks {
            if let Some(off) = OFF.get(*check as usize) {
                off.store(to, Ordering::SeqCst);
            }
        }
    }
}

/// Both ends make weaker seals when a check is off that is a part of the cipher's inputs.
#[cfg(bulla_mutants)]
mod weak {
    use std::ops::Deref;
    use std::sync::{Arc, OnceLock};

    use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

    use super::{Check, off};
    use crate::cbor::{Reader, Writer};
    use crate::frame::Parsed;
    use crate::id::MessageId;
    use crate::opened::{Opened, OpenedReply, OpenedRequest};
    use crate::principal::Party;
    use crate::route::Route;
    use crate::session::Session;
    use crate::wire::Outcome;

    pub(crate) fn structure(structure: &[u8]) -> impl Deref<Target = [u8]> {
        weaker(structure).unwrap_or_else(|| structure.to_vec())
    }

    pub(crate) fn signed_aad(aad: &[u8]) -> impl Deref<Target = [u8]> {
        weaker_aad(aad).unwrap_or_else(|| aad.to_vec())
    }

    fn weaker(structure: &[u8]) -> Option<Vec<u8>> {
        let mut r = Reader::new(structure);
        r.array(3).ok()?;
        let context = r.text().ok()?;
        let (header, aad) = (r.bytes().ok()?, r.bytes().ok()?);
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.array(3);
        w.text(context);
        w.bytes(if off(Check::HeaderBound) { &[] } else { header });
        w.bytes(&signed_aad(aad));
        Some(out)
    }

    fn weaker_aad(aad: &[u8]) -> Option<Vec<u8>> {
        let parts = [
            None,
            Some(Check::KindBound),
            None,
            Some(Check::ExchangeBound),
            Some(Check::TopicBound),
            Some(Check::ServerBound),
            Some(Check::AudienceBound),
            Some(Check::AudienceBound),
            Some(Check::RequestBound),
        ];
        let mut r = Reader::new(aad);
        r.array(parts.len()).ok()?;
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.array(parts.len());
        for part in parts {
            let item = r.skip().ok()?;
            if part.is_some_and(off) { w.null() } else { w.raw(item) }
        }
        Some(out)
    }

    /// A header of more entries without the last of them, as a reader that takes the first of two
    /// equal keys would have it.
    pub(crate) fn header(header: &[u8]) -> impl Deref<Target = [u8]> {
        let mut out = header.to_vec();
        if let (true, Some(0xa6)) = (off(Check::ClosedHeader), header.first()) {
            let mut r = Reader::new(header.get(1..).unwrap_or_default());
            if (0..10).all(|_| r.skip().is_ok()) {
                out.truncate(1 + r.position());
                if let Some(first) = out.first_mut() {
                    *first = 0xa5;
                }
            }
        }
        out
    }

    /// The sender as the header names it, with the incarnation that everybody begins with.
    pub(crate) fn claimed(parsed: &Parsed) -> OnceLock<Party> {
        let claimed = OnceLock::new();
        if let (true, Some(principal)) = (off(Check::SenderName), parsed.claimed_principal()) {
            claimed.set(Party::new(principal, 1)).ok();
        }
        claimed
    }

    /// What a receiver makes of `plaintext` that takes messages in the clear: one of `session`,
    /// for `route`.
    pub fn plaintext_request(
        plaintext: &[u8],
        session: &Arc<Session>,
        route: &Route,
    ) -> Option<OpenedRequest> {
        crate::RequestBody::parse(plaintext).ok()?;
        let (_, args) = crate::RequestBody::read(plaintext).ok()?;
        let opened = unsealed(plaintext);
        Some(OpenedRequest::new(opened, session.clone(), route.clone(), false, args))
    }

    /// What a caller makes of a reply in the clear: [the request's id, the value].
    pub fn plaintext_reply(plaintext: &[u8]) -> Option<(MessageId, OpenedReply)> {
        let mut r = Reader::new(plaintext);
        r.array(2).ok()?;
        let request = MessageId(r.fixed().ok()?);
        let opened = unsealed(r.skip().ok()?);
        let id = opened.parsed.header.id;
        Some((request, OpenedReply::new(opened, Outcome::Value, 0, id)))
    }

    fn unsealed(plaintext: &[u8]) -> Opened {
        Opened::new(Parsed::unsealed(plaintext), 0..plaintext.len())
    }

    /// Where the plaintext ends if a mistake takes what the cipher would not, or what was never
    /// encrypted.
    pub(crate) fn open_anyway(
        keys: impl Fn() -> Option<(LessSafeKey, Nonce)>,
        structure: &[u8],
        content: &mut [u8],
    ) -> Option<usize> {
        let end = content.len().checked_sub(16)?;
        if off(Check::Encryption) {
            return Some(end);
        }
        let mut copy = content.to_vec();
        let (key, iv) = keys()?;
        if key.open_in_place(iv, Aad::from(structure), &mut copy).is_ok() {
            return None;
        }
        if off(Check::AeadTag) {
            let (key, iv) = keys()?;
            // Counter mode: to encrypt the ciphertext is to decrypt it.
            let content = content.get_mut(..end)?;
            drop(key.seal_in_place_separate_tag(iv, Aad::empty(), content).ok()?);
            return Some(end);
        }
        off(Check::NoFallback).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::Check;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Check::ALL.len());
    }
}
