//! How agents log in at the broker: each with a user of its own, if the settings say where users are
//! made, else all with the login that the settings give to key files.

use std::sync::Arc;
use std::time::Duration;

use bulla_broker::{Agent, BrokerUsers, Login, Options, Password, Survey, with_login};
use bulla_journal::{Events, events};
use bulla_keystore::{EVERY_AGENT, JoinState, Keystore};
use bulla_rpc::identity::BusEntry;
use bulla_rpc::target::DEFAULT_EXCHANGE;
use bulla_seal::Principal;

use super::bus::Bus;
use super::key_file;
use crate::failure::{Failure, Result};
use crate::settings::{self, LoginKind, Settings, password};

/// How long is waited before an agent in quarantine is cut off once more, at first and at the most,
/// while the broker can't be reached.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Makes agents' logins, and takes them away.
pub(crate) struct Logins {
    /// What the settings give to everybody.
    shared: Option<BusEntry>,
    own: Option<Own>,
    events: Events,
}

/// Users of their own.
struct Own {
    users: BrokerUsers,
    /// The bus as an agent finds it, but for the login.
    entry: BusEntry,
}

impl Logins {
    pub(crate) fn new(settings: &Settings, keystore: &Keystore) -> Result<Self> {
        let shared = key_file::bus_entry(settings);
        let owner = keystore.trust_store().domain().to_string();
        let own = match broker_users(settings, owner)? {
            Some(users) => Some(Own { users, entry: agents_bus(settings, shared.as_ref())? }),
            None => None,
        };
        Ok(Self { shared, own, events: Events::default() })
    }

    /// The broker's users, if agents have them.
    pub(crate) fn users(&self) -> Option<&BrokerUsers> {
        self.own.as_ref().map(|own| &own.users)
    }

    /// Which users there are, before many agents are added.
    pub(crate) async fn survey(&self) -> Result<Option<Survey>> {
        match &self.own {
            Some(own) => Ok(Some(own.users.survey().await?)),
            None => Ok(None),
        }
    }

    /// Tells there what is done.
    pub(crate) fn with_events(self, events: &Events) -> Self {
        Self { events: events.clone(), ..self }
    }

    /// The login of one agent that is in the keystore by now: a new one, if it is its own.
    pub(crate) async fn one(&self, keystore: &Keystore, id: &str) -> Result<Option<BusEntry>> {
        let Some(own) = &self.own else { return Ok(self.shared.clone()) };
        let survey = own.users.survey_of(&[id]).await?;
        let made = own.make(&survey, &[with_groups(keystore, id).await?]).await?;
        Ok(made.into_iter().next())
    }

    /// The logins of agents that were just added, in the same order.
    pub(crate) async fn many(
        &self,
        survey: Option<&Survey>,
        ids: &[String],
    ) -> Result<Vec<Option<BusEntry>>> {
        let (Some(own), Some(survey)) = (&self.own, survey) else {
            return Ok(vec![self.shared.clone(); ids.len()]);
        };
        let groups = || vec![EVERY_AGENT.to_owned()];
        let agents: Vec<_> =
            ids.iter().map(|id| Agent { id: id.clone(), groups: groups() }).collect();
        Ok(own.make(survey, &agents).await?.into_iter().map(Some).collect())
    }

    /// Removes an agent's user and closes its connections; whether there was one, `None` if agents
    /// have no users.
    pub(crate) async fn cut(&self, id: &str) -> Result<Option<bool>> {
        match &self.own {
            Some(own) => Ok(Some(own.users.remove(id).await?)),
            None => Ok(None),
        }
    }

    /// The user whose password an agent is to change with its keys, if it has one.
    pub(crate) async fn user_with_password(&self, id: &str) -> Result<Option<String>> {
        let Some(own) = &self.own else { return Ok(None) };
        Ok(own.users.has_password(id).await?.then(|| own.users.name_of(id)))
    }

    /// Makes the password that an agent holds the broker's, and closes what was opened with the
    /// former one. If `alone`, not while somebody else is logged in as this agent: a copy of it
    /// would be out without a word. Returns who is, if that is in the way.
    pub(crate) async fn change(
        &self,
        id: &str,
        password: &Password,
        alone: bool,
    ) -> Result<Option<Vec<String>>> {
        let own = self.own.as_ref().ok_or_else(|| Failure::new("agents have no broker users"))?;
        if alone {
            let connections = own.users.connections(id).await?;
            if connections.len() > 1 {
                return Ok(Some(connections));
            }
        }
        own.users.set_password(id, password).await?;
        own.users.disconnect(id).await?;
        Ok(None)
    }

