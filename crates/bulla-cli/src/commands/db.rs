//! `bulla db`: the schema of the keystore's database.

use bulla_keystore::{
    Converted, Keystore, MigrationStep, REWRAP_BATCH, SchemaStatus, StoreAddress,
};
use indicatif::ProgressBar;
use serde_json::json;

use super::kek::progress;
use crate::cli::DbCommand;
use crate::control::kek::ring;
use crate::control::{owner_address, told};
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, command: &DbCommand, out: Output) -> Result<()> {
    if !home.is_initialised() {
        return Err(Failure::new(format!(
            "there is no deployment in {}; run `bulla init` first, or name its folder with --home",
            home.dir().display()
        )));
    }
    let address = owner_address(home, &Settings::load(home.dir())?)?;
    match command {
        DbCommand::Migrate { dry_run: true } => plan(&Keystore::plan_migrate(&address).await?, out),
        DbCommand::Migrate { dry_run: false } => migrate(home, &address, out).await,
        DbCommand::Revert { to, dry_run } => {
            let applied = Keystore::schema_status(&address).await?.applied;
            let below = applied.iter().rev().nth(1).map_or(0, |(version, ..)| *version);
            let to = to.unwrap_or(below);
            if *dry_run {
                plan(&Keystore::plan_revert(&address, to).await?, out)
            } else {
                revert(home, &address, to, out).await
            }
        }
        DbCommand::Restored => restored(home, out).await,
        DbCommand::Status => status(&address, out).await,
        DbCommand::Grants(args) => super::grants::run(home, &address, args, out).await,
    }
}

async fn restored(home: &Home, out: Output) -> Result<()> {
    let done = told::put_back(home).await?;
    let groups: Vec<_> = done.groups.iter().map(|(name, _)| format!("group/{name}")).collect();
    let shown = json!({
        "told": done.told,
        "stored": done.stored,
        "components": done.components,
        "groups": groups,
        "join_tokens_withdrawn": done.tokens,
    });
    out.result(&shown, |out| {
        match done.stored < done.told {
            true => out.say(format!(
                "The keystore is as it was at {} or before; what was revoked until {} is revoked.",
                date(done.stored),
                date(done.told)
            )),
            false => out.say("The keystore knows all that this host was told to revoke."),
        }
        out.say(format!(
            "{} component types and {} groups have new keys; {} open join tokens were withdrawn.",
            done.components.len(),
            groups.len(),
            done.tokens
        ));
        out.say("What nobody but you knows:");
        out.say("  bulla agent list         add again who was added since; revoke again who was revoked");
        out.say("                           more than a day ago and has a shared key");
        out.say("  bulla access-key list    revoke again what was revoked since");
        out.say("  bulla policy list        activate again what was activated since");
        out.say("  bulla peers              raise again what was raised since");
        out.say("  bulla doctor             broker users that nobody has any more");
    })
}

fn plan(steps: &[MigrationStep], out: Output) -> Result<()> {
    let listed: Vec<_> = steps
        .iter()
        .map(|step| json!({ "version": step.version, "name": step.name, "sql": step.sql }))
        .collect();
    out.result(&listed, |out| {
        if steps.is_empty() {
            out.say("-- There is nothing to do.");
        }
        for step in steps {
            out.say(format!("-- {}", step.name));
            out.say(step.sql.trim_end());
            out.say("");
        }
    })
}

async fn migrate(home: &Home, address: &StoreAddress, out: Output) -> Result<()> {
    let bar = progress(out, "rows");
    let moved_up = Keystore::migrate_in_batches(address, ring(home)?, REWRAP_BATCH, show(&bar));
    let from = moved_up.await;
    bar.finish_and_clear();
    let from = from?;
    moved(address, from, Keystore::schema_version(), out)?;
    if from != Keystore::schema_version() && !Keystore::database_roles(address).await?.is_empty() {
        out.say("Database roles have rights in the former tables: run `bulla db grants --apply`.");
    }
    Ok(())
}

/// Rows that have to be changed, as far as there are any.
fn show(bar: &ProgressBar) -> impl FnMut(Converted) {
    |far| {
        bar.set_length(far.total);
        bar.set_position(far.done);
    }
}

async fn revert(home: &Home, address: &StoreAddress, to: u32, out: Output) -> Result<()> {
    let bar = progress(out, "rows");
    let taken_back =
        Keystore::revert_in_batches(address, ring(home)?, to, REWRAP_BATCH, show(&bar));
    let from = taken_back.await;
    bar.finish_and_clear();
    let from = from?;
    moved(address, from, to.min(from), out)
}

fn moved(address: &StoreAddress, from: u32, to: u32, out: Output) -> Result<()> {
    let said = json!({ "keystore": address.to_string(), "from": from, "to": to });
    out.result(&said, |out| {
        out.say(if from == to {
            format!("The schema of {address} has version {to} already.")
        } else {
            format!("The schema of {address} went from version {from} to {to}.")
        });
    })
}

async fn status(address: &StoreAddress, out: Output) -> Result<()> {
    let status = Keystore::schema_status(address).await?;
    let applied: Vec<_> = status
        .applied
        .iter()
        .map(
            |(version, name, at)| json!({ "version": version, "name": name, "applied": at.secs() }),
        )
        .collect();
    let said = json!({
        "keystore": address.to_string(),
        "version": status.found,
        "known": status.known,
        "interrupted": status.interrupted,
        "applied": applied,
    });
    out.result(&said, |out| {
        let rows = status.applied.iter();
        let rows = rows
            .map(|(version, name, at)| vec![version.to_string(), name.clone(), date(at.secs())]);
        out.table(&["VERSION", "NAME", "APPLIED"], rows.collect());
        out.say(verdict(address, &status));
    })
}

fn verdict(address: &StoreAddress, status: &SchemaStatus) -> String {
    let SchemaStatus { found, known, .. } = status;
    if let Some(version) = status.interrupted {
        return format!(
            "A change of {address} was interrupted at version {version}: run `bulla db migrate`, \
             or `bulla db revert`, again."
        );
    }
    match found.cmp(known) {
        std::cmp::Ordering::Equal => format!("{address} has the version of this program, {known}."),
        std::cmp::Ordering::Less => {
            format!(
                "{address} has version {found}, this program needs {known}: run `bulla db migrate`."
            )
        }
        std::cmp::Ordering::Greater => format!(
            "{address} has version {found}, this program knows up to {known}: use the newer \
             program, or revert the schema with it."
        ),
    }
}
