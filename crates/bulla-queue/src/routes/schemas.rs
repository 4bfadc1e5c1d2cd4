//! The shapes of bodies, for the description.

use serde_json::{Value, json};

/// Their names.
pub(super) const SCHEMAS: &[&str] = &[
    "Any",
    "Error",
    "Versions",
    "Home",
    "Health",
    "Link",
    "Metadata",
    "Patch",
    "Queues",
    "Stats",
    "Purge",
    "Share",
    "Grant",
    "NewMessages",
    "Posted",
    "Message",
    "Messages",
    "Popped",
    "Terms",
    "Claimed",
    "Claim",
    "NewSubscription",
    "SubscriptionChange",
    "Subscribed",
    "Subscription",
    "Subscriptions",
    "Confirmation",
    "NewPool",
    "PoolChange",
    "Pool",
    "Pools",
    "NewFlavor",
    "Flavor",
    "Flavors",
];

fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// An object with these members, all of them there.
fn whole(members: Value) -> Value {
    let names: Vec<_> = members.as_object().into_iter().flat_map(|map| map.keys()).collect();
    json!({ "type": "object", "required": names, "properties": members })
}

/// An object with these members, some of them there.
fn partial(required: &[&str], members: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": members })
}

fn page(of_what: &str, name: &str) -> Value {
    whole(json!({ of_what: list(of(name)), "links": list(of("Link")) }))
}

