//! Queues.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::messages::stats_message;
use super::params::{self, Params};
use super::{Asked, empty, json as answer, located};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::json::{check_numbers, read};
use crate::metadata::{FLAVOR, Patch, PatchFault, check, shown};
use crate::name::topics_of;
use crate::pool::Catalogue;
use crate::service::{Service, now};
use crate::store::{Metadata, QueuePage};

const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";
const KNOWN: [&str; 5] = ["marker", "limit", "detailed", "name", "with_count"];

pub(super) async fn create(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let limits = &asked.service.limits;
    let metadata: Metadata = if body.is_empty() {
        Map::new()
    } else {
        if body.len() > limits.max_metadata {
            return Err(too_large(limits.max_metadata));
        }
        match read::<Value>(&body)? {
            Value::Object(metadata) => metadata,
            _ => return Err(Fault::body("Document type not supported.")),
        }
    };
    check_body(&body)?;
    check(&metadata, limits).map_err(Fault::request)?;
    // Where messages go that were claimed too often is a way into another queue.
    if asked.caller.is_confined() && metadata.keys().any(|key| key.starts_with('_')) {
        return Err(Fault::forbidden("What is reserved in metadata is not an agent's to set."));
    }
    if let Some(flavor) = metadata.get(FLAVOR).filter(|flavor| !flavor.is_null()) {
        check_flavor(asked, flavor.as_str().unwrap_or_default()).await?;
    }
    let made = asked.service.store.create(asked.at, &metadata).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    located(status, &asked.at.path(), None)
}

async fn check_flavor(asked: &Asked<'_>, name: &str) -> Result<(), Fault> {
    let found = Catalogue::of(asked.service).flavor(name).await?;
    found.map(drop).ok_or_else(|| Fault::request(format!("Flavor {name} does not exist")))
}

fn too_large(max: usize) -> Fault {
    Fault::request(format!("Queue metadata is too large. Max size: {max}"))
}

fn check_body(body: &[u8]) -> Result<(), Fault> {
    std::str::from_utf8(body).map_or(Ok(()), check_numbers)
}

pub(super) async fn get(asked: &Asked<'_>) -> Result<Response, Fault> {
    let metadata = asked.service.store.metadata(asked.at).await?.unwrap_or_default();
    Ok(answer(StatusCode::OK, text(&shown(&metadata, &asked.service.limits))))
}

/// Says whether the queue is there, which GET does not.
pub(super) async fn head(asked: &Asked<'_>) -> Result<Response, Fault> {
    match asked.service.store.metadata(asked.at).await? {
        Some(_) => Ok(StatusCode::OK.into_response()),
        None => Err(Fault::not_found("There is no such queue.")),
    }
}

pub(super) async fn patch(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let kind = asked.parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.and_then(|kind| kind.split(';').next()).map(str::trim) != Some(PATCH_TYPE) {
        return Err(Fault::media_type(format!(
            "Accepted media type for PATCH: {{'Accept-Patch': '{PATCH_TYPE}'}}."
        )));
    }
    let limits = &asked.service.limits;
    if body.len() > limits.max_metadata {
        return Err(too_large(limits.max_metadata));
    }
    check_body(&body)?;
    let patch = Patch::parse(&body, limits).map_err(Fault::body)?;
    if let Some(flavor) = patch.value(FLAVOR).filter(|flavor| !flavor.is_null()) {
        check_flavor(asked, flavor.as_str().unwrap_or_default()).await?;
    }
    match asked.service.store.patch(asked.at, &patch).await? {
        None => Err(Fault::not_found(format!(
            "Queue {} does not exist for project {}",
            asked.at.name(),
            asked.at.tenant()
        ))),
        Some(Err(PatchFault::Missing(key))) => {
            Err(Fault::conflict(format!("Can't replace or remove non-existent object {key}.")))
        }
        Some(Err(PatchFault::Value(why))) => Err(Fault::request(why)),
        Some(Ok(metadata)) => {
            Ok(answer(StatusCode::OK, text(&shown(&metadata, &asked.service.limits))))
        }
    }
}

pub(super) async fn delete(asked: &Asked<'_>) -> Result<Response, Fault> {
    asked.service.store.remove(asked.at).await?;
    asked.service.quotas.gone(asked.at);
    remove_subscriptions(asked).await?;
    Ok(empty())
}

