//! `bulla group add|list`.

use bulla_keystore::EVERY_AGENT;
use serde_json::json;

use crate::cli::GroupCommand;
use crate::control::components::{Extended, Wanted};
use crate::control::desk::Desk;
use crate::control::open_keystore;
use crate::failure::Result;
use crate::output::Output;
use crate::settings::Home;

pub(crate) async fn run(home: &Home, command: &GroupCommand, out: Output) -> Result<()> {
    match command {
        GroupCommand::Add { name, members } => add(home, name, members, out).await,
        GroupCommand::List => list(home, out).await,
    }
}

async fn add(home: &Home, name: &str, members: &[String], out: Output) -> Result<()> {
    let wanted = if members.is_empty() { Wanted::New } else { Wanted::Either };
    let desk = Desk::open(home).await?;
    let extended = desk.extend_group(name, members, wanted).await;
    let closed = desk.close().await;
    let Extended { group, new, added, permitted } = extended?;
    closed?;
    let made = json!({ "group": group.to_string(), "new": new, "added": added });
    out.result(&made, |out| {
        let what = if new { "Added" } else { "Extended" };
        out.say(format!("{what} {group}: {} new members.", added.len()));
        out.say("Members listen to it within half a minute.");
    })?;
    permitted
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