/// A shape by its name.
pub(super) fn schema(name: &str) -> Value {
    match name {
        "Error" => partial(&["title"], json!({ "title": text(), "description": text() })),
        "Versions" => whole(json!({ "versions": list(json!({ "type": "object" })) })),
        "Home" => whole(json!({ "resources": { "type": "object" } })),
        "Health" => partial(&["catalog_reachable"], json!({ "catalog_reachable": boolean() })),
        "Link" => whole(json!({ "rel": text(), "href": text() })),
        "Metadata" => metadata(),
        "Patch" => list(partial(
            &["op", "path"],
            json!({
                "op": { "enum": ["add", "replace", "remove"] },
                "path": { "type": "string", "pattern": "^/metadata/[^/]+$" },
                "value": {},
            }),
        )),
        "Queues" => {
            let one = partial(
                &["name", "href"],
                json!({ "name": text(), "href": text(), "metadata": of("Metadata") }),
            );
            let members = json!({ "links": list(of("Link")), "count": count() });
            let mut queues = partial(&["links"], members);
            // Of topics, by that name.
            if let Some(Value::Object(properties)) = queues.get_mut("properties") {
                properties.insert("queues".to_owned(), list(one.clone()));
                properties.insert("topics".to_owned(), list(one));
            }
            queues
        }
        "Stats" => whole(json!({ "messages": partial(
            &["claimed", "free", "total"],
            json!({ "claimed": count(), "free": count(), "total": count() }),
        ) })),
        "Purge" => whole(json!({
            "resource_types": list(json!({ "enum": ["messages", "subscriptions"] })),
        })),
        "Share" => partial(
            &[],
            json!({
                "paths": list(json!({ "enum": ["messages", "claims", "subscriptions"] })),
                "methods": list(text()),
                "expires": text(),
            }),
        ),
        "Grant" => whole(json!({
            "paths": list(text()),
            "methods": list(text()),
            "project": text(),
            "expires": text(),
            "signature": text(),
        })),
        "NewMessages" | "Posted" | "Message" | "Messages" | "Popped" | "Terms" | "Claimed"
        | "Claim" => messages(name),
        "NewSubscription" | "SubscriptionChange" | "Subscribed" | "Subscription"
        | "Subscriptions" | "Confirmation" => subscriptions(name),
        "NewPool" | "PoolChange" | "Pool" | "Pools" | "NewFlavor" | "Flavor" | "Flavors" => {
            pools(name)
        }
        _ => json!({}),
    }
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn metadata() -> Value {
    json!({
        "type": "object",
        "properties": {
            "_default_message_ttl": number(60, 1_209_600),
            "_default_message_delay": number(0, 900),
            "_max_messages_post_size": number(1, 262_144),
            "_max_claim_count": { "type": ["integer", "null"], "minimum": 1 },
            "_dead_letter_queue": { "type": ["string", "null"] },
            "_dead_letter_queue_messages_ttl": { "type": ["integer", "null"] },
            "_enable_encrypt_messages": { "type": "boolean" },
            "_flavor": { "type": ["string", "null"] },
            "_require": { "enum": ["signed", "sealed", null] },
            "_retry_policy": { "type": ["object", "null"] },
        },
        "additionalProperties": true,
    })
}

fn messages(name: &str) -> Value {
    match name {
        "NewMessages" => {
            let one = partial(
                &["body"],
                json!({ "body": {}, "ttl": number(60, 1_209_600), "delay": number(0, 900) }),
            );
            whole(json!({ "messages": { "type": "array", "minItems": 1, "items": one } }))
        }
        "Posted" => whole(json!({ "resources": list(text()) })),
        "Messages" => partial(
            &["messages"],
            json!({ "messages": list(of("Message")), "links": list(of("Link")) }),
        ),
        "Popped" => whole(json!({ "messages": list(partial(
            &["id", "age", "ttl", "body"],
            json!({ "id": text(), "age": count(), "ttl": count(), "body": {} }),
        )) })),
        "Terms" => partial(&[], json!({ "ttl": number(1, 43_200), "grace": number(1, 43_200) })),
        "Claimed" => whole(json!({ "messages": list(of("Message")) })),
        "Claim" => whole(json!({
            "age": count(), "ttl": count(), "messages": list(of("Message")), "href": text(),
        })),
        _ => partial(
            &["id", "href", "ttl", "age", "body"],
            json!({
                "id": text(), "href": text(), "ttl": count(), "age": count(), "body": {},
                "claim_count": count(),
            }),
        ),
    }
}

fn subscriptions(name: &str) -> Value {
    let members = json!({
        "subscriber": { "type": "string", "format": "uri", "maxLength": 2048 },
        "ttl": { "type": "integer", "minimum": 60 },
        "options": { "type": "object" },
    });
    match name {
        "NewSubscription" => partial(&["subscriber"], members),
        "SubscriptionChange" => partial(&[], members),
        "Subscribed" => whole(json!({ "subscription_id": text() })),
        "Subscriptions" => page("subscriptions", "Subscription"),
        "Confirmation" => whole(json!({ "confirmed": boolean() })),
        _ => whole(json!({
            "id": text(), "source": text(), "subscriber": text(), "ttl": count(),
            "age": count(), "options": { "type": "object" }, "confirmed": boolean(),
        })),
    }
}

fn pools(name: &str) -> Value {
    let weight = number(0, u64::from(u32::MAX));
    let short = json!({ "type": "string", "maxLength": 255 });
    let members = json!({
        "weight": weight, "uri": short, "flavor": short, "options": { "type": "object" },
    });
    match name {
        "NewPool" => partial(&["weight", "uri"], members),
        "PoolChange" => partial(&[], members),
        "Pool" => partial(
            &["name", "uri", "weight", "flavor", "href"],
            json!({
                "name": text(), "uri": text(), "weight": count(), "href": text(),
                "flavor": { "type": ["string", "null"] }, "options": { "type": "object" },
            }),
        ),
        "Pools" => page("pools", "Pool"),
        "NewFlavor" => partial(
            &["pool_list"],
            json!({ "pool_list": list(text()), "capabilities": { "type": "object" } }),
        ),
        "Flavors" => page("flavors", "Flavor"),
        _ => partial(
            &["name", "pool_list", "href"],
            json!({
                "name": text(), "pool_list": list(text()), "href": text(),
                "capabilities": list(text()),
            }),
        ),
    }
}
