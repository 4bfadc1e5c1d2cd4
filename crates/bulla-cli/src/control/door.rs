//! Who is let in at the HTTPS API: access keys from the keystore, tokens by Keystone's word, and what
//! the journal hears of those who are not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bulla_http::{AccessKeys, AccessSecret, Authenticators, Identity, KeyOwner, Watch};
use bulla_journal::{Events, Text, events};
use bulla_keystore::Keystore;
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::UnixTime;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::ControlNode;
use crate::api_settings::Api;
use crate::failure::{Failure, Result};

/// How long an access key is known without asking the keystore, which other processes change.
const KNOWN: Duration = Duration::from_secs(1);
/// Keys that are known at the most.
const MAX_KNOWN: usize = 4096;
/// How often it is written down when keys were last used.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// How often the same is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Users whose refused requests are counted apart.
const MAX_TOLD: usize = 1024;

/// Access keys of a keystore, for another door than the API's.
pub(crate) fn access_keys(keystore: &Keystore, stop: &CancellationToken) -> Arc<dyn AccessKeys> {
    let keys = Arc::new(Keys::new(keystore.clone()));
    keys.clone().note(stop.clone());
    keys
}

impl ControlNode {
    /// How requests to the API are authenticated.
    pub(crate) fn authenticators(&self, settings: &Api) -> Result<Authenticators> {
        let keys = access_keys(&self.keystore, &self.stop);
        let told = Arc::new(Told { events: self.events().clone(), held: Mutex::default() });
        told.clone().tell(self.stop.clone());
        let mut by = Authenticators::default()
            .access_keys(keys, Some(self.nonces.clone()))
            .roles(settings.roles()?)
            .rate(settings.rate()?)
            .watch(told);
        if let Some(failures) = settings.failures()? {
            by = by.failures(failures);
        }
        if let Some(keystone) = settings.keystone.options()? {
            by = by
                .keystone(keystone)
                .map_err(|error| Failure::new(format!("[api.keystone] can't be used: {error}")))?;
        }
        Ok(by)
    }
}

/// Access keys of the keystore.
struct Keys {
    keystore: Keystore,
    known: Mutex<HashMap<String, (Instant, Found)>>,
    used: Mutex<HashMap<String, UnixTime>>,
}

type Found = Result<KeyOwner, &'static str>;

impl Keys {
    fn new(keystore: Keystore) -> Self {
        Self { keystore, known: Mutex::default(), used: Mutex::default() }
    }

    /// Writes down now and then, and at the end, when keys were used.
    fn note(self: Arc<Self>, stop: CancellationToken) {
        tokio::spawn(async move {
            let mut stopped = false;
            while !stopped {
                tokio::select! {
                    () = stop.cancelled() => stopped = true,
                    () = tokio::time::sleep(NOTE_EVERY) => {}
                }
                let uses: Vec<_> = self.used.lock().drain().collect();
                if uses.is_empty() {
                    continue;
                }
                if let Err(error) = self.keystore.note_access_keys_used(&uses).await {
                    tracing::warn!(%error, "it can't be noted when access keys were used");
                }
            }
        });
    }
}

#[async_trait]
impl AccessKeys for Keys {
    async fn find(&self, id: &str) -> std::result::Result<Found, String> {
        let now = Instant::now();
        if let Some((until, found)) = self.known.lock().get(id)
            && now < *until
        {
            return Ok(found.clone());
        }
        let key = self.keystore.access_key(id).await.map_err(|error| error.to_string())?;
        let found = match key {
            Ok(key) => {
                let secret = AccessSecret::new(key.secret.expose())
                    .map_err(|_| format!("the secret of access key {id} is damaged"))?;
                Ok(KeyOwner { user: key.record.user.to_string(), secret })
            }
            Err(refusal) => Err(refusal.as_str()),
        };
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < MAX_KNOWN {
            known.insert(id.to_owned(), (now + KNOWN, found.clone()));
        }
        Ok(found)
    }

    fn used(&self, id: &str) {
        self.used.lock().insert(id.to_owned(), SystemClock.now());
    }
}

/// Tells the journal of what is refused; the same at most once a second, with how often.
struct Told {
    events: Events,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    refused: HashMap<(&'static str, &'static str), (u64, Option<IpAddr>)>,
    limited: HashMap<String, u64>,
    shut_out: Vec<IpAddr>,
}

impl Told {
    fn tell(self: Arc<Self>, stop: CancellationToken) {
        tokio::spawn(async move {
            let mut stopped = false;
            while !stopped {
                tokio::select! {
                    () = stop.cancelled() => stopped = true,
                    () = tokio::time::sleep(TELL_EVERY) => {}
                }
                self.tell_now();
            }
        });
    }

    fn tell_now(&self) {
        let Held { refused, limited, shut_out } = std::mem::take(&mut *self.held.lock());
        for ((credential, why), (count, from)) in refused {
            let from = from.map_or_else(|| Text::new(""), |from| Text::of(&from));
            self.events.emit(events::ApiRefused { why, count, credential, from });
        }
        for from in shut_out {
            self.events.emit(events::ApiShutOut { from: Text::of(&from) });
        }
        for (identity, count) in limited {
            self.events.emit(events::ApiLimited { identity: Text::new(&identity), count });
        }
    }
}

impl Watch for Told {
    fn refused(&self, credential: &'static str, why: &'static str, from: IpAddr) {
        let mut held = self.held.lock();
        let (count, last) = held.refused.entry((credential, why)).or_default();
        *count += 1;
        *last = Some(from);
    }

    fn limited(&self, identity: &Identity) {
        let mut held = self.held.lock();
        let name = identity.to_string();
        if held.limited.len() < MAX_TOLD || held.limited.contains_key(&name) {
            *held.limited.entry(name).or_default() += 1;
        }
    }

    fn shut_out(&self, from: IpAddr) {
        let mut held = self.held.lock();
        if held.shut_out.len() < MAX_TOLD {
            held.shut_out.push(from);
        }
    }
}
