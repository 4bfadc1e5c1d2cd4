//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use bulla_seal::enrol::EnrolError;
use bulla_seal::{GroupName, IssuerRight, Kid, NameError, Party, Principal, RandomFailed, Refusal};
use thiserror::Error;

use crate::db::BUSY;
use crate::file::FileError;
use crate::kek::KekError;

/// A result of this crate.
pub type Result<T, E = KeystoreError> = std::result::Result<T, E>;

/// The keystore could not do what was asked; nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// There is a file where a new keystore should go.
    #[error(
        "there is something at {place} already: choose another place, or use the keystore that is there"
    )]
    Exists {
        /// The file or database.
        place: String,
    },
    /// There is no keystore there.
    #[error("there is no keystore at {place}: run `bulla init` first, or give the right place")]
    Missing {
        /// The file or database looked at.
        place: String,
    },
    /// The file is a database of something else, or no database.
    #[error("{place} is not a Bulla keystore: give the place of the one that `bulla init` made")]
    NotAKeystore {
        /// The file or database.
        place: String,
    },
    /// An address that names no place for a keystore.
    #[error("the address of the keystore's database can't be used: {why}")]
    Address {
        /// Why.
        why: String,
    },
    /// The address is of a server that this program does not know how to talk to.
    #[error("this program was built without the feature `{feature}`, which that keystore needs")]
    NotBuilt {
        /// The feature.
        feature: &'static str,
    },
    /// The server can't be reached, or does not let us in.
    #[error(
        "cannot use the keystore's database {place}: {why}; check that it runs, its address, the user and the password"
    )]
    Unreachable {
        /// The server's address.
        place: String,
        /// What was said.
        why: String,
    },
    /// Trove's database can't be read.
    #[error(
        "can't read the keys in Trove's database {place}: {why}; check its address, user and password, and that it is Trove's (a table `instances` with the column `encrypted_key`)"
    )]
    Trove {
        /// The server's address, or the file.
        place: String,
        /// What was said.
        why: String,
    },
    /// The server may lose what it was given.
    #[error("the database {place} is not fit for a keystore: {why}")]
    Unfit {
        /// The server's address.
        place: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// Another change came in between, on another node of a cluster.
    #[error(
        "another change of the keystore came in between, so that this one was not made: try again"
    )]
    Overtaken,
    /// Another process holds the write lock for too long.
    #[error(
        "the keystore's database was kept busy by others for {secs} seconds, or lets no more connections in: try again, look for a transaction that hangs, and at how many connections it allows (six for each process)"
    )]
    Busy {
        /// How long it was waited for.
        secs: u64,
    },
    /// Others than the owner may read or write the database file.
    #[error("{} may be read or written by others (mode {mode:03o}): run `chmod 600` on it", path.display())]
    Unprotected {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder or file can't be written.
    #[error("cannot write {}: make its folder writable for this user, or choose another path", path.display())]
    CannotWrite {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The database is read-only.
    #[error(
        "the keystore is read-only: make the file and its folder writable for this user; of a server, give the primary's address"
    )]
    ReadOnly,
    /// The database's schema is from a newer version.
    #[error(
        "the keystore has schema version {found}, this program knows up to {known}: use the newer program, or revert the schema with it"
    )]
    SchemaNewer {
        /// Version in the file.
        found: u32,
        /// Newest version that this program knows.
        known: u32,
    },
    /// The database's schema is from an older version.
    #[error(
        "the keystore has schema version {found}, this program needs {known}: run `bulla db migrate`"
    )]
    SchemaOlder {
        /// Version in the file.
        found: u32,
        /// Version that this program needs.
        known: u32,
    },
    /// No host of that name has a credential that counts.
    #[error(
        "{component} has no host `{instance}` with a signing credential: `bulla component list` names the types, and a host is named when its key file is written"
    )]
    UnknownInstance {
        /// The component type.
        component: Principal,
        /// The host's name.
        instance: String,
    },
    /// A change of the schema was interrupted.
    #[error(
        "a change of the keystore's schema was interrupted at version {version}: run `bulla db migrate`, or `bulla db revert`, again"
    )]
    SchemaUnfinished {
        /// The version on the way to or from which it was.
        version: u32,
    },
    /// Going back below version 1 would delete every key.
    #[error(
        "schema version 0 has no place for anything: revert to version 1 at the lowest, or delete the keystore"
    )]
    RevertTooFar,
    /// The keystore, or a value in it, is under a key-encryption key that is not there.
    #[error(
        "this is wrapped under key-encryption key {needed}, and here is {held}{why}: give the key that the keystore was made with or rotated to"
    )]
    WrongKek {
        /// Id of the key that is needed.
        needed: String,
        /// Ids of those that are there.
        held: String,
        /// Why the needed one can't be fetched, if that is known.
        why: String,
    },
    /// Some values did not open, so the old key-encryption key is still needed.
    #[error(
        "{count} stored values were altered or moved from another row and stay as they are ({}): all others are under the new key-encryption key, and the rotation is not finished; restore these from a backup or remove who they belong to, then rotate again", damaged.join(", ")
    )]
    NotRewrapped {
        /// How many.
        count: usize,
        /// The first of them.
        damaged: Vec<String>,
    },
    /// Somebody else rotated at the same time, or restored old rows.
    #[error(
        "{left} stored values are not under the key-encryption key {current}: another rotation ran at the same time, or old rows were put back; rotate again"
    )]
    RotationOverrun {
        /// Id of the key that new values are wrapped under.
        current: String,
        /// How many values are under another one.
        left: u64,
    },
    /// A key-encryption key can't be fetched.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// A stored value was altered, or moved there from another row.
    #[error(
        "the stored {what} was altered or moved from another row: restore the keystore from a backup and find out who can write to it"
    )]
    Damaged {
        /// Which value.
        what: String,
    },
    /// The name has a living holder.
    #[error(
        "{0} exists already: choose another name, or remove it first (the name then gets a new incarnation)"
    )]
    NameTaken(Party),
    /// There is a group of that name.
    #[error("{0} exists already: choose another name")]
    GroupTaken(GroupName),
    /// Nobody of that name, or removed.
    #[error("there is no {0}: see `bulla {list} list`, or add it", list = .0.kind().as_str())]
    UnknownPrincipal(Principal),
    /// No group of that name.
    #[error("there is no {0}: see `bulla group list`, or add it with `bulla group add`")]
    UnknownGroup(GroupName),
    /// There is no such version of the policy.
    #[error("there is no version {version} of the policy: see `bulla policy list`")]
    UnknownPolicy {
        /// The version.
        version: u32,
    },
    /// Nothing was active before.
    #[error(
        "there is no policy before the one that counts: the built-in rule decided at first, and `bulla policy rollback 0` goes back to it"
    )]
    NoEarlierPolicy,
    /// The policy does not fit into the messages that carry it.
    #[error(
        "the policy is too large: compiled and signed, it may have {limit} bytes; name methods and peers in lists instead of in rules of their own"
    )]
    PolicyTooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// The group never had that epoch, or its key is gone.
    #[error("{group} has no key of epoch {epoch}: ask for its current key")]
    UnknownGroupEpoch {
        /// The group.
        group: GroupName,
        /// The epoch asked for.
        epoch: u32,
    },
    /// A built-in group can't be changed that way.
    #[error("{0} holds every agent: remove the agent itself instead")]
    GroupBuiltIn(GroupName),
    /// A component type's own part of the keystore is not there, or not yet.
    #[error(
        "the keystore holds no such key for {0} yet: run `bulla db grants --apply` (or wait for the control plane, if that was done)"
    )]
    NotFilled(Principal),
    /// A component type asked for the key of a group that it is not in.
    #[error("{component} is not in {group}, or that epoch was before: `bulla group add` adds it")]
    NotAMember {
        /// The type.
        component: Principal,
        /// The group.
        group: GroupName,
    },
    /// There is no current statement of revocation.
    #[error(
        "the keystore holds no statement of revocation that is current: start a control plane, and check the clocks"
    )]
    NoStatement,
    /// SQLite knows nothing of roles.
    #[error(
        "{place} is a file, and a SQLite file has no roles: whoever can read it can read all of it. Put the keystore on PostgreSQL or MariaDB for a role per component type"
    )]
    NoRoles {
        /// The file.
        place: String,
    },
    /// A role of that name that this keystore did not make.
    #[error(
        "the database server has a role `{role}` that this keystore did not make: drop it, or rename it"
    )]
    RoleTaken {
        /// Its name.
        role: String,
    },
    /// A role may do more than was granted to it.
    #[error(
        "role `{role}` has rights of its own on the server, or is a member of another role: take those away, then apply again"
    )]
    RoleTooStrong {
        /// Its name.
        role: String,
    },
    /// Roles are in the way of a change of the schema.
    #[error(
        "{count} database roles have rights in this keystore: take them back with `bulla db grants --revert` before the schema goes back"
    )]
    RolesInTheWay {
        /// How many.
        count: usize,
    },
    /// The root was followed by another, which an older program knows nothing of.
    #[error(
        "the root key was followed by another: the schema can't go back to a version that knows only the first"
    )]
    RootsInTheWay,
    /// Not the key that signs for this deployment now.
    #[error(
        "that is not the root key that is trusted now: give the file of root {sequence}, as `bulla root show` names it"
    )]
    RootKey {
        /// Its sequence.
        sequence: u32,
    },
    /// What announces a new root, or was to be signed with it, is refused.
    #[error("the announcement of the new root is refused: {0}")]
    Root(Refusal),
    /// The issuers of a new root are not those of the keystore.
    #[error(
        "the new root signed other issuers than those of this keystore: make the request anew with `bulla root request`"
    )]
    RootIssuers,
    /// A password that a role can't have.
    #[error("a role's password is 16 to 512 printable ASCII characters without spaces: {why}")]
    RolePassword {
        /// What is wrong.
        why: &'static str,
    },
    /// A pair key was asked for that can't exist.
    #[error("{0} has a key pair and no shared key: open a session with its credential instead")]
    NotShared(Principal),
    /// Pair keys are between an agent and a component.
    #[error("{0} can't have that place in a pair key: one end is an agent, the other a component")]
    NotAPair(Principal),
    /// The principal has no credential that is valid now.
    #[error(
        "{0} has no credential that is valid now: check the clock, then rotate its credential (a shared-key agent never has one, and one with a join file has none before it joined: see `bulla agent show`)"
    )]
    NoCredential(Principal),
    /// The suite has no key of that sort.
    #[error("a key pair needs suite `x25519` or `x-wing`")]
    NoKemSuite,
    /// The issuer's own credential is over.
    #[error("the credential of the {} ended: renew it with the root key", .0.as_str())]
    IssuerExpired(IssuerRight),
    /// There is no issuer with that right.
    #[error("the keystore holds no {}: issue one with the root key", .0.as_str())]
    NoIssuer(IssuerRight),
    /// Roles that don't fit a credential.
    #[error("a credential takes up to {max} roles of 1 to {longest} bytes: `{role}` does not fit")]
    Role {
        /// The first one that does not fit.
        role: String,
        /// Most roles.
        max: usize,
        /// Longest role.
        longest: usize,
    },
    /// A lifetime that the protocol does not allow.
    #[error("a signing credential lives 1 second to {max} seconds, not {asked}")]
    Lifetime {
        /// Seconds asked for.
        asked: u64,
        /// Most that is allowed.
        max: u64,
    },
    /// A life of component types' keys that is not allowed.
    #[error("a component type's keys live 1 hour to 365 days, not {asked} s")]
    KeyLifetime {
        /// What was asked for, in seconds.
        asked: u64,
    },
    /// A lifetime of agents' credentials that is not sensible.
    #[error("credentials of agents live one hour to 365 days, not {asked} seconds")]
    AgentLifetime {
        /// Seconds asked for.
        asked: u64,
    },
    /// An agent that has a valid credential is not invited again.
    #[error(
        "{party} exists already, with a credential that is good until {until} (Unix seconds): `--again` is for an agent that has not joined yet, or was off for longer than its keys live. To replace it, `bulla agent revoke` it and add it anew"
    )]
    StillGood {
        /// The agent.
        party: Party,
        /// When its credential ends.
        until: u64,
    },
    /// An agent that was invited and has not enrolled.
    #[error(
        "{0} exists already and has not joined yet: `bulla agent add --again` makes it a new join file, and the former one is worth nothing then"
    )]
    NotJoined(Party),
    /// A token's lifetime that the protocol does not allow.
    #[error("a join token is good for 10 to 60 minutes, not {asked} seconds")]
    TokenLifetime {
        /// Seconds asked for.
        asked: u64,
    },
    /// The answer to a new agent can't be made.
    #[error("the answer to a new agent can't be made: {0}")]
    Enrol(#[source] EnrolError),
    /// A name that can't be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A key file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The random source failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// A credential can't be issued or is not valid.
    #[error("a credential was refused: {0}")]
    Credential(#[from] Refusal),
    /// No credential or pair key of that name.
    #[error("there is no key named {0}: see `bulla agent show` for the names of an agent's keys")]
    UnknownKid(Kid),
    /// More is revoked than a statement can list.
    #[error(
        "a statement of revocation has room for {kids} keys and {names} names, and it is full: wait until revoked credentials end, or have the root sign a new issuer and issue all credentials anew"
    )]
    RevocationFull {
        /// Most revoked kids.
        kids: usize,
        /// Most names.
        names: usize,
    },
    /// No user of the API can be called so.
    #[error("`{given}` names no user of the API: write operator/NAME or program/NAME")]
    NotAUser {
        /// What was given.
        given: String,
    },
    /// No access key of that id.
    #[error("there is no access key {id}: see `bulla access-key list`")]
    UnknownAccessKey {
        /// The id.
        id: String,
    },
    /// An access key that would be over before it is used.
    #[error("an access key can't end in the past: give a later time")]
    AccessKeyEnd,
    /// Too many new key ids were taken already: the random source repeats itself.
    #[error(
        "{0} new key ids in a row were taken already: the random source of this machine is broken"
    )]
    NoFreeKid(u32),
    /// The database failed.
    #[error("the keystore's database failed: {0}")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl KeystoreError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

