//! The calls, and what their caller was told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_rpc::{CallError, Client, Target};
use bulla_transport::{RabbitOptions, RabbitTransport};
use futures_util::StreamExt;

use crate::Failed;
use crate::deployment::{SERVICE, endpoint};
use crate::progress::Progress;
use crate::worker::METHOD;

/// Longer than a call takes that keeps to its timeout.
const GRACE: Duration = Duration::from_secs(60);

/// What the caller of one call was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Value(u64),
    /// A failure, by a short name.
    Failure(String),
    /// Nothing at all.
    Nothing,
}

/// How calls are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) calls: u64,
    pub(crate) at_a_time: usize,
    pub(crate) timeout: Duration,
}

pub(crate) async fn client(key_file: &Path, bus: &str) -> Result<Client, Failed> {
    let options = RabbitOptions::new(bus)?.heartbeat(Duration::from_secs(2));
    let transport = RabbitTransport::connect(options).await?;
    Ok(Client::new(endpoint(key_file, Arc::new(transport), false)?))
}

/// Makes every call and returns what was told of each.
pub(crate) async fn call_all(
    client: Client,
    traffic: Traffic,
    progress: Arc<Progress>,
) -> Result<Vec<Told>, Failed> {
    let target: Target = SERVICE.parse()?;
    let calls = (0..traffic.calls).map(|n| {
        let (client, target, progress) = (client.clone(), target.clone(), progress.clone());
        async move {
            let call = tokio::spawn(call(client, target, n, traffic.timeout));
            let told = call.await.unwrap_or(Told::Nothing);
            progress.one_more();
            (n, told)
        }
    });
    let mut told: Vec<_> =
        futures_util::stream::iter(calls).buffer_unordered(traffic.at_a_time).collect().await;
    progress.finish();
    told.sort_by_key(|(n, _)| *n);
    Ok(told.into_iter().map(|(_, told)| told).collect())
}

async fn call(client: Client, target: Target, n: u64, timeout: Duration) -> Told {
    let call = client.request(&target, METHOD).timeout(timeout).call::<_, u64>(&n);
    match tokio::time::timeout(timeout + GRACE, call).await {
        Ok(Ok(value)) => Told::Value(value),
        Ok(Err(error)) => Told::Failure(name(&error)),
        Err(_) => Told::Nothing,
    }
}

fn name(error: &CallError) -> String {
    match error {
        CallError::Remote(remote) => remote.kind.clone(),
        CallError::Timeout { .. } => "Timeout".to_owned(),
        CallError::Unroutable { .. } => "Unroutable".to_owned(),
        CallError::Publish(_) | CallError::Transport(_) => "NotSent".to_owned(),
        other => other.to_string(),
    }
}
