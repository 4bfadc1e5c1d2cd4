//! `bulla db grants`: a database role for each component type, and one for auditors.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bulla_journal::events;
use bulla_keystore::{DatabaseRole, Keystore, KeystoreError, Plan, RolePassword, StoreAddress};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::private_folder;
use crate::cli::GrantsArgs;
use crate::control::CONTROL;
use crate::control::kek::ring;
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::Output;
use crate::settings::Home;

pub(crate) async fn run(
    home: &Home,
    address: &StoreAddress,
    args: &GrantsArgs,
    out: Output,
) -> Result<()> {
    match (args.print, args.revert) {
        (true, false) => print(&Keystore::plan_grants(address).await?, out),
        (true, true) => print(&Keystore::plan_revert_grants(address).await?, out),
        (false, true) => revert(home, address, out).await,
        (false, false) => {
            let folder = args.passwords.clone().unwrap_or_else(|| home.database());
            apply(home, address, &folder, out).await
        }
    }
}

fn role(role: &DatabaseRole) -> Value {
    json!({ "role": role.name, "component": role.component })
}

fn print(plan: &Plan, out: Output) -> Result<()> {
    let roles: Vec<_> = plan.roles.iter().map(role).collect();
    out.result(&json!({ "roles": roles, "sql": plan.sql }), |out| {
        for statement in &plan.sql {
            out.say(format!("{statement};"));
        }
        if plan.sql.iter().any(|sql| sql.contains("'<password>'")) {
            out.say(
                "-- In the place of <password>: PostgreSQL takes a password or its SCRAM verifier,",
            );
            out.say("-- MariaDB what PASSWORD() makes of one.");
        }
        if plan.sql.is_empty() {
            out.say("-- There is nothing to do.");
        }
    })
}

async fn apply(home: &Home, address: &StoreAddress, folder: &Path, out: Output) -> Result<()> {
    // Told apart from what is wrong with the database.
    let mut failed = None;
    let password = |role: &DatabaseRole| match password(folder, role) {
        Ok(password) => Ok(password),
        Err(failure) => {
            let why = "its file can't be used";
            failed = Some(failure);
            Err(KeystoreError::RolePassword { why })
        }
    };
    let journal = CommandJournal::open(home).await?;
    let applied = Keystore::apply_grants(address, ring(home)?, password).await;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let applied = applied?;
    let (how, components) = ("applied", applied.roles.len() as u64);
    journal.record(events::GrantsChanged { how, components });
    journal.finish()?;
    let listed: Vec<_> = applied
        .roles
        .iter()
        .map(|granted| {
            json!({
                "role": granted.role.name,
                "component": granted.role.component,
                "new": granted.new,
                "password_file": file(folder, &granted.role),
            })
        })
        .collect();
    let dropped: Vec<_> = applied.dropped.iter().map(role).collect();
    let value = json!({
        "keystore": address.to_string(), "roles": listed, "dropped": dropped,
    });
    out.result(&value, |out| {
        let rows = applied.roles.iter().map(|granted| {
            vec![
                granted.role.name.clone(),
                whose(&granted.role),
                if granted.new { "made" } else { "as before" }.to_owned(),
                file(folder, &granted.role).display().to_string(),
            ]
        });
        out.table(&["ROLE", "FOR", "", "PASSWORD IN"], rows.collect());
        for role in &applied.dropped {
            out.say(format!("Dropped {}: its component type is gone.", role.name));
        }
        let of_control = |role: &&DatabaseRole| role.component.as_deref() == Some(CONTROL);
        let roles = applied.roles.iter().map(|granted| &granted.role);
        if let Some(control) = roles.clone().find(of_control) {
            out.say("");
            out.say("The control plane uses its own with this in bulla.toml, [keystore]; what it has as url");
            out.say("now, the owner's login, goes to owner-url:");
            out.say(format!("  url = \"{}\"", address_of(address, control)));
            out.say(format!("  password-file = \"{}\"", file(folder, control).display()));
        }
    })
}

fn whose(role: &DatabaseRole) -> String {
    match &role.component {
        Some(component) => format!("component/{component}"),
        None => "auditors (no secrets)".to_owned(),
    }
}

/// The address with a role's login; options such as those of TLS have to be put there again.
fn address_of(address: &StoreAddress, role: &DatabaseRole) -> String {
    let shown = address.to_string();
    match shown.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}@{rest}", role.name),
        None => shown,
    }
}

fn file(folder: &Path, role: &DatabaseRole) -> PathBuf {
    folder.join(format!("{}.password", role.name))
}

/// The password in a role's file; a random one in a new file if there is none.
fn password(folder: &Path, role: &DatabaseRole) -> Result<RolePassword> {
    let path = file(folder, role);
    if path.symlink_metadata().is_ok() {
        let mode = path.metadata()?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{} may be read or written by others (mode {mode:03o}): run `chmod 600` on it",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| {
            Failure::new(format!("can't read the password {}: {error}", path.display()))
        })?;
        return RolePassword::new(text.trim_end_matches(['\r', '\n']))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())));
    }
    private_folder(folder)?;
    let password = RolePassword::generate()?;
    let text = Zeroizing::new(format!("{}\n", password.expose()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = made.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))?;
    Ok(password)
}

async fn revert(home: &Home, address: &StoreAddress, out: Output) -> Result<()> {
    let journal = CommandJournal::open(home).await?;
    let dropped = Keystore::revert_grants(address).await?;
    let (how, components) = ("reverted", dropped.len() as u64);
    journal.record(events::GrantsChanged { how, components });
    journal.finish()?;
    let listed: Vec<_> = dropped.iter().map(role).collect();
    out.result(&json!({ "keystore": address.to_string(), "dropped": listed }), |out| {
        if dropped.is_empty() {
            return out.say(format!("{address} has no roles of ours."));
        }
        for role in &dropped {
            out.say(format!("Dropped {} of {}.", role.name, whose(role)));
        }
        out.say("Processes that are logged in with one of them can do nothing any more. The files");
        out.say("with their passwords are worth nothing now.");
    })
}
