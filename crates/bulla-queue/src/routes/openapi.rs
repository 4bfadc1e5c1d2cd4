//! The API's own description: OpenAPI 3.1, made from the table of routes.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::json as answer;
use super::once::{KEY, MAX_KEY};
use super::schemas::{SCHEMAS, schema};
use super::table::{Op, Operation, ROUTES, Route};

/// Every operation can end in one of these.
const REFUSALS: [u16; 9] = [400, 401, 403, 404, 405, 409, 415, 429, 503];
const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

pub(super) fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(openapi);
    answer(StatusCode::OK, TEXT.clone())
}

/// The description of the API in OpenAPI 3.1, as JSON with a line for each member.
#[must_use]
pub fn openapi() -> String {
    let mut paths = Map::new();
    for route in ROUTES {
        paths.insert(route.path.to_owned(), path(route, false));
        if route.twin {
            let twin = route.path.replace("/queues", "/topics").replace("queue_name", "topic_name");
            paths.insert(twin, path(route, true));
        }
    }
    let schemas = SCHEMAS.iter().map(|name| ((*name).to_owned(), schema(name)));
    let schemas: Map<_, _> = schemas.collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bulla queue service",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Zaqar's v2 API, and a little more. Times to live are seconds. A \
                request shows one proof of who asks: a certificate, a token of Keystone's, a \
                signature (RFC 9421), or the four headers of a pre-signed grant.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Refused": refused() },
            "parameters": headers(),
            "securitySchemes": {
                "keystone": { "type": "apiKey", "in": "header", "name": "X-Auth-Token" },
                "certificate": { "type": "mutualTLS" },
                "grant": { "type": "apiKey", "in": "header", "name": "URL-Signature" },
            },
        },
        "security": [{ "keystone": [] }, { "certificate": [] }, { "grant": [] }, {}],
    });
    // Maps with text as keys always have a JSON form.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn headers() -> Value {
    let uuid = "^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$";
    json!({
        "Client-ID": {
            "name": "Client-ID", "in": "header", "required": true,
            "description": "Who posts, so that a reader need not hear its own. It proves nothing.",
            "schema": { "type": "string", "format": "uuid", "pattern": uuid },
        },
        "X-Project-ID": {
            "name": "X-Project-ID", "in": "header", "required": false,
            "description": "Whose queues, where the proof of who asks does not say.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 256 },
        },
        "Idempotency-Key": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "A key that the client makes up for this request. The same request with \
                the same key gets the first answer for 24 hours, and nothing is posted again.",
            "schema": {
                "type": "string", "minLength": 1, "maxLength": MAX_KEY,
                "pattern": "^[\\x21\\x23-\\x5b\\x5d-\\x7e]+$",
            },
        },
    })
}

fn refused() -> Value {
    let shape =
        |name: &str| json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } });
    json!({
        "description": "Why not.",
        "content": { "application/json": shape("Error"), "application/problem+json": shape("Any") },
    })
}

