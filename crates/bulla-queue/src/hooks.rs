//! Webhooks: what subscribers are told, and that they want to be.
//!
//! What is posted is sent at once, and again as the policy says if it does not arrive. What waits is
//! kept in memory: the messages themselves stay in their queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bulla_http::{Outward, OutwardError};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::id::Id;
use crate::name::Place;
use crate::retry;
use crate::service::now;
use crate::store::{Metadata, NewMessage, Store, StoreError};
use crate::subscription::{MOST, Subscription, Subscriptions};

/// How long a subscriber has for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What waits at the most: in all, and of one project.
const WAITING: usize = 16_384;
const WAITING_EACH: usize = 2048;
/// Requests under way: in all, and of one project.
const AT_ONCE: usize = 128;
const AT_ONCE_EACH: usize = 16;
/// How long the subscriptions of a queue are known where other processes may change them.
const KNOWN: Duration = Duration::from_secs(1);
/// Queues that are known at the most; beyond that it begins anew.
const MAX_KNOWN: usize = 65_536;

/// What a template holds in the place of the message.
const TEMPLATE: &str = "\"$zaqar_message$\"";
/// The same message has the same key, however often it is sent.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What subscribers' options may not set: how the request is carried.
const OURS: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    KEY,
];

/// How subscribers are told.
#[derive(Clone)]
pub struct Webhooks {
    pub(crate) outward: Outward,
    /// Where this service is, for whoever confirms.
    pub(crate) url: Option<String>,
    pub(crate) confirm: bool,
}

impl Webhooks {
    /// By these requests. A subscriber has to confirm that it wants to be told.
    #[must_use]
    pub fn new(outward: Outward) -> Self {
        Self { outward, url: None, confirm: true }
    }

    /// Says where this service is, for whoever confirms.
    #[must_use]
    pub fn url(mut self, url: Option<String>) -> Self {
        self.url = url;
        self
    }

    /// Tells subscribers that nobody asked. Only where all who may subscribe are trusted with it.
    #[must_use]
    pub fn without_confirmation(mut self) -> Self {
        self.confirm = false;
        self
    }
}