async fn remove_subscriptions(asked: &Asked<'_>) -> Result<(), Fault> {
    if asked.service.hooks.is_none() {
        return Ok(());
    }
    let subscriptions = asked.subscriptions();
    if !subscriptions.list("", 1).await?.is_empty() {
        subscriptions.remove_all().await?;
    }
    asked.forget_subscriptions();
    Ok(())
}

pub(super) async fn list(
    service: &Service,
    (caller, is_topic): (&Caller, bool),
    params: &Params,
) -> Result<Response, Fault> {
    if caller.is_confined() {
        return Err(Fault::no_route());
    }
    let limits = &service.limits;
    let mut with = Map::new();
    for (key, value) in params.others(&KNOWN) {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        with.insert(key.to_owned(), value);
    }
    let page = QueuePage {
        after: params.get("marker").unwrap_or_default().to_owned(),
        limit: params.limit(limits.default_page, limits.max_page)?,
        name: params.get("name").map(str::to_owned),
        with,
    };
    let (detailed, count) = (params.flag("detailed")?, params.flag("with_count")?);
    let topics = is_topic.then(|| topics_of(&caller.project));
    let project = topics.as_deref().unwrap_or(&caller.project);
    let (kind, path) = if is_topic { ("topics", "/v2/topics") } else { ("queues", "/v2/queues") };
    let found = service.store.queues(project, &page).await?;
    let last = found.last().map(|queue| queue.name.clone());
    let queues: Vec<Value> = found
        .into_iter()
        .map(|queue| {
            let href = format!("{path}/{}", queue.name);
            if detailed {
                let metadata = shown(&queue.metadata, limits);
                json!({ "name": queue.name, "metadata": metadata, "href": href })
            } else {
                json!({ "name": queue.name, "href": href })
            }
        })
        .collect();
    let links = last.map(|last| {
        let query = params::next(params, &["name", "limit", "detailed", "with_count"], &last);
        json!({ "rel": "next", "href": format!("{path}?{query}") })
    });
    let links: Vec<_> = links.into_iter().collect();
    let mut answered = json!({ kind: queues, "links": links });
    if count && let Some(map) = answered.as_object_mut() {
        let count = service.store.count_queues(project).await?;
        map.insert("count".to_owned(), count.into());
    }
    Ok(answer(StatusCode::OK, answered.to_string()))
}

pub(super) async fn stats(asked: &Asked<'_>) -> Result<Response, Fault> {
    let now = now();
    let stats = asked.service.store.stats(asked.at, now).await?;
    let mut out = format!(
        "{{\"messages\": {{\"claimed\": {}, \"free\": {}, \"total\": {}",
        stats.busy,
        stats.free,
        stats.busy + stats.free
    );
    for (name, message) in [("newest", &stats.newest), ("oldest", &stats.oldest)] {
        if let Some(message) = message {
            out += &format!(", \"{name}\": ");
            stats_message(&mut out, asked.at, message, now);
        }
    }
    out += "}}";
    Ok(answer(StatusCode::OK, out))
}

pub(super) async fn purge(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let (mut messages, mut subscriptions) = (true, true);
    if !body.is_empty() {
        let document: Value = read(&body)?;
        let types = document
            .get("resource_types")
            .ok_or_else(|| Fault::request("Post body must contain key \"resource_types\"."))?;
        let known = |kind: &Value| matches!(kind.as_str(), Some("messages" | "subscriptions"));
        let types = types.as_array().filter(|types| types.iter().all(known)).ok_or_else(|| {
            Fault::request("Resource types must be a sub set of {'messages', 'subscriptions'}.")
        })?;
        messages = types.iter().any(|kind| kind == "messages");
        subscriptions = types.iter().any(|kind| kind == "subscriptions");
    }
    if messages {
        asked.service.store.purge(asked.at).await?;
    }
    if subscriptions {
        remove_subscriptions(asked).await?;
    }
    Ok(empty())
}

fn text(metadata: &Metadata) -> String {
    // A map of texts and values that came from JSON.
    serde_json::to_string(metadata).unwrap_or_default()
}
