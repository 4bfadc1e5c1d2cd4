//! Adding, revoking and rotating agents.

use std::time::Duration;

use bulla_broker::Survey;
use bulla_journal::{Text, events};
use bulla_keystore::{AgentKeys, Invitation, KeyType, KeystoreError};
use bulla_rpc::builtin::{self, Renew, Renewed};
use bulla_rpc::client::Step;
use bulla_rpc::identity::BusEntry;
use bulla_rpc::{CallError, Client, Clock, SystemClock, Target};
use bulla_seal::{Party, Principal, Suite};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use zeroize::Zeroizing;

use super::agent_file::Kind;
use super::desk::Desk;
use super::enrol::JoinFiles;
use super::key_file::KeyFiles;
use super::logins::Logins;
use crate::failure::{Failure, Result};

/// How long a request to renew waits for an agent that is away.
pub(crate) const RENEWAL_WAITS: Duration = Duration::from_secs(86_400);

/// What an agent is to start with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) key_type: KeyType,
    pub(crate) suite: Suite,
    /// Of a token.
    pub(crate) lifetime: Duration,
    /// Another token in the place of a former one.
    pub(crate) again: bool,
}

/// The file that an agent starts with.
pub(crate) struct Starter {
    pub(crate) id: String,
    pub(crate) text: Zeroizing<String>,
    /// When its token ends, in Unix seconds.
    pub(crate) expires: Option<u64>,
}

/// Takes the file of one agent.
pub(crate) type Take<'a> = &'a mut (dyn FnMut(Starter) -> Result<()> + Send);

/// What is looked up once for many agents.
pub(crate) struct Batches {
    files: JoinFiles,
    survey: Option<Survey>,
}

/// A revoked agent.
pub(crate) struct Revoked {
    /// Whose keys count for nothing now; none if it was revoked before and only its broker user
    /// was left.
    pub(crate) party: Option<Party>,
    pub(crate) groups: Vec<String>,
    /// Whether it had a broker user; `None` if agents have none.
    pub(crate) cut: Result<Option<bool>>,
}

/// What became of a request to renew keys.
pub(crate) enum Rotated {
    Followed,
    /// It did not answer; whether the request waits for it.
    Away {
        queued: bool,
    },
    /// It has no keys that are good: it did not join yet, or was off for too long.
    Keyless,
    Failed(String),
}

impl Plan {
    /// That an agent was added in this way.
    fn event(&self, id: &str) -> Result<events::AgentAdded> {
        let way = match (self.kind, self.key_type) {
            (Kind::Token, _) => "token",
            (Kind::Key, KeyType::Pair) => "key",
            (Kind::Key, KeyType::Shared) => "shared-key",
        };
        Ok(events::AgentAdded { agent: Principal::agent(id)?, way, again: self.again })
    }
}

