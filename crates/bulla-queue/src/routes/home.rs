//! What there is, and whether it works.

use std::sync::LazyLock;
use std::time::Instant;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::table::{ROUTES, Route};
use super::{Common, json as answer};
use crate::fault::Fault;

pub(super) fn versions() -> Response {
    let versions = json!({ "versions": [{
        "id": "2",
        "status": "CURRENT",
        "updated": "2014-9-24T04:06:47Z",
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.messaging-v2+json",
        }],
        "links": [{ "href": "/v2/", "rel": "self" }],
    }] });
    answer(StatusCode::MULTIPLE_CHOICES, versions.to_string())
}

/// Relations that clients know, and the resource and method that each is.
const RELATIONS: &[(&str, &str, &str)] = &[
    ("rel/queues", "/v2/queues", "GET"),
    ("rel/queue", "/v2/queues/{queue_name}", ""),
    ("rel/queue_stats", "/v2/queues/{queue_name}/stats", ""),
    ("rel/queue_share", "/v2/queues/{queue_name}/share", ""),
    ("rel/queue_purge", "/v2/queues/{queue_name}/purge", ""),
    ("rel/messages", "/v2/queues/{queue_name}/messages", "GET POST"),
    ("rel/messages_delete", "/v2/queues/{queue_name}/messages", "DELETE"),
    ("rel/message", "/v2/queues/{queue_name}/messages/{message_id}", "GET"),
    ("rel/message_delete", "/v2/queues/{queue_name}/messages/{message_id}", "DELETE"),
    ("rel/claim", "/v2/queues/{queue_name}/claims/{claim_id}", ""),
    ("rel/post_claim", "/v2/queues/{queue_name}/claims", ""),
    ("rel/subscriptions", "/v2/queues/{queue_name}/subscriptions", ""),
    ("rel/subscription", "/v2/queues/{queue_name}/subscriptions/{subscription_id}", ""),
    (
        "rel/subscription_confirm",
        "/v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm",
        "",
    ),
    ("rel/topics", "/v2/topics", ""),
    ("rel/topic", "/v2/topics/{topic_name}", ""),
    ("rel/topic_stats", "/v2/topics/{topic_name}/stats", ""),
    ("rel/topic_purge", "/v2/topics/{topic_name}/purge", ""),
    ("rel/topic_messages", "/v2/topics/{topic_name}/messages", ""),
    ("rel/topic_subscriptions", "/v2/topics/{topic_name}/subscriptions", ""),
    ("rel/pools", "/v2/pools", ""),
    ("rel/pool", "/v2/pools/{pool_name}", ""),
    ("rel/flavors", "/v2/flavors", ""),
    ("rel/flavor", "/v2/flavors/{flavor_name}", ""),
    ("rel/ping", "/v2/ping", "GET"),
    ("rel/health", "/v2/health", ""),
    ("rel/openapi", "/v2/openapi.json", ""),
];

fn resource(route: &Route, path: &str, methods: &str) -> Value {
    let wanted = |method: &str| {
        let all = methods.is_empty() && method != "HEAD";
        all || methods.split(' ').any(|one| one == method)
    };
    let operations = route.operations.iter().filter(|one| wanted(one.method));
    let (mut allow, mut query) = (Vec::new(), Vec::<&str>::new());
    for operation in operations {
        allow.push(operation.method);
        for name in operation.query {
            if !query.contains(name) {
                query.push(name);
            }
        }
    }
    let template = match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}{{?{}}}", query.join(",")),
    };
    let in_path = path.split('/').filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let vars = in_path.chain(query.iter().copied());
    let vars = vars.map(|name| (name.to_owned(), format!("param/{name}").into()));
    let vars: Map<String, Value> = vars.collect();
    let place = if vars.is_empty() { "href" } else { "href-template" };
    let formats = json!({ "application/json": {} });
    let mut resource = json!({ place: template, "hints": { "allow": allow, "formats": formats } });
    if let Some(map) = resource.as_object_mut().filter(|_| !vars.is_empty()) {
        map.insert("href-vars".to_owned(), vars.into());
    }
    resource
}

pub(super) fn home() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let resources = RELATIONS.iter().filter_map(|(relation, path, methods)| {
            let of = path.replace("/topics", "/queues").replace("{topic_", "{queue_");
            let route = ROUTES.iter().find(|route| route.path == of)?;
            Some(((*relation).to_owned(), resource(route, path, methods)))
        });
        json!({ "resources": resources.collect::<Map<_, _>>() }).to_string()
    });
    let headers =
        [(header::CONTENT_TYPE, "application/json-home"), (header::CACHE_CONTROL, "max-age=86400")];
    (StatusCode::OK, headers, TEXT.as_str()).into_response()
}

pub(super) async fn health(asked: &Common<'_>) -> Result<Response, Fault> {
    asked.operators()?;
    let store = &asked.service.store;
    let begun = Instant::now();
    let reachable = store.ping().await.is_ok();
    let operation = json!({
        "seconds": begun.elapsed().as_secs_f64(),
        "ref": null,
        "succeeded": reachable,
    });
    let health = json!({
        "catalog_reachable": reachable,
        "refused": { "agent_quota": asked.service.quotas.refused() },
        store.name(): {
            "storage_reachable": reachable,
            "operation_status": { "ping": operation },
        },
    });
    Ok(answer(StatusCode::OK, health.to_string()))
}