    /// Cuts an agent off that is in quarantine: at once, and again until it is done, unless
    /// somebody takes it out of quarantine.
    pub(crate) fn cut_quarantined(self: &Arc<Self>, keystore: &Keystore, id: &str) {
        if self.own.is_none() {
            return;
        }
        let (logins, keystore, id) = (self.clone(), keystore.clone(), id.to_owned());
        tokio::spawn(async move {
            let mut pause = AGAIN.0;
            while let Err(error) = logins.cut(&id).await {
                tracing::error!(%error, agent = id, "in quarantine, but still let in by the broker");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN.1);
                // The name may have another holder by now.
                let state = keystore.join_state(&id).await;
                if !matches!(state, Ok(Some(JoinState::Quarantined { .. })) | Err(_)) {
                    return;
                }
            }
            if let Ok(agent) = Principal::agent(&id) {
                logins.events.emit(events::BrokerLoginRemoved { agent });
            }
        });
    }

    /// Takes the login of an agent back whose file was not written. What stays behind nobody has
    /// the password of, and `bulla broker sync` removes it.
    pub(crate) async fn take_back(&self, id: &str) {
        if let Err(error) = self.cut(id).await {
            tracing::warn!(%error, agent = id, "a broker user stays behind");
        }
    }

    /// Gives agents' users the rights that follow from the groups that they are in now.
    pub(crate) async fn permit(&self, keystore: &Keystore, ids: &[&str]) -> Result<usize> {
        let Some(own) = &self.own else { return Ok(0) };
        let survey = own.users.survey_of(ids).await?;
        let mut agents = Vec::with_capacity(ids.len());
        for id in ids {
            agents.push(with_groups(keystore, id).await?);
        }
        Ok(own.users.permit(&survey, &agents).await?)
    }
}

impl Own {
    async fn make(&self, survey: &Survey, agents: &[Agent]) -> Result<Vec<BusEntry>> {
        let passwords = self.users.add(survey, agents).await?;
        let made = agents.iter().zip(&passwords);
        made.map(|(agent, password)| self.entry_of(&agent.id, password.as_ref())).collect()
    }

    fn entry_of(&self, id: &str, password: Option<&Password>) -> Result<BusEntry> {
        let name = self.users.name_of(id);
        let login = password.map(|password| (name.as_str(), password));
        let url = with_login(&self.entry.url, login)?.to_string();
        Ok(BusEntry { url, ..self.entry.clone() })
    }
}

async fn with_groups(keystore: &Keystore, id: &str) -> Result<Agent> {
    let groups = keystore.groups_of(&Principal::agent(id)?).await?;
    let groups = groups.iter().map(|group| group.as_str().to_owned()).collect();
    Ok(Agent { id: id.to_owned(), groups })
}

/// The broker's users, if the settings say where they are made.
fn broker_users(settings: &Settings, owner: String) -> Result<Option<BrokerUsers>> {
    let set = &settings.broker_users;
    let Some(url) = &set.url else { return Ok(None) };
    let missing =
        |what: &str| Failure::usage(format!("[broker-users] has a url, but no {what} is set"));
    let bus = match Bus::from_settings(&settings.bus, "broker-users")? {
        Bus::Rabbit(bus) => bus,
        Bus::Memory(_) | Bus::Queue(_) => {
            return Err(Failure::usage("[broker-users] needs a broker: set [bus] url"));
        }
        // Their rights are those of the native carrier's exchanges.
        Bus::Oslo(..) => {
            return Err(Failure::usage(
                "[broker-users] confines agents to the native carrier's exchanges: take it out, or \
                 set [bus] carrier = \"native\"",
            ));
        }
    };
    let given = password(set.password.as_ref(), set.password_file.as_ref(), "broker's admin")?;
    let ca = set.ca.as_ref().map(|path| {
        std::fs::read(path)
            .map_err(|error| Failure::new(format!("can't read {}: {error}", path.display())))
    });
    let login = match set.login {
        LoginKind::Password => Login::Password,
        LoginKind::Certificate => Login::Certificate,
    };
    for component in &set.components {
        Principal::component(component)?;
    }
    Ok(Some(BrokerUsers::new(Options {
        url: url.clone(),
        user: set.user.clone().ok_or_else(|| missing("user"))?,
        password: given.ok_or_else(|| missing("password-file"))?,
        ca: ca.transpose()?,
        vhost: bus.vhost().to_owned(),
        exchange: settings.bus.exchange.clone().unwrap_or_else(|| DEFAULT_EXCHANGE.to_owned()),
        owner,
        prefix: set.prefix.clone(),
        components: set.components.clone(),
        login,
    })?))
}

/// The bus as agents find it, with the paths of their own certificates if they log in with them.
fn agents_bus(settings: &Settings, shared: Option<&BusEntry>) -> Result<BusEntry> {
    let set: &settings::BrokerUsers = &settings.broker_users;
    let entry = shared
        .cloned()
        .ok_or_else(|| Failure::usage("[broker-users] needs a broker: set [bus] url"))?;
    let (client_cert, client_key) = match (set.login, &set.client_cert, &set.client_key) {
        (LoginKind::Password, None, None) => (None, None),
        (LoginKind::Certificate, Some(cert), Some(key)) => (Some(cert.clone()), Some(key.clone())),
        (LoginKind::Certificate, ..) => {
            return Err(Failure::usage(
                "[broker-users] login = \"certificate\" needs client-cert and client-key: where \
                 each agent has its own on its machine",
            ));
        }
        (LoginKind::Password, ..) => {
            return Err(Failure::usage(
                "[broker-users] has client-cert or client-key, which only login = \"certificate\" \
                 uses",
            ));
        }
    };
    Ok(BusEntry { client_cert, client_key, ..entry })
}