impl Desk {
    /// Adds an agent and hands its file over. If that fails, its name is free again, as nobody has
    /// what it starts with.
    // Boxed: the compiler can't tell otherwise that the future may change threads.
    pub(crate) fn add_agent<'a>(
        &'a self,
        plan: &'a Plan,
        id: &'a str,
        take: Take<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        self.add_one(plan, id, take).boxed()
    }

    async fn add_one(&self, plan: &Plan, id: &str, take: Take<'_>) -> Result<()> {
        Principal::agent(id)?;
        let logins = self.logins()?;
        let taken = match plan.kind {
            Kind::Key => {
                let keys = self.keystore.add_agent(id, plan.key_type, plan.suite).await?;
                self.hand_keys(&logins, id, keys, take).await
            }
            Kind::Token => {
                let files = JoinFiles::new(&self.keystore).await?;
                let (suite, again) = (plan.suite, plan.again);
                let invited = self.keystore.invite_agent(id, suite, plan.lifetime, again).await?;
                self.hand_token(&logins, &files, &invited, take).await
            }
        };
        if taken.is_err() && !plan.again {
            self.take_back(&logins, id).await?;
        }
        taken?;
        self.record(plan.event(id)?);
        Ok(())
    }

    async fn hand_keys(
        &self,
        logins: &Logins,
        id: &str,
        keys: AgentKeys,
        take: Take<'_>,
    ) -> Result<()> {
        let bus = logins.one(&self.keystore, id).await?;
        give_keys(&KeyFiles::new(&self.keystore).await?, id, keys, bus, take)
    }

    async fn hand_token(
        &self,
        logins: &Logins,
        files: &JoinFiles,
        invited: &Invitation,
        take: Take<'_>,
    ) -> Result<()> {
        let id = invited.party.principal.name().to_owned();
        let text = files.make(invited, logins.one(&self.keystore, &id).await?).to_text()?;
        take(Starter { id, text, expires: Some(invited.expires) })
    }

    /// What is looked up once before many agents are added.
    pub(crate) async fn batches(&self) -> Result<Batches> {
        let survey = self.logins()?.survey().await?;
        Ok(Batches { files: JoinFiles::new(&self.keystore).await?, survey })
    }

    /// Adds a batch whole, or not at all.
    pub(crate) fn add_agents<'a>(
        &'a self,
        how: (&'a Plan, &'a Batches),
        ids: &'a [String],
        take: Take<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        self.add_batch(how, ids, take).boxed()
    }

    async fn add_batch(
        &self,
        (plan, batches): (&Plan, &Batches),
        ids: &[String],
        take: Take<'_>,
    ) -> Result<()> {
        let logins = self.logins()?;
        let mut known = false;
        let added = self.try_add(&logins, (plan, batches), ids, take, &mut known).await;
        if added.is_err() && known {
            for id in ids {
                self.take_back(&logins, id).await?;
            }
        }
        added?;
        ids.iter().try_for_each(|id| {
            self.record(plan.event(id)?);
            Ok::<_, Failure>(())
        })?;
        // A list may be longer than what the journal lets wait.
        self.flush()
    }

    /// The same, noting whether the keystore knows them by now.
    async fn try_add(
        &self,
        logins: &Logins,
        (plan, batches): (&Plan, &Batches),
        ids: &[String],
        take: Take<'_>,
        known: &mut bool,
    ) -> Result<()> {
        match plan.kind {
            Kind::Token => {
                let (suite, lifetime) = (plan.suite, plan.lifetime);
                let invited = self.keystore.invite_agents(ids, suite, lifetime).await?;
                *known = true;
                let logins = logins.many(batches.survey.as_ref(), ids).await?;
                for (invitation, bus) in invited.iter().zip(logins) {
                    let text = batches.files.make(invitation, bus).to_text()?;
                    let id = invitation.party.principal.name().to_owned();
                    take(Starter { id, text, expires: Some(invitation.expires) })?;
                }
            }
            Kind::Key => {
                let keys = self.keystore.add_agents(ids, plan.key_type, plan.suite).await?;
                *known = true;
                let files = KeyFiles::new(&self.keystore).await?;
                let logins = logins.many(batches.survey.as_ref(), ids).await?;
                for ((id, keys), bus) in ids.iter().zip(keys).zip(logins) {
                    give_keys(&files, id, keys, bus, take)?;
                }
            }
        }
        Ok(())
    }

    /// Takes an agent back whose file could not be handed over.
    async fn take_back(&self, logins: &Logins, id: &str) -> Result<()> {
        self.keystore.remove_agent(id).await?;
        logins.take_back(id).await;
        Ok(())
    }

    /// Revokes an agent.
    pub(crate) async fn revoke_agent(&self, id: &str) -> Result<Revoked> {
        let agent = Principal::agent(id)?;
        let keystore = &self.keystore;
        // One that is gone is in none.
        let groups = keystore.groups_of(&agent).await.unwrap_or_default();
        let removed = keystore.remove_agent(id).await;
        if let Ok(party) = &removed {
            self.record(events::AgentRevoked { agent: party.principal.clone() });
            let rekeyed = keystore.list_groups().await.unwrap_or_default().into_iter();
            for group in rekeyed.filter(|record| groups.contains(&record.name)) {
                let (group, epoch) = (Text::of(&group.name), group.epoch);
                self.record(events::GroupRekeyed { group, epoch });
            }
        }
        // Revoked first: no fault of the broker's, or of its settings, may be in the way of that.
        let cut = async { self.logins()?.cut(id).await }.await;
        if let Ok(Some(true)) = &cut {
            self.record(events::BrokerLoginRemoved { agent });
        }
        let party = match (removed, &cut) {
            (Ok(party), _) => Some(party),
            // Its broker user was left over from a time when the broker could not be reached.
            (Err(KeystoreError::UnknownPrincipal(_)), Ok(Some(true))) => None,
            (Err(error), _) => return Err(error.into()),
        };
        Ok(Revoked { party, groups: groups.iter().map(ToString::to_string).collect(), cut })
    }
}

fn give_keys(
    files: &KeyFiles,
    id: &str,
    keys: AgentKeys,
    bus: Option<BusEntry>,
    take: Take<'_>,
) -> Result<()> {
    let text = files.agent(id, keys, bus)?.to_text()?;
    take(Starter { id: id.to_owned(), text, expires: None })
}

/// Has an agent renew its keys; one that is away finds the request when it comes.
pub(crate) async fn rotate(
    client: &Client,
    id: &str,
    issued_by: u64,
    patience: Duration,
) -> Result<Rotated> {
    let target: Target = format!("agent/{id}").parse()?;
    let args = Renew { issued_by: Some(issued_by) };
    let called = async {
        let request = client.request(&target, builtin::RENEW).namespace(builtin::NAMESPACE);
        let mut steps = request.timeout(patience).stream(&args).await?;
        while let Some(step) = steps.next::<Value, Value>().await {
            if let Step::Done(value) = step? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    Ok(match called.await {
        Ok(Some(value)) => match serde_json::from_value::<Renewed>(value) {
            Ok(_) => Rotated::Followed,
            Err(error) => Rotated::Failed(format!("its answer can't be read: {error}")),
        },
        Ok(None) => Rotated::Failed("it ended without an answer".to_owned()),
        Err(CallError::Timeout { .. }) => {
            let request = client.request(&target, builtin::RENEW).namespace(builtin::NAMESPACE);
            let queued = request.ttl(RENEWAL_WAITS).cast(&args).await.is_ok();
            Rotated::Away { queued }
        }
        Err(CallError::Unroutable { .. }) => Rotated::Away { queued: false },
        Err(CallError::UnknownTarget { .. }) => Rotated::Keyless,
        Err(CallError::Remote(error)) => {
            Rotated::Failed(format!("{}: {}", error.kind, error.message))
        }
        Err(error) => Rotated::Failed(error.to_string()),
    })
}

/// Now, in Unix seconds: keys that were issued later are not renewed again.
pub(crate) fn now() -> u64 {
    SystemClock.now().secs()
}
