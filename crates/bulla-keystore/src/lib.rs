//! Who exists and which keys they hold.
//!
//! A [`Keystore`] is a SQLite file, or a database on a PostgreSQL or MariaDB server (features
//! `postgres`, `mariadb`), with the principals of one trust domain: agents and component
//! types, their incarnations, credentials, keys and groups (protocol section 2). Every secret in
//! it is wrapped under a key-encryption key, the [`Kek`], which a
//! [`KekSource`] keeps apart from it: a file, the environment, systemd, a token; each
//! wrapped value is tied to its table, column, name, incarnation and epoch and opens nowhere
//! else. A thief of the database alone has names, public keys and times.
//!
//! ```text
//!   root key ── signs ──► issuers ── sign ──► credentials        (public, as signed)
//!   (offline)             (wrapped)
//!   KEK ── wraps ──► issuers' keys, shared keys K, group keys
//!    └ HKDF ► type KEK ── wraps ──► audience keys of one component type
//!   K ── HKDF ──► pair key with one component type               (not stored, but see below)
//! ```
//!
//! Keys of peers that do not seal yet, out of Trove's database ([`TroveKeys`]), are kept for the adapter that reads
//! such peers, wrapped like all others.
//!
//! What is never in the keystore: the root key, the secret keys of key-pair agents, the signing
//! keys of component hosts. Pair keys are there only for component types that have a database role
//! of their own ([`Keystore::apply_grants`], [`ComponentKeystore`]), each under its type's KEK.
//!
//! ```
//! use bulla_keystore::{AgentKeys, Kek, KeyType, Keystore, Page, SIGNING_LIFETIME, root_key};
//! use bulla_seal::{Principal, Suite, SuiteSet, TrustDomain};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! // `bulla init`
//! let domain = TrustDomain::new("cloud.example")?;
//! let kek = Kek::create_file(folder.join("kek"))?;
//! let made = Keystore::init(folder.join("keystore.db"), &domain, kek).await?;
//! root_key::create_file(folder.join("root.key"), &domain, &made.root)?;
//! let keystore = made.keystore;
//!
//! // A component type, and one of its hosts.
//! keystore.add_component("control", &["group:all".into()], SuiteSet::all()).await?;
//! let (kem, audience) = keystore.component_keys("control").await?;
//! let (signing, credential) =
//!     keystore.issue_signing("control", "host-1", SIGNING_LIFETIME).await?;
//! assert_eq!(credential.signing, Some(signing.verifying_key()));
//! assert_eq!(audience.kem.as_ref(), Some(kem.public()));
//!
//! // An agent with a key pair, and one with the shared key of the Trove specification.
//! let AgentKeys::Pair { credential, .. } =
//!     keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await?
//! else {
//!     unreachable!("a key pair was asked for")
//! };
//! assert_eq!(keystore.credential(&credential.party.principal).await?, credential);
//! keystore.add_agent("db-2", KeyType::Shared, Suite::Shared).await?;
//! let (agent, control) = (Principal::agent("db-2")?, Principal::component("control")?);
//! let pair = keystore.pair_key(&agent, &control).await?;
//! let named = keystore.pair_by_kid(pair.kid).await?.ok_or("just named")?;
//! assert!(named.key.ct_eq(&pair.key));
//!
//! assert_eq!(keystore.list_agents(&Page::default()).await?.agents.len(), 2);
//! # Ok(())
//! # }
//! ```

mod address;
mod db;
mod error;
mod file;
mod kek;
mod keystore;
mod rights;
pub mod root_key;
mod trove;

pub use address::StoreAddress;
pub use error::{KeystoreError, Result};
pub use file::FileError;
#[cfg(feature = "pkcs11")]
pub use kek::pkcs11;
pub use kek::{
    Kek, KekError, KekRing, KekSource, LOSS, Row, UnwrapError, WrapKey, Wrapped, next_file,
    retire_file,
};
pub use keystore::{
    AGENT_LIFETIME, AGENT_LIFETIMES, AccessKey, AccessKeyRecord, AccessKeyRefusal, AgentDetails,
    AgentKeys, AgentPage, AgentRecord, ApiUser, CREDENTIAL_LIFETIME, ComponentKeystore,
    ComponentRecord, Converted, CredentialRecord, ENDS_WITHIN, EVERY_AGENT, EnrolRefusal,
    Enrolment, GroupRecord, HAND_OUT_AFTER, HOST_LIFETIME, ISSUER_LIFETIME, Imported, Initialized,
    Invitation, JoinState, KEY_LIFETIMES, KekCount, KekState, KeyEnds, KeyType, Keystore,
    KeystoreFloors, LevelCount, MAX_SIGNING_LIFETIME, MigrationStep, News, Page, PairKey,
    PairKeyId, PeerKeys, PolicyDifference, PolicyOrigin, PolicyRecord, PolicyText, REWRAP_BATCH,
    ROOT_OVERLAP, ROOTS_AT_ONCE, Reach, Recalled, RenewRefusal, Renewal, Renewed, RevokedHost,
    Rewrapped, RootHandover, RootRecord, RootState, SIGNING_LIFETIME, SKEW, STATEMENT_LIFETIME,
    SchemaStatus, SecretKey, Sighting, Summary, TOKEN_LIFETIME, TOKEN_LIFETIMES,
};
pub use rights::{DatabaseLogin, DatabaseRole, GrantedRole, GrantsState, Plan, RolePassword};
pub use trove::TroveKeys;
