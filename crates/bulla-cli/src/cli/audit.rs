//! The journal, on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show what happened. It is not verified: `bulla audit verify` does that.
    Show(AuditShowArgs),
    /// Verify that the journals are what was written, with their public key: exit code 1 if not.
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditShowArgs {
    /// The folder of a journal, or of several; the home folder's unless given.
    pub(crate) path: Option<PathBuf>,
    /// From then on: a time (2026-12-01T08:00:00Z) or a while ago (90m, 2h, 7d).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only this event or class: refusal, denial, key, policy, floor, call, alarm, journal (may be
    /// repeated).
    #[arg(long = "kind", value_name = "NAME")]
    pub(crate) kinds: Vec<String>,
    /// Only what is about agent/ID or component/TYPE, or by this operator.
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Go on with what happens from now on.
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// The folder of a journal, or of several; the home folder's unless given.
    pub(crate) path: Option<PathBuf>,
    /// The journals' public key; the home folder's unless given.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A checkpoint that was copied to where nobody could alter it: the journal has to hold all that
    /// it signs.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
}
