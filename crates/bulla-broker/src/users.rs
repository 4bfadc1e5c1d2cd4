//! The users themselves.

use std::collections::HashMap;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::error::BrokerError;
use crate::http::Http;
use crate::login::{Login, Password};
use crate::management::{
    Definitions, Management, NewExchange, NewPermission, NewTopicPermission, NewUser,
};
use crate::rights::{self, Agent, Rights};

/// Users that are made in one request at the most.
pub const BATCH: usize = 200;
/// Requests at a time.
const AT_A_TIME: usize = 4;
/// Before the trust domain in the tag that marks our users.
const TAG: &str = "bulla:";
const HASHING: &str = "rabbit_password_hashing_sha256";

/// Where the broker's users are kept, and how they are to be.
pub struct Options {
    /// The management API: `https://host:15671`, or `http://` on this machine.
    pub url: String,
    /// An administrator there.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// The authorities (PEM) that may have signed the API's certificate; needed for `https://`.
    pub ca: Option<Vec<u8>>,
    /// The virtual host of the bus.
    pub vhost: String,
    /// The control exchange.
    pub exchange: String,
    /// Whose users they are: the trust domain. Users are marked with it, and none without that
    /// mark is ever touched.
    pub owner: String,
    /// What stands before the agent's id in a user's name.
    pub prefix: String,
    /// The component types that agents may call.
    pub components: Vec<String>,
    /// How agents log in.
    pub login: Login,
}

/// The broker users of one deployment's agents. Keeps its connections: make one and use it long.
pub struct BrokerUsers {
    management: Management,
    options: Options,
    tag: String,
}

/// Users of the broker, each with whether this deployment made it.
#[derive(Debug, Clone)]
pub struct Survey(HashMap<String, bool>);

/// A broker user that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name at the broker.
    pub name: String,
    /// The agent that it is for; none if our prefix is not before it.
    pub agent: Option<String>,
}

impl std::fmt::Debug for BrokerUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrokerUsers({})", self.management.address())
    }
}

