//! `bulla queue list`, `show` and so on: what a queue service is asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_http::certs::Files;
use bulla_http::{AccessKey, DialError, Dialer};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use crate::cli::{QueueCommand, QueueOf, QueueWhere};
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::{Home, Settings};

/// Time for TCP and TLS, and for a request and its answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// Queues on a page.
const PAGE: usize = 20;
/// Who asks: it posts nothing, so that nobody's messages are its own.
const CLIENT: &str = "b0117a00-0000-4000-8000-000000000000";
const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

/// The queue service, as an operator asks it.
struct Client {
    dialer: Dialer,
    host: String,
    port: u16,
    authority: String,
    project: String,
    /// What requests are signed with, if they are.
    key: Option<AccessKey>,
}

struct Answer {
    status: StatusCode,
    body: Value,
}

impl Client {
    fn new(home: &Home, at: &QueueWhere) -> Result<Self> {
        let settings = Settings::load(home.dir())?;
        let url = match (&at.url, std::fs::read_to_string(home.queue_url())) {
            (Some(url), _) => url.clone(),
            (None, Ok(running)) => running.trim().to_owned(),
            (None, Err(_)) => {
                let scheme = if settings.queue.noauth { "http" } else { "https" };
                format!("{scheme}://{}", settings.queue.address()?)
            }
        };
        let bad = || Failure::usage(format!("{url:?} is not of the form https://HOST:PORT"));
        let uri: hyper::Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let key = at.access_key.as_deref().map(AccessKey::load).transpose();
        let key = key.map_err(|error| Failure::new(error.to_string()))?;
        let dialer = match uri.scheme_str() {
            // Of a request that shows both, neither would count.
            Some("https") if key.is_some() => {
                let ca = at.ca.clone().unwrap_or_else(|| Files::in_dir(&home.tls()).ca);
                Dialer::trusting(&ca).map_err(|error| Failure::new(error.to_string()))?
            }
            Some("https") => Dialer::tls(&settings.api.tls.operator(home, at.ca.clone())?)
                .map_err(|error| Failure::new(error.to_string()))?,
            // On this machine alone, which the dialer sees to.
            Some("http") => Dialer::plain_loopback(),
            _ => return Err(bad()),
        };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = authority.port_u16().unwrap_or(443);
        let (host, authority) = (host.to_owned(), authority.as_str().to_owned());
        Ok(Self { dialer, host, port, authority, project: at.project.clone(), key })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let kind = if method == Method::PATCH { PATCH_TYPE } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("accept", "application/json")
            .header("content-type", kind)
            .header("client-id", CLIENT)
            .header("x-project-id", &self.project)
            .body(Full::new(bytes::Bytes::from(body.clone())))
            .map_err(|_| Failure::usage(format!("{path:?} can't be asked for")))?;
        if let Some(key) = &self.key {
            key.sign("https", &mut request, body.as_bytes())
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        let asking = async {
            let stream = self.dialer.connect(&self.host, self.port, CONNECT).await;
            let stream = stream.map_err(unreachable)?;
            let broken = |why: String| {
                Failure::new(format!("the queue service at {} broke off: {why}", self.authority))
            };
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, driver) = handshake.map_err(|error| broken(error.to_string()))?;
            // Its errors are also the request's.
            tokio::spawn(async move { drop(driver.await) });
            let answer = sender.send_request(request).await;
            let (head, body) = answer.map_err(|error| broken(error.to_string()))?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Ok::<_, Failure>(Answer { status: head.status, body })
        };
        let answer = tokio::time::timeout(ANSWER, asking).await.map_err(|_| {
            Failure::new(format!("the queue service at {} did not answer", self.authority))
        })??;
        if answer.status.is_success() { Ok(answer) } else { Err(refused(&answer)) }
    }
}

fn unreachable(error: DialError) -> Failure {
    Failure::new(format!(
        "{error}; is a queue service running (`bulla queue serve`, `bulla up --queue`)?"
    ))
}

