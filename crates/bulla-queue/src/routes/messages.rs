//! Messages.

use std::fmt::Write;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use bulla_http::Identity;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::events::wants_events;
use super::params::{self, Params};
use super::{Asked, empty, events, json as answer, located, once};
use crate::caller::{AgentMay, Rights};
use crate::date;
use crate::fault::Fault;
use crate::id::Id;
use crate::json::{check_numbers, read, write_str};
use crate::limits::Limits;
use crate::metadata::Settings;
use crate::name::Place;
use crate::once::Posted;
use crate::service::now;
use crate::store::{Deletion, Doomed, Holding, Message, Millis, NewMessage, Page};

#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(borrow, default)]
    ttl: Field<'a>,
    #[serde(borrow, default)]
    delay: Field<'a>,
    #[serde(borrow, default)]
    body: Field<'a>,
}

/// A member as it stands there: one that is null is there, too.
#[derive(Default)]
pub(super) struct Field<'a>(pub(super) Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

pub(super) async fn post(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let settings = asked.service.store.settings(asked.at).await?;
    let limits = &asked.service.limits;
    let max = settings.max_post.unwrap_or(limits.max_post).min(limits.max_post);
    if body.len() > max {
        let why = format!("Message collection size is too large. Max size {max}");
        return Err(Fault::request(why));
    }
    let messages = parse(&body, &settings, limits)?;
    if let Some(require) = settings.require {
        require.check(asked.parts.extensions.get::<Identity>(), &messages)?;
    }
    let key = once::key(&asked.parts.headers)?;
    let (store, at) = (&asked.service.store, asked.at);
    let watched = match &asked.service.hooks {
        Some(hooks) => Some((hooks, hooks.watchers(store, at).await?)),
        None => None,
    };
    let watched = watched.filter(|(_, watchers)| !watchers.is_empty());
    let told = watched.as_ref().map(|_| messages.clone());
    let (client, now) = (asked.caller.client, now());
    if matches!(asked.caller.rights, Rights::Agent(AgentMay::Share)) {
        take_quota(asked, &messages, now).await?;
    }
    let ids = match key {
        None => store.post(at, client, messages, now).await?,
        Some(key) => {
            let once = once::of(asked, &key, &body, now);
            match store.post_once(at, client, messages, once, now).await? {
                Posted::Now(ids) => ids,
                Posted::Before(ids) => return once::again(posted(at, &ids)?),
                Posted::Other => return Err(once::other()),
                Posted::Unknown => return Err(once::unknown()),
            }
        }
    };
    asked.service.tell(at);
    if let (Some((hooks, watchers)), Some(told)) = (watched, told) {
        let metadata = store.metadata(at).await?.unwrap_or_default();
        let messages: Vec<_> = ids.iter().copied().zip(told).collect();
        hooks.tell(at, &watchers, &metadata, &messages);
    }
    posted(at, &ids)
}

/// Counts what an agent posts to a queue for anybody.
async fn take_quota(asked: &Asked<'_>, messages: &[NewMessage], now: Millis) -> Result<(), Fault> {
    let agent = asked.parts.extensions.get::<Identity>().map(ToString::to_string);
    let bytes = messages.iter().map(|message| message.body.len() as u64).sum();
    let lives = messages.iter().map(|message| message.ttl).max().unwrap_or_default();
    let what = (asked.at, bytes, now + u64::from(lives) * 1000);
    let store = asked.service.store.as_ref();
    asked.service.quotas.take(store, &agent.unwrap_or_default(), what, now).await
}

fn posted(at: &Place, ids: &[Id]) -> Result<Response, Fault> {
    let base = base(at);
    let mut out = String::with_capacity(ids.len() * (base.len() + 41) + 20);
    out.push_str("{\"resources\": [");
    let mut location = format!("{base}?ids=");
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
            location.push(',');
        }
        // A String takes everything.
        let _ = write!(out, "\"{base}/{id}\"");
        let _ = write!(location, "{id}");
    }
    out.push_str("]}");
    located(StatusCode::CREATED, &location, Some(out))
}

