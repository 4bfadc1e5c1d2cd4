//! What changes in the keystore while processes run: statements of revocation, issued by whichever
//! control-plane process is first, taken by all, and told to whoever listens; and the keys that the
//! control plane receives with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bulla_keystore::{EVERY_AGENT, Keystore, KeystoreError, News};
use bulla_rpc::{Client, Endpoint, PolicyRule, Target, builtin};
use bulla_seal::{GroupName, Kid, SignedStatement};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::policies::Follower;
use super::told;
use crate::settings::Home;

/// How often the keystore is asked whether there is something to say: a revocation counts in every
/// control-plane process within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What changes together, as a list of agents that is revoked, is looked at together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How long until somebody listens again whose connection was lost.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Agents are told at once, and then not again for so long: each that hears of a new epoch of its
/// group asks for the key.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long news may wait for an agent that is away: then it asks by itself.
const NEWS_LIFE: Duration = Duration::from_secs(3600);

/// Keeps this process's statement the newest until `stop`.
pub(super) fn keep(
    home: &Home,
    keystore: &Keystore,
    client: &Client,
    rule: &Arc<PolicyRule>,
    stop: &CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    tokio::spawn(listen(keystore.news(), changed.clone(), stop.clone()));
    let keeper = Keeper {
        home: home.clone(),
        keystore: keystore.clone(),
        client: client.clone(),
        policies: Follower::new(keystore, rule),
        receiving: BTreeSet::new(),
        blind: false,
        rootless: false,
        failing: false,
        // The start may have issued one, and nobody else tells agents of it.
        news: keystore.issued_epoch() > 0,
        told: None,
    };
    tokio::spawn(keeper.run(changed, stop.clone()));
}

/// Passes on what the database pushes.
async fn listen(mut news: News, changed: Arc<Notify>, stop: CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = news.changed() => heard,
        };
        match heard {
            Ok(()) => changed.notify_one(),
            Err(error) => {
                tracing::debug!(%error, "the database pushes nothing now; it is asked all the same");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LISTEN_AGAIN) => {}
                }
            }
        }
    }
}

struct Keeper {
    home: Home,
    keystore: Keystore,
    client: Client,
    policies: Follower,
    /// The keys that are received with.
    receiving: BTreeSet<Kid>,
    /// The keys, or the statement, could not be read; told once.
    blind: bool,
    /// The root could not be read; told once.
    rootless: bool,
    failing: bool,
    /// Agents have not been told yet what is new.
    news: bool,
    told: Option<Instant>,
}

impl Keeper {
    async fn run(mut self, changed: Arc<Notify>, stop: CancellationToken) {
        loop {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = changed.notified() => tokio::time::sleep(TOGETHER).await,
            }
        }
    }

    async fn look(&mut self) {
        let endpoint = self.client.endpoint();
        let read = receive(&self.keystore, endpoint, &mut self.receiving).await;
        if let Some(error) = read.as_ref().err().filter(|_| !self.blind) {
            tracing::error!(%error, "the control plane's own keys can't be read");
        }
        self.blind = read.is_err();
        let rooted = follow_root(&self.keystore, endpoint).await;
        if let Some(error) = rooted.as_ref().err().filter(|_| !self.rootless) {
            tracing::error!(%error, "it can't be read which root is trusted; the former one stays");
        }
        self.rootless = rooted.is_err();
        self.policies.look(&self.client).await;
        let taken = take_newest(&self.home, &self.keystore, endpoint).await;
        if let Some(error) = taken.as_ref().err().filter(|_| !self.failing) {
            tracing::error!(
                %error,
                "no statement of revocation can be issued; agents act on nothing \
                 once the one that they hold is an hour old"
            );
        }
        self.failing = taken.is_err();
        self.news |= taken.unwrap_or(false);
        if self.news && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            (self.news, self.told) = (false, Some(Instant::now()));
            // Beside: a broker that is away must not keep this process from hearing the next.
            let client = self.client.clone();
            tokio::spawn(async move { tell_agents(&client).await });
        }
    }
}

/// Trusts the root and the issuers that the keystore has now. Agents ask which they are.
async fn follow_root(keystore: &Keystore, endpoint: &Endpoint) -> Result<(), KeystoreError> {
    if keystore.refresh_roots().await? {
        endpoint.trust_from_now_on(keystore.trust_store());
        // Copies of the root for hosts that read the database themselves.
        keystore.fill_component_keys().await?;
    }
    Ok(())
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

/// Takes the newest statement; whether it has news for agents that this process has to tell. A mere
/// renewal goes along with other messages; what is revoked is told, by the process that issued the
/// statement alone: told by each, every agent would hear it as many times.
async fn take_newest(
    home: &Home,
    keystore: &Keystore,
    endpoint: &Endpoint,
) -> Result<bool, String> {
    let held = endpoint.statement();
    if let Some(held) = &held {
        let recalled = told::recall(keystore, held, endpoint.events()).await;
        recalled.map_err(|failure| failure.to_string())?;
    }
    let statement = keystore.statement().await.map_err(|error| error.to_string())?;
    if held.as_ref().is_some_and(|held| held.epoch >= statement.epoch) {
        return Ok(false);
    }
    let taken = endpoint.take_statement(statement.as_bytes());
    taken.map_err(|refusal| refusal.to_string())?;
    note(home, &statement);
    let issued_here = keystore.issued_epoch() == statement.epoch;
    Ok(issued_here && is_news(held.as_deref(), &statement))
}

/// Keeps it where no backup of the database takes it back.
pub(super) fn note(home: &Home, statement: &SignedStatement) {
    if let Err(error) = told::note(home, statement) {
        tracing::error!(
            %error,
            "the statement of revocation can't be kept in this host's state folder: should the \
             database be put back from a backup, this host would not know what was revoked since"
        );
    }
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
