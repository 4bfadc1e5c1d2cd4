//! Policies, and floors of peers, on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ApiArgs, LevelArg};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    #[command(subcommand)]
    pub(crate) command: Option<PeersCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Let one method of a peer through below its floor, until it ends; without arguments, list
    /// the exemptions.
    Exempt {
        /// agent/ID or component/TYPE.
        #[arg(requires_all = ["method", "until"])]
        peer: Option<String>,
        /// The method, with its namespace before a dot if it has one (guest.resize).
        method: Option<String>,
        /// When it ends: a time (2026-12-01T08:00:00Z) or a while from now (90m, 2h, 7d).
        #[arg(long, value_name = "TIME", requires = "peer")]
        until: Option<String>,
        /// The lowest level that is let through.
        #[arg(long, value_enum, default_value_t = LevelArg::Signed)]
        level: LevelArg,
        /// Take this exemption back.
        #[arg(long, value_name = "ID", conflicts_with = "peer")]
        revoke: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// What came in clear to services on oslo.messaging, of the files in which they count it.
    Clear {
        /// The services' files, KEYFILE.clear.json.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only what came then (2026-12-01T08:00:00Z) or that while ago (90m, 2h, 7d), or later; ends
        /// with 1 if there is any.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Raise a peer's floor; nothing but an exemption goes below it again.
    Raise {
        /// agent/ID or component/TYPE.
        peer: String,
        /// The new floor.
        #[arg(value_enum)]
        level: LevelArg,
        /// Refuse nothing yet: count what would be refused.
        #[arg(long)]
        shadow: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Validate a policy, and show who reaches what by it.
    Check {
        /// The policy, in Cedar.
        file: PathBuf,
    },
    /// Say how one request is judged, by which rule, and what would have to change.
    Explain(Box<PolicyExplainArgs>),
    /// Print a policy to begin with.
    Starter {
        /// Its shape.
        #[arg(value_enum, default_value_t = StarterArg::Fleet)]
        kind: StarterArg,
    },
    /// Make a policy the one that every receiver goes by, as a version of its own.
    Activate {
        /// The policy, in Cedar.
        file: PathBuf,
    },
    /// Go back to an earlier version.
    Rollback {
        /// Which; 0 is the built-in rule [default: the one before].
        version: Option<u32>,
    },
    /// List the versions.
    List,
    /// Let a policy judge beside the active one; without a file, list what it would decide otherwise.
    Shadow {
        /// The policy, in Cedar.
        file: Option<PathBuf>,
        /// End it.
        #[arg(long, conflicts_with = "file")]
        stop: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StarterArg {
    /// Agents, and components that drive them: what is allowed when there is no policy.
    Fleet,
    /// OpenStack Trove: api to task manager to guest agent to conductor.
    Trove,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArgs {
    /// A policy that is not active [default: the one that is].
    pub(crate) file: Option<PathBuf>,
    /// The request as JSON, with the names of the flags below (from, to, method, open_to_agents …);
    /// `-` reads standard input. Flags go over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// A denial in a journal, as `bulla audit show` names it (control/17): who asked for what, and by
    /// which version of the policy it was judged. Flags go over it; the arguments are not in journals.
    #[arg(long, value_name = "JOURNAL/SEQ", conflicts_with = "request")]
    pub(crate) entry: Option<String>,
    /// The folder of the journal, or of several [default: the home folder's].
    #[arg(long, value_name = "PATH", requires = "entry")]
    pub(crate) journal: Option<PathBuf>,
    /// Who asks: agent/ID, component/TYPE, or of the API's users operator/NAME, program/NAME,
    /// user/NAME@DOMAIN.
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) from: Option<String>,
    /// A role in its credential, or that the settings give it (may be repeated).
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// The project that its token is for: its id or NAME@DOMAIN (may be repeated).
    #[arg(long = "project", value_name = "PROJECT")]
    pub(crate) projects: Vec<String>,
    /// A group that it is in (may be repeated).
    #[arg(long = "group", value_name = "NAME")]
    pub(crate) groups: Vec<String>,
    /// Who is asked: agent/ID, component/TYPE or group/NAME (of the API's own operations:
    /// component/control).
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) to: Option<String>,
    /// call, cast, fanout or reply-progress; of the API's users api:call, api:cast, api:fanout,
    /// api:read, api:manage or api:watch [default: call, or api:call].
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<String>,
    /// The method, with its namespace before a dot if it has one (guest.resize).
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// The version that is asked for [default: 1.0].
    #[arg(long, value_name = "MAJOR.MINOR")]
    pub(crate) version: Option<String>,
    /// The arguments, as JSON [default: {}].
    #[arg(long, value_name = "JSON")]
    pub(crate) args: Option<String>,
    /// The exchange that it is addressed to [default: the settings'].
    #[arg(long, value_name = "NAME")]
    pub(crate) exchange: Option<String>,
    /// The topic that it is addressed to [default: the receiver's].
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// The receiver declares the method open to agents.
    #[arg(long)]
    pub(crate) open_to_agents: bool,
    /// The receiver declares the method open to components.
    #[arg(long)]
    pub(crate) open_to_components: bool,
    /// The receiver declares that the method changes nothing.
    #[arg(long)]
    pub(crate) read_only: bool,
}
