//! Why a message was not accepted.

use std::fmt;

/// A typed refusal with a stable name (protocol section 9). It is counted and logged; it is not
/// answered, so that it is no oracle.
///
/// Deliberately coarse where a finer answer would help an attacker more than an operator: every
/// failure of the cipher is [`NotAuthentic`](Self::NotAuthentic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// Addressed to another principal, incarnation or key than this receiver's.
    AudienceMismatch,
    /// The credential is past its end.
    CredentialExpired,
    /// The credential is not well formed or says what its issuer may not say.
    CredentialInvalid,
    /// The credential is not valid yet.
    CredentialNotYetValid,
    /// A lower credential epoch than the highest verified.
    EpochStale,
    /// An exemption that is not well formed, not signed by the operator or too long.
    ExemptionInvalid,
    /// The message's own time is over.
    Expired,
    /// A group or group epoch that this receiver holds no key for.
    GroupUnknown,
    /// The issuer is unknown or its credential is not signed by the root.
    IssuerUnknown,
    /// Not the kind of message that belongs in this queue.
    KindNotAllowed,
    /// Below the level that this queue or peer demands.
    LevelNotAllowed,
    /// Lives longer than the protocol or this receiver allows.
    LifetimeTooLong,
    /// Not the closed profile: unknown, missing, doubled, non-canonical, too deep.
    Malformed,
    /// Forged, altered, moved or sealed for somebody else: the seal does not open.
    NotAuthentic,
    /// Issued in the future, beyond the allowed skew.
    NotYetValid,
    /// The policy does not let this sender do that.
    NotPermitted,
    /// The offer is past its end or not valid yet.
    OfferExpired,
    /// The offer is not well formed, not signed by its sender, or does not open.
    OfferInvalid,
    /// What is said of policies is not well formed, or not signed by the operator.
    PolicyInvalid,
    /// What is said of policies is older than what is held.
    PolicyStale,
    /// Sender over its rate.
    RateLimited,
    /// The reply is not from the principal addressed, not for this request, or out of order.
    ReplyMismatch,
    /// The sender's key or credential has been revoked.
    Revoked,
    /// The only root that this receiver trusts was followed by another, and its time is over.
    RootEnded,
    /// An announcement of a root that is not well formed, not signed by the root that is trusted
    /// now, or without the consent of the new one.
    RootInvalid,
    /// An announcement of a root that is older than what is known already.
    RootStale,
    /// The header names another sender than the key does.
    SenderMismatch,
    /// A session or key id that this receiver does not know, and no offer with it.
    SessionUnknown,
    /// A signature does not verify.
    SignatureInvalid,
    /// A statement that is not well formed or not signed by the issuer of revocations.
    StatementInvalid,
    /// No current statement of revocation is held, without which this receiver acts on no
    /// component's message.
    StatementMissing,
    /// A suite that this receiver does not accept.
    SuiteNotAllowed,
    /// Larger than this receiver takes.
    TooLarge,
    /// The sender has as many sessions as it may have.
    TooManySessions,
    /// A version of the frame that this receiver does not know.
    VersionUnknown,
}

impl Refusal {
    /// Every refusal, for tables and metrics.
    pub const ALL: &'static [Self] = &[
        Self::AudienceMismatch,
        Self::CredentialExpired,
        Self::CredentialInvalid,
        Self::CredentialNotYetValid,
        Self::EpochStale,
        Self::ExemptionInvalid,
        Self::Expired,
        Self::GroupUnknown,
        Self::IssuerUnknown,
        Self::KindNotAllowed,
        Self::LevelNotAllowed,
        Self::LifetimeTooLong,
        Self::Malformed,
        Self::NotAuthentic,
        Self::NotYetValid,
        Self::NotPermitted,
        Self::OfferExpired,
        Self::OfferInvalid,
        Self::PolicyInvalid,
        Self::PolicyStale,
        Self::RateLimited,
        Self::ReplyMismatch,
        Self::Revoked,
        Self::RootEnded,
        Self::RootInvalid,
        Self::RootStale,
        Self::SenderMismatch,
        Self::SessionUnknown,
        Self::SignatureInvalid,
        Self::StatementInvalid,
        Self::StatementMissing,
        Self::SuiteNotAllowed,
        Self::TooLarge,
        Self::TooManySessions,
        Self::VersionUnknown,
    ];

    /// Its stable name, for logs and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AudienceMismatch => "audience-mismatch",
            Self::CredentialExpired => "credential-expired",
            Self::CredentialInvalid => "credential-invalid",
            Self::CredentialNotYetValid => "credential-not-yet-valid",
            Self::EpochStale => "epoch-stale",
            Self::ExemptionInvalid => "exemption-invalid",
            Self::Expired => "expired",
            Self::GroupUnknown => "group-unknown",
            Self::IssuerUnknown => "issuer-unknown",
            Self::KindNotAllowed => "kind-not-allowed",
            Self::LevelNotAllowed => "level-not-allowed",
            Self::LifetimeTooLong => "lifetime-too-long",
            Self::Malformed => "malformed",
            Self::NotAuthentic => "not-authentic",
            Self::NotYetValid => "not-yet-valid",
            Self::NotPermitted => "not-permitted",
            Self::OfferExpired => "offer-expired",
            Self::OfferInvalid => "offer-invalid",
            Self::PolicyInvalid => "policy-invalid",
            Self::PolicyStale => "policy-stale",
            Self::RateLimited => "rate-limited",
            Self::ReplyMismatch => "reply-mismatch",
            Self::Revoked => "revoked",
            Self::RootEnded => "root-ended",
            Self::RootInvalid => "root-invalid",
            Self::RootStale => "root-stale",
            Self::SenderMismatch => "sender-mismatch",
            Self::SessionUnknown => "session-unknown",
            Self::SignatureInvalid => "signature-invalid",
            Self::StatementInvalid => "statement-invalid",
            Self::StatementMissing => "statement-missing",
            Self::SuiteNotAllowed => "suite-not-allowed",
            Self::TooLarge => "too-large",
            Self::TooManySessions => "too-many-sessions",
            Self::VersionUnknown => "version-unknown",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Refusal {}
