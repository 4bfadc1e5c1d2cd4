//! The policy that this process goes by: the newest of the keystore, told to agents; and the file
//! that the settings name.

use std::sync::Arc;
use std::time::Duration;

use bulla_journal::{Events, events};
use bulla_keystore::{EVERY_AGENT, Keystore, KeystoreError, PolicyDifference};
use bulla_rpc::builtin::{self, PolicyNews};
use bulla_rpc::directory::wire::credential_text;
use bulla_rpc::{Client, PolicyRule, Taken, Target};
use bulla_seal::{GroupName, SignedPolicy};
use tokio::time::Instant;

use super::CONTROL;
use super::policy_text::Checked;
use crate::failure::Result;
use crate::settings::Settings;

/// How long news may wait for an agent that is away: then it asks by itself.
const NEWS_LIFE: Duration = Duration::from_secs(3600);
/// How often this process writes down what the policy in the shadow would decide otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Activates the file of the settings, if they name one and it changed since it last was.
pub(crate) async fn activate_file(
    keystore: &Keystore,
    settings: &Settings,
    events: &Events,
) -> Result<()> {
    let Some(file) = &settings.policy.file else { return Ok(()) };
    let checked = Checked::read(file)?;
    if let Some(signed) = keystore.activate_policy_file(checked.text()).await? {
        let (how, version) = ("activated-from-settings", signed.version);
        events.emit(events::PolicyChanged { how, version, sequence: signed.sequence });
    }
    Ok(())
}

/// Keeps this process's rule the newest.
pub(super) struct Follower {
    keystore: Keystore,
    rule: Arc<PolicyRule>,
    reported: Instant,
    failing: bool,
    /// Agents were told what counts since this process started: it may have changed while none ran.
    told: bool,
}

impl Follower {
    pub(super) fn new(keystore: &Keystore, rule: &Arc<PolicyRule>) -> Self {
        let (keystore, rule) = (keystore.clone(), rule.clone());
        Self { keystore, rule, reported: Instant::now(), failing: false, told: false }
    }

    /// Goes by what the keystore says now, and tells agents if that is new.
    pub(super) async fn look(&mut self, client: &Client) {
        let followed = self.follow(client.endpoint().events()).await;
        if let Some(error) = followed.as_ref().err().filter(|_| !self.failing) {
            tracing::error!(%error, "it can't be read which policy counts; the former one stays");
        }
        self.failing = followed.is_err();
        if let Ok(Some(document)) = followed {
            let client = client.clone();
            // Beside: a broker that is away must not keep this process from hearing the next.
            tokio::spawn(async move { tell_agents(&client, &document).await });
        }
    }

    async fn follow(&mut self, events: &Events) -> Result<Option<SignedPolicy>, KeystoreError> {
        self.report().await?;
        let held = if self.told { self.rule.sequence() } else { 0 };
        let newer = self.keystore.policy_document_after(held).await?;
        self.told = true;
        if let Some(document) = &newer
            && self.rule.take(document) == Taken::New
        {
            let (version, sequence) = (document.version, document.sequence);
            let shadow = document.shadow.is_some();
            events.emit(events::PolicyFollowed { version, sequence, shadow });
        }
        Ok(newer)
    }

    async fn report(&mut self) -> Result<(), KeystoreError> {
        if self.reported.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.reported = Instant::now();
        let (sequence, found) = self.rule.take_differences();
        if found.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = found
            .iter()
            .map(|(what, count)| PolicyDifference {
                receiver: format!("component/{CONTROL}"),
                sender: what.sender.clone(),
                method: what.method.clone(),
                allowed: what.allowed,
                rule: what.rule.clone(),
                shadow_rule: what.shadow_rule.clone(),
                count: *count,
                last: 0,
            })
            .collect();
        if let Err(error) = self.keystore.note_differences(sequence, &rows).await {
            self.rule.put_back(sequence, found);
            return Err(error);
        }
        Ok(())
    }
}

/// A fanout with the document in it.
async fn tell_agents(client: &Client, document: &SignedPolicy) {
    let Ok(group) = GroupName::new(EVERY_AGENT) else { return };
    let target = Target::Group(group);
    let news = client.request(&target, builtin::POLICY).namespace(builtin::NAMESPACE);
    let told = PolicyNews { policy: credential_text(document.as_bytes()) };
    if let Err(error) = news.ttl(NEWS_LIFE).fanout(&told).await {
        tracing::warn!(%error, "agents could not be told of a policy; they ask within six minutes");
    }
}
