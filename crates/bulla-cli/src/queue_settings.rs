//! `[queue]`: the queue service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bulla_http::{Outward, Reach};
use bulla_queue::{Limits, Webhooks};
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Where it listens unless set: where Zaqar does, on this machine alone.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
/// Whom subscribers' certificates may be from, unless set: what the system trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
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
    pub(crate) webhook_targets: WebhookTargets,
    pub(crate) webhook_ca: Option<PathBuf>,
    pub(crate) webhook_confirm: Option<bool>,
}

/// Which addresses subscribers may have.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WebhookTargets {
    #[default]
    Public,
    Private,
    Everything,
    None,
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

    /// How subscribers are told; `None` if they are not.
    pub(crate) fn webhooks(&self) -> Result<Option<Webhooks>> {
        let reach = match self.webhook_targets {
            WebhookTargets::Public => Reach::Public,
            WebhookTargets::Private => Reach::Private,
            WebhookTargets::Everything => Reach::Everything,
            WebhookTargets::None => return Ok(None),
        };
        let system = Path::new(SYSTEM_CA);
        let ca = self.webhook_ca.as_deref().or_else(|| system.exists().then_some(system));
        let outward = Outward::new(reach, ca)
            .map_err(|error| Failure::new(format!("[queue] webhook-ca can't be used: {error}")))?;
        let webhooks = Webhooks::new(outward).url(self.url.clone());
        let confirm = self.webhook_confirm.unwrap_or(true);
        Ok(Some(if confirm { webhooks } else { webhooks.without_confirmation() }))
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