fn parse(body: &[u8], settings: &Settings, limits: &Limits) -> Result<Vec<NewMessage>, Fault> {
    let text =
        std::str::from_utf8(body).map_err(|_| Fault::body("Request body could not be parsed."))?;
    let none = || Fault::request("No messages were found in the request body.");
    if text.trim_start().starts_with('[') {
        read::<&RawValue>(body)?;
        return Err(none());
    }
    let sent: Sent<'_> = read(body)?;
    check_numbers(text)?;
    let messages = sent.messages.ok_or_else(none)?.get();
    if !messages.starts_with('[') {
        return Err(Fault::body("Document type not supported."));
    }
    let messages: Vec<&RawValue> = read(messages.as_bytes())?;
    if messages.is_empty() {
        return Err(Fault::request("No messages to enqueu."));
    }
    messages.into_iter().map(|message| one(message.get(), settings, limits)).collect()
}

fn one(message: &str, settings: &Settings, limits: &Limits) -> Result<NewMessage, Fault> {
    if !message.starts_with('{') {
        return Err(Fault::body("Document type not supported."));
    }
    let One { ttl: Field(ttl), delay: Field(delay), body: Field(body) } = read(message.as_bytes())?;
    let body = body.ok_or_else(|| Fault::body("Missing \"body\" field."))?;
    let default = settings.ttl.unwrap_or(limits.default_message_ttl);
    let ttl = match ttl {
        None => default,
        Some(ttl) => whole("ttl", ttl)?.try_into().unwrap_or(0),
    };
    let (least, most) = (*limits.message_ttl.start(), *limits.message_ttl.end());
    if !limits.message_ttl.contains(&ttl) {
        return Err(Fault::request(format!(
            "The TTL for a message may not exceed {most} seconds, and must be at least {least} \
             seconds long."
        )));
    }
    let delay = match (settings.delay, delay) {
        // Only where the queue has one.
        (None, _) => 0,
        (Some(default), None) => default,
        (Some(_), Some(delay)) => {
            let delay = whole("delay", delay)?.try_into().unwrap_or(u32::MAX);
            if !limits.delay.contains(&delay) {
                return Err(Fault::request(format!(
                    "The Delay TTL for a message may not exceed {} seconds, and must be at least \
                     {} seconds long.",
                    limits.delay.end(),
                    limits.delay.start()
                )));
            }
            delay
        }
    };
    Ok(NewMessage { body: body.get().to_owned(), ttl, delay })
}

/// A whole number; true is one, as Python has it.
pub(super) fn whole(name: &str, value: &RawValue) -> Result<i64, Fault> {
    match value.get() {
        "true" => Ok(1),
        "false" => Ok(0),
        text => text
            .parse()
            .map_err(|_| Fault::body(format!("The value of the \"{name}\" field must be a int."))),
    }
}

