//! Subscriptions.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Asked, empty, json as answer, located, params, share};
use crate::date;
use crate::fault::Fault;
use crate::grant::Grant;
use crate::hooks::{Hooks, check_options, question};
use crate::id::Id;
use crate::json::{check_numbers, read};
use crate::service::now;
use crate::subscription::{Added, Changed, MOST, Subscription, Subscriptions, What};

/// How long one lives that does not say, at the least, and at the most, in seconds.
const DEFAULT_TTL: u64 = 3600;
const LEAST: u64 = 60;
const LONGEST: u64 = 100 * 366 * 86_400;
/// How long a question waits for its answer at the most, in seconds.
const ANSWERED: u64 = 30 * 86_400;
/// Longest address.
const MAX_SUBSCRIBER: usize = 2048;

impl Asked<'_> {
    pub(super) fn subscriptions(&self) -> Subscriptions<'_> {
        Subscriptions { store: &self.service.store, at: self.at, now: now() }
    }

    pub(super) fn forget_subscriptions(&self) {
        if let Some(hooks) = &self.service.hooks {
            hooks.forget(self.at);
        }
    }
}

fn hooks<'a>(asked: &Asked<'a>) -> Result<&'a Hooks, Fault> {
    let not = || Fault::request("Subscriptions are not offered here.");
    asked.service.hooks.as_ref().ok_or_else(not)
}

fn path(asked: &Asked<'_>) -> String {
    asked.at.path() + "/subscriptions"
}

fn not_found(asked: &Asked<'_>, id: &str) -> Fault {
    let (queue, project) = (asked.at.name(), asked.at.tenant());
    Fault::not_found(format!(
        "Subscription {id} to queue {queue} for project {project} does not exist"
    ))
}

fn document(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    let document: Value = if body.is_empty() { json!({}) } else { read(body)? };
    std::str::from_utf8(body).map_or(Ok(()), check_numbers)?;
    match document {
        Value::Object(document) => Ok(document),
        _ => Err(Fault::body("Document type not supported.")),
    }
}

/// What a request says of a subscription, as far as it does.
struct Said {
    subscriber: Option<String>,
    ttl: Option<u64>,
    options: Option<Map<String, Value>>,
}

fn said(hooks: &Hooks, document: &Map<String, Value>) -> Result<Said, Fault> {
    if document.is_empty() {
        return Err(Fault::request("No subscription to create."));
    }
    // Clients write null for what they don't say.
    let given = |key: &str| document.get(key).filter(|value| !value.is_null());
    let subscriber = match given("subscriber") {
        None => None,
        Some(subscriber) => {
            let text = subscriber.as_str().filter(|text| text.len() <= MAX_SUBSCRIBER);
            let why = || Fault::request("The subscriber must be an address: http or https.");
            let text = text.ok_or_else(why)?;
            let bad = |error| Fault::request(format!("The subscriber can't be asked: {error}."));
            hooks.by.outward.check(text).map_err(bad)?;
            Some(text.to_owned())
        }
    };
    let ttl = match given("ttl") {
        None => None,
        Some(ttl) => {
            let number = ttl.as_i64().ok_or_else(|| Fault::request("TTL must be an integer."))?;
            let fits = u64::try_from(number).ok().filter(|ttl| (LEAST..=LONGEST).contains(ttl));
            Some(fits.ok_or_else(|| {
                Fault::request(format!(
                    "The TTL for a subscription must be at least {LEAST} seconds long, and at \
                     most {LONGEST}."
                ))
            })?)
        }
    };
    let options = match given("options") {
        None => None,
        Some(Value::Object(options)) => {
            check_options(options).map_err(Fault::request)?;
            Some(options.clone())
        }
        Some(_) => return Err(Fault::request("Options must be a dict.")),
    };
    Ok(Said { subscriber, ttl, options })
}

pub(super) async fn create(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let hooks = hooks(asked)?;
    let document = document(&body)?;
    let said = said(hooks, &document)?;
    let missing = || Fault::request("Missing parameter subscriber in body.");
    let what = What {
        subscriber: said.subscriber.ok_or_else(missing)?,
        ttl: said.ttl.unwrap_or(DEFAULT_TTL),
        options: said.options.unwrap_or_default(),
        confirmed: false,
        created_ms: now(),
    };
    if hooks.by.confirm && asked.service.grants.is_none() {
        return Err(Fault::request("Subscriptions can't be confirmed here."));
    }
    if asked.service.store.metadata(asked.at).await?.is_none() {
        asked.service.store.create(asked.at, &Map::new()).await?;
    }
    let added = match asked.subscriptions().add(what).await? {
        Added::New(made) => made,
        Added::Unconfirmed(there) => there,
        Added::There => {
            return Err(Fault::conflict(
                "Such subscription already exists. Subscriptions are unique by project + queue + \
                 subscriber URI.",
            )
            .at(&path(asked)));
        }
        Added::TooMany => {
            let why = format!("A queue has at most {MOST} subscriptions.");
            return Err(Fault::request(why));
        }
    };
    hooks.forget(asked.at);
    ask(asked, hooks, &added, false).await?;
    let id = json!({ "subscription_id": added.id.to_string() }).to_string();
    located(StatusCode::CREATED, &path(asked), Some(id))
}

