//! `bulla access-key add|list|disable|enable|remove`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bulla_keystore::{AccessKey, AccessKeyRecord, ApiUser};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::UnixTime;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::component::refuse_existing;
use crate::cli::AccessKeyCommand;
use crate::control::desk::Desk;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::Home;
use crate::when;

pub(crate) async fn run(home: &Home, command: &AccessKeyCommand, out: Output) -> Result<()> {
    match command {
        AccessKeyCommand::Add { user, expires, out: file } => {
            add(home, user, expires.as_deref(), file.as_deref(), out).await
        }
        AccessKeyCommand::List => list(home, out).await,
        AccessKeyCommand::Disable { id } => disable(home, id, true, out).await,
        AccessKeyCommand::Enable { id } => disable(home, id, false, out).await,
        AccessKeyCommand::Remove { id } => remove(home, id, out).await,
    }
}

async fn add(
    home: &Home,
    user: &str,
    expires: Option<&str>,
    file: Option<&Path>,
    out: Output,
) -> Result<()> {
    let user: ApiUser = user.parse().map_err(usage)?;
    let end = expires.map(|text| when::parse(text, SystemClock.now().secs())).transpose();
    let end = end.map_err(Failure::usage)?.map(UnixTime::from_secs);
    file.map_or(Ok(()), refuse_existing)?;
    let desk = Desk::open(home).await?;
    let key = desk.add_access_key(&user, end, |key| file.map_or(Ok(()), |path| write(path, key)));
    let key = key.await;
    let closed = desk.close().await;
    let key = key?;
    closed?;
    let mut value = shown(&key.record);
    if let Some(map) = value.as_object_mut() {
        match file {
            Some(path) => map.insert("file".to_owned(), json!(path)),
            None => map.insert("secret_key".to_owned(), json!(key.secret.expose())),
        };
    }
    out.result(&value, |out| {
        out.say(format!("Added an access key for {user}{}.", until(&key.record)));
        match file {
            Some(path) => out.say(format!("Key and secret are in {}.", path.display())),
            None => {
                out.say(format!("  access key id  {}", out.bold(&key.record.id)));
                out.say(format!("  secret key     {}", out.secret(key.secret.expose())));
                out.say("Keep the secret now: it is not shown again.");
            }
        }
    })
}

fn usage(error: impl std::error::Error) -> Failure {
    Failure::usage(error.to_string())
}

/// Mode 0600, and never over another file.
fn write(path: &Path, key: &AccessKey) -> Result<()> {
    let text = Zeroizing::new(format!(
        "access-key-id = \"{}\"\nsecret-key = \"{}\"\n",
        key.record.id,
        key.secret.expose()
    ));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))
}

fn until(record: &AccessKeyRecord) -> String {
    record.expires.map_or_else(String::new, |end| format!(", good until {}", date(end.secs())))
}

fn shown(record: &AccessKeyRecord) -> Value {
    json!({
        "access_key_id": record.id,
        "user": record.user.as_str(),
        "created": record.created.secs(),
        "last_used": record.last_used.map(UnixTime::secs),
        "expires": record.expires.map(UnixTime::secs),
        "disabled": record.disabled,
    })
}

async fn list(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let keys = keystore.list_access_keys().await?;
    keystore.close().await;
    let now = SystemClock.now();
    let value: Vec<_> = keys.iter().map(shown).collect();
    out.result(&value, |out| {
        let time = |at: Option<UnixTime>, none: &str| {
            at.map_or_else(|| none.to_owned(), |at| date(at.secs()))
        };
        let rows = keys.iter().map(|key| {
            let state = match key.expires {
                _ if key.disabled => "disabled",
                Some(end) if end <= now => "expired",
                _ => "good",
            };
            vec![
                key.id.clone(),
                key.user.to_string(),
                state.to_owned(),
                date(key.created.secs()),
                time(key.last_used, "never"),
                time(key.expires, "no end"),
            ]
        });
        let head = ["ACCESS KEY ID", "USER", "STATE", "CREATED", "LAST USED", "ENDS"];
        out.table(&head, rows.collect());
    })
}

async fn disable(home: &Home, id: &str, disabled: bool, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let done = desk.disable_access_key(id, disabled).await;
    let closed = desk.close().await;
    done?;
    closed?;
    out.result(&json!({ "access_key_id": id, "disabled": disabled }), |out| {
        out.say(if disabled {
            format!("Access key {id} is refused until `bulla access-key enable {id}`.")
        } else {
            format!("Access key {id} is taken again.")
        });
    })
}

async fn remove(home: &Home, id: &str, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let done = desk.remove_access_key(id).await;
    let closed = desk.close().await;
    done?;
    closed?;
    out.result(&json!({ "access_key_id": id, "removed": true }), |out| {
        out.say(format!("Removed access key {id}; its secret is wiped."));
    })
}