fn path(route: &Route, is_topic: bool) -> Value {
    let in_path = route.path.split('/').filter_map(|word| {
        let name = word.strip_prefix('{')?.strip_suffix('}')?;
        Some(if is_topic { name.replace("queue_", "topic_") } else { name.to_owned() })
    });
    let in_path = in_path.map(|name| {
        let schema = match name.ends_with("_id") {
            true => json!({ "type": "string", "minLength": 1, "maxLength": 64 }),
            false => json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_path: Vec<_> = in_path.collect();
    let operations = route.operations.iter();
    let operations = operations.map(|operation| {
        (operation.method.to_ascii_lowercase(), described(route, operation, (&in_path, is_topic)))
    });
    Value::Object(operations.collect())
}

fn described(route: &Route, operation: &Operation, (path, is_topic): (&[Value], bool)) -> Value {
    let mut parameters = path.to_vec();
    let is_open = matches!(operation.op, Op::Versions | Op::Describe);
    let shared = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    if !is_open {
        parameters.extend([shared("Client-ID"), shared("X-Project-ID")]);
    }
    if operation.op == Op::PostMessages {
        parameters.push(shared("Idempotency-Key"));
        debug_assert!(KEY.eq_ignore_ascii_case("Idempotency-Key"));
    }
    parameters.extend(operation.query.iter().map(|name| parameter(name)));
    let mut responses = Map::new();
    for (status, shape) in operation.answers {
        let mut response = json!({ "description": if shape.is_some() { "It." } else { "Done." } });
        if let (Some(name), Some(map)) = (shape, response.as_object_mut()) {
            let kind =
                if operation.op == Op::Home { "application/json-home" } else { "application/json" };
            let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
            let mut content = json!({ kind: { "schema": schema } });
            if let (Op::ListMessages, Some(content)) = (operation.op, content.as_object_mut()) {
                let events = json!({ "schema": { "type": "string" } });
                content.insert("text/event-stream".to_owned(), events);
            }
            map.insert("content".to_owned(), content);
        }
        responses.insert(status.to_string(), response);
    }
    for status in REFUSALS {
        let refused = json!({ "$ref": "#/components/responses/Refused" });
        responses.entry(status.to_string()).or_insert(refused);
    }
    responses.insert("406".to_owned(), json!({ "description": "Nothing that is accepted." }));
    let (id, says) = match is_topic {
        false => (operation.id.to_owned(), operation.says.to_owned()),
        true => (operation.id.replace("queue", "topic"), operation.says.replace("queue", "topic")),
    };
    let tag = match route.path.split('/').nth(2) {
        Some("queues") if is_topic => "topics",
        Some(tag @ ("queues" | "pools" | "flavors")) => tag,
        _ => "service",
    };
    let mut described = json!({
        "operationId": id,
        "summary": says,
        "tags": [tag],
        "parameters": parameters,
        "responses": responses,
    });
    if let (Some(name), Some(map)) = (operation.takes, described.as_object_mut()) {
        let kind = if name == "Patch" { PATCH_TYPE } else { "application/json" };
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        let required = !matches!(name, "Metadata" | "Terms" | "Purge");
        let body = json!({ "required": required, "content": { kind: { "schema": schema } } });
        map.insert("requestBody".to_owned(), body);
    }
    described
}

fn parameter(name: &str) -> Value {
    let (schema, says) = match name {
        "limit" => (json!({ "type": "integer", "minimum": 1, "maximum": 20 }), "At most so many."),
        "pop" => (
            json!({ "type": "integer", "minimum": 1, "maximum": 20 }),
            "So many of the first are taken out for good.",
        ),
        "wait" => (
            json!({ "type": "integer", "minimum": 0, "maximum": 30 }),
            "How long to wait for something, in seconds.",
        ),
        "detailed" | "with_count" | "echo" | "include_claimed" | "include_delayed" => {
            let says = match name {
                "detailed" => "More of each.",
                "with_count" => "How many there are in all.",
                "echo" => "One's own, too.",
                "include_claimed" => "Those that somebody holds, too.",
                _ => "Those that are held back, too.",
            };
            (json!({ "type": "boolean" }), says)
        }
        "ids" => (json!({ "type": "string" }), "Ids with commas, at most 20."),
        "claim_ids" => (json!({ "type": "string" }), "The claim of each id."),
        "claim_id" => (json!({ "type": "string" }), "The claim that holds it."),
        "name" => (json!({ "type": "string" }), "What names hold."),
        _ => (json!({ "type": "string" }), "Where the page begins: after this."),
    };
    json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": says })
}

#[cfg(test)]
mod tests {
    use super::super::table::Found;
    use super::*;

    #[test]
    fn the_description_is_the_one_in_docs() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/queue-openapi.json");
        if std::env::var_os("OVERWRITE").is_some() {
            std::fs::write(file, openapi()).unwrap();
        }
        let known = std::fs::read_to_string(file).unwrap();
        assert!(known == openapi(), "run the test with OVERWRITE=1 to write it anew");
    }

    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut described = 0;
        for (path, operations) in paths {
            let found = Found::at(path).unwrap();
            let methods: Vec<_> = operations.as_object().unwrap().keys().collect();
            let routed: Vec<_> = found.route.operations.iter().map(|one| one.method).collect();
            assert_eq!(methods.len(), routed.len(), "{path}");
            assert!(methods.iter().all(|one| routed.contains(&one.to_uppercase().as_str())));
            described += methods.len();
        }
        let all = ROUTES.iter().map(|route| route.operations.len() * (1 + usize::from(route.twin)));
        assert_eq!(described, all.sum::<usize>());
        // Whatever is named is there.
        let text = openapi();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
