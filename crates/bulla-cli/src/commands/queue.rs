//! `bulla queue serve`.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bulla_http::{Authenticators, ClientCertificates, Listener, Options};
use bulla_queue::{GRANT_HEADERS, Grants, PUBLIC, Service, SpreadKey, SpreadQueues, StorePool};
use bulla_seal::{OsRandom, Random as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::private_folder;
use super::serve::StopSignals;
use crate::cli::QueueServeArgs;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::queue_settings;
use crate::settings::{Home, Settings};

/// Bytes of the secret of grants.
const SECRET: usize = 32;

pub(crate) async fn serve(home: &Home, args: &QueueServeArgs, out: Output) -> Result<()> {
    let mut settings = Settings::load(home.dir())?;
    let queue = &mut settings.queue;
    queue.listen = args.listen.or(queue.listen);
    queue.given_store(args.store.as_ref())?;
    queue.noauth |= args.noauth;
    // The door first: a port in use should cost nothing.
    let listener = listen(home, &settings).await?;
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
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listener.serve(bulla_queue::router(service.clone()), stop.clone()));
    signals.wait().await;
    out.say("Stopping: letting what runs end.");
    stop.cancel();
    let ended = serving.await;
    service.close().await;
    ended.map_err(|error| Failure::new(format!("the queue service ended badly: {error}")))
}

async fn listen(home: &Home, settings: &Settings) -> Result<Listener> {
    let (queue, api) = (&settings.queue, &settings.api);
    let address = queue.address()?;
    if queue.noauth {
        let options = Options::dangerously_open_loopback(address)?;
        return Ok(Listener::bind(options.limits(queue.door())).await?);
    }
    let by = Authenticators::default().grants(GRANT_HEADERS).public(PUBLIC);
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
    let store = open_store(home, queue, now).await?;
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
async fn open_store(
    home: &Home,
    queue: &queue_settings::Queue,
    now: u64,
) -> Result<Arc<dyn bulla_queue::Store>> {
    let failed = |error: bulla_queue::StoreError| Failure::new(error.to_string());
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
    let spread: Arc<dyn bulla_queue::Store> =
        SpreadQueues::open(key, pools).await.map_err(failed)?;
    Ok(spread)
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
