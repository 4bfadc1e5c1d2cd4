//! Calls, casts, what the bus sees, and attacks, on the command line.

use std::path::PathBuf;

use clap::Args;

use super::ApiArgs;

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
