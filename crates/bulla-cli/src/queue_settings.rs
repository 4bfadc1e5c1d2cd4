//! `[queue]`: the queue service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bulla_http::{Outward, Reach};
use bulla_queue::{Limits, Plain, Quota, StoreAddress, Webhooks};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};
use crate::settings::{Home, password};

/// Where it listens unless set: where Zaqar does, on this machine alone.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
/// Whom subscribers' certificates may be from, unless set: what the system trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Connections at a time unless set.
const MAX_CONNECTIONS: usize = 16_384;

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Queue {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) store: Option<String>,
    pub(crate) store_password_file: Option<PathBuf>,
    /// From the environment only.
    #[serde(skip)]
    pub(crate) store_password: Option<Zeroizing<String>>,
    pub(crate) store_ca: Option<PathBuf>,
    pub(crate) pools: Vec<QueuePool>,
    pub(crate) encrypt: bool,
    pub(crate) accept_plain: bool,
    pub(crate) noauth: bool,
    pub(crate) url: Option<String>,
    pub(crate) min_claim_s: Option<u32>,
    pub(crate) max_connections: Option<usize>,
    /// Queues for parts of large messages that an agent may have, and bytes in them.
    pub(crate) agent_queues: Option<usize>,
    pub(crate) agent_bytes: Option<u64>,
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

/// One of the stores over which queues are spread.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct QueuePool {
    pub(crate) name: String,
    pub(crate) weight: u32,
    pub(crate) flavor: Option<String>,
    store: String,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl QueuePool {
    /// Where the pool's store is, with its password.
    pub(crate) fn store(&self, queue: &Queue) -> Result<StoreAddress> {
        let shared = queue.store_password.clone();
        let of = Queue {
            store: Some(self.store.clone()),
            store_password_file: self.password_file.clone(),
            store_password: shared.filter(|_| self.password_file.is_none()),
            store_ca: self.ca.clone().or_else(|| queue.store_ca.clone()),
            ..Queue::default()
        };
        of.given().map_err(|failure| Failure::usage(format!("pool {}: {failure}", self.name)))
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address of the store may hold a password.
        f.debug_struct("Queue").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Queue {
    /// Where the store is, with its password.
    pub(crate) fn store(&self, home: &Home) -> Result<StoreAddress> {
        if self.store.is_none() {
            return Ok(StoreAddress::of_file(home.queue_store()));
        }
        self.given()
    }

    fn given(&self) -> Result<StoreAddress> {
        let bad = |error| Failure::usage(format!("[queue] store: {error}"));
        let store = self.store.as_deref().unwrap_or_default();
        let mut address: StoreAddress = store.parse().map_err(bad)?;
        let (given, file) = (self.store_password.as_ref(), self.store_password_file.as_ref());
        if let Some(password) = password(given, file, "queue store")? {
            address = address.password(&password).map_err(bad)?;
        }
        if let Some(path) = &self.store_ca {
            address = address.authorities(path);
        }
        Ok(address)
    }

    /// A store from the command line, where everybody of this machine could read a password.
    pub(crate) fn given_store(&mut self, store: Option<&String>) -> Result<()> {
        let Some(store) = store else { return Ok(()) };
        let bad = |error| Failure::usage(format!("--store: {error}"));
        let address: StoreAddress = store.parse().map_err(bad)?;
        if address.has_password() {
            return Err(Failure::usage(
                "--store: a password among the arguments can be read by every user of this machine; \
                 set BULLA_QUEUE_STORE_PASSWORD, or store-password-file under [queue]",
            ));
        }
        self.store = Some(store.clone());
        self.pools.clear();
        Ok(())
    }

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

    /// What an agent may have in queues for parts of large messages.
    pub(crate) fn quota(&self) -> Quota {
        let default = Quota::default();
        Quota {
            queues: self.agent_queues.unwrap_or(default.queues),
            bytes: self.agent_bytes.unwrap_or(default.bytes),
        }
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

    /// What becomes of messages that were stored in plain; `None` if nothing is encrypted.
    pub(crate) fn encryption(&self) -> Result<Option<Plain>> {
        match (self.encrypt, self.accept_plain) {
            (false, false) => Ok(None),
            (false, true) => Err(Failure::usage(
                "[queue] accept-plain means something with `encrypt = true` alone",
            )),
            (true, true) => Ok(Some(Plain::Taken)),
            (true, false) => Ok(Some(Plain::Refused)),
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_stores_password_comes_from_anywhere_but_the_arguments() {
        let home = Home::new(Path::new("/nowhere"));
        let mut queue = Queue::default();
        assert_eq!(queue.store(&home).unwrap().file(), Some(Path::new("/nowhere/queue.db")));
        let given = "postgres://u:secret@h/d".to_owned();
        let refused = queue.given_store(Some(&given)).unwrap_err().to_string();
        assert!(refused.contains("BULLA_QUEUE_STORE_PASSWORD") && !refused.contains("secret"));
        queue.given_store(Some(&"postgres://u@h/d".to_owned())).unwrap();
        queue.store_password = Some("secret".to_owned().into());
        let store = queue.store(&home).unwrap();
        assert!(store.has_password());
        assert_eq!(format!("{store:?} {queue:?}").matches("secret").count(), 0);
        queue.store = Some("mysql://u:secret@h/d".to_owned());
        assert!(!queue.store(&home).unwrap_err().to_string().contains("secret"));
    }
}
