//! The command line: what every command shares is here, the rest by what it is about.

mod agents;
mod audit;
mod keys;
mod messages;
mod policy;
mod queue;
mod servers;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use agents::{
    AgentAddArgs, AgentCommand, AgentRotateArgs, AgentRunArgs, ComponentCommand, FormatArg,
    GroupCommand, TransportArg,
};
pub(crate) use audit::{AuditCommand, AuditShowArgs, AuditVerifyArgs};
pub(crate) use keys::{
    AccessKeyCommand, ImportTroveArgs, KekCheckArgs, KekCommand, KekRotateArgs, KeystoreCommand,
    LegacyFileArgs, RootCommand, RootRotateArgs,
};
pub(crate) use messages::{AttackArgs, CallArgs, CastArgs, MessageArgs, TapArgs};
pub(crate) use policy::{PeersArgs, PeersCommand, PolicyCommand, PolicyExplainArgs, StarterArg};
pub(crate) use queue::{QueueCommand, QueueOf, QueueServeArgs, QueueWhere};
pub(crate) use servers::{BrokerCommand, DbCommand, GrantsArgs};

/// Sealed RPC over a message broker that nobody has to trust.
#[derive(Debug, Parser)]
#[command(
    name = "bulla",
    version,
    about = "Sealed RPC over a message broker that nobody has to trust",
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The folder with settings, keystore and keys.
    #[arg(long, global = true, env = "BULLA_HOME", default_value = "bulla", value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a home folder: settings, key-encryption key, root key, keystore, certificates.
    Init(InitArgs),
    /// Everything in one process: control plane, API and a local agent; begins with one call.
    Up(UpArgs),
    /// One control-plane process of a real deployment.
    Serve(ServeArgs),
    /// Look for what is wrong, and say what to do about it.
    Doctor,
    /// Control-plane services of your own.
    #[command(subcommand)]
    Component(ComponentCommand),
    /// Agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Groups, the targets of fanouts.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Access keys of operators and programs, to sign requests to the API with.
    #[command(subcommand)]
    AccessKey(AccessKeyCommand),
    /// The broker users of agents, if `[broker-users]` is set.
    #[command(subcommand)]
    Broker(BrokerCommand),
    /// The key-encryption key: rotate it, see what is under it, check a backup of it.
    #[command(subcommand)]
    Kek(KekCommand),
    /// Keys of peers that do not seal yet: import Trove's, hand them to who reads such peers.
    #[command(subcommand)]
    Keystore(KeystoreCommand),
    /// The root key: see which is trusted, and have another follow it.
    #[command(subcommand)]
    Root(RootCommand),
    /// Floors of peers, what came in below them, and exemptions.
    Peers(PeersArgs),
    /// Who may call what: check a policy, explain a decision, rehearse, activate, go back.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The keystore's database: its schema, and rights in it.
    #[command(subcommand)]
    Db(DbCommand),
    /// Call a method and print its result.
    Call(CallArgs),
    /// Send a method without waiting for it to run.
    Cast(CastArgs),
    /// Send a method to every member of a group.
    Fanout(CastArgs),
    /// Show what the bus sees, live.
    Tap(TapArgs),
    /// What happened: refusals, denials, keys, floors, calls; and whether the journal is whole.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The control plane's HTTPS API: its description.
    #[command(subcommand)]
    Api(ApiCommand),
    /// A queue service with Zaqar's API.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Attack a deployment of its own, and yours if you say so: exit code 1 if anything works.
    Attack(AttackArgs),
    /// Measure plain and sealed side by side.
    Bench(crate::bench::BenchArgs),
    /// Write what a package ships beside the program: completions, man pages, the table of metrics.
    #[command(hide = true)]
    Package(PackageArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PackageArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The SPIFFE trust domain.
    #[arg(long, default_value = "bulla.local", value_name = "NAME")]
    pub(crate) trust_domain: String,
    /// A further name or address of the API's server certificate (may be repeated).
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// The name on the operator's client certificate.
    #[arg(long, default_value = "operator", value_name = "NAME")]
    pub(crate) operator: String,
    /// The suite of the control plane's key: x-wing also holds against a quantum computer, and
    /// its offers are 1.1 KiB larger.
    #[arg(long, value_enum, default_value_t = SuiteArg::X25519)]
    pub(crate) suite: SuiteArg,
}

#[derive(Debug, Args)]
pub(crate) struct BusArgs {
    /// The broker's address, amqp:// or amqps://. Better in BULLA_BUS_URL or bulla.toml than
    /// here if it holds a password: other users can see a command line.
    #[arg(long = "bus", value_name = "URL")]
    pub(crate) bus: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) bus: BusArgs,
    /// Where the API listens [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The API in plain HTTP with a bearer token, on a loopback address only.
    #[arg(long)]
    pub(crate) plain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// A queue service over HTTPS as the bus, for agents on other machines: no broker anywhere.
    #[arg(long, conflicts_with = "bus")]
    pub(crate) queue: bool,
    /// Where the queue service listens [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDRESS", requires = "queue")]
    pub(crate) queue_listen: Option<SocketAddr>,
    /// End after the first call.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiCommand {
    /// Print the API's description: OpenAPI 3.1, as JSON.
    Openapi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// In the clear.
    Plaintext,
    /// Trove's AES-CBC serializer.
    AesCbc,
    /// Authenticated, but readable.
    Signed,
    /// Encrypted and authenticated.
    Sealed,
}

impl LevelArg {
    pub(crate) fn level(self) -> bulla_seal::Level {
        match self {
            Self::Plaintext => bulla_seal::Level::Plaintext,
            Self::AesCbc => bulla_seal::Level::AesCbc,
            Self::Signed => bulla_seal::Level::Signed,
            Self::Sealed => bulla_seal::Level::Sealed,
        }
    }
}

#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ApiArgs {
    /// The control plane's address [default: what the home folder says].
    #[arg(long, env = "BULLA_API_URL", value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The CA of its certificate [default: the home folder's].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// An access key to sign requests with, instead of the operator's certificate.
    #[arg(long, value_name = "FILE", conflicts_with = "keystone_token")]
    pub(crate) access_key: Option<PathBuf>,
    /// A token of Keystone's, alone in a file, instead of the operator's certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) keystone_token: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyTypeArg {
    /// Keys of its own: the keystore can't speak or listen in its place.
    Pair,
    /// One key that the keystore holds too, for guests that can do nothing else.
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteArg {
    /// X25519.
    X25519,
    /// X25519 and ML-KEM-768 together.
    XWing,
}

impl SuiteArg {
    pub(crate) fn suite(self) -> bulla_seal::Suite {
        match self {
            Self::X25519 => bulla_seal::Suite::X25519,
            Self::XWing => bulla_seal::Suite::XWing,
        }
    }
}
