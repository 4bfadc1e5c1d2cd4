//! Sealed messages for RPC over brokers that nobody has to trust: the envelope, and nothing else.
//!
//! Two parties share a trust root (or a pair key) and no secret with the broker between them. This
//! crate makes and opens what goes through that broker: requests, replies, errors and fanouts that
//! the broker can't read, forge, alter, move to another queue or pass to another receiver, and
//! replies that only the addressed peer can have made for that very request. The protocol is
//! written down in `docs/protocol.md`.
//!
//! # What it is not
//!
//! - It does no I/O, has no clock and no random source: both are passed in. With the same inputs it
//!   makes the same bytes.
//! - It remembers nothing. A message that was copied opens again: *claims* on message ids, floors
//!   of levels, revocation and rates are for `bulla-guard`.
//! - It decides who sent a message, and not what that sender may do.
//! - It hides neither that two parties talk, nor when, nor how much.
//!
//! # Layers
//!
//! ```text
//!   root ─signs─► issuer ─signs─► credential            credential, sign
//!                                     │
//!   pair key ──────────┐        offer (HPKE, signed)    shared │ offer, kem
//!                      ▼              ▼
//!                    session secret ──► direction keys  session
//!                                            │
//!          header + external AAD + body ─────┼──► id    buffer, kdf
//!                                            └──► key ‖ IV
//!   body ──► [inner signature] ──► COSE_Encrypt0 │ Mac0 │ Sign1     seal, open
//!                                            │
//!   frame = [1, envelope, offer, statement] ◄┘          frame, header, cbor
//! ```
//!
//! What was opened has a type of its own ([`OpenedRequest`], [`OpenedReply`], [`OpenedFanout`])
//! that only this crate can build; what was not is a [`Parsed`] and gives out claims, not facts.
//! Every refusal is a [`Refusal`]; no input makes this crate panic.
//!
//! # A call and its reply
//!
//! ```
//! use std::sync::Arc;
//! use bulla_seal::{
//!     Audience, DEFAULT_MAX_FRAME, Expected, Hedge, Kid, Level, MessageBuf, MessageKind, Outcome,
//!     Parsed, Party, Principal, Protection, ReplyBinding, ReplySpec, RequestBody, RequestSpec,
//!     Route, Secret, UnixTime, shared,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A component and an agent that hold the same pair key. (With key pairs, an `Initiator` makes
//! // an offer and the receiver opens it; from there on all is the same.)
//! let control = Party::new(Principal::component("control")?, 1);
//! let agent = Party::new(Principal::agent("db-1")?, 1);
//! let key = shared::pair_key(&Secret::new([7; 32]), &agent, &control.principal, 1);
//! let session = || Arc::new(shared::session(Kid([1; 8]), &key, control.clone(), agent.clone()));
//! let (ours, theirs) = (session(), session());
//!
//! // Time, randomness and counter come from the caller.
//! let now = UnixTime::from_secs(1_800_000_000);
//! let hedge = Hedge { random: [3; 16], now, counter: 1, boot: [4; 16] };
//!
//! // The component seals a call …
//! let route = Route::new("bulla", "agent.db-1", None, Audience::Party(agent.clone()))?;
//! let body = RequestBody {
//!     namespace: None,
//!     method: "ping",
//!     version: "1.0",
//!     args: &[0xa0],
//!     context: None,
//!     trace_parent: None,
//!     reply_to: Some("component.control.9f3a"),
//! };
//! let mut buf = MessageBuf::with_capacity(128);
//! body.write(buf.sink());
//! let spec = RequestSpec {
//!     kind: MessageKind::Call,
//!     route: &route,
//!     expires: now.secs() + 60,
//!     protection: Protection::Sealed,
//! };
//! let frame = ours.seal_request(&spec, &hedge, buf)?.into_frame(None);
//!
//! // … the agent opens it, believing only what it knows itself, and answers …
//! let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME)?;
//! let request = theirs.open_request(parsed, &Expected::new(&route, now))?;
//! assert_eq!(request.sender(), &control);
//! assert_eq!(request.body()?.method, "ping");
//! let value = ReplySpec { outcome: Outcome::Value, index: 0 };
//! let pong = MessageBuf::from_plaintext(&[0x64, b'p', b'o', b'n', b'g']);
//! let reply = theirs.seal_reply(&request.reply_binding(), value, &hedge, pong)?.into_frame(None);
//!
//! // … and the component takes the answer to this call, from this agent, and no other.
//! let binding = ReplyBinding {
//!     request: frame.id(),
//!     digest: frame.digest(),
//!     level: Level::Sealed,
//!     route: route.clone(),
//! };
//! let parsed = Parsed::parse(reply.bytes().clone(), DEFAULT_MAX_FRAME)?;
//! assert_eq!(ours.open_reply(parsed, &binding)?.payload(), b"\x64pong");
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod body;
mod buffer;
pub mod cbor;
pub mod credential;
pub mod enrol;
pub mod exemption;
pub mod fanout;
mod frame;
mod header;
pub mod id;
mod inner;
pub mod kdf;
pub mod kem;
#[doc(hidden)]
pub mod mutants;
pub mod offer;
mod open;
mod opened;
pub mod policy;
pub mod principal;
pub mod random;
mod refusal;
pub mod renewal;
pub mod root;
pub mod route;
mod seal;
pub mod secret;
mod session;
pub mod shared;
pub mod sign;
pub mod statement;
mod tree;
pub mod wire;

pub use body::{ErrorBody, RequestBody};
pub use buffer::{Hedge, MessageBuf};
pub use credential::{
    Credential, FormerRoot, Issuer, IssuerCredential, IssuerRight, KEYS_EVERY_GROUP,
    SignedCredential, TrustStore, Validity,
};
pub use exemption::{Exemption, SignedExemption};
pub use fanout::{FanoutSigner, FanoutSpec, GroupKey, GroupSession, OpenedFanout};
pub use frame::{DEFAULT_MAX_FRAME, Frame, IntoBytesMut, MAX_FRAME, Parsed, Sealed};
pub use header::{Detail, Form, Handle, Header};
pub use id::{Digest, Kid, MessageId, SessionId, TokenId};
pub use kem::{KemPublicKey, KemSecretKey};
pub use offer::{Initiator, Offer, OfferError};
pub use open::{DEFAULT_SKEW, Expected};
pub use opened::{OpenedReply, OpenedRequest, ReplyBinding};
pub use policy::{PolicyDocument, SignedPolicy};
pub use principal::{GroupName, NameError, Party, Principal, PrincipalKind, TrustDomain};
pub use random::{OsRandom, Pooled, Random, RandomFailed, UnixTime};
pub use refusal::Refusal;
pub use renewal::RenewalClaims;
pub use root::RootAnnouncement;
pub use route::{Audience, Route};
pub use seal::{MAX_LIFE, Protection, ReplySpec, RequestSpec, SealError};
pub use secret::Secret;
pub use session::{Resting, Session, Window};
pub use sign::{SigningKey, VerifyingKey};
pub use statement::{Lowest, Revoked, SignedStatement, Statement};
pub use wire::{Level, MessageKind, Outcome, Suite, SuiteSet};
