//! The broker and the database, on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Compare the broker's users with the agents.
    List,
    /// Give users the rights that they should have now, and remove those that no agent needs.
    Sync,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Bring the schema up to this program's version; finishes what was interrupted.
    Migrate {
        /// Print the SQL and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the schema back, for an older program. What the older version has no place for is lost.
    Revert {
        /// The version to go back to [default: one below].
        #[arg(long, value_name = "VERSION")]
        to: Option<u32>,
        /// Print the SQL and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show which version the schema has, and what brought it there.
    Status,
    /// Say that the database was put back from a backup, before the control plane starts: what was
    /// revoked since is revoked again, and no number that may be in use is given a second time.
    Restored,
    /// A database role for each component type, and one for auditors, each with the rights that it
    /// needs: make them, take them back, or print the SQL.
    Grants(GrantsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GrantsArgs {
    /// Make the roles, or bring them up to date.
    #[arg(long, required_unless_present_any = ["revert", "print"], conflicts_with_all = ["revert", "print"])]
    apply: bool,
    /// Take all roles back.
    #[arg(long)]
    pub(crate) revert: bool,
    /// Print the SQL (of --revert too) and change nothing.
    #[arg(long)]
    pub(crate) print: bool,
    /// Where the roles' passwords are, each in a file ROLE.password; those that are missing are made
    /// [default: HOME/database].
    #[arg(long, value_name = "DIR", conflicts_with_all = ["revert", "print"])]
    pub(crate) passwords: Option<PathBuf>,
}