/// In Zaqar's shape, or a problem's.
fn refused(answer: &Answer) -> Failure {
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str);
    let why = text("description").or_else(|| text("detail")).or_else(|| text("title"));
    Failure::new(format!(
        "the queue service refused ({}): {}",
        answer.status.as_u16(),
        why.unwrap_or("it does not say why")
    ))
}

pub(crate) async fn run(home: &Home, command: &QueueCommand, out: Output) -> Result<()> {
    match command {
        QueueCommand::Serve(args) => super::queue::serve(home, args, out).await,
        QueueCommand::Openapi => {
            out.line(bulla_queue::openapi().trim_end());
            Ok(())
        }
        QueueCommand::List { name, at } => {
            list(&Client::new(home, at)?, name.as_deref(), out).await
        }
        QueueCommand::Create { of, require, set } => create(home, of, require, set, out).await,
        QueueCommand::Show(of) => show(home, of, out).await,
        QueueCommand::Set { of, key, value } => set(home, of, (key, value), out).await,
        QueueCommand::Stats(of) => stats(home, of, out).await,
        QueueCommand::Purge(of) => change(home, of, (Method::POST, "/purge"), "purged", out).await,
        QueueCommand::Delete(of) => change(home, of, (Method::DELETE, ""), "deleted", out).await,
        QueueCommand::Grant { of, paths, methods, lasts } => {
            grant(home, of, (paths, methods), lasts, out).await
        }
        QueueCommand::Revoke(of) => {
            change(home, of, (Method::DELETE, "/share"), "grants ended", out).await
        }
    }
}

fn path(of: &QueueOf) -> Result<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let fits = (1..=64).contains(&of.name.len()) && of.name.bytes().all(known);
    if !fits {
        return Err(Failure::usage(format!(
            "{:?} is no queue's name: 1 to 64 letters, digits, `_`, `-` and `.`",
            of.name
        )));
    }
    Ok(format!("/v2/queues/{}", of.name))
}

async fn list(client: &Client, name: Option<&str>, out: Output) -> Result<()> {
    let (mut queues, mut marker) = (Vec::new(), String::new());
    loop {
        let path = format!("/v2/queues?detailed=true&limit={PAGE}&marker={marker}");
        let page = client.ask(Method::GET, &path, None).await?.body;
        let found = page.get("queues").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_last = found.len() < PAGE;
        let last = found.last().and_then(|queue| queue.get("name")).and_then(Value::as_str);
        marker = last.unwrap_or_default().to_owned();
        queues.extend(found);
        if is_last {
            break;
        }
    }
    let named = |queue: &Value| queue.get("name").and_then(Value::as_str).map(str::to_owned);
    if let Some(part) = name {
        queues.retain(|queue| named(queue).is_some_and(|name| name.contains(part)));
    }
    out.result(&queues, |out| {
        if queues.is_empty() {
            return out.say(format!("The project {} has no queues.", client.project));
        }
        let row = |queue: &Value| {
            let metadata = queue.get("metadata").cloned().unwrap_or_default();
            let shown = |key: &str| metadata.get(key).map(plain).unwrap_or_default();
            vec![
                named(queue).unwrap_or_default(),
                shown("_default_message_ttl"),
                metadata.get("_require").map_or_else(|| "-".to_owned(), plain),
            ]
        };
        out.table(&["QUEUE", "TTL", "REQUIRES"], queues.iter().map(row).collect());
    })
}

/// A value without the quotes of a text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn table(map: &Map<String, Value>, out: Output) {
    let rows = map.iter().map(|(key, value)| vec![key.clone(), plain(value)]);
    out.table(&["NAME", "VALUE"], rows.collect());
}

/// JSON, or else a text.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

async fn create(
    home: &Home,
    of: &QueueOf,
    require: &Option<String>,
    set: &[String],
    out: Output,
) -> Result<()> {
    let mut metadata = Map::new();
    for pair in set {
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{pair:?} is not of the form KEY=VALUE")))?;
        metadata.insert(key.to_owned(), value(text));
    }
    if let Some(require) = require {
        metadata.insert("_require".to_owned(), require.as_str().into());
    }
    let client = Client::new(home, &of.at)?;
    let answer = client.ask(Method::PUT, &path(of)?, Some(&metadata.into())).await?;
    let created = answer.status == StatusCode::CREATED;
    out.result(&json!({ "queue": of.name, "created": created }), |out| {
        let what = if created { "made" } else { "there already, and left as it was" };
        out.say(format!("{}: {what}.", of.name));
    })
}

