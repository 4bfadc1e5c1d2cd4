//! What an agent offers without any code of the user's: `agent.ping`, `host.facts`, and the
//! executables of a folder.

mod exec;
mod host;

use std::path::PathBuf;

use bulla_rpc::{Clock, Context, Method, Router, SystemClock};
use bulla_seal::Principal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use exec::ExecError;

/// Output that an executable may give, in bytes.
const OUTPUT_LIMIT: usize = 1024 * 1024;

/// What an agent is to offer beside its built-in methods.
#[derive(Debug, Clone)]
pub(crate) struct AgentOptions {
    /// The folder of the executables that it offers as methods.
    pub(crate) exec: Option<PathBuf>,
    /// Bytes of output that one may give.
    pub(crate) output_limit: usize,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { exec: None, output_limit: OUTPUT_LIMIT }
    }
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

/// The methods of the agent `principal`. What lies in the folder of executables and can't be
/// offered is warned of, one by one.
///
/// # Errors
/// The folder of executables can't be read, or others could change what is in it.
pub(crate) fn router(principal: &Principal, options: &AgentOptions) -> Result<Router, ExecError> {
    let id = principal.name().to_owned();
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
    match &options.exec {
        Some(dir) => exec::offer(router, dir, options.output_limit),
        None => Ok(router),
    }
}
