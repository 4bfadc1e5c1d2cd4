//! What an agent offers without any code of the user's: `agent.ping`, `host.facts`, and the
//! executables of a folder.

mod exec;
mod host;

use bulla_rpc::{Clock, Context, Method, Router, SystemClock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use exec::{ExecError, ExecOptions, Refused};

/// What an agent is to offer.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentOptions {
    /// Its id.
    pub(crate) id: String,
    /// The executables that it offers as methods.
    pub(crate) exec: Option<ExecOptions>,
}

/// What an agent offers.
#[derive(Debug)]
pub(crate) struct Offered {
    /// Its methods.
    pub(crate) router: Router,
    /// What lies in the folder of executables and is not offered, with the reason.
    pub(crate) refused: Vec<Refused>,
}

/// The answer to `agent.ping`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) pong: bool,
    /// The agent's id.
    pub(crate) agent: String,
    /// The version of its program.
    pub(crate) version: String,
    /// Its clock, in seconds since the Unix epoch.
    pub(crate) time: f64,
}

/// The methods of an agent.
///
/// # Errors
/// The folder of executables can't be used.
pub(crate) fn router(options: AgentOptions) -> Result<Offered, ExecError> {
    let AgentOptions { id, exec } = options;
    // Neither takes arguments; what is given is not looked at.
    let ping = move |_: Context, _: Value| {
        let agent = id.clone();
        async move {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let time = SystemClock.now().ns as f64 / 1e9;
            Ok(Pong { pong: true, agent, version, time })
        }
    };
    let router = Router::new()
        .with(Method::new("ping", ping).namespace("agent").read_only())
        .with(Method::new("facts", |_, _: Value| host::facts()).namespace("host").read_only());
    match exec {
        Some(options) => exec::offer(router, &options),
        None => Ok(Offered { router, refused: Vec::new() }),
    }
}
