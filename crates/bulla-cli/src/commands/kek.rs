//! `bulla kek`: rotating the key-encryption key, and looking whether one fits.

use std::fs::File;
use std::io::IsTerminal;

use bulla_journal::events;
use bulla_keystore::{Kek, KekSource, KekState, KeystoreError, Rewrapped, next_file, retire_file};
use bulla_rpc::{Clock, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::cli::{KekCheckArgs, KekCommand, KekRotateArgs};
use crate::control::kek::{Sources, source};
use crate::control::{open_keystore, open_keystore_with};
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::{Output, date};
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, command: &KekCommand, out: Output) -> Result<()> {
    match command {
        KekCommand::Rotate(args) => rotate(home, args, out).await,
        KekCommand::Status => status(home, out).await,
        KekCommand::Check(args) => check(home, args, out).await,
    }
}

async fn rotate(home: &Home, args: &KekRotateArgs, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let _alone = alone(home)?;
    let sources = Sources::of(home)?;
    let (from, next) = next_kek(&sources)?;
    if args.prepare {
        keystore.close().await;
        return prepared(&from, &next, out);
    }
    let journal = CommandJournal::open(home).await?;
    let bar = progress(out, "values");
    let show = |far: Rewrapped| {
        bar.set_length(far.total.max(far.seen));
        bar.set_position(far.seen);
    };
    let rotated = keystore.rotate_kek(&next, args.batch, show).await;
    bar.finish_and_clear();
    let far = rotated?;
    keystore.close().await;
    journal.record(events::KekRotated { wrapped: far.rewrapped });
    journal.finish()?;
    let retired = retire(&sources, &from, &next)?;
    told(&sources, &from, &next, far, retired.as_deref(), out)
}

/// The key to go over to: the one that an earlier, interrupted rotation made, or a new one.
fn next_kek(sources: &Sources) -> Result<(KekSource, Kek)> {
    let from = sources.next().ok_or_else(|| {
        Failure::usage(format!(
            "the key-encryption key is in {}: say in bulla.toml where the next one is ([kek.next])",
            sources.current
        ))
    })?;
    let next = match from.load() {
        Err(error) if error.is_absent() => from.create()?,
        loaded => loaded?,
    };
    Ok((from, next))
}

/// Two rotations at once would retire each other's files.
fn alone(home: &Home) -> Result<File> {
    let folder = File::open(home.dir())?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Failure::new("another `bulla kek rotate` runs here: wait for it"))?;
    Ok(folder)
}

fn prepared(from: &KekSource, next: &Kek, out: Output) -> Result<()> {
    let value = json!({ "next": hex::encode(next.id()), "next_from": from.to_string() });
    out.result(&value, |out| {
        out.say(format!("The next key is in {from} (id {}).", hex::encode(next.id())));
        out.say("Nothing uses it yet. Bring it to every host with a control plane, then: bulla kek rotate");
    })
}

/// Takes the old key's file out of use, if it was one.
fn retire(sources: &Sources, from: &KekSource, next: &Kek) -> Result<Option<String>> {
    let KekSource::File(path) = &sources.current else { return Ok(None) };
    match Kek::from_file(path) {
        // Done before, and only the rest was cut off; or moved away by hand.
        Ok(kek) if kek.id() == next.id() => return Ok(None),
        Err(_) if !path.exists() => return Ok(None),
        _ => {}
    }
    let beside = match from {
        KekSource::File(from) if *from == next_file(path) => Some(from.as_path()),
        _ => None,
    };
    let today = date(SystemClock.now().secs());
    let today = today.split(' ').next().unwrap_or_default();
    let old = retire_file(path, beside, today)?;
    Ok(Some(old.display().to_string()))
}

fn told(
    sources: &Sources,
    from: &KekSource,
    next: &Kek,
    far: Rewrapped,
    retired: Option<&str>,
    out: Output,
) -> Result<()> {
    let in_place = match (&sources.current, from) {
        (KekSource::File(path), KekSource::File(next)) => *next == next_file(path),
        _ => false,
    };
    let value = json!({
        "current": hex::encode(next.id()),
        "values": far.seen,
        "rewrapped": far.rewrapped,
        "left": 0,
        "retired": retired,
    });
    out.result(&value, |out| {
        out.say(format!(
            "All {} values are under the new key {} ({} rewrapped now); none is left under another.",
            far.seen,
            out.bold(&hex::encode(next.id())),
            far.rewrapped
        ));
        if !in_place {
            out.say(format!(
                "Now make [kek.next] the [kek] in bulla.toml: the key is in {}.",
                from
            ));
        }
        out.say("Back the new key up, and take new backups of the keystore: older ones need the old key.");
        match retired {
            Some(old) => out.say(format!(
                "{} Then destroy {old}: whoever has it and an old backup has what was in that.",
                out.secret("!")
            )),
            None => out.say(format!("{} Then destroy the old key.", out.secret("!"))),
        }
    })
}

