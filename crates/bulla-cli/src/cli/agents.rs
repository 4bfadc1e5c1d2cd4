//! Components, agents and groups, on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ApiArgs, BusArgs, KeyTypeArg, SuiteArg};
use crate::journal::CallsSetting;

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentCommand {
    /// Add a component type, or another host of one, and write its key file.
    Add {
        /// The type, such as `conductor`.
        name: String,
        /// Which host this key file is for [default: NAME-1].
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// Where the key file goes [default: HOME/components/INSTANCE.key].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The suite of the type's key.
        #[arg(long, value_enum, default_value_t = SuiteArg::X25519)]
        suite: SuiteArg,
    },
    /// Write the type's part of the key-encryption key, for hosts that read the keystore's database
    /// with a role of their own.
    Kek {
        /// The type.
        name: String,
        /// Of the next key, which `bulla kek rotate --prepare` made.
        #[arg(long)]
        next: bool,
        /// Where it goes [default: HOME/components/NAME.kek].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make the type's next key to receive with; the ones before stay good until their end.
    Rotate {
        /// The type.
        name: String,
    },
    /// Revoke one host of a type, and make everything new that it held with the others.
    Revoke {
        /// The type.
        name: String,
        /// The host, as its key file was made for.
        #[arg(long, value_name = "NAME")]
        instance: String,
    },
    /// List the component types.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Add an agent and write the file that it starts with.
    Add(AgentAddArgs),
    /// Revoke an agent: nothing takes its keys any more, and its name is free again.
    Revoke {
        /// Its id.
        id: String,
    },
    /// Run as an agent: answer calls until stopped.
    Run(AgentRunArgs),
    /// List the agents.
    List,
    /// Show everything about one agent's keys.
    Show {
        /// Its id.
        id: String,
    },
    /// Have agents renew their keys now, with calls flowing.
    Rotate(AgentRotateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AgentRotateArgs {
    /// Its id.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Option<String>,
    /// Every agent.
    #[arg(long)]
    pub(crate) all: bool,
    /// Spread evenly over this time (90m, 2h); all at once unless given.
    #[arg(long, value_name = "WHILE")]
    pub(crate) over: Option<String>,
    /// How long one agent is waited for; then it is away, and the request waits for it for a day.
    #[arg(long, default_value = "30s", value_name = "WHILE")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentAddArgs {
    /// Its id, such as `db-1`.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) id: Option<String>,
    /// Add every agent whose id stands in the first column of this file, one a line; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// A one-time token: the agent makes its keys itself and gets a credential for them over the
    /// bus (the default).
    #[arg(long, conflicts_with = "key")]
    pub(crate) token: bool,
    /// The agent's keys themselves, good until they are rotated: for agents that must work
    /// without asking first.
    #[arg(long)]
    pub(crate) key: bool,
    /// How long the token is good: 10m to 60m.
    #[arg(long, default_value = "30m", value_name = "WHILE")]
    pub(crate) expires: String,
    /// Another join file: for an agent that has not joined yet, whose former one is worth nothing
    /// then, or that was off for longer than its keys live.
    #[arg(long, conflicts_with_all = ["from", "key"])]
    pub(crate) again: bool,
    /// A key pair, or a key that the keystore holds too (which comes as `--key` only).
    #[arg(long, value_enum, default_value_t = KeyTypeArg::Pair)]
    pub(crate) key_type: KeyTypeArg,
    /// The suite of a key pair.
    #[arg(long, value_enum, default_value_t = SuiteArg::X25519)]
    pub(crate) suite: SuiteArg,
    /// How the agent reaches the control plane: over the broker of the settings, or over the queue
    /// service that runs here, with its own key and no credential of a broker (comes as `--key`).
    #[arg(long, value_enum, default_value_t = TransportArg::Broker)]
    pub(crate) transport: TransportArg,
    /// How the file is packed for its way to the agent.
    #[arg(long, value_enum, default_value_t = FormatArg::File)]
    pub(crate) format: FormatArg,
    /// Where the file goes, or with --from the folder for them [default: in HOME/agents].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// The broker that the settings name.
    Broker,
    /// The queue service of `bulla up --queue`.
    Queue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// As it is, for scp.
    File,
    /// User data for cloud-init, which writes the file on the agent's machine.
    CloudInit,
    /// The content of a config drive, as a folder.
    ConfigDrive,
    /// A fragment for Trove's guest_info.conf.
    Trove,
}

#[derive(Debug, Args)]
pub(crate) struct AgentRunArgs {
    /// Its key file; a join file is taken too.
    #[arg(long, value_name = "FILE", env = "BULLA_KEY_FILE", required_unless_present = "join")]
    pub(crate) key: Option<PathBuf>,
    /// Its join file: at the first start the agent makes its keys and joins, and burns the file;
    /// from then on it uses the key file that it wrote.
    #[arg(long, value_name = "FILE", env = "BULLA_JOIN_FILE")]
    pub(crate) join: Option<PathBuf>,
    /// How long it asks to join before it gives up, in seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) join_timeout: u64,
    #[command(flatten)]
    pub(crate) bus: BusArgs,
    /// Where it remembers which messages ran [default: beside the key file, KEYFILE.state], and
    /// where it puts its key file when it joins [default: beside the join file].
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Offer each executable DIR/NAMESPACE/METHOD as a method.
    #[arg(long, value_name = "DIR")]
    pub(crate) exec: Option<PathBuf>,
    /// Methods that run at the same time at the most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) concurrency: usize,
    /// How long methods in progress may take to end when the agent is stopped, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) grace: u64,
    /// Keep a journal of what is refused, denied and renewed there, which `bulla audit` reads.
    #[arg(long, value_name = "DIR", env = "BULLA_JOURNAL")]
    pub(crate) journal: Option<PathBuf>,
    /// Which calls are in the journal too.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH", requires = "journal")]
    pub(crate) journal_calls: CallsSetting,
    /// Serve metrics, health and readiness there (127.0.0.1:9465), without authentication.
    #[arg(long, value_name = "ADDRESS", env = "BULLA_METRICS_LISTEN")]
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Add a group, or members to it.
    Add {
        /// Its name.
        name: String,
        /// A member, agent/ID or component/TYPE (may be repeated).
        #[arg(long = "member", value_name = "PRINCIPAL")]
        members: Vec<String>,
    },
    /// List the groups.
    List,
}
