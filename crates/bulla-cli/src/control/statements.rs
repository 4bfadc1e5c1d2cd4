//! What changes in the keystore while processes run: statements of revocation, issued by whichever
//! control-plane process is first, taken by all, and told to whoever listens; and the keys that the
//! control plane receives with.

use std::collections::BTreeSet;
use std::time::Duration;

use bulla_keystore::{EVERY_AGENT, Keystore, KeystoreError};
use bulla_rpc::{Client, Endpoint, Target, builtin};
use bulla_seal::{GroupName, Kid, SignedStatement};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How often the keystore is asked whether there is something to say: a revocation counts in every
/// control-plane process within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long news may wait for an agent that is away: then it asks by itself.
const NEWS_LIFE: Duration = Duration::from_secs(3600);

/// Keeps this process's statement the newest until `stop`.
pub(super) fn keep(keystore: &Keystore, client: &Client, stop: &CancellationToken) {
    let (keystore, client, stop) = (keystore.clone(), client.clone(), stop.clone());
    tokio::spawn(async move {
        let (mut failing, mut blind) = (false, false);
        let mut receiving = BTreeSet::new();
        loop {
            let read = receive(&keystore, client.endpoint(), &mut receiving).await;
            if let Some(error) = read.as_ref().err().filter(|_| !blind) {
                tracing::error!(%error, "the control plane's own keys can't be read");
            }
            blind = read.is_err();
            let failed = look(&keystore, &client).await.err();
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                tracing::error!(
                    error,
                    "no statement of revocation can be issued; agents refuse everything an hour \
                     after the last one"
                );
            }
            failing = failed.is_some();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    });
}

/// Receives with the keys that the keystore has now.
async fn receive(
    keystore: &Keystore,
    endpoint: &Endpoint,
    last: &mut BTreeSet<Kid>,
) -> Result<(), KeystoreError> {
    let keys = super::receive_keys(keystore).await?;
    let kids: BTreeSet<Kid> = keys.iter().map(|key| key.credential.kid).collect();
    if kids == *last {
        return Ok(());
    }
    let gone = !last.is_subset(&kids);
    endpoint.identity().receive_with(keys);
    if gone {
        // Whoever has a key that was taken back reads what was opened under it.
        endpoint.drop_sessions();
        tracing::warn!("a key to receive with ended or was revoked; sessions are opened anew");
    } else if !last.is_empty() {
        tracing::info!("there is a new key to receive with");
    }
    *last = kids;
    Ok(())
}

async fn look(keystore: &Keystore, client: &Client) -> Result<(), String> {
    let held = client.endpoint().statement();
    let statement = keystore.statement().await.map_err(|error| error.to_string())?;
    if held.as_ref().is_some_and(|held| held.epoch >= statement.epoch) {
        return Ok(());
    }
    let taken = client.endpoint().take_statement(statement.as_bytes());
    taken.map_err(|refusal| refusal.to_string())?;
    // A mere renewal goes along with other messages; what is revoked is told at once.
    if is_news(held.as_deref(), &statement) {
        tell_agents(client).await;
    }
    Ok(())
}

fn is_news(held: Option<&SignedStatement>, new: &SignedStatement) -> bool {
    held.is_none_or(|held| {
        (&held.revoked, &held.lowest, &held.groups) != (&new.revoked, &new.lowest, &new.groups)
    })
}

/// A fanout that carries the statement, and nothing else.
async fn tell_agents(client: &Client) {
    let Ok(group) = GroupName::new(EVERY_AGENT) else { return };
    let target = Target::Group(group);
    let news = client.request(&target, builtin::STATEMENT).namespace(builtin::NAMESPACE);
    if let Err(error) = news.ttl(NEWS_LIFE).fanout(&json!({})).await {
        tracing::warn!(%error, "agents could not be told of a revocation; they hear of it with the next message");
    }
}
