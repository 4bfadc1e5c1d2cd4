//! `bulla group add|list`.

use bulla_journal::{Text, events};
use bulla_keystore::{EVERY_AGENT, KeystoreError};
use bulla_seal::{GroupName, Principal};
use serde_json::json;

use crate::cli::GroupCommand;
use crate::control::logins::Logins;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::Output;
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, command: &GroupCommand, out: Output) -> Result<()> {
    match command {
        GroupCommand::Add { name, members } => add(home, name, members, out).await,
        GroupCommand::List => list(home, out).await,
    }
}

async fn add(home: &Home, name: &str, members: &[String], out: Output) -> Result<()> {
    let group = GroupName::new(name.strip_prefix("group/").unwrap_or(name))?;
    let members: Vec<Principal> =
        members.iter().map(|member| member.parse()).collect::<std::result::Result<_, _>>()?;
    let settings = Settings::load(home.dir())?;
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let new = match keystore.add_group(&group).await {
        Ok(()) => true,
        Err(KeystoreError::GroupTaken { .. } | KeystoreError::GroupBuiltIn { .. })
            if !members.is_empty() =>
        {
            false
        }
        Err(error) => return Err(error.into()),
    };
    let mut added = Vec::new();
    for member in &members {
        if keystore.add_member(&group, member).await? {
            added.push(member.to_string());
        }
    }
    if new {
        journal.record(events::GroupAdded { group: Text::of(&group) });
    }
    for member in &added {
        let (group, member) = (Text::of(&group), Text::new(member));
        journal.record(events::GroupExtended { group, member });
    }
    journal.finish()?;
    let agents: Vec<_> = members.iter().filter(|m| m.is_agent()).map(Principal::name).collect();
    let permitted = async { Logins::new(&settings, &keystore)?.permit(&keystore, &agents).await };
    let permitted = permitted.await;
    keystore.close().await;
    let made = json!({ "group": group.to_string(), "new": new, "added": added });
    out.result(&made, |out| {
        let what = if new { "Added" } else { "Extended" };
        out.say(format!("{what} {group}: {} new members.", added.len()));
        out.say("Members listen to it within half a minute.");
    })?;
    permitted.map(drop).map_err(|failure| {
        Failure::new(format!(
            "{group} has its members, but their broker users may not listen to it yet: {failure}. \
             Once the broker answers, run `bulla broker sync`"
        ))
    })
}

async fn list(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let groups = keystore.list_groups().await?;
    keystore.close().await;
    let value: Vec<_> = groups
        .iter()
        .map(|g| json!({ "name": g.name.as_str(), "epoch": g.epoch, "members": g.members }))
        .collect();
    out.result(&value, |out| {
        let rows = groups
            .iter()
            .map(|g| {
                let note = if g.name.as_str() == EVERY_AGENT { "every agent" } else { "" };
                vec![
                    g.name.to_string(),
                    g.epoch.to_string(),
                    g.members.to_string(),
                    note.to_owned(),
                ]
            })
            .collect();
        out.table(&["GROUP", "EPOCH", "MEMBERS", ""], rows);
    })
}
