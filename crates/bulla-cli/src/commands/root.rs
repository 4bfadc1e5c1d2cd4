//! `bulla root show|request|rotate|install`: the root key is followed by another. The keys
//! themselves need not be on the machine that has the keystore.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_journal::events;
use bulla_keystore::{ROOT_OVERLAP, RootHandover, RootRecord, RootState, root_key};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::root::{MAX_OVERLAP, MIN_OVERLAP};
use bulla_seal::{OsRandom, RootAnnouncement, SigningKey, TrustDomain, VerifyingKey};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::component::refuse_existing;
use crate::cli::{RootCommand, RootRotateArgs};
use crate::control::{open_keystore, open_keystore_as_owner};
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::{Output, date};
use crate::settings::Home;
use crate::when;

/// Longest request or handover that is read.
const MAX_FILE: u64 = 1 << 20;

/// What the root keys need to know; public.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RequestFile {
    /// Format; 1.
    root_request: u32,
    trust_domain: String,
    root: String,
    sequence: u32,
    issuers: Vec<String>,
}

/// What they signed; public.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HandoverFile {
    /// Format; 1.
    root_handover: u32,
    announcement: String,
    issuers: Vec<String>,
}

pub(crate) async fn run(home: &Home, command: &RootCommand, out: Output) -> Result<()> {
    match command {
        RootCommand::Show => show(home, out).await,
        RootCommand::Request { out: file } => request(home, file, out).await,
        RootCommand::Rotate(args) => match (&args.request, &args.handover) {
            (Some(request), Some(handover)) => away(args, request, handover, out),
            _ => here(home, args, out).await,
        },
        RootCommand::Install { file } => install(home, file, out).await,
    }
}

async fn show(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let roots = keystore.list_roots().await?;
    keystore.close().await;
    let now = SystemClock.now().secs();
    let value: Vec<Value> = roots.iter().map(|root| shown(root, now)).collect();
    out.result(&value, |out| {
        let rows = roots.iter().map(|root| {
            let state = match root.until {
                None => "trusted".to_owned(),
                Some(until) if until > now => format!("trusted beside it until {}", date(until)),
                Some(until) => format!("ended {}", date(until)),
            };
            let since = root.since.map_or_else(|| "-".to_owned(), date);
            vec![root.sequence.to_string(), hex::encode(root.key.as_bytes()), since, state]
        });
        out.table(&["ROOT", "PUBLIC KEY", "SINCE", "STATE"], rows.collect());
    })
}

fn shown(root: &RootRecord, now: u64) -> Value {
    json!({
        "sequence": root.sequence,
        "public_key": hex::encode(root.key.as_bytes()),
        "since": root.since,
        "until": root.until,
        "trusted": root.until.is_none_or(|until| until > now),
    })
}

async fn request(home: &Home, file: &Path, out: Output) -> Result<()> {
    refuse_existing(file)?;
    let keystore = open_keystore(home).await?;
    let state = keystore.root_state().await?;
    keystore.close().await;
    let content = RequestFile {
        root_request: 1,
        trust_domain: state.domain.to_string(),
        root: BASE64.encode(state.root.as_bytes()),
        sequence: state.sequence,
        issuers: state.issuers.iter().map(|bytes| BASE64.encode(bytes)).collect(),
    };
    write(file, &content)?;
    out.result(&json!({ "request": file, "root": state.sequence }), |out| {
        out.say(format!("What root {} is asked to sign is in {}.", state.sequence, file.display()));
        out.say(
            "Nothing in it is secret. Bring it to the machine that the root key is on, and there:",
        );
        out.say(format!(
            "  bulla root rotate --root-key OLD --out NEW --request {} --handover FILE",
            file.display()
        ));
    })
}

/// On the machine that the keystore is on, with the root key brought to it.
async fn here(home: &Home, args: &RootRotateArgs, out: Output) -> Result<()> {
    let overlap = overlap(args)?;
    refuse_existing(&args.out)?;
    let keystore = open_keystore_as_owner(home).await?;
    let journal = CommandJournal::open(home).await?;
    let state = keystore.root_state().await?;
    let handover = signed(&state, args, overlap)?;
    let announced = keystore.install_root(&handover).await.map_err(|error| {
        Failure::new(format!(
            "{error}\nThe new root's key stays in {}: look with `bulla root show` whether it is \
             trusted before you throw it away",
            args.out.display()
        ))
    })?;
    journal.record(events::RootFollowed { sequence: announced.sequence });
    journal.finish()?;
    // Hosts that read the database themselves find their copy of the root at once.
    keystore.fill_component_keys().await?;
    keystore.close().await;
    told(&announced, Some(&args.out), out)
}

