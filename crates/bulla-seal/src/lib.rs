//! Sealed messages for RPC.
#![allow(missing_docs, reason = "being written")]
pub mod body;
mod buffer;
pub mod cbor;
pub mod credential;
pub mod fanout;
mod frame;
mod header;
pub mod id;
mod inner;
mod kdf;
pub mod kem;
pub mod offer;
mod open;
mod opened;
pub mod principal;
pub mod random;
mod refusal;
pub mod route;
mod seal;
pub mod secret;
mod session;
pub mod shared;
pub mod sign;
pub mod wire;
pub use body::{ErrorBody, RequestBody};
pub use buffer::{Hedge, MessageBuf};
pub use credential::{
    Credential, Issuer, IssuerCredential, IssuerRight, SignedCredential, TrustStore, Validity,
};
pub use fanout::{FanoutSigner, FanoutSpec, GroupKey, GroupSession, OpenedFanout};
pub use frame::{DEFAULT_MAX_FRAME, Frame, IntoBytesMut, MAX_FRAME, Parsed, Sealed};
pub use header::{Detail, Form, Handle, Header};
pub use id::{Digest, Kid, MessageId, SessionId};
pub use kem::{KemPublicKey, KemSecretKey};
pub use offer::{Initiator, Offer, OfferError};
pub use open::{DEFAULT_SKEW, Expected};
pub use opened::{OpenedReply, OpenedRequest, ReplyBinding};
pub use principal::{GroupName, NameError, Party, Principal, PrincipalKind, TrustDomain};
pub use random::{OsRandom, Pooled, Random, RandomFailed, UnixTime};
pub use refusal::Refusal;
pub use route::{Audience, Route};
pub use seal::{MAX_LIFE, Protection, ReplySpec, RequestSpec, SealError};
pub use secret::Secret;
pub use session::{Session, Window};
pub use sign::{SigningKey, VerifyingKey};
pub use wire::{Level, MessageKind, Outcome, Suite, SuiteSet};
