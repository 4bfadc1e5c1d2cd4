//! `bulla keystore`: keys of peers that do not seal yet, in and out.

use std::path::Path;

use bulla_guard::floor::FloorStore;
use bulla_journal::events;
use bulla_keystore::{Imported, TroveKeys};
use bulla_oslo::LegacyFile;
use bulla_oslo::legacy::{BadKey, LegacyKey, unwrap_key};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{Level, Principal, SignedExemption};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{ImportTroveArgs, KeystoreCommand, LegacyFileArgs};
use crate::control::agent_file;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::Output;
use crate::settings::{Home, password};

pub(crate) async fn run(home: &Home, command: &KeystoreCommand, out: Output) -> Result<()> {
    match command {
        KeystoreCommand::ImportTrove(args) => import(home, args, out).await,
        KeystoreCommand::LegacyFile(args) => legacy_file(home, args, out).await,
    }
}

/// What became of the rows of Trove's database.
struct Unwrapped {
    keys: Vec<(Principal, Zeroizing<String>)>,
    /// Instances whose key did not open, or is none.
    bad: Vec<String>,
}

async fn import(home: &Home, args: &ImportTroveArgs, out: Output) -> Result<()> {
    let wrapping = wrapping_key(&args.key_file, args.accept_public_key)?;
    let mut address = TroveKeys::address(&args.database)?;
    if let Some(password) = password(None, args.password_file.as_ref(), "Trove database")? {
        address = address.with_password(&password)?;
    }
    let found = TroveKeys::read(&address).await?;
    let Unwrapped { keys, bad } = unwrapped(&found, &wrapping);
    if keys.is_empty() && !bad.is_empty() {
        return Err(Failure::new(format!(
            "none of the {} keys in {address} opens with the key in {}: give Trove's \
             inst_rpc_key_encr_key; nothing was imported",
            bad.len(),
            args.key_file.display()
        )));
    }
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let done = keystore.import_legacy_keys(&keys, args.dry_run).await?;
    let without_agent = keystore.legacy_keys_without_agent().await?;
    keystore.close().await;
    if !args.dry_run && done.new + done.changed > 0 {
        journal.record(events::LegacyKeysImported { new: done.new, changed: done.changed });
    }
    journal.finish()?;
    let Imported { new, changed, unchanged } = done;
    let value = json!({
        "database": address.to_string(), "dry_run": args.dry_run, "new": new, "changed": changed,
        "unchanged": unchanged, "without_key": found.without, "deleted": found.deleted,
        "not_opened": bad, "without_agent": without_agent,
    });
    out.result(&value, |out| {
        let would = if args.dry_run { "Would import" } else { "Imported" };
        out.say(format!("{would} {new} keys; {changed} changed, {unchanged} are here already."));
        out.say(format!(
            "Not in it: {} instances without a key, {} deleted ones.",
            found.without, found.deleted
        ));
        if without_agent > 0 {
            out.say(format!(
                "{without_agent} keys are of no agent yet (bulla agent add INSTANCE-ID): until then they \
                 count for nothing."
            ));
        }
        if args.accept_public_key {
            out.say(out.bad(
                "Trove wrapped these keys with its default key, which is printed in its source: whoever had \
                 a copy of that database has them. Let what they may be used for end soon.",
            ));
        }
    })?;
    match bad.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{} keys did not open, or are none that Trove makes: {}",
            bad.len(),
            bad.join(", ")
        ))),
    }
}

/// Trove's `inst_rpc_key_encr_key`, alone in a file. The printed one only on purpose.
fn wrapping_key(path: &Path, accept_public: bool) -> Result<LegacyKey> {
    let text = password(None, Some(&path.to_owned()), "key that Trove wraps others with")?;
    let text = text.unwrap_or_default();
    match LegacyKey::new(text.trim()) {
        Err(BadKey::Printed) if accept_public => Ok(LegacyKey::to_unwrap(text.trim())),
        Err(BadKey::Printed) => Err(Failure::new(format!(
            "the key in {} is the default of Trove's inst_rpc_key_encr_key, which is printed in its source: \
             whoever had a copy of its database has every instance's key. Nothing was imported. If that is \
             what this Trove runs with, say --accept-public-key, and let the instances' keys be used no \
             longer than the migration takes",
            path.display()
        ))),
        Err(BadKey::Short) if text.trim().is_empty() => {
            Err(Failure::usage(format!("{} is empty", path.display())))
        }
        // Trove takes any text, so short ones open what they wrapped.
        Err(_) => Ok(LegacyKey::to_unwrap(text.trim())),
        Ok(key) => Ok(key),
    }
}

fn unwrapped(found: &TroveKeys, wrapping: &LegacyKey) -> Unwrapped {
    let mut all = Unwrapped { keys: Vec::with_capacity(found.keys.len()), bad: Vec::new() };
    for (instance, stored) in &found.keys {
        let opened = unwrap_key(stored, wrapping).filter(|key| {
            // Nothing authenticates them, so what can't be a key is taken for a failure.
            key.bytes().all(|byte| byte.is_ascii_graphic()) && LegacyKey::new(key).is_ok()
        });
        match (Principal::agent(instance), opened) {
            (Ok(agent), Some(key)) => all.keys.push((agent, key)),
            _ => all.bad.push(instance.chars().take(64).collect()),
        }
    }
    all
}

/// What one component needs to read messages that are not sealed: exemptions, and the keys of those agents
/// that have one.
async fn legacy_file(home: &Home, args: &LegacyFileArgs, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let now = SystemClock.now().secs();
    let trust = keystore.trust_store();
    let mut exemptions: Vec<SignedExemption> = Vec::new();
    for signed in keystore.floors().exemptions().await? {
        // What does not verify would be passed over by who reads it.
        let Ok(exemption) = trust.verify_exemption(&signed) else { continue };
        if exemption.level <= Level::AesCbc && exemption.is_live(now) {
            exemptions.push(exemption);
        }
    }
    let needed = |agent: &Principal| {
        exemptions.iter().any(|e| e.peer.principal == *agent && e.level == Level::AesCbc)
    };
    let keys: Vec<_> =
        keystore.legacy_keys().await?.into_iter().filter(|(agent, _)| needed(agent)).collect();
    keystore.close().await;
    if exemptions.is_empty() {
        return Err(Failure::new(
            "no exemption for messages in clear or of Trove's serializer is live: give one first (bulla peers \
             exempt agent/ID METHOD --level aes-cbc --until 30d)",
        ));
    }
    let (given, held) = (exemptions.len(), keys.len());
    let text = LegacyFile::text(&exemptions, &keys);
    agent_file::create(&args.out, &text, true)?;
    let until = exemptions.iter().map(|exemption| exemption.until).max().unwrap_or_default();
    let value = json!({
        "file": args.out.display().to_string(), "exemptions": given, "keys": held,
        "until_ms": until * 1000,
    });
    out.result(&value, |out| {
        out.say(format!(
            "Wrote {given} exemptions and {held} keys to {}. It is as secret as the keys in it; the last \
             exemption ends {}.",
            args.out.display(),
            crate::output::date(until)
        ));
    })
}