impl From<sqlx::Error> for KeystoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(told) = error.as_database_error() else {
            return match error {
                sqlx::Error::PoolTimedOut => Self::Busy { secs: BUSY.as_secs() },
                error => Self::Database(Box::new(error)),
            };
        };
        let (code, message) = (told.code().unwrap_or_default(), told.message());
        let of_file = told.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
        match (of_file, &*code) {
            // The primary result code is the low byte of SQLite's extended ones: SQLITE_READONLY
            // is 8, SQLITE_BUSY 5.
            (true, code) if code.parse::<u32>().is_ok_and(|code| code & 0xff == 8) => {
                Self::ReadOnly
            }
            (true, code) if code.parse::<u32>().is_ok_and(|code| code & 0xff == 5) => {
                Self::Busy { secs: BUSY.as_secs() }
            }
            (false, "25006") => Self::ReadOnly,
            // Serialization failure, deadlock.
            (false, "40001" | "40P01") => Self::Overtaken,
            // MariaDB has no code of its own for either.
            (false, _) if message.contains("--read-only option") => Self::ReadOnly,
            (false, "55P03") => Self::Busy { secs: BUSY.as_secs() },
            (false, _) if message.contains("Lock wait timeout") => {
                Self::Busy { secs: BUSY.as_secs() }
            }
            _ => Self::Database(Box::new(error)),
        }
    }
}