/// Deliveries, and who is to be told.
pub(crate) struct Hooks {
    pub(crate) by: Webhooks,
    known: Mutex<Known>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    waiting: Arc<AtomicUsize>,
    at_once: Arc<Semaphore>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Known {
    of: HashMap<Place, (Instant, Arc<[Subscription]>)>,
    /// How often something was forgotten.
    mark: u64,
}

struct Tenant {
    waiting: AtomicUsize,
    at_once: Semaphore,
}

/// A body on its way to one subscriber.
struct Delivery {
    subscriber: String,
    headers: HeaderMap,
    bodies: Vec<(Option<Id>, Bytes)>,
    delays: Vec<u32>,
}

/// Leaves its place when it goes.
struct Waits {
    all: Arc<AtomicUsize>,
    tenant: Arc<Tenant>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.tenant.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hooks {
    pub(crate) fn new(by: Webhooks) -> Self {
        Self {
            by,
            known: Mutex::default(),
            tenants: Mutex::default(),
            waiting: Arc::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            stop: CancellationToken::new(),
        }
    }

    /// Ends deliveries.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    /// The subscriptions of a queue were changed.
    pub(crate) fn forget(&self, at: &Place) {
        let mut known = self.known.lock();
        known.mark += 1;
        known.of.remove(at);
    }

    /// Who is to be told of a queue's messages.
    pub(crate) async fn watchers(
        &self,
        store: &Arc<dyn Store>,
        at: &Place,
    ) -> Result<Arc<[Subscription]>, StoreError> {
        let mark = {
            let known = self.known.lock();
            if let Some((since, found)) = known.of.get(at)
                && (!store.is_shared() || since.elapsed() < KNOWN)
            {
                return Ok(found.clone());
            }
            known.mark
        };
        let all = Subscriptions { store, at, now: now() }.list("", MOST).await?;
        let wanted = all.into_iter().filter(|one| one.what.confirmed || !self.by.confirm);
        let found: Arc<[Subscription]> = wanted.collect();
        let mut known = self.known.lock();
        if known.mark == mark {
            if known.of.len() >= MAX_KNOWN {
                known.of.clear();
            }
            known.of.insert(at.clone(), (Instant::now(), found.clone()));
        }
        Ok(found)
    }

    /// Tells subscribers of messages.
    pub(crate) fn tell(
        &self,
        at: &Place,
        to: &[Subscription],
        metadata: &Metadata,
        messages: &[(Id, NewMessage)],
    ) {
        let now = now();
        for one in to.iter().filter(|one| one.until > now) {
            let options = &one.what.options;
            let body = |(id, message): &(Id, NewMessage)| {
                (Some(*id), Bytes::from(filled(options, notification(at, message))))
            };
            self.send(
                at,
                Delivery {
                    subscriber: one.what.subscriber.clone(),
                    headers: headers(options),
                    bodies: messages.iter().map(body).collect(),
                    delays: retry::delays(options, metadata),
                },
            );
        }
    }

    /// Sends a subscriber something about its subscription.
    pub(crate) fn say(&self, at: &Place, to: &Subscription, what: &Value) {
        self.send(
            at,
            Delivery {
                subscriber: to.what.subscriber.clone(),
                headers: headers(&to.what.options),
                bodies: vec![(None, Bytes::from(what.to_string()))],
                delays: retry::delays(&to.what.options, &Map::new()),
            },
        );
    }

    fn send(&self, at: &Place, delivery: Delivery) {
        let Some(waits) = self.place(at.tenant()) else {
            tracing::warn!(
                project = at.tenant(),
                queue = at.name(),
                "a webhook is not told: too many deliveries wait"
            );
            return;
        };
        let (outward, at_once) = (self.by.outward.clone(), self.at_once.clone());
        let (stop, queue) = (self.stop.clone(), at.name().to_owned());
        tokio::spawn(async move {
            let delivering = delivery.run(&outward, &at_once, &waits.tenant);
            if let Some(Err(error)) = stop.run_until_cancelled(delivering).await {
                tracing::warn!(queue, %error, "a webhook was given up");
            }
        });
    }

    fn place(&self, tenant: &str) -> Option<Waits> {
        let of = {
            let mut tenants = self.tenants.lock();
            if tenants.len() >= MAX_KNOWN {
                tenants.retain(|_, tenant| tenant.waiting.load(Ordering::Relaxed) > 0);
            }
            let new = || {
                let (waiting, at_once) = (AtomicUsize::new(0), Semaphore::new(AT_ONCE_EACH));
                Arc::new(Tenant { waiting, at_once })
            };
            let of = tenants.entry(tenant.to_owned()).or_insert_with(new).clone();
            of.waiting.fetch_add(1, Ordering::Relaxed);
            of
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits { all: self.waiting.clone(), tenant: of };
        let fits = self.waiting.load(Ordering::Relaxed) <= WAITING
            && waits.tenant.waiting.load(Ordering::Relaxed) <= WAITING_EACH;
        fits.then_some(waits)
    }
}

/// Why something did not arrive.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Sent(#[from] OutwardError),
    #[error("the subscriber answered {0}")]
    Answered(StatusCode),
    #[error("the service is closed")]
    Closed,
}

impl Undelivered {
    /// Whether it may arrive if it is sent again.
    fn may_pass(&self) -> bool {
        match self {
            Self::Sent(OutwardError::Address(_) | OutwardError::Forbidden(_)) => false,
            Self::Sent(_) => true,
            Self::Answered(status) => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
            }
            Self::Closed => false,
        }
    }
}

impl Delivery {
    /// One body after the other; what follows one that is given up is still tried.
    async fn run(
        self,
        outward: &Outward,
        at_once: &Semaphore,
        tenant: &Tenant,
    ) -> Result<(), Undelivered> {
        let mut outcome = Ok(());
        for (id, body) in &self.bodies {
            let mut headers = self.headers.clone();
            if let Some(key) = id.and_then(|id| HeaderValue::from_str(&format!("\"{id}\"")).ok()) {
                headers.insert(KEY, key);
            }
            let mut delays = self.delays.iter();
            loop {
                let failed = match self.once(outward, (at_once, tenant), &headers, body).await {
                    Ok(()) => break,
                    Err(failed) => failed,
                };
                let delay = delays.next().filter(|_| failed.may_pass());
                let Some(delay) = delay else {
                    outcome = Err(failed);
                    break;
                };
                tokio::time::sleep(Duration::from_secs((*delay).into())).await;
            }
        }
        outcome
    }

