//! Pre-signed grants: making them, and ending them all.

use aws_lc_rs::rand;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Asked, empty, json as answer};
use crate::date;
use crate::fault::Fault;
use crate::grant::{Grant, KEY_ID, RESOURCES, is_method};
use crate::json::read;
use crate::metadata::Patch;
use crate::service::now;

const KNOWN: [&str; 3] = ["paths", "methods", "expires"];
/// How long a grant holds that does not say, and at the most, in seconds.
const DEFAULT: u64 = 86_400;
const LONGEST: u64 = 30 * 86_400;

pub(super) async fn share(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    refuse_grants(asked)?;
    let Some(grants) = &asked.service.grants else {
        return Err(Fault::request("Pre-signed URLs are not offered here."));
    };
    let document: Map<String, Value> = match read::<Value>(&body)? {
        Value::Object(document) => document,
        _ => return Err(Fault::body("Document type not supported.")),
    };
    if let Some(unknown) = document.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Fault::request(format!("Unknown keys: {{'{unknown}'}}")));
    }
    let list = |name: &str, default: &str| match document.get(name) {
        None => Ok(vec![default.to_owned()]),
        Some(value) => {
            let texts = value.as_array().filter(|texts| !texts.is_empty());
            let texts = texts.and_then(|texts| {
                texts.iter().map(|text| text.as_str().map(str::to_owned)).collect()
            });
            texts.ok_or_else(|| Fault::request(format!("`{name}` must be a list of texts")))
        }
    };
    let mut resources: Vec<String> = list("paths", "messages")?;
    resources.sort_unstable();
    resources.dedup();
    if let Some(unknown) = resources.iter().find(|path| !RESOURCES.contains(&path.as_str())) {
        return Err(Fault::request(format!("Invalid paths: {{'{unknown}'}}")));
    }
    let methods: Vec<String> = list("methods", "GET")?;
    if let Some(unknown) = methods.iter().find(|method| !is_method(method)) {
        return Err(Fault::request(format!("Invalid methods: {{'{unknown}'}}")));
    }
    let path = |of: &String| format!("{}/{of}", asked.at.path());
    let paths: Vec<_> = resources.iter().map(path).collect();
    let grant = Grant { paths, methods, expires: expires(document.get("expires"))? };
    let key_id = key_id(asked).await?;
    let signature = grants.sign(asked.at, &key_id, &grant);
    let shared = json!({
        "paths": grant.paths,
        "methods": grant.methods,
        "project": asked.at.tenant(),
        "expires": grant.expires,
        "signature": signature,
    });
    Ok(answer(StatusCode::OK, shared.to_string()))
}

fn expires(given: Option<&Value>) -> Result<String, Fault> {
    let now = now() / 1000;
    let Some(given) = given else { return Ok(date::text(now + DEFAULT)) };
    let text = given.as_str().ok_or_else(|| {
        Fault::request(format!(
            "`expires` should be date format, for example 2016-01-01T00:00:00, not integer value: \
             {given}"
        ))
    })?;
    let end = date::parse(text).ok_or_else(|| {
        Fault::request("`expires` should be date format, for example 2016-01-01T00:00:00")
    })?;
    if end <= now {
        return Err(Fault::request("`expires` is lower than the current time"));
    }
    if end > now + LONGEST {
        return Err(Fault::request("`expires` may be at most 30 days from now"));
    }
    Ok(date::text(end))
}

/// The id of the queue's key for grants; it gets one if it has none.
pub(super) async fn key_id(asked: &Asked<'_>) -> Result<String, Fault> {
    let store = &asked.service.store;
    if store.metadata(asked.at).await?.is_none() {
        store.create(asked.at, &Map::new()).await?;
    }
    // Of many who ask at once one gives it the key, and all have that.
    let first = Patch::default(KEY_ID, Value::String(new_key()?), &asked.service.limits);
    let there = |metadata: &Map<String, Value>| {
        let id = metadata.get(KEY_ID).and_then(Value::as_str);
        id.filter(|id| !id.is_empty()).map(str::to_owned)
    };
    let metadata = store.metadata(asked.at).await?;
    if let Some(id) = metadata.as_deref().and_then(there) {
        return Ok(id);
    }
    if let Some(Ok(metadata)) = store.patch(asked.at, &first).await?
        && let Some(id) = there(&metadata)
    {
        return Ok(id);
    }
    Err(Fault::unavailable("The queue's key can't be made."))
}

fn new_key() -> Result<String, Fault> {
    let mut id = [0; 8];
    rand::fill(&mut id).map_err(|_| Fault::unavailable("There is no randomness."))?;
    Ok(hex::encode(id))
}

/// Gives the queue another key: no grant that was made counts any more.
async fn change_key(asked: &Asked<'_>) -> Result<(), Fault> {
    let path = format!("/metadata/{KEY_ID}");
    let steps = json!([{ "op": "add", "path": path, "value": new_key()? }]).to_string();
    let patch = Patch::parse(steps.as_bytes(), &asked.service.limits).map_err(Fault::body)?;
    asked.service.store.patch(asked.at, &patch).await?;
    Ok(())
}

pub(super) async fn revoke(asked: &Asked<'_>) -> Result<Response, Fault> {
    refuse_grants(asked)?;
    if asked.service.store.metadata(asked.at).await?.is_some() {
        change_key(asked).await?;
    }
    Ok(empty())
}

/// A grant makes no other.
fn refuse_grants(asked: &Asked<'_>) -> Result<(), Fault> {
    if asked.caller.is_confined() { Err(Fault::no_route()) } else { Ok(()) }
}
