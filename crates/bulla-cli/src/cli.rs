//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::journal::CallsSetting;
use crate::settings::{Kek, Provider};

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
pub(crate) enum ApiCommand {
    /// Print the API's description: OpenAPI 3.1, as JSON.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Serve queues over HTTPS: for operators by certificate, for users by tokens of Keystone's.
    Serve(QueueServeArgs),
    /// List the queues of a project.
    List {
        /// Those alone whose names hold this.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        at: QueueWhere,
    },
    /// Make a queue.
    Create {
        #[command(flatten)]
        of: QueueOf,
        /// Take only messages that enrolled principals sign, or seal: signed, sealed.
        #[arg(long, value_name = "WHAT", value_parser = ["signed", "sealed"])]
        require: Option<String>,
        /// Something else about it (may be repeated); the value is JSON, or a text.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Show what is said about a queue.
    Show(QueueOf),
    /// Say something else about a queue.
    Set {
        #[command(flatten)]
        of: QueueOf,
        /// What: _default_message_ttl, _require, or anything of your own.
        key: String,
        /// JSON, or a text; nothing takes it away.
        value: Option<String>,
    },
    /// Count a queue's messages.
    Stats(QueueOf),
    /// Remove a queue's messages and subscriptions.
    Purge(QueueOf),
    /// Remove a queue with all that is in it.
    Delete(QueueOf),
    /// Make a pre-signed grant: who has it needs nothing else.
    Grant {
        #[command(flatten)]
        of: QueueOf,
        /// What of the queue: messages, claims, subscriptions.
        #[arg(long, value_delimiter = ',', default_value = "messages", value_name = "PATHS")]
        paths: Vec<String>,
        /// Methods, for all paths or for one: GET, POST:claims.
        #[arg(long, value_delimiter = ',', default_value = "GET", value_name = "METHODS")]
        methods: Vec<String>,
        /// When it ends: a time, or a while from now; 30d at the longest.
        #[arg(long = "for", default_value = "1d", value_name = "TIME")]
        lasts: String,
    },
    /// End all grants of a queue.
    Revoke(QueueOf),
    /// Print the API's description: OpenAPI 3.1, as JSON.
    Openapi,
}

/// Which queue service is asked, and for whom.
#[derive(Debug, Args)]
pub(crate) struct QueueWhere {
    /// The queue service [default: the one of this home folder].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The CA of its certificate [default: the one in the home folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// An access key to sign requests with, in the place of the operator's certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) access_key: Option<PathBuf>,
    /// Whose queues; a program's are its own.
    #[arg(long, default_value = "bulla", value_name = "ID")]
    pub(crate) project: String,
}

#[derive(Debug, Args)]
pub(crate) struct QueueOf {
    /// The queue.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) at: QueueWhere,
}

#[derive(Debug, Args)]
pub(crate) struct QueueServeArgs {
    /// Where the queue service listens [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the queues are: a SQLite file, rediss://…, or postgres://…, without password
    /// [default: queue.db in the home folder].
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Plain HTTP on a loopback address, believing what every request says of its project.
    #[arg(long)]
    pub(crate) noauth: bool,
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

#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// agent/ID, component/TYPE, component/TYPE@HOST or group/NAME.
    pub(crate) target: String,
    /// The method, with its namespace before a dot if it has one (host.facts).
    pub(crate) method: String,
    /// The arguments, as JSON; `-` reads them from standard input.
    pub(crate) args: Option<String>,
    /// The version asked for.
    #[arg(long, value_name = "MAJOR.MINOR")]
    pub(crate) version: Option<String>,
    /// The request's context, as JSON.
    #[arg(long, value_name = "JSON")]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub(crate) timeout: f64,
}

#[derive(Debug, Args)]
pub(crate) struct CastArgs {
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// How long it may wait for a target that is away, in seconds.
    #[arg(long, default_value_t = 3600.0, value_name = "SECONDS")]
    pub(crate) ttl: f64,
}

#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// The broker to attack over, amqp:// or amqps://; without it, a bus in memory. Better in
    /// BULLA_BUS_URL than here if it holds a password: other users can see a command line.
    #[arg(long, value_name = "URL")]
    pub(crate) bus: Option<String>,
    /// One agent's key file, as an intruder would have it: adds what can be tried with it.
    #[arg(long, value_name = "FILE", requires = "bus")]
    pub(crate) key: Option<PathBuf>,
    /// Only the rows with this id, or whose ids begin with it (may be repeated).
    #[arg(long, value_name = "ID")]
    pub(crate) only: Vec<String>,
    /// Show the rows and try nothing.
    #[arg(long)]
    pub(crate) list: bool,
    /// Attack your own deployment on that broker too, without asking. The bait is the suite's own
    /// calls of a method that does not exist; nothing of yours is run or removed.
    #[arg(long, requires = "bus")]
    pub(crate) yes: bool,
    /// The live agent that the bait goes to [default: the first that answers].
    #[arg(long, value_name = "ID", requires = "bus")]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
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