    async fn once(
        &self,
        outward: &Outward,
        (at_once, tenant): (&Semaphore, &Tenant),
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), Undelivered> {
        // One project's slow subscribers hold up its own alone.
        let _own = tenant.at_once.acquire().await.map_err(|_| Undelivered::Closed)?;
        let _all = at_once.acquire().await.map_err(|_| Undelivered::Closed)?;
        let status = outward.post(&self.subscriber, headers, body.clone(), ANSWER).await?;
        if status.is_success() { Ok(()) } else { Err(Undelivered::Answered(status)) }
    }
}

fn notification(at: &Place, message: &NewMessage) -> String {
    // The body is JSON already; a name has nothing to escape.
    format!(
        "{{\"ttl\": {}, \"body\": {}, \"queue_name\": \"{}\", \"Message_Type\": \"Notification\"}}",
        message.ttl,
        message.body,
        at.name()
    )
}

/// The message, or the template that has it.
fn filled(options: &Map<String, Value>, message: String) -> String {
    match options.get("post_data").and_then(Value::as_str) {
        Some(template) => template.replace(TEMPLATE, &message),
        None => message,
    }
}

/// Whether a subscriber's options can be; otherwise why not.
pub(crate) fn check_options(options: &Map<String, Value>) -> Result<(), String> {
    retry::check(options)?;
    let text = |value: &Value| value.is_string();
    if options.get("post_data").is_some_and(|data| !text(data)) {
        return Err("post_data must be a text.".to_owned());
    }
    let Some(given) = options.get("post_headers") else { return Ok(()) };
    let given = given.as_object().ok_or_else(|| "post_headers must be a dict.".to_owned())?;
    for (name, value) in given {
        let bad = || format!("post_headers: {name:?} can't be set.");
        let header: HeaderName = name.parse().map_err(|_| bad())?;
        let value = value.as_str().ok_or_else(bad)?;
        HeaderValue::from_str(value).map_err(|_| bad())?;
        if OURS.contains(&header) {
            return Err(bad());
        }
    }
    Ok(())
}

fn headers(options: &Map<String, Value>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let given = options.get("post_headers").and_then(Value::as_object);
    for (name, value) in given.into_iter().flatten() {
        // They were checked when they were given.
        if let Ok(name) = name.parse::<HeaderName>()
            && let Some(Ok(value)) = value.as_str().map(HeaderValue::from_str)
            && !OURS.contains(&name)
        {
            headers.insert(name, value);
        }
    }
    headers
}

/// What a subscriber gets that is to confirm, or that has stopped.
pub(crate) fn question(
    (at, url): (&Place, Option<&str>),
    path: &str,
    (signature, expires): (&str, &str),
    stopped: bool,
) -> Value {
    let (kind, queue) = (if at.is_topic() { "topic" } else { "queue" }, at.name());
    let (message_type, message) = if stopped {
        (
            "UnsubscribeConfirmation",
            format!(
                "You have unsubscribed successfully to the {kind}: {queue}, you can resubscribe it \
                 by using confirmed=True."
            ),
        )
    } else {
        ("SubscriptionConfirmation", format!("You have chosen to subscribe to the {kind}: {queue}"))
    };
    let mut question = json!({
        "Message_Type": message_type,
        "Message": message,
        "URL-Signature": signature,
        "URL-Methods": "PUT",
        "URL-Paths": path,
        "X-Project-ID": at.tenant(),
        "URL-Expires": expires,
        "SubscribeBody": { "confirmed": true },
        "UnsubscribeBody": { "confirmed": false },
    });
    if let (Some(url), Some(map)) = (url, question.as_object_mut()) {
        let url = format!("{}{path}", url.trim_end_matches('/'));
        map.insert("WSGISubscribeURL".to_owned(), url.into());
    }
    question
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn options_don_t_reach_into_how_a_request_is_carried() {
        let good = options(json!({ "post_headers": { "X-Mine": "a" }, "post_data": "x" }));
        assert!(check_options(&good).is_ok());
        assert_eq!(headers(&good)["x-mine"], "a");
        for bad in [
            json!({ "post_headers": { "Host": "a" } }),
            json!({ "post_headers": { "transfer-encoding": "chunked" } }),
            json!({ "post_headers": { "X": "a\r\nY: b" } }),
            json!({ "post_headers": { "a b": "c" } }),
            json!({ "post_headers": { "X": 1 } }),
            json!({ "post_headers": [] }),
            json!({ "post_data": 1 }),
        ] {
            let bad = options(bad);
            assert!(check_options(&bad).is_err(), "{bad:?}");
            assert!(!headers(&bad).contains_key("host"));
        }
    }

    #[test]
    fn a_template_has_the_message_in_its_place() {
        let with = options(json!({ "post_data": "{\"msg\": \"$zaqar_message$\"}" }));
        assert_eq!(filled(&with, "{\"a\": 1}".into()), "{\"msg\": {\"a\": 1}}");
        assert_eq!(filled(&Map::new(), "1".into()), "1");
    }
}
