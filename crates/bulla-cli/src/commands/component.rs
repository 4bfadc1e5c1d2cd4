//! `bulla component add|rotate|revoke|list`.

use std::path::PathBuf;

use bulla_keystore::Reach;
use bulla_seal::{Principal, SuiteSet};
use serde_json::json;

use super::private_folder;
use crate::cli::ComponentCommand;
use crate::control::agent_file::create;
use crate::control::components::{AddedHost, reach_of};
use crate::control::desk::Desk;
use crate::control::kek::Sources;
use crate::control::{CONTROL, open_keystore};
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::Home;

pub(crate) async fn run(home: &Home, command: &ComponentCommand, out: Output) -> Result<()> {
    match command {
        ComponentCommand::Add { name, instance, out: file, suite } => {
            let instance = instance.clone().unwrap_or_else(|| format!("{name}-1"));
            let suites = SuiteSet::only(suite.suite());
            add(home, name, &instance, file.clone(), suites, out).await
        }
        ComponentCommand::Kek { name, next, out: file } => {
            kek(home, name, *next, file.clone(), out).await
        }
        ComponentCommand::Rotate { name } => rotate(home, name, out).await,
        ComponentCommand::Revoke { name, instance } => revoke(home, name, instance, out).await,
        ComponentCommand::List => list(home, out).await,
    }
}

async fn add(
    home: &Home,
    name: &str,
    instance: &str,
    file: Option<PathBuf>,
    suites: SuiteSet,
    out: Output,
) -> Result<()> {
    let path = file.unwrap_or_else(|| home.components().join(format!("{instance}.key")));
    refuse_existing(&path)?;
    let desk = Desk::open(home).await?;
    let settings = desk.settings.clone();
    let added = desk.add_component((name, instance), suites, |text| {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private_folder(dir)?;
        }
        create(&path, text, true)
    });
    let added = added.await;
    let closed = desk.close().await;
    let AddedHost { without_role, .. } = added?;
    closed?;
    let made = json!({
        "component": Principal::component(name)?.to_string(),
        "instance": instance,
        "key_file": path,
        "database_role_missing": without_role.iter().any(|without| without == name),
    });
    out.result(&made, |out| {
        out.say(format!("Added component/{name}, host {instance}. Its key file:"));
        out.say(format!("  {}", out.bold(&path.display().to_string())));
        out.say(
            "Give it to that host alone, mode 0600. A service opens it with the bulla library;",
        );
        out.say("see crates/bulla/examples/two_services.rs.");
        if !without_role.is_empty() {
            out.say("It has no database role yet: bulla db grants --apply");
        }
    })?;
    super::agent::bus_notice(&settings, out);
    Ok(())
}

async fn kek(
    home: &Home,
    name: &str,
    next: bool,
    file: Option<PathBuf>,
    out: Output,
) -> Result<()> {
    if name == CONTROL {
        return Err(Failure::usage("the control plane has the key-encryption key itself"));
    }
    let component = Principal::component(name)?;
    let path = file.unwrap_or_else(|| home.components().join(format!("{name}.kek")));
    refuse_existing(&path)?;
    let keystore = open_keystore(home).await?;
    keystore.party(&component).await?;
    let part = if next {
        let source = Sources::of(home)?.next();
        let source = source.ok_or_else(|| Failure::new("there is no next key-encryption key"))?;
        source.load()?
    } else {
        keystore.current_kek().await?
    };
    keystore.close().await;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        private_folder(dir)?;
    }
    part.create_type_file(&path, &component)?;
    let value = json!({
        "component": component.to_string(),
        "id": hex::encode(part.for_type(&component).id()),
        "file": path,
    });
    out.result(&value, |out| {
        out.say(format!("The part of the key-encryption key for {component}:"));
        out.say(format!("  {}", out.bold(&path.display().to_string())));
        out.say(
            "Give it to hosts of that type alone, mode 0600, with the password of their database",
        );
        out.say("role (bulla db grants). With `bulla kek rotate` they need another one.");
    })
}

async fn rotate(home: &Home, name: &str, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let audience = desk.rotate_component(name).await;
    let closed = desk.close().await;
    let audience = audience?;
    closed?;
    let rotated = json!({
        "component": audience.party.principal.to_string(),
        "epoch": audience.epoch,
        "kid": audience.kid.to_string(),
        "expires": audience.validity.not_after,
    });
    out.result(&rotated, |out| {
        out.say(format!(
            "component/{name} has a new key to receive with: epoch {}, until {}.",
            audience.epoch,
            date(audience.validity.not_after)
        ));
        if name == CONTROL {
            out.say("Control-plane processes take it up by themselves within a second.");
        } else {
            out.say("Its hosts fetch it by themselves within ten seconds; peers hear of it in a minute.");
        }
    })
}

async fn revoke(home: &Home, name: &str, instance: &str, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let revoked = desk.revoke_host(name, instance).await;
    let closed = desk.close().await;
    let revoked = revoked?;
    closed?;
    let groups: Vec<String> = revoked.groups.iter().map(|(group, _)| group.to_string()).collect();
    let value = json!({
        "component": Principal::component(name)?.to_string(),
        "instance": instance,
        "kids": revoked.signing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "epoch": revoked.epoch,
        "pair_epoch": revoked.pair_epoch,
        "groups_rekeyed": groups,
    });
    out.result(&value, |out| {
        out.say(format!("Revoked host {instance} of component/{name}: nobody takes its keys."));
        out.say(format!("New: the type's key to receive with (epoch {}).", revoked.epoch));
        if let Some(epoch) = revoked.pair_epoch {
            out.say(format!("New: its pair keys with agents (epoch {epoch})."));
        }
        if !groups.is_empty() {
            out.say(format!("New: keys of {}.", groups.join(" ")));
        }
        if reach_of(name) == Reach::Everything {
            out.say(
                "It was a host of the control plane, which could read the whole keystore: take away \
                 its access to that and to the key-encryption key, and add agents with shared keys \
                 anew.",
            );
        }
        if name != CONTROL {
            out.say("The other hosts fetch what is new by themselves within ten seconds.");
        }
    })
}

/// Never overwrites: a key file that is lost can't be made again.
pub(crate) fn refuse_existing(path: &std::path::Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::new(format!(
            "{} exists; it is not overwritten. Choose another file with --out, or take it away",
            path.display()
        )));
    }
    Ok(())
}

async fn list(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let components = keystore.list_components().await?;
    keystore.close().await;
    let value: Vec<_> = components
        .iter()
        .map(|c| {
            json!({
                "name": c.party.principal.name(),
                "incarnation": c.party.incarnation,
                "suite": c.suite.as_str(),
                "epoch": c.epoch,
                "roles": c.roles,
                "expires": c.audience.validity.not_after,
            })
        })
        .collect();
    out.result(&value, |out| {
        let rows = components
            .iter()
            .map(|c| {
                vec![
                    c.party.principal.to_string(),
                    c.suite.as_str().to_owned(),
                    c.epoch.to_string(),
                    date(c.audience.validity.not_after),
                    c.roles.join(" "),
                ]
            })
            .collect();
        out.table(&["COMPONENT", "SUITE", "EPOCH", "KEY ENDS", "ROLES"], rows);
    })
}
