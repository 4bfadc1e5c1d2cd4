//! Claims.

use std::fmt::Write;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::messages::{Field, room, wait, whole, write_all};
use super::{Asked, empty, json as answer, located};
use crate::fault::Fault;
use crate::id::Id;
use crate::json::read;
use crate::service::now;
use crate::store::ClaimTerms;

#[derive(Deserialize, Default)]
struct Terms<'a> {
    #[serde(borrow, default)]
    ttl: Field<'a>,
    #[serde(borrow, default)]
    grace: Field<'a>,
}

fn terms(asked: &Asked<'_>, body: &[u8]) -> Result<ClaimTerms, Fault> {
    let limits = &asked.service.limits;
    let Terms { ttl: Field(ttl), grace: Field(grace) } =
        match body.iter().find(|b| !b.is_ascii_whitespace()) {
            None => Terms::default(),
            Some(b'{') => read(body)?,
            Some(_) => {
                read::<&RawValue>(body)?;
                return Err(Fault::body("Document type not supported."));
            }
        };
    let bounded = |name: &str, what: &str, given: Option<&RawValue>, default, range| {
        let range: &std::ops::RangeInclusive<u32> = range;
        let Some(given) = given else { return Ok(default) };
        let value = u32::try_from(whole(name, given)?).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| {
            Fault::request(format!(
                "The {what} for a claim may not exceed {} seconds, and must be at least {} \
                 seconds long.",
                range.end(),
                range.start()
            ))
        })
    };
    Ok(ClaimTerms {
        ttl: bounded("ttl", "TTL", ttl, limits.default_claim_ttl, &limits.claim_ttl)?,
        grace: bounded("grace", "grace", grace, limits.default_grace, &limits.grace)?,
    })
}

fn href(asked: &Asked<'_>, id: Id) -> String {
    format!("{}/claims/{id}", asked.at.path())
}

pub(super) async fn create(asked: &Asked<'_>, body: Bytes) -> Result<Response, Fault> {
    let limits = &asked.service.limits;
    let terms = terms(asked, &body)?;
    let max = limits.max_page;
    let limit = match asked.params.number("limit")? {
        None => limits.default_page,
        Some(limit) => {
            let fits = usize::try_from(limit).ok().filter(|limit| (1..=max).contains(limit));
            let bad = || format!("Limit must be at least 1 and may not be greater than {max}.");
            fits.ok_or_else(|| Fault::request(bad()))?
        }
    };
    let wait = wait(&asked.params, limits)?;
    let claim = asked.service.claim(asked.at, limit, terms, wait).await?;
    let Some(claim) = claim else { return Ok(empty()) };
    let mut out = String::with_capacity(32 + claim.messages.iter().map(room).sum::<usize>());
    out.push_str("{\"messages\": [");
    write_all(&mut out, asked.at, &claim.messages, now());
    out.push_str("]}");
    located(StatusCode::CREATED, &href(asked, claim.id), Some(out))
}

fn not_found(asked: &Asked<'_>, id: &str) -> Fault {
    let (queue, project) = (asked.at.name(), asked.at.tenant());
    Fault::not_found(format!("Claim {id} does not exist in queue {queue} for project {project}"))
}

pub(super) async fn get(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    let (known, now) = (Id::parse(id).ok_or_else(|| not_found(asked, id))?, now());
    let claim = asked.service.store.claimed(asked.at, known, now).await?;
    let claim = claim.ok_or_else(|| not_found(asked, id))?;
    let mut out = String::with_capacity(256 + claim.messages.iter().map(room).sum::<usize>());
    let age = now.saturating_sub(claim.created) / 1000;
    // A String takes everything.
    let _ = write!(out, "{{\"age\": {age}, \"ttl\": {}, \"messages\": [", claim.ttl);
    write_all(&mut out, asked.at, &claim.messages, now);
    let _ = write!(out, "], \"href\": \"{}\"}}", href(asked, claim.id));
    Ok(answer(StatusCode::OK, out))
}

pub(super) async fn renew(asked: &Asked<'_>, id: &str, body: Bytes) -> Result<Response, Fault> {
    let terms = terms(asked, &body)?;
    let known = Id::parse(id).ok_or_else(|| not_found(asked, id))?;
    let renewed = asked.service.store.renew(asked.at, known, terms, now()).await?;
    if renewed { Ok(empty()) } else { Err(not_found(asked, id)) }
}

pub(super) async fn release(asked: &Asked<'_>, id: &str) -> Result<Response, Fault> {
    if let Some(known) = Id::parse(id) {
        asked.service.store.release(asked.at, known, now()).await?;
        asked.service.tell(asked.at);
    }
    Ok(empty())
}