async fn show(home: &Home, of: &QueueOf, out: Output) -> Result<()> {
    let client = Client::new(home, &of.at)?;
    // GET says nothing about that.
    let there = client.ask(Method::HEAD, &path(of)?, None).await;
    there
        .map_err(|_| Failure::new(format!("there is no queue {} in {}", of.name, of.at.project)))?;
    let metadata = client.ask(Method::GET, &path(of)?, None).await?.body;
    out.result(&metadata, |out| {
        if let Some(map) = metadata.as_object() {
            table(map, out);
        }
    })
}

async fn set(
    home: &Home,
    of: &QueueOf,
    (key, text): (&str, &Option<String>),
    out: Output,
) -> Result<()> {
    let place = format!("/metadata/{}", key.replace('~', "~0").replace('/', "~1"));
    let step = match text {
        Some(text) => json!({ "op": "add", "path": place, "value": value(text) }),
        None => json!({ "op": "remove", "path": place }),
    };
    let client = Client::new(home, &of.at)?;
    let metadata = client.ask(Method::PATCH, &path(of)?, Some(&json!([step]))).await?.body;
    out.result(&metadata, |out| {
        if let Some(map) = metadata.as_object() {
            table(map, out);
        }
    })
}

async fn stats(home: &Home, of: &QueueOf, out: Output) -> Result<()> {
    let client = Client::new(home, &of.at)?;
    let stats = client.ask(Method::GET, &format!("{}/stats", path(of)?), None).await?.body;
    let messages = stats.get("messages").cloned().unwrap_or_default();
    out.result(&messages, |out| {
        let number = |name: &str| messages.get(name).map(plain).unwrap_or_default();
        let age = |name: &str| {
            let age = messages.get(name).and_then(|message| message.get("age"));
            age.map_or_else(|| "-".to_owned(), |age| format!("{age} s"))
        };
        let row = ["total", "free", "claimed"].map(number).into_iter();
        let row = row.chain([age("oldest"), age("newest")]).collect();
        out.table(&["MESSAGES", "FREE", "CLAIMED", "OLDEST", "NEWEST"], vec![row]);
    })
}

async fn change(
    home: &Home,
    of: &QueueOf,
    (method, below): (Method, &str),
    done: &str,
    out: Output,
) -> Result<()> {
    let client = Client::new(home, &of.at)?;
    client.ask(method, &format!("{}{below}", path(of)?), None).await?;
    out.result(&json!({ "queue": of.name, "done": done }), |out| {
        out.say(format!("{}: {done}.", of.name));
    })
}

async fn grant(
    home: &Home,
    of: &QueueOf,
    (paths, methods): (&[String], &[String]),
    lasts: &str,
    out: Output,
) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = crate::when::parse(lasts, now).map_err(Failure::usage)?;
    let text = date(end).replace(" UTC", "").replace(' ', "T");
    let asked = json!({ "paths": paths, "methods": methods, "expires": text });
    let client = Client::new(home, &of.at)?;
    let path = format!("{}/share", path(of)?);
    let shared = client.ask(Method::POST, &path, Some(&asked)).await?.body;
    let field = |name: &str| match shared.get(name) {
        Some(Value::Array(all)) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        Some(value) => plain(value),
        None => String::new(),
    };
    let headers = json!({
        "X-Project-ID": field("project"),
        "URL-Signature": field("signature"),
        "URL-Expires": field("expires"),
        "URL-Methods": field("methods"),
        "URL-Paths": field("paths"),
    });
    out.result(&headers, |out| {
        out.say("Whoever sends these headers may do that, until it ends:");
        for (name, value) in headers.as_object().into_iter().flatten() {
            out.line(&format!("{name}: {}", plain(value)));
        }
        out.say(format!("`bulla queue revoke {}` ends all grants of the queue.", of.name));
    })
}
