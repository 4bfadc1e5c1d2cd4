//! `bulla queue serve`.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bulla_http::{AccessKeys, Authenticators, ClientCertificates, Listener, Options};
use bulla_queue::{
    EncryptedQueues, GRANT_HEADERS, Grants, PUBLIC, RestKey, Service, SpreadKey, SpreadQueues,
    Store, StoreError, StorePool,
};
use bulla_seal::{OsRandom, Random as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::private_folder;
use super::serve::StopSignals;
use crate::cli::QueueServeArgs;
use crate::control::{access_keys, open_keystore};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::queue_settings::Queue;
use crate::settings::{Home, Settings};

/// Bytes of the secret of grants.
const SECRET: usize = 32;
/// What the key of the queues is called in the keystore.
const KEY: &str = "queue";

pub(crate) async fn serve(home: &Home, args: &QueueServeArgs, out: Output) -> Result<()> {
    let mut settings = Settings::load(home.dir())?;
    let queue = &mut settings.queue;
    queue.listen = args.listen.or(queue.listen);
    queue.given_store(args.store.as_ref())?;
    queue.noauth |= args.noauth;
    let stop = CancellationToken::new();
    // Who is asked nothing needs no keystore, and neither does a service that stands alone.
    let keystore = match settings.queue.noauth || !home.keystore_is_there(&settings) {
        true => None,
        false => Some(open_keystore(home).await?),
    };
    let keys = keystore.as_ref().map(|keystore| access_keys(keystore, &stop));
    let listener = listen(home, &settings, keys).await?;
    private_folder(home.dir())?;
    let service = Arc::new(service(home, &settings).await?);
    let mut signals = StopSignals::listen()?;
    let (url, noauth) = (listener.url(), settings.queue.noauth);
    if out.is_json() {
        out.json_line(&json!({ "queue": url, "noauth": noauth }))?;
    }
    out.say(format!("Queue service at {}.", out.bold(&url)));
    if noauth {
        out.say("Nobody is asked who they are: every program of this machine is let in.");
    }
    let serving = tokio::spawn(listener.serve(bulla_queue::router(service.clone()), stop.clone()));
    signals.wait().await;
    out.say("Stopping: letting what runs end.");
    stop.cancel();
    let ended = serving.await;
    service.close().await;
    if let Some(keystore) = keystore {
        keystore.close().await;
    }
    ended.map_err(|error| Failure::new(format!("the queue service ended badly: {error}")))
}

async fn listen(
    home: &Home,
    settings: &Settings,
    keys: Option<Arc<dyn AccessKeys>>,
) -> Result<Listener> {
    let (queue, api) = (&settings.queue, &settings.api);
    let address = queue.address()?;
    if queue.noauth {
        let options = Options::dangerously_open_loopback(address)?;
        return Ok(Listener::bind(options.limits(queue.door())).await?);
    }
    let by = Authenticators::default().grants(GRANT_HEADERS).public(PUBLIC);
    let by = match keys {
        Some(keys) => by.access_keys(keys, None),
        None => by,
    };
    let by = with_keystone(by, settings)?.roles(api.roles()?).rate(api.rate()?);
    // Whoever holds a grant has no certificate.
    let files = api.tls.server(home)?.client_certificates(ClientCertificates::Optional);
    let options = Options::tls(address, files).limits(queue.door()).authenticators(by);
    Ok(Listener::bind(options).await?)
}

/// Takes tokens of Keystone's too, if the settings name one.
pub(crate) fn with_keystone(by: Authenticators, settings: &Settings) -> Result<Authenticators> {
    match settings.api.keystone.options()? {
        None => Ok(by),
        Some(keystone) => by
            .keystone(keystone)
            .map_err(|error| Failure::new(format!("[api.keystone] can't be used: {error}"))),
    }
}

/// The service with its store.
pub(crate) async fn service(home: &Home, settings: &Settings) -> Result<Service> {
    let queue = &settings.queue;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let store = at_rest(home, queue, open_store(home, queue, now).await?).await?;
    let secret = secret(&home.grants_key(), SECRET, "grants that were made end with it")?;
    let grants = Grants::new(&secret).map_err(|error| Failure::new(error.to_string()))?;
    let service = Service::new(store).limits(queue.limits()?).grants(grants);
    let service = match queue.webhooks()? {
        Some(webhooks) => service.webhooks(webhooks),
        None => service,
    };
    Ok(if queue.noauth { service.dangerously_open() } else { service })
}

/// The store, or the pools over which queues are spread.
async fn open_store(home: &Home, queue: &Queue, now: u64) -> Result<Arc<dyn Store>> {
    let failed = |error: StoreError| Failure::new(error.to_string());
    if queue.pools.is_empty() {
        return queue.store(home)?.open(now).await.map_err(failed);
    }
    let lost = "the pools of queues are drawn anew with another one, and queues are not found";
    let key = secret(&home.spread_key(), bulla_queue::SPREAD_KEY, lost)?;
    let key = SpreadKey::from_slice(&key).ok_or_else(|| {
        Failure::new(format!("{} is not a key of 16 bytes", home.spread_key().display()))
    })?;
    let mut pools = Vec::new();
    for pool in &queue.pools {
        let address = pool.store(queue)?;
        let store = address.open(now).await.map_err(failed)?;
        let (name, flavor) = (pool.name.clone(), pool.flavor.clone());
        let shown = address.to_string();
        pools.push(StorePool { name, weight: pool.weight, flavor, shown, store });
    }
    let spread: Arc<dyn Store> = SpreadQueues::open(key, pools).await.map_err(failed)?;
    Ok(spread)
}

/// The store with what is between it and the service: encryption, if that is on, or was.
async fn at_rest(home: &Home, queue: &Queue, store: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
    let failed = |error: StoreError| Failure::new(error.to_string());
    let plain = queue.encryption()?;
    if plain.is_none() && !EncryptedQueues::is_used(store.as_ref()).await.map_err(failed)? {
        return Ok(store);
    }
    let keystore = open_keystore(home).await?;
    let key = keystore.service_key(KEY).await.map(RestKey::new);
    keystore.close().await;
    let encrypted = match plain {
        Some(plain) => EncryptedQueues::open(store, key?, plain).await,
        None => EncryptedQueues::leave(store, key?).await,
    };
    let encrypted = encrypted.map_err(|error| match error {
        StoreError::Unreadable { .. } => Failure::new(format!(
            "{error}: the queue store belongs to another keystore than this one"
        )),
        error => failed(error),
    })?;
    Ok(Arc::new(encrypted))
}

/// Reads a secret, or makes it; `lost` says what happens without it.
fn secret(path: &Path, size: usize, lost: &str) -> Result<Zeroizing<Vec<u8>>> {
    let cant =
        |error: std::io::Error| Failure::new(format!("can't use {}: {error}", path.display()));
    let mut secret = Zeroizing::new(vec![0; size]);
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            OsRandom::default()
                .fill(&mut secret)
                .map_err(|error| Failure::new(error.to_string()))?;
            file.write_all(&secret).and_then(|()| file.sync_all()).map_err(cant)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut file = std::fs::File::open(path).map_err(cant)?;
            if file.metadata().map_err(cant)?.mode() & 0o077 != 0 {
                return Err(Failure::new(format!(
                    "others than its owner can reach the secret in {}; run `chmod 600` on it, or \
                     remove it: {lost}",
                    path.display()
                )));
            }
            secret.clear();
            file.read_to_end(&mut secret).map_err(cant)?;
        }
        Err(error) => return Err(cant(error)),
    }
    Ok(secret)
}
