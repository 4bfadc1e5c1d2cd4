//! Pools and flavors.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::params::{self, Params};
use super::{Common, empty, json as answer, located};
use crate::fault::Fault;
use crate::json::read;
use crate::pool::{Catalogue, LONGEST, Pool, is_name};

/// What a queue can count on, wherever it is.
const CAPABILITIES: [&str; 4] = ["FIFO", "AOD", "DURABILITY", "CLAIMS"];
const SCHEMES: [&str; 6] = ["sqlite", "postgres", "postgresql", "redis", "rediss", "redis+unix"];

fn document(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    match read::<Value>(body)? {
        Value::Object(document) => Ok(document),
        _ => Err(Fault::body("Document type not supported.")),
    }
}

fn check_keys(document: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    match document.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Fault::body(format!("'{key}' was unexpected"))),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    is_name(name).then_some(()).ok_or_else(|| Fault::request("The name is not valid."))
}

/// The catalogue, for operators who change it.
fn changeable<'a>(asked: &'a Common<'_>) -> Result<Catalogue<'a>, Fault> {
    asked.operators()?;
    let catalogue = Catalogue::of(asked.service);
    if catalogue.is_settled() {
        return Err(Fault::forbidden(
            "The pools of this service, and their flavors, are those of its settings ([queue] pools).",
        ));
    }
    Ok(catalogue)
}

fn weight(value: &Value) -> Result<u32, Fault> {
    let fits = value.as_u64().and_then(|n| u32::try_from(n).ok());
    fits.ok_or_else(|| Fault::body("weight must be a whole number from 0 to 4294967295."))
}

fn uri(value: &Value) -> Result<String, Fault> {
    let text = value.as_str().filter(|text| text.len() <= LONGEST);
    let text = text.ok_or_else(|| Fault::body("uri must be a text of at most 255 bytes."))?;
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) && url::Url::parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    // It may hold a password, which is not said again.
    Err(Fault::body("cannot connect to the uri: it is no store's"))
}

