//! `[queue]`: the queue service.

use std::net::SocketAddr;
use std::path::PathBuf;

use bulla_queue::Limits;
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Where it listens unless set: where Zaqar does, on this machine alone.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
/// Connections at a time unless set.
const MAX_CONNECTIONS: usize = 16_384;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Queue {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) noauth: bool,
    pub(crate) url: Option<String>,
    pub(crate) min_claim_s: Option<u32>,
    pub(crate) max_connections: Option<usize>,
}

impl Queue {
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        if let Some(least) = self.min_claim_s {
            if !(1..=60).contains(&least) {
                return Err(Failure::usage("[queue] min-claim-s must be 1 to 60 seconds"));
            }
            limits.claim_ttl = least..=*limits.claim_ttl.end();
            limits.grace = least..=*limits.grace.end();
        }
        Ok(limits)
    }

    pub(crate) fn door(&self) -> bulla_http::Limits {
        let max_connections = self.max_connections.unwrap_or(MAX_CONNECTIONS).max(1);
        bulla_http::Limits { max_connections, ..bulla_http::Limits::default() }
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let default = || DEFAULT_LISTEN.parse();
        let parsed = self.listen.map_or_else(default, Ok);
        parsed.map_err(|_| Failure::new("the default address can't be parsed"))
    }
}