/// On a machine that has the root key and no keystore.
fn away(args: &RootRotateArgs, request: &Path, handover: &Path, out: Output) -> Result<()> {
    let overlap = overlap(args)?;
    refuse_existing(&args.out)?;
    refuse_existing(handover)?;
    let asked: RequestFile = read(request, "request for a new root")?;
    if asked.root_request != 1 {
        return Err(malformed(request, "request for a new root"));
    }
    let state = RootState {
        domain: TrustDomain::new(&asked.trust_domain)?,
        root: VerifyingKey(
            decode(request, &asked.root)?[..]
                .try_into()
                .map_err(|_| malformed(request, "request for a new root"))?,
        ),
        sequence: asked.sequence,
        issuers: asked.issuers.iter().map(|text| decode(request, text)).collect::<Result<_>>()?,
    };
    let signed = signed(&state, args, overlap)?;
    let content = HandoverFile {
        root_handover: 1,
        announcement: BASE64.encode(&signed.announcement),
        issuers: signed.issuers.iter().map(|bytes| BASE64.encode(bytes)).collect(),
    };
    write(handover, &content)?;
    let announced = RootAnnouncement::claimed(&signed.announcement)?;
    let value = json!({ "handover": handover, "root": announced.sequence, "root_key": args.out });
    out.result(&value, |out| {
        out.say(format!(
            "Root {} is in {}: keep it as the one before, which still counts until {}.",
            announced.sequence,
            args.out.display(),
            date(announced.until)
        ));
        out.say(
            "Nobody trusts it yet. Bring the handover, which holds no secret, to the keystore:",
        );
        out.say(format!("  bulla root install {}", handover.display()));
    })
}

async fn install(home: &Home, file: &Path, out: Output) -> Result<()> {
    let content: HandoverFile = read(file, "handover of a root")?;
    if content.root_handover != 1 {
        return Err(malformed(file, "handover of a root"));
    }
    let handover = RootHandover {
        announcement: decode(file, &content.announcement)?,
        issuers: content.issuers.iter().map(|text| decode(file, text)).collect::<Result<_>>()?,
    };
    let keystore = open_keystore_as_owner(home).await?;
    let journal = CommandJournal::open(home).await?;
    let announced = keystore.install_root(&handover).await?;
    journal.record(events::RootFollowed { sequence: announced.sequence });
    journal.finish()?;
    keystore.fill_component_keys().await?;
    keystore.close().await;
    told(&announced, None, out)
}

/// Makes the new root's key and has both sign. The key's file is there before anybody trusts it.
fn signed(state: &RootState, args: &RootRotateArgs, overlap: Duration) -> Result<RootHandover> {
    let (domain, old) = root_key::from_file(&args.root_key)?;
    if domain != state.domain {
        return Err(Failure::new(format!(
            "{} is the root key of {domain}, and this deployment's domain is {}",
            args.root_key.display(),
            state.domain
        )));
    }
    let new = SigningKey::generate(&mut OsRandom::default())?;
    let handover = state.hand_over(&old, &new, overlap, SystemClock.now())?;
    root_key::create_file(&args.out, &domain, &new)?;
    Ok(handover)
}

fn overlap(args: &RootRotateArgs) -> Result<Duration> {
    let Some(text) = &args.overlap else { return Ok(ROOT_OVERLAP) };
    let overlap = when::duration(text);
    let overlap = overlap.filter(|o| (MIN_OVERLAP..=MAX_OVERLAP).contains(&o.as_secs()));
    overlap.ok_or_else(|| Failure::usage("--overlap is a while from 1h to 366d, such as 30d"))
}

fn told(announced: &RootAnnouncement, key: Option<&Path>, out: Output) -> Result<()> {
    let value = json!({
        "root": announced.sequence,
        "public_key": hex::encode(announced.new.as_bytes()),
        "former_until": announced.until,
        "root_key": key,
    });
    out.result(&value, |out| {
        out.say(format!(
            "Root {} is trusted now; the one before counts until {}.",
            announced.sequence,
            date(announced.until)
        ));
        out.say("Agents that run learn of it within an hour, and hosts of components in seconds.");
        out.say("An agent that is off until then has to join again: bulla agent add ID --again");
        if let Some(key) = key {
            out.say(format!(
                "{} Take {} off this machine, and the former root's key with it.",
                out.secret("!"),
                key.display()
            ));
        }
    })
}

fn write(path: &Path, content: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(content)?;
    fs::write(path, text + "\n")
        .map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))
}

fn read<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T> {
    let unread = |error| Failure::new(format!("can't read {}: {error}", path.display()));
    if fs::metadata(path).map_err(unread)?.len() > MAX_FILE {
        return Err(malformed(path, what));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    serde_json::from_str(&text).map_err(|_| malformed(path, what))
}

fn decode(path: &Path, text: &str) -> Result<Bytes> {
    let bytes = BASE64.decode(text);
    bytes
        .map(Bytes::from)
        .map_err(|_| Failure::new(format!("{} holds what is not base64", path.display())))
}

fn malformed(path: &Path, what: &str) -> Failure {
    Failure::new(format!("{} is not a {what} that `bulla root` made", path.display()))
}