fn flavor(value: &Value) -> Result<Option<String>, Fault> {
    let text = value.as_str().filter(|text| text.len() <= LONGEST);
    let text = text.ok_or_else(|| Fault::body("flavor must be a text of at most 255 bytes."))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn options(value: &Value) -> Result<Map<String, Value>, Fault> {
    let map = value.as_object().cloned();
    map.ok_or_else(|| Fault::body("options must be an object."))
}

fn shown(name: &str, pool: &Pool, detailed: bool) -> Value {
    let mut shown = json!({
        "name": name,
        "uri": pool.shown_uri(),
        "weight": pool.weight,
        "flavor": pool.flavor,
        "href": format!("/v2/pools/{name}"),
    });
    if detailed && let Some(map) = shown.as_object_mut() {
        map.insert("options".to_owned(), pool.options.clone().into());
    }
    shown
}

fn no_pool(name: &str) -> Fault {
    Fault::not_found(format!("Pool {name} does not exist"))
}

fn next(params: &Params, path: &str, last: Option<&str>) -> Vec<Value> {
    let link = last.map(|last| {
        let query = params::next(params, &["limit", "detailed"], last);
        json!({ "rel": "next", "href": format!("{path}?{query}") })
    });
    link.into_iter().collect()
}

pub(super) async fn list(asked: &Common<'_>) -> Result<Response, Fault> {
    asked.operators()?;
    let (params, limits) = (&asked.params, &asked.service.limits);
    let limit = params.limit(limits.default_page, limits.max_page)?;
    let detailed = params.flag("detailed")?;
    let after = params.get("marker").unwrap_or_default();
    let found = Catalogue::of(asked.service).pools(after, limit).await?;
    let links = next(params, "/v2/pools", found.last().map(|(name, _)| name.as_str()));
    let pools: Vec<_> = found.iter().map(|(name, pool)| shown(name, pool, detailed)).collect();
    Ok(answer(StatusCode::OK, json!({ "pools": pools, "links": links }).to_string()))
}

pub(super) async fn put(asked: &Common<'_>, body: Bytes) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    check_name(asked.name)?;
    let document = document(&body)?;
    check_keys(&document, &["weight", "uri", "flavor", "options"])?;
    let needed = |key: &str| {
        document.get(key).ok_or_else(|| Fault::body(format!("'{key}' is a required property")))
    };
    let pool = Pool {
        uri: uri(needed("uri")?)?,
        weight: weight(needed("weight")?)?,
        flavor: document.get("flavor").map(flavor).transpose()?.flatten(),
        options: document.get("options").map(options).transpose()?.unwrap_or_default(),
    };
    catalogue.put_pool(asked.name, &pool).await?;
    located(StatusCode::CREATED, &format!("/v2/pools/{}", asked.name), None)
}

pub(super) async fn get(asked: &Common<'_>) -> Result<Response, Fault> {
    asked.operators()?;
    let detailed = asked.params.flag("detailed")?;
    let pool = Catalogue::of(asked.service).pool(asked.name).await?;
    let pool = pool.ok_or_else(|| no_pool(asked.name))?;
    Ok(answer(StatusCode::OK, shown(asked.name, &pool, detailed).to_string()))
}

pub(super) async fn change(asked: &Common<'_>, body: Bytes) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    let document = document(&body)?;
    let known = ["weight", "uri", "flavor", "options"];
    if !document.keys().any(|key| known.contains(&key.as_str())) {
        return Err(Fault::body(
            "One of `uri`, `weight`, `flavor`, or `options` needs to be specified",
        ));
    }
    let pool = catalogue.pool(asked.name).await?;
    // What can't be is said first.
    let change = (
        document.get("uri").map(uri).transpose()?,
        document.get("weight").map(weight).transpose()?,
        document.get("flavor").map(flavor).transpose()?,
        document.get("options").map(options).transpose()?,
    );
    let pool = pool.ok_or_else(|| no_pool(asked.name))?;
    let (uri, weight, flavor, options) = change;
    let pool = Pool {
        uri: uri.unwrap_or(pool.uri),
        weight: weight.unwrap_or(pool.weight),
        flavor: flavor.unwrap_or(pool.flavor),
        options: options.unwrap_or(pool.options),
    };
    catalogue.put_pool(asked.name, &pool).await?;
    Ok(answer(StatusCode::OK, shown(asked.name, &pool, false).to_string()))
}

pub(super) async fn remove(asked: &Common<'_>) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    if let Some(Pool { flavor: Some(flavor), .. }) = catalogue.pool(asked.name).await?
        && catalogue.flavor(&flavor).await?.is_some()
    {
        let why = format!("This pool is used by flavors {flavor}; It cannot be deleted.");
        return Err(Fault::delete(403, why));
    }
    catalogue.remove_pool(asked.name).await?;
    Ok(empty())
}

async fn shown_flavor(asked: &Common<'_>, name: &str, detailed: bool) -> Result<Value, Fault> {
    let pools = Catalogue::of(asked.service).pools_of(name).await?;
    let href = format!("/v2/flavors/{name}");
    let mut shown = json!({ "name": name, "pool_list": pools, "href": href });
    if detailed && let Some(map) = shown.as_object_mut() {
        map.insert("capabilities".to_owned(), CAPABILITIES.to_vec().into());
    }
    Ok(shown)
}

fn no_flavor(name: &str) -> Fault {
    Fault::not_found(format!("Flavor {name} does not exist"))
}

pub(super) async fn list_flavors(asked: &Common<'_>) -> Result<Response, Fault> {
    asked.unconfined()?;
    let (params, limits) = (&asked.params, &asked.service.limits);
    let limit = params.limit(limits.default_page, limits.max_page)?;
    let detailed = params.flag("detailed")?;
    let after = params.get("marker").unwrap_or_default();
    let found = Catalogue::of(asked.service).flavors(after, limit).await?;
    let links = next(params, "/v2/flavors", found.last().map(String::as_str));
    let mut flavors = Vec::with_capacity(found.len());
    for name in &found {
        flavors.push(shown_flavor(asked, name, detailed).await?);
    }
    Ok(answer(StatusCode::OK, json!({ "flavors": flavors, "links": links }).to_string()))
}

pub(super) async fn get_flavor(asked: &Common<'_>) -> Result<Response, Fault> {
    asked.unconfined()?;
    let found = Catalogue::of(asked.service).flavor(asked.name).await?;
    found.ok_or_else(|| no_flavor(asked.name))?;
    Ok(answer(StatusCode::OK, shown_flavor(asked, asked.name, true).await?.to_string()))
}

/// The pools that a flavor is to have.
fn pool_list(asked: &Common<'_>, body: &[u8], known: &[&str]) -> Result<Vec<String>, Fault> {
    let document = document(body)?;
    check_keys(&document, known)?;
    let list = document.get("pool_list");
    let list = list.ok_or_else(|| Fault::body("'pool_list' is a required property"))?;
    let list = list.as_array().ok_or_else(|| Fault::body("pool_list must be an array."))?;
    if document.get("capabilities").is_some_and(|capabilities| !capabilities.is_object()) {
        return Err(Fault::body("capabilities must be an object."));
    }
    if list.is_empty() {
        let at = format!("/v2/flavors/{}", asked.name);
        return Err(Fault::named("Unable to create", "Bad Request").at(&at));
    }
    let texts: Option<Vec<_>> = list.iter().map(|one| one.as_str().map(str::to_owned)).collect();
    let mut texts = texts.ok_or_else(|| Fault::body("pool_list must hold names of pools."))?;
    texts.sort_unstable();
    texts.dedup();
    Ok(texts)
}

pub(super) async fn put_flavor(asked: &Common<'_>, body: Bytes) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    check_name(asked.name)?;
    let pools = pool_list(asked, &body, &["pool_list", "capabilities"])?;
    if !catalogue.put_flavor(asked.name, &pools).await? {
        let why = format!("Flavor {} could not be created: a pool does not exist", asked.name);
        return Err(Fault::named("Unable to create", why));
    }
    located(StatusCode::CREATED, &format!("/v2/flavors/{}", asked.name), None)
}

pub(super) async fn change_flavor(asked: &Common<'_>, body: Bytes) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    let pools = pool_list(asked, &body, &["pool_list", "capabilities"])?;
    catalogue.flavor(asked.name).await?.ok_or_else(|| no_flavor(asked.name))?;
    if !catalogue.put_flavor(asked.name, &pools).await? {
        let why = format!("Flavor {} could not be updated: a pool does not exist", asked.name);
        return Err(Fault::named("updatefail", why));
    }
    Ok(answer(StatusCode::OK, shown_flavor(asked, asked.name, true).await?.to_string()))
}

pub(super) async fn remove_flavor(asked: &Common<'_>) -> Result<Response, Fault> {
    let catalogue = changeable(asked)?;
    catalogue.remove_flavor(asked.name).await?;
    Ok(empty())
}
