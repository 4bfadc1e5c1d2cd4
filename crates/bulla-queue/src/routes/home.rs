//! What there is, and whether it works.

use std::sync::LazyLock;
use std::time::Instant;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::json as answer;
use crate::caller::Caller;
use crate::fault::Fault;
use crate::service::Service;

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

/// Relation, template, methods.
const RESOURCES: &[(&str, &str, &[&str])] = &[
    ("rel/queues", "/v2/queues{?marker,limit,detailed,name,with_count}", &["GET"]),
    ("rel/queue", "/v2/queues/{queue_name}", &["GET", "PUT", "PATCH", "DELETE"]),
    ("rel/queue_stats", "/v2/queues/{queue_name}/stats", &["GET"]),
    ("rel/queue_share", "/v2/queues/{queue_name}/share", &["POST", "DELETE"]),
    ("rel/queue_purge", "/v2/queues/{queue_name}/purge", &["POST"]),
    (
        "rel/messages",
        "/v2/queues/{queue_name}/messages{?marker,limit,echo,include_claimed,include_delayed,wait}",
        &["GET", "POST"],
    ),
    (
        "rel/messages_delete",
        "/v2/queues/{queue_name}/messages{?ids,claim_ids,pop,wait}",
        &["DELETE"],
    ),
    ("rel/message", "/v2/queues/{queue_name}/messages/{message_id}", &["GET"]),
    ("rel/message_delete", "/v2/queues/{queue_name}/messages/{message_id}{?claim_id}", &["DELETE"]),
    ("rel/claim", "/v2/queues/{queue_name}/claims/{claim_id}", &["GET", "PATCH", "DELETE"]),
    ("rel/post_claim", "/v2/queues/{queue_name}/claims{?limit,wait}", &["POST"]),
    ("rel/ping", "/v2/ping", &["GET"]),
    ("rel/health", "/v2/health", &["GET"]),
];

pub(super) fn home() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let resources = RESOURCES.iter().map(|(rel, template, methods)| {
            let vars =
                names(template).map(|name| (name.to_owned(), format!("param/{name}").into()));
            let vars: serde_json::Map<String, Value> = vars.collect();
            let place = if vars.is_empty() { "href" } else { "href-template" };
            let formats = json!({ "application/json": {} });
            let mut resource = json!({
                place: template,
                "hints": { "allow": methods, "formats": formats },
            });
            if let Some(map) = resource.as_object_mut().filter(|_| !vars.is_empty()) {
                map.insert("href-vars".to_owned(), vars.into());
            }
            ((*rel).to_owned(), resource)
        });
        json!({ "resources": resources.collect::<serde_json::Map<_, _>>() }).to_string()
    });
    let headers =
        [(header::CONTENT_TYPE, "application/json-home"), (header::CACHE_CONTROL, "max-age=86400")];
    (StatusCode::OK, headers, TEXT.as_str()).into_response()
}

/// What stands in braces.
fn names(template: &str) -> impl Iterator<Item = &str> {
    let within = template.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    within.flat_map(|list| list.trim_start_matches('?').split(','))
}

pub(super) async fn health(service: &Service, caller: &Caller) -> Result<Response, Fault> {
    if !caller.is_operator() {
        return Err(Fault::forbidden("You are not authorized to complete this action."));
    }
    let begun = Instant::now();
    let reachable = service.store.ping().await.is_ok();
    let operation = json!({
        "seconds": begun.elapsed().as_secs_f64(),
        "ref": null,
        "succeeded": reachable,
    });
    let health = json!({
        "catalog_reachable": reachable,
        service.store.name(): {
            "storage_reachable": reachable,
            "operation_status": { "ping": operation },
        },
    });
    Ok(answer(StatusCode::OK, health.to_string()))
}