async fn status(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let state = keystore.kek_state().await?;
    keystore.close().await;
    let sources = Sources::of(home)?;
    let mut known = vec![(sources.current.clone(), "current")];
    known.extend(sources.next().map(|next| (next, "next")));
    let found: Vec<_> = known
        .iter()
        .filter_map(|(source, role)| {
            let id = source.load().ok().map(|kek| kek.id());
            // Without a rotation there is no next one, and that is as it should be.
            (id.is_some() || *role == "current").then_some((source, *role, id))
        })
        .collect();
    let keys = found.iter().map(|(source, role, id)| {
        json!({ "from": source.to_string(), "role": role, "id": id.map(hex::encode) })
    });
    let counts = state.counts.iter().map(|count| {
        json!({
            "table": count.table, "column": count.column,
            "current": count.current, "other": count.other,
        })
    });
    let value = json!({
        "current": hex::encode(state.current),
        "left": state.left(),
        "keys": keys.collect::<Vec<_>>(),
        "counts": counts.collect::<Vec<_>>(),
    });
    out.result(&value, |out| {
        let keys = found.iter().map(|(source, role, id)| {
            let used = *id == Some(state.current);
            let what = if used { "new values are wrapped under it" } else { "" };
            let id = id.map_or_else(|| "not there".to_owned(), hex::encode);
            vec![(*role).to_owned(), id, source.to_string(), what.to_owned()]
        });
        out.table(&["KEY", "ID", "FROM", ""], keys.collect());
        out.say("");
        let rows = state.counts.iter().map(|count| {
            vec![
                format!("{}.{}", count.table, count.column),
                count.current.to_string(),
                count.other.to_string(),
            ]
        });
        out.table(&["VALUES", "UNDER IT", "UNDER OTHERS"], rows.collect());
        if state.left() > 0 {
            out.say("");
            out.say("A rotation is not finished: bulla kek rotate goes on with it.");
        }
    })
}

async fn check(home: &Home, args: &KekCheckArgs, out: Output) -> Result<()> {
    let settings = Settings::load(home.dir())?;
    let from = match (&args.file, args.settings()) {
        (Some(path), _) => KekSource::File(path.clone()),
        (None, Some(given)) => source(&given, home.kek())?,
        (None, None) => match &settings.kek.backup {
            Some(path) => KekSource::File(path.clone()),
            None => {
                return Err(Failure::usage(
                    "which key? Give its file, or --provider, or set [kek] backup in bulla.toml",
                ));
            }
        },
    };
    let kek = from.load()?;
    let id = hex::encode(kek.id());
    let fit = fit(home, &kek).await?;
    let value = json!({
        "from": from.to_string(),
        "id": id,
        "opens": fit.as_ref().is_some_and(|state| state.left() == 0),
        "under_others": fit.as_ref().map(KekState::left),
    });
    match fit {
        Some(state) if state.left() == 0 => out.result(&value, |out| {
            out.say(format!("{} The key in {from} ({id}) opens this keystore.", out.good("ok")));
        }),
        Some(state) => Err(Failure::new(format!(
            "the key in {from} ({id}) opens this keystore but for {} values: a rotation is not \
             finished, run `bulla kek rotate`",
            state.left()
        ))),
        None => Err(Failure::new(format!(
            "the key in {from} ({id}) does not open this keystore: it is another deployment's, or \
             from before a rotation"
        ))),
    }
}

/// What the key alone opens; `None` if it does not open the keystore at all.
pub(crate) async fn fit(home: &Home, kek: &Kek) -> Result<Option<KekState>> {
    match open_keystore_with(home, kek.into()).await? {
        Ok(keystore) => {
            let state = keystore.kek_state().await;
            keystore.close().await;
            Ok(Some(state?))
        }
        Err(KeystoreError::WrongKek { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn progress(out: Output, of: &str) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = format!("{{bar:30}} {{pos}}/{{len}} {of}  {{per_sec}}  {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style);
    }
    bar
}
