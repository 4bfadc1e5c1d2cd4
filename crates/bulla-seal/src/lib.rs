//! Sealed messages for RPC.
#![allow(missing_docs, reason = "being written")]
pub mod cbor;
pub mod credential;
pub mod id;
mod kdf;
pub mod kem;
pub mod principal;
pub mod random;
mod refusal;
pub mod secret;
pub mod sign;
pub mod wire;
pub use credential::{
    Credential, Issuer, IssuerCredential, IssuerRight, SignedCredential, TrustStore, Validity,
};
pub use id::{Digest, Kid, MessageId, SessionId};
pub use kem::{KemPublicKey, KemSecretKey};
pub use principal::{GroupName, NameError, Party, Principal, PrincipalKind, TrustDomain};
pub use random::{OsRandom, Pooled, Random, RandomFailed, UnixTime};
pub use refusal::Refusal;
pub use secret::Secret;
pub use sign::{SigningKey, VerifyingKey};
pub use wire::{Level, MessageKind, Outcome, Suite, SuiteSet};