/// Asks the subscriber whether it wants to be told; or says that it will not be any more.
async fn ask(
    asked: &Asked<'_>,
    hooks: &Hooks,
    of: &Subscription,
    stopped: bool,
) -> Result<(), Fault> {
    let (Some(grants), true) = (&asked.service.grants, hooks.by.confirm) else { return Ok(()) };
    let path = format!("{}/{}/confirm", path(asked), of.id);
    let end = (now() / 1000 + ANSWERED).min(of.until / 1000);
    let (paths, methods) = (vec![path.clone()], vec!["PUT".to_owned()]);
    let grant = Grant { paths, methods, expires: date::text(end) };
    let key_id = share::key_id(asked).await?;
    let signature = grants.sign(asked.at, &key_id, &grant);
    let at = (asked.at, hooks.by.url.as_deref());
    let question = question(at, &path, (&signature, &grant.expires), stopped);
    hooks.say(asked.at, of, &question);
    Ok(())
}

fn shown(asked: &Asked<'_>, one: &Subscription) -> Value {
    json!({
        "id": one.id.to_string(),
        "source": asked.at.name(),
        "subscriber": one.what.subscriber,
        "ttl": one.what.ttl,
        "age": now().saturating_sub(one.what.created_ms) / 1000,
        "options": one.what.options,
        "confirmed": one.what.confirmed,
    })
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Response, Fault> {
    let (params, limits) = (&asked.params, &asked.service.limits);
    let limit = params.limit(limits.default_page, limits.max_page)?;
    let after = params.get("marker").unwrap_or_default();
    let found = asked.subscriptions().list(after, limit).await?;
    let links = found.last().map(|last| {
        let query = params::next(params, &["limit"], &last.id.to_string());
        json!({ "rel": "next", "href": format!("{}?{query}", path(asked)) })
    });
    let links: Vec<_> = links.into_iter().collect();
    let all: Vec<_> = found.iter().map(|one| shown(asked, one)).collect();
    let listed = json!({ "subscriptions": all, "links": links });
    Ok(answer(StatusCode::OK, listed.to_string()))
}

pub(super) async fn get(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    let known = Id::parse(id).ok_or_else(|| not_found(asked, id))?;
    let found = asked.subscriptions().get(known).await?;
    let found = found.ok_or_else(|| not_found(asked, id))?;
    Ok(answer(StatusCode::OK, shown(asked, &found).to_string()))
}

pub(super) async fn change(asked: &Asked<'_>, id: &str, body: Bytes) -> Result<Response, Fault> {
    let hooks = hooks(asked)?;
    let said = said(hooks, &document(&body)?)?;
    let known = Id::parse(id).ok_or_else(|| not_found(asked, id))?;
    let subscriptions = asked.subscriptions();
    let former = subscriptions.get(known).await?;
    let former = former.ok_or_else(|| not_found(asked, id))?;
    let changed = subscriptions.change(known, |what| {
        if let Some(ttl) = said.ttl {
            what.ttl = ttl;
        }
        if let Some(options) = &said.options {
            what.options.clone_from(options);
        }
        if let Some(subscriber) = &said.subscriber
            && what.subscriber != *subscriber
        {
            // Nobody asked the other one.
            what.confirmed = false;
            what.subscriber.clone_from(subscriber);
        }
    });
    match changed.await? {
        Changed::NotThere => Err(not_found(asked, id)),
        Changed::Taken => Err(Fault::conflict(
            "Such subscription already exists. Subscriptions are unique by project + queue + \
             subscriber URI.",
        )),
        Changed::Done(after) => {
            hooks.forget(asked.at);
            if after.what.subscriber != former.what.subscriber {
                ask(asked, hooks, &after, false).await?;
            }
            located(StatusCode::NO_CONTENT, &format!("{}/{id}", path(asked)), None)
        }
    }
}

pub(super) async fn remove(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    if let Some(known) = Id::parse(id) {
        asked.subscriptions().remove(known).await?;
        asked.forget_subscriptions();
    }
    Ok(empty())
}

/// Only what was sent to the subscriber begins it: whoever may subscribe would else have anybody
/// told. Anybody who may subscribe may stop it.
pub(super) async fn confirm(asked: &Asked<'_>, id: &str, body: Bytes) -> Result<Response, Fault> {
    let hooks = hooks(asked)?;
    let document = document(&body)?;
    let confirmed = document.get("confirmed").and_then(Value::as_bool);
    let confirmed =
        confirmed.ok_or_else(|| Fault::request("The 'confirmed' should be boolean."))?;
    let at = asked.parts.uri.path();
    if confirmed && !asked.caller.is_operator() && !asked.caller.was_asked(at) && hooks.by.confirm {
        return Err(Fault::forbidden(
            "A subscription is confirmed with what was sent to its subscriber.",
        ));
    }
    let known = Id::parse(id).ok_or_else(|| not_found(asked, id))?;
    match asked.subscriptions().change(known, |what| what.confirmed = confirmed).await? {
        Changed::Done(after) => {
            hooks.forget(asked.at);
            if !confirmed {
                ask(asked, hooks, &after, true).await?;
            }
            located(StatusCode::NO_CONTENT, at, None)
        }
        Changed::NotThere | Changed::Taken => Err(not_found(asked, id)),
    }
}