impl BrokerUsers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`BrokerError::BadUrl`] or [`BrokerError::Tls`] when the address or the authority can't be
    /// used.
    pub fn new(options: Options) -> Result<Self, BrokerError> {
        let Options { url, user, password, ca, owner, .. } = &options;
        let http = Http::new(url, user, password, ca.as_deref())?;
        let management = Management::new(http, user.clone());
        Ok(Self { management, tag: format!("{TAG}{owner}"), options })
    }

    /// Host and port of the management API.
    pub fn address(&self) -> &str {
        self.management.address()
    }

    /// How agents log in.
    pub fn login(&self) -> Login {
        self.options.login
    }

    /// The broker user of an agent.
    pub fn name_of(&self, id: &str) -> String {
        format!("{}{id}", self.options.prefix)
    }

    /// That the management API is there and lets us administer.
    ///
    /// # Errors
    /// [`BrokerError`] says what is in the way.
    pub async fn check(&self) -> Result<(), BrokerError> {
        self.management.check().await
    }

    /// Makes the exchanges that agents use and may not make: theirs, those of the components that
    /// they call, and those of `groups`.
    ///
    /// # Errors
    /// The broker can't be reached, or has one of another kind.
    pub async fn prepare(&self, groups: &[String]) -> Result<(), BrokerError> {
        let definitions = Definitions { exchanges: self.exchanges(groups), ..<_>::default() };
        self.management.define(&definitions, "to make agents' exchanges").await
    }

    /// All users of the broker, and which of them this deployment made.
    ///
    /// # Errors
    /// The broker can't be reached or refuses.
    pub async fn survey(&self) -> Result<Survey, BrokerError> {
        let users = self.management.users().await?;
        Ok(Survey(users.into_iter().map(|u| (u.name, u.tags.has(&self.tag))).collect()))
    }

    /// The same for the users that the agents `ids` have or would have.
    ///
    /// # Errors
    /// As [`BrokerUsers::survey`].
    pub async fn survey_of(&self, ids: &[&str]) -> Result<Survey, BrokerError> {
        let mut found = HashMap::new();
        for name in ids.iter().map(|id| self.name_of(id)) {
            if let Some(user) = self.management.user(&name).await? {
                found.insert(name, user.tags.has(&self.tag));
            }
        }
        Ok(Survey(found))
    }

    /// Those of a survey that this deployment made.
    pub fn known(&self, survey: &Survey) -> Vec<Known> {
        let ours = survey.0.iter().filter(|(_, ours)| **ours).map(|(name, _)| {
            let agent = name.strip_prefix(&self.options.prefix).map(str::to_owned);
            Known { name: name.clone(), agent }
        });
        let mut known: Vec<_> = ours.collect();
        known.sort_by(|one, other| one.name.cmp(&other.name));
        known
    }

    /// Makes a user for each of `agents`, and the exchanges that they need: [`BATCH`] in a request,
    /// some requests at a time. A user that an agent of that name left behind is removed first and
    /// its connections are closed. Returns the passwords in the same order; none for certificates.
    /// If it fails, some users may be there, whose passwords nobody has.
    ///
    /// # Errors
    /// The broker can't be reached or refuses, or somebody else's user has one of the names.
    pub async fn add(
        &self,
        survey: &Survey,
        agents: &[Agent],
    ) -> Result<Vec<Option<Password>>, BrokerError> {
        for agent in agents {
            let name = self.name_of(&agent.id);
            match survey.0.get(&name) {
                None => {}
                Some(true) => drop(self.cut(&name).await?),
                Some(false) => return Err(self.not_ours(name)),
            }
        }
        // Boxed: the compiler can't tell otherwise that the future may change threads.
        let batches: Vec<_> = agents.chunks(BATCH).map(|batch| self.make(batch).boxed()).collect();
        let made: Vec<Vec<_>> = stream::iter(batches).buffered(AT_A_TIME).try_collect().await?;
        Ok(made.into_iter().flatten().collect())
    }

    async fn make(&self, agents: &[Agent]) -> Result<Vec<Option<Password>>, BrokerError> {
        let mut definitions = self.permissions(agents);
        let mut passwords = Vec::with_capacity(agents.len());
        for agent in agents {
            let (user, password) = self.new_user(&agent.id)?;
            definitions.users.push(user);
            passwords.push(password);
        }
        self.management.define(&definitions, "to make broker users").await?;
        Ok(passwords)
    }

    /// Gives the users of `agents` the rights that they should have now, and changes nothing else:
    /// after a change of groups, or of which components agents may call. Whoever has no user gets
    /// none. Returns how many there were.
    ///
    /// # Errors
    /// The broker can't be reached or refuses.
    pub async fn permit(&self, survey: &Survey, agents: &[Agent]) -> Result<usize, BrokerError> {
        let ours = |agent: &&Agent| survey.0.get(&self.name_of(&agent.id)) == Some(&true);
        let agents: Vec<_> = agents.iter().filter(ours).cloned().collect();
        for batch in agents.chunks(BATCH) {
            let mut definitions = self.permissions(batch);
            // An exchange is written to only once its keys are held to something.
            let permissions = std::mem::take(&mut definitions.permissions);
            self.management.define(&definitions, "to change broker users' rights").await?;
            let definitions = Definitions { permissions, ..Definitions::default() };
            self.management.define(&definitions, "to change broker users' rights").await?;
        }
        Ok(agents.len())
    }

    /// Whether an agent has a user whose password can be changed: none with certificates.
    ///
    /// # Errors
    /// As [`BrokerUsers::remove`].
    pub async fn has_password(&self, id: &str) -> Result<bool, BrokerError> {
        Ok(self.options.login == Login::Password && self.ours(&self.name_of(id)).await?)
    }

    /// Gives an agent's user another password, which the agent made and holds. What is connected
    /// stays connected; from now on only the new password opens a connection. May be repeated. With
    /// certificates there is nothing to change.
    ///
    /// # Errors
    /// [`BrokerError::NoUser`] if it has none, and as [`BrokerUsers::remove`].
    pub async fn set_password(&self, id: &str, password: &Password) -> Result<(), BrokerError> {
        let name = self.name_of(id);
        if !self.ours(&name).await? {
            return Err(BrokerError::NoUser { id: id.to_owned(), name });
        }
        if self.options.login == Login::Certificate {
            return Ok(());
        }
        let user = self.user_with(name.clone(), password.hash()?);
        let definitions = Definitions { users: vec![user], ..Definitions::default() };
        self.management.define(&definitions, &format!("to change the user {name}")).await
    }

    /// Removes an agent's user and closes its connections; whether there was one. May be repeated.
    ///
    /// # Errors
    /// The broker can't be reached or refuses, or the user is somebody else's.
    pub async fn remove(&self, id: &str) -> Result<bool, BrokerError> {
        let name = self.name_of(id);
        // An absent user can still have connections that were not closed the last time.
        self.ours(&name).await?;
        self.cut(&name).await
    }

    /// Closes an agent's connections and leaves its user as it is: after a rotation, so that only
    /// who has the new password comes back.
    ///
    /// # Errors
    /// As [`BrokerUsers::remove`].
    pub async fn disconnect(&self, id: &str) -> Result<(), BrokerError> {
        let name = self.name_of(id);
        if !self.ours(&name).await? {
            return Err(BrokerError::NoUser { id: id.to_owned(), name });
        }
        self.management.close_connections(&name).await
    }

    /// The connections that an agent's user has now: both ends of each, as the broker says.
    ///
    /// # Errors
    /// The broker can't be reached or refuses.
    pub async fn connections(&self, id: &str) -> Result<Vec<String>, BrokerError> {
        let listed = self.management.connections(&self.name_of(id)).await?;
        Ok(listed.into_iter().map(|connection| connection.name).collect())
    }

    /// The user first, so that nobody comes back.
    async fn cut(&self, name: &str) -> Result<bool, BrokerError> {
        let removed = self.management.remove_user(name).await?;
        self.management.close_connections(name).await?;
        Ok(removed)
    }

    /// Removes a user of ours by its own name, such as one that a survey shows and no agent
    /// needs.
    ///
    /// # Errors
    /// As [`BrokerUsers::remove`].
    pub async fn remove_known(&self, known: &Known) -> Result<bool, BrokerError> {
        self.ours(&known.name).await?;
        self.cut(&known.name).await
    }

    /// Whether there is such a user; an error if it is somebody else's.
    async fn ours(&self, name: &str) -> Result<bool, BrokerError> {
        match self.management.user(name).await? {
            None => Ok(false),
            Some(user) if user.tags.has(&self.tag) => Ok(true),
            Some(_) => Err(self.not_ours(name.to_owned())),
        }
    }

    fn not_ours(&self, name: String) -> BrokerError {
        BrokerError::NotOurs { name, tag: self.tag.clone() }
    }

    fn new_user(&self, id: &str) -> Result<(NewUser, Option<Password>), BrokerError> {
        let password = match self.options.login {
            Login::Password => Some(Password::generate()?),
            Login::Certificate => None,
        };
        let password_hash = match &password {
            Some(password) => password.hash()?,
            // No password opens it.
            None => String::new(),
        };
        Ok((self.user_with(self.name_of(id), password_hash), password))
    }

    fn user_with(&self, name: String, password_hash: String) -> NewUser {
        NewUser { name, password_hash, hashing_algorithm: HASHING, tags: self.tag.clone() }
    }

    /// The rights of `agents`, and the exchanges that these name.
    fn permissions(&self, agents: &[Agent]) -> Definitions {
        let mut groups: Vec<_> = agents.iter().flat_map(|agent| agent.groups.clone()).collect();
        groups.sort();
        groups.dedup();
        let exchanges = self.exchanges(&groups);
        let mut definitions = Definitions { exchanges, ..Definitions::default() };
        let Options { vhost, exchange, components, .. } = &self.options;
        for agent in agents {
            let user = self.name_of(&agent.id);
            let rights = Rights::of(agent, exchange, components);
            definitions.permissions.push(NewPermission {
                user: user.clone(),
                vhost: vhost.clone(),
                configure: rights.configure,
                write: rights.write,
                read: rights.read,
            });
            let topics = rights.topics.into_iter().map(|topic| NewTopicPermission {
                user: user.clone(),
                vhost: vhost.clone(),
                exchange: topic.exchange,
                write: topic.write,
                read: topic.read,
            });
            definitions.topic_permissions.extend(topics);
        }
        definitions
    }

    fn exchanges(&self, groups: &[String]) -> Vec<NewExchange> {
        let Options { vhost, exchange, components, .. } = &self.options;
        let all = rights::exchanges(exchange, components, groups);
        let made = all.into_iter().map(|(name, kind)| NewExchange {
            name,
            vhost: vhost.clone(),
            kind: kind.as_str(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: serde_json::Map::new(),
        });
        made.collect()
    }
}
