//! A worker process: serves one method, and records what it runs.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{
    ClaimStore, MemoryClaims, NewStore, RedisClaims, RedisOptions, SqlClaims, SqlOptions,
    StoreOptions,
};
use bulla_rpc::{Method, RemoteError, Router, Server, ServerOptions, kinds};
use bulla_transport::{RabbitOptions, RabbitTransport};

use crate::Failed;
use crate::deployment::endpoint;
use crate::fuse::{Fuse, FusedClaims, FusedTransport};
use crate::settings::{ClaimsAt, Point, Settings};

/// What a worker says once it serves.
pub(crate) const READY: &str = "ready";
/// The method that must not run twice.
pub(crate) const METHOD: &str = "run";

/// Serves as the first line of standard input says, until standard input ends.
///
/// # Errors
/// Broker or claim store can't be used.
pub async fn work() -> Result<(), Failed> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let settings: Settings = serde_json::from_str(&line)?;
    let fuse = Fuse::new(settings.death);
    let options = RabbitOptions::new(&settings.bus)?.heartbeat(Duration::from_secs(2));
    let transport = RabbitTransport::connect(options).await?;
    let transport = FusedTransport { inner: transport, fuse: fuse.clone() };
    let endpoint = endpoint(&settings.key_file, Arc::new(transport), settings.replicated)?;
    let inner = claims(&settings.claims).await?;
    let claims = Arc::new(FusedClaims { inner, fuse: fuse.clone() });
    let options = ServerOptions {
        lease: Duration::from_millis(settings.lease_ms),
        ..ServerOptions::new(claims)
    };
    let router = Router::new().with(method(&settings.records, fuse)?);
    let _server = Server::start(endpoint, router, options).await?;
    println!("{READY}");
    // Whoever started it is gone, or wants it gone.
    let ended = || std::io::stdin().lock().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(ended).await??;
    Ok(())
}

async fn claims(at: &ClaimsAt) -> Result<Arc<dyn ClaimStore>, Failed> {
    let new_store = NewStore::NothingBefore;
    Ok(match at {
        ClaimsAt::Redis(url) => {
            Arc::new(RedisClaims::open(RedisOptions::new(url, new_store)).await?)
        }
        ClaimsAt::Postgres(url) => {
            Arc::new(SqlClaims::open(SqlOptions::new(url, new_store)).await?)
        }
        ClaimsAt::Nowhere => Arc::new(MemoryClaims::for_new_bus(StoreOptions::default())),
    })
}

fn method(records: &Path, fuse: Fuse) -> Result<Method, Failed> {
    let record = Arc::new(new_record(records)?);
    let method = Method::new(METHOD, move |_, n: u64| {
        let (record, fuse) = (record.clone(), fuse.clone());
        async move {
            let written = tokio::task::spawn_blocking(move || append(&record, n)).await;
            let why = match written {
                Ok(Ok(())) => {
                    fuse.pass(Point::Executed);
                    return Ok(n);
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            Err(RemoteError::new(kinds::INTERNAL, why))
        }
    });
    Ok(method.open_to_components())
}

/// A file that no other process writes to.
fn new_record(records: &Path) -> std::io::Result<File> {
    let path = records.join(std::process::id().to_string());
    OpenOptions::new().create(true).append(true).open(path)
}

/// One write, so that a kill leaves the whole line or nothing.
fn append(mut record: &File, n: u64) -> std::io::Result<()> {
    record.write_all(format!("{n}\n").as_bytes())?;
    record.sync_data()
}

/// The numbers that all workers recorded, one for each execution.
pub(crate) fn executions(records: &Path) -> Result<Vec<u64>, Failed> {
    let mut all = Vec::new();
    for file in fs::read_dir(records)? {
        for line in fs::read_to_string(file?.path())?.lines() {
            all.push(line.parse()?);
        }
    }
    Ok(all)
}
