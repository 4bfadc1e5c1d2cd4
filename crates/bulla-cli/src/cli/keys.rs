//! Root key, key-encryption key, keystore and access keys, on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::settings::Kek;
use crate::settings::Provider;

#[derive(Debug, Subcommand)]
pub(crate) enum RootCommand {
    /// Show the root that is trusted, and those before it.
    Show,
    /// Write what a new root has to sign, for the machine that the root key is on.
    Request {
        /// Where it goes; nothing in it is secret.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make the next root key, announce it with the one before, and sign the issuers with it.
    Rotate(RootRotateArgs),
    /// Take over what `bulla root rotate --handover` wrote on another machine.
    Install {
        /// The handover.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RootRotateArgs {
    /// The file of the root key that is trusted now.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_key: PathBuf,
    /// Where the next root key goes: a new file of mode 0600.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How long the root before still counts, 1h to 366d [default: 30d].
    #[arg(long, value_name = "WHILE")]
    pub(crate) overlap: Option<String>,
    /// What `bulla root request` wrote: then no keystore is needed here.
    #[arg(long, value_name = "FILE", requires = "handover")]
    pub(crate) request: Option<PathBuf>,
    /// Where what was signed goes, for `bulla root install`.
    #[arg(long, value_name = "FILE", requires = "request")]
    pub(crate) handover: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessKeyCommand {
    /// Make another access key for a user, and show its secret this once.
    Add {
        /// operator/NAME for a person, program/NAME for anything else.
        user: String,
        /// When it ends: a time (2026-12-01T08:00:00Z) or a while from now (12h, 90d).
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Write key and secret to a new file of mode 0600, and show no secret.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the access keys, without secrets.
    List,
    /// Have an access key refused until it is enabled again.
    Disable {
        /// Its id.
        id: String,
    },
    /// Take a disabled access key again.
    Enable {
        /// Its id.
        id: String,
    },
    /// Remove an access key for good.
    Remove {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeystoreCommand {
    /// Read the instances' keys out of Trove's database and store them under the key-encryption key; again
    /// and again if need be.
    ImportTrove(ImportTroveArgs),
    /// Write the live exemptions for messages that are not sealed, and the imported keys of those agents
    /// that have one, for the component that is to read them.
    LegacyFile(LegacyFileArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImportTroveArgs {
    /// Trove's database, as `[database] connection` has it: mysql+pymysql://…, postgresql://…,
    /// sqlite:///…. Better in the environment than here if it holds a password: other users can see a
    /// command line.
    #[arg(value_name = "DATABASE-URL", env = "BULLA_TROVE_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
    /// A file with Trove's inst_rpc_key_encr_key alone in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// A file with the database's password alone in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Say what would be imported, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Trove ran with its default key, which is printed in its source: import all the same.
    #[arg(long)]
    pub(crate) accept_public_key: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LegacyFileArgs {
    /// Where it goes; mode 0600.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KekCommand {
    /// Go over to the next key-encryption key while everything runs; goes on with what was cut
    /// off.
    Rotate(KekRotateArgs),
    /// Which keys there are, and how many values are under each.
    Status,
    /// Whether a key, such as a backup, opens the keystore.
    Check(KekCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KekRotateArgs {
    /// Only make the next key, to be brought to other hosts first.
    #[arg(long)]
    pub(crate) prepare: bool,
    /// Values in one transaction.
    #[arg(long, default_value_t = bulla_keystore::REWRAP_BATCH, value_name = "N")]
    pub(crate) batch: u32,
}

#[derive(Debug, Args)]
pub(crate) struct KekCheckArgs {
    /// A KEK file [default: what bulla.toml has as backup].
    pub(crate) file: Option<PathBuf>,
    /// Where else the key is: file, environment, credential or pkcs11.
    #[arg(long, value_enum, conflicts_with = "file", hide_possible_values = true)]
    provider: Option<Provider>,
    /// environment: the variable's name.
    #[arg(long, value_name = "NAME", requires = "provider")]
    variable: Option<String>,
    /// credential: its name.
    #[arg(long, value_name = "NAME", requires = "provider")]
    credential: Option<String>,
    /// pkcs11: the token's library.
    #[arg(long, value_name = "FILE", requires = "provider")]
    module: Option<PathBuf>,
    /// pkcs11: the token's label.
    #[arg(long, value_name = "LABEL", requires = "provider")]
    token: Option<String>,
    /// pkcs11: the key's label.
    #[arg(long, value_name = "LABEL", requires = "provider")]
    key: Option<String>,
    /// pkcs11: a file with the PIN; without it, BULLA_KEK_PIN.
    #[arg(long, value_name = "FILE", requires = "provider")]
    pin_file: Option<PathBuf>,
}

impl KekCheckArgs {
    /// As settings, if a provider was given.
    pub(crate) fn settings(&self) -> Option<Kek> {
        Some(Kek {
            provider: self.provider?,
            variable: self.variable.clone(),
            credential: self.credential.clone(),
            module: self.module.clone(),
            token: self.token.clone(),
            key: self.key.clone(),
            pin_file: self.pin_file.clone(),
            ..Kek::default()
        })
    }
}
