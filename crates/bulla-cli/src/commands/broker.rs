//! `bulla broker list|sync`: the broker users of agents.

use std::collections::{BTreeMap, HashSet};

use bulla_broker::{Agent, BrokerUsers, Known, Login, Survey};
use bulla_keystore::{Keystore, Page};
use serde_json::{Value, json};

use crate::cli::BrokerCommand;
use crate::control::logins::Logins;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

/// Names that are shown of a list.
const SHOWN: usize = 20;

/// The broker's users beside the keystore's agents.
pub(crate) struct Compared {
    survey: Survey,
    /// Agents that have a user.
    pub(crate) paired: Vec<Agent>,
    /// Users that no agent needs, or whose agent is in quarantine.
    pub(crate) users: Vec<Known>,
    /// Agents without a user.
    pub(crate) agents: Vec<Agent>,
    /// Every group, for its exchange.
    groups: Vec<String>,
}

impl Compared {
    /// Reads users first: an agent is in the keystore before its user is made, so that a user
    /// without an agent is no agent in the making.
    pub(crate) async fn new(users: &BrokerUsers, keystore: &Keystore) -> Result<Self> {
        let survey = users.survey().await?;
        let known = users.known(&survey);
        let (mut agents, groups) = agents(keystore).await?;
        // The broker must not let these in.
        for id in keystore.quarantined_agents().await? {
            agents.remove(&id);
        }
        let have: HashSet<&str> = known.iter().filter_map(|known| known.agent.as_deref()).collect();
        let (paired, without): (Vec<_>, Vec<_>) =
            agents.into_values().partition(|agent| have.contains(agent.id.as_str()));
        let ids: HashSet<&str> = paired.iter().map(|agent| agent.id.as_str()).collect();
        let needed = |known: &Known| known.agent.as_deref().is_some_and(|id| ids.contains(id));
        let orphans = known.iter().filter(|known| !needed(known)).cloned().collect();
        Ok(Self { survey, users: orphans, agents: without, paired, groups })
    }

    /// Whether every agent has its user and every user its agent.
    pub(crate) fn is_even(&self) -> bool {
        self.users.is_empty() && self.agents.is_empty()
    }

    /// The names of users without an agent, shortened.
    pub(crate) fn users_text(&self) -> String {
        some(self.users.iter().map(|user| user.name.as_str()))
    }

    /// The ids of agents without a user, shortened.
    pub(crate) fn agents_text(&self) -> String {
        some(self.agents.iter().map(|agent| agent.id.as_str()))
    }

    fn value(&self) -> Value {
        json!({
            "paired": self.paired.len(),
            "users_without_agent": self.users.iter().map(|u| &u.name).collect::<Vec<_>>(),
            "agents_without_user": self.agents.iter().map(|a| &a.id).collect::<Vec<_>>(),
        })
    }
}

fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let text = names.take(SHOWN).collect::<Vec<_>>().join(" ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// Every agent with its groups, and every group.
async fn agents(keystore: &Keystore) -> Result<(BTreeMap<String, Agent>, Vec<String>)> {
    let (mut agents, mut page) = (BTreeMap::new(), Some(Page::default()));
    while let Some(wanted) = page {
        let found = keystore.list_agents(&wanted).await?;
        for record in found.agents {
            let id = record.party.principal.name().to_owned();
            agents.insert(id.clone(), Agent { id, groups: Vec::new() });
        }
        page = found.next;
    }
    let mut groups = Vec::new();
    for group in keystore.list_groups().await? {
        for member in keystore.members_of(&group.name).await? {
            let agent = member.is_agent().then(|| agents.get_mut(member.name())).flatten();
            if let Some(agent) = agent {
                agent.groups.push(group.name.as_str().to_owned());
            }
        }
        groups.push(group.name.as_str().to_owned());
    }
    Ok((agents, groups))
}

pub(crate) async fn run(home: &Home, command: &BrokerCommand, out: Output) -> Result<()> {
    let settings = Settings::load(home.dir())?;
    let keystore = open_keystore(home).await?;
    let logins = Logins::new(&settings, &keystore)?;
    let users = logins.users().ok_or_else(|| {
        Failure::usage(
            "agents have no broker users here: set [broker-users] url in bulla.toml \
             (docs/operate.md, Broker users)",
        )
    })?;
    let compared = Compared::new(users, &keystore).await;
    keystore.close().await;
    let compared = compared?;
    match command {
        BrokerCommand::List => list(&compared, users, out),
        BrokerCommand::Sync => sync(&compared, users, out).await,
    }
}

fn list(compared: &Compared, users: &BrokerUsers, out: Output) -> Result<()> {
    out.result(&compared.value(), |out| {
        out.say(format!("{} agents have their broker user.", compared.paired.len()));
        if !compared.users.is_empty() {
            out.say(format!("Users without an agent: {}", compared.users_text()));
        }
        if !compared.agents.is_empty() {
            out.say(format!("Agents without a user: {}", compared.agents_text()));
        }
        if !compared.is_even() {
            out.say(advice(users.login()));
        }
    })
}

/// Makes the broker as the keystore says: exchanges, rights, and no user too many.
async fn sync(compared: &Compared, users: &BrokerUsers, out: Output) -> Result<()> {
    users.prepare(&compared.groups).await?;
    let permitted = users.permit(&compared.survey, &compared.paired).await?;
    for known in &compared.users {
        users.remove_known(known).await?;
    }
    // A user that logs in with its certificate needs nothing that its file would have to tell it.
    let made = match users.login() {
        Login::Certificate => users.add(&compared.survey, &compared.agents).await?.len(),
        Login::Password => 0,
    };
    let left = if made == 0 { compared.agents.as_slice() } else { &[] };
    let value = json!({
        "permitted": permitted,
        "removed": compared.users.iter().map(|u| &u.name).collect::<Vec<_>>(),
        "made": made,
        "agents_without_user": left.iter().map(|a| &a.id).collect::<Vec<_>>(),
    });
    out.result(&value, |out| {
        out.say(format!("{permitted} broker users have the rights that they should have."));
        if !compared.users.is_empty() {
            out.say(format!("Removed, with their connections: {}", compared.users_text()));
        }
        if made > 0 {
            out.say(format!("Made: {made}"));
        }
        if !left.is_empty() {
            out.say(format!("Without a user: {}", compared.agents_text()));
            out.say(advice(users.login()));
        }
    })
}

/// What to do about what does not match.
pub(crate) fn advice(login: Login) -> &'static str {
    match login {
        Login::Certificate => "`bulla broker sync` puts it right.",
        Login::Password => {
            "`bulla broker sync` removes users that no agent needs. An agent without one needs a new \
             file with its login: `bulla agent add ID --again` if it has not joined yet, else \
             `bulla agent revoke ID` and add it anew."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        let text = some(names.iter().map(String::as_str));
        assert!(text.starts_with("0 1 2 ") && text.ends_with("19 and 5 more"), "{text}");
        assert_eq!(some(names[..2].iter().map(String::as_str)), "0 1");
    }
}
