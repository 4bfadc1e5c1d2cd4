//! `bulla component add|list`.

use std::path::PathBuf;

use bulla_keystore::KeystoreError;
use bulla_seal::{Principal, SuiteSet};
use serde_json::json;

use super::private_folder;
use crate::cli::ComponentCommand;
use crate::control::{CONTROL, key_file, open_keystore};
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, command: &ComponentCommand, out: Output) -> Result<()> {
    match command {
        ComponentCommand::Add { name, instance, out: file, suite } => {
            let instance = instance.clone().unwrap_or_else(|| format!("{name}-1"));
            let suites = SuiteSet::only(suite.suite());
            add(home, name, &instance, file.clone(), suites, out).await
        }
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
    if name == CONTROL {
        return Err(Failure::usage(format!(
            "component/{CONTROL} is the control plane itself; choose another name"
        )));
    }
    bulla_seal::principal::check_name("instance", instance)?;
    let path = file.unwrap_or_else(|| home.components().join(format!("{instance}.key")));
    refuse_existing(&path)?;
    let settings = Settings::load(home.dir())?;
    let keystore = open_keystore(home).await?;
    // Another host of a type that exists gets a signing key of its own.
    match keystore.add_component(name, &[], suites).await {
        Ok(_) | Err(KeystoreError::NameTaken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let bus = key_file::bus_entry(&settings);
    let key_file = key_file::component_key_file(&keystore, name, instance, bus).await?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        private_folder(dir)?;
    }
    key_file.write(&path)?;
    keystore.close().await;
    let made = json!({
        "component": Principal::component(name)?.to_string(),
        "instance": instance,
        "key_file": path,
    });
    out.result(&made, |out| {
        out.say(format!("Added component/{name}, host {instance}. Its key file:"));
        out.say(format!("  {}", out.bold(&path.display().to_string())));
        out.say(
            "Give it to that host alone, mode 0600. A service opens it with the bulla library;",
        );
        out.say("see crates/bulla/examples/two_services.rs.");
    })?;
    super::agent::bus_notice(&settings, out);
    Ok(())
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