/// How long a request may be held until there is something.
pub(super) fn wait(params: &Params, limits: &Limits) -> Result<Duration, Fault> {
    let Some(wait) = params.number("wait")? else { return Ok(Duration::ZERO) };
    let max = limits.max_wait;
    let fits = u32::try_from(wait).ok().filter(|wait| *wait <= max);
    let bad = || Fault::request(format!("Wait must be from 0 to {max} seconds."));
    Ok(Duration::from_secs(fits.ok_or_else(bad)?.into()))
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Response, Fault> {
    let (params, limits) = (&asked.params, &asked.service.limits);
    if let Some(ids) = params.list("ids") {
        return get_many(asked, &ids).await;
    }
    let marker = params.get("marker").filter(|marker| !marker.is_empty());
    let wants_events = wants_events(&asked.parts.headers);
    let echo = params.flag("echo")?;
    let page = Page {
        // One that is none begins at the head.
        after: marker.and_then(Id::parse).map_or(0, Id::seq),
        limit: params.limit(limits.default_page, limits.max_page)?,
        not_by: (!echo).then_some(asked.caller.client),
        claimed: params.flag("include_claimed")?,
        delayed: params.flag("include_delayed")?,
    };
    if wants_events {
        return Ok(events::stream(asked, page));
    }
    let wait = wait(params, limits)?;
    let found = asked.service.list(asked.at, &page, wait).await?;
    let mut out = String::with_capacity(64 + found.iter().map(room).sum::<usize>());
    out.push_str("{\"messages\": [");
    write_all(&mut out, asked.at, &found, now());
    out.push_str("], \"links\": [");
    if let Some(last) = found.last() {
        let keep = ["limit", "echo", "include_claimed", "include_delayed", "wait"];
        let query = params::next(params, &keep, &last.id.to_string());
        out.push_str("{\"rel\": \"next\", \"href\": ");
        write_str(&mut out, &format!("{}?{query}", base(asked.at)));
        out.push('}');
    }
    out.push_str("]}");
    Ok(answer(StatusCode::OK, out))
}

/// Reads ids from a parameter. What is none is no message's.
fn ids(asked: &Asked<'_>, texts: &[&str]) -> Result<Vec<Id>, Fault> {
    let max = asked.service.limits.max_page;
    if texts.len() > max {
        return Err(Fault::request(format!("Limit must be at least 1 and no greater than {max}.")));
    }
    let mut ids: Vec<_> = texts.iter().filter_map(|id| Id::parse(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

async fn get_many(asked: &Asked<'_>, texts: &[&str]) -> Result<Response, Fault> {
    let (ids, now) = (ids(asked, texts)?, now());
    let found = asked.service.store.get(asked.at, &ids, now).await?;
    if found.is_empty() {
        return Err(Fault::not_found(format!(
            "No messages with these IDs found in the queue {} for project {}.",
            asked.at.name(),
            asked.at.tenant()
        )));
    }
    let mut out = String::with_capacity(32 + found.iter().map(room).sum::<usize>());
    out.push_str("{\"messages\": [");
    write_all(&mut out, asked.at, &found, now);
    out.push_str("]}");
    Ok(answer(StatusCode::OK, out))
}

pub(super) async fn get(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    let now = now();
    let found = match Id::parse(id) {
        Some(id) => asked.service.store.get(asked.at, &[id], now).await?,
        None => Vec::new(),
    };
    let Some(message) = found.first() else {
        return Err(Fault::not_found(format!(
            "Message {id} does not exist in queue {} for project {}",
            asked.at.name(),
            asked.at.tenant()
        )));
    };
    let mut out = String::with_capacity(room(message));
    write(&mut out, &base(asked.at), message, now);
    Ok(answer(StatusCode::OK, out))
}

pub(super) async fn delete(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    let no_claim = || Fault::delete(400, "The specified claim does not exist or has expired.");
    let holding = match asked.params.get("claim_id") {
        None => Holding::Nobody,
        Some(claim) => Holding::By(Id::parse(claim).ok_or_else(no_claim)?),
    };
    let Some(id) = Id::parse(id) else { return Ok(empty()) };
    let doomed = vec![Doomed { id, holding }];
    let outcome = asked.service.store.delete(asked.at, doomed, now()).await?;
    match outcome.first() {
        None | Some(Deletion::Gone) => Ok(empty()),
        Some(Deletion::NoClaim) => Err(no_claim()),
        Some(Deletion::NotHeld) => Err(Fault::delete(
            400,
            "A claim was specified, but the message is not currently claimed.",
        )),
        Some(Deletion::Held) => Err(Fault::delete(
            403,
            "This message is claimed; it cannot be deleted without a valid claim ID.",
        )),
    }
}

pub(super) async fn delete_many(asked: &Asked<'_>) -> Result<Response, Fault> {
    let params = &asked.params;
    let max = asked.service.limits.max_page;
    let wanted = (params.list("ids"), params.number("pop")?);
    match wanted {
        (Some(_), Some(_)) => Err(Fault::request(
            "pop and id params cannot be present together in the delete request.",
        )),
        (None, None) => Err(Fault::request(
            "The request should have either \"ids\" or \"pop\" parameter in the request, to be \
             able to delete.",
        )),
        (None, Some(pop)) => {
            let fits = usize::try_from(pop).ok().filter(|pop| (1..=max).contains(pop));
            let bad = || format!("Pop value must be at least 1 and may not be greater than {max}.");
            let count = fits.ok_or_else(|| Fault::request(bad()))?;
            pop_some(asked, count).await
        }
        (Some(ids), None) => delete_ids(asked, &ids).await,
    }
}

/// With `claim_ids`, or on behalf of whoever holds a grant, only what the claims hold goes, or what
/// nobody holds.
async fn delete_ids(asked: &Asked<'_>, ids: &[&str]) -> Result<Response, Fault> {
    let claims = asked.params.list("claim_ids");
    let max = asked.service.limits.max_page;
    let fits = ids.len() <= max && claims.as_ref().is_none_or(|claims| claims.len() == ids.len());
    if !fits {
        return Err(Fault::request(format!(
            "At most {max} ids are taken, and as many claim_ids as ids, or none."
        )));
    }
    let checked = claims.is_some() || asked.caller.is_confined();
    let mut doomed = Vec::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        let Some(id) = Id::parse(id) else { continue };
        let claim = claims.as_ref().and_then(|claims| claims.get(at)).and_then(|c| Id::parse(c));
        let holding = match (checked, claim) {
            (false, _) => Holding::Any,
            (true, Some(claim)) => Holding::By(claim),
            (true, None) => Holding::Nobody,
        };
        doomed.push(Doomed { id, holding });
    }
    let outcome = asked.service.store.delete(asked.at, doomed, now()).await?;
    if outcome.iter().all(|one| *one == Deletion::Gone) {
        return Ok(empty());
    }
    Err(Fault::delete(403, "Messages that others hold, or nobody, were not deleted."))
}

async fn pop_some(asked: &Asked<'_>, count: usize) -> Result<Response, Fault> {
    let wait = wait(&asked.params, &asked.service.limits)?;
    let popped = asked.service.pop(asked.at, count, wait).await?;
    let now = now();
    let mut out = String::with_capacity(32 + popped.iter().map(room).sum::<usize>());
    out.push_str("{\"messages\": [");
    for (at, message) in popped.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        let (age, ttl) = (age(message, now), message.ttl);
        // A String takes everything.
        let _ = write!(out, "{{\"id\": \"{}\", \"age\": {age}, \"ttl\": {ttl}, ", message.id);
        let _ = write!(out, "\"body\": {}, ", message.body);
        let _ = write!(out, "\"claim_id\": null, \"claim_count\": {}}}", message.claims);
    }
    out.push_str("]}");
    Ok(answer(StatusCode::OK, out))
}

pub(super) fn base(at: &Place) -> String {
    at.path() + "/messages"
}

pub(super) fn age(message: &Message, now: Millis) -> u64 {
    now.saturating_sub(message.created) / 1000
}

pub(super) fn room(message: &Message) -> usize {
    message.body.len() + 320
}

pub(super) fn write_all(out: &mut String, at: &Place, messages: &[Message], now: Millis) {
    let base = base(at);
    for (at, message) in messages.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(out, &base, message, now);
    }
}

pub(super) fn write(out: &mut String, base: &str, message: &Message, now: Millis) {
    let Message { id, body, ttl, claim, .. } = message;
    // A String takes everything.
    let _ = write!(out, "{{\"id\": \"{id}\", \"href\": \"{base}/{id}");
    if let Some(claim) = claim {
        let _ = write!(out, "?claim_id={claim}");
    }
    let age = age(message, now);
    let _ = write!(out, "\", \"ttl\": {ttl}, \"age\": {age}, \"body\": {body}");
    // Zaqar says so only where there is a limit; a receiver wants to know when it is not the first.
    if message.claims > 1 {
        let _ = write!(out, ", \"claim_count\": {}", message.claims);
    }
    out.push('}');
}

/// A message as statistics show it.
pub(super) fn stats_message(out: &mut String, at: &Place, message: &Message, now: Millis) {
    let created = date::text(message.created / 1000);
    let claim = message.claim.map_or(Value::Null, |claim| claim.to_string().into());
    let _ = write!(
        out,
        "{{\"age\": {}, \"ttl\": {}, \"body\": {}, \"claim_id\": {claim}, \"claim_count\": {}, \
         \"created\": \"{created}Z\", \"href\": \"{}/{}\"}}",
        age(message, now),
        message.ttl,
        message.body,
        message.claims,
        base(at),
        message.id
    );
}
