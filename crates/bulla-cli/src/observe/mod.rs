//! What a process shows of itself: metrics, health, readiness, what the service manager is told, and
//! traces.

mod api;
mod bus;
mod door;
mod health;
mod notify;
mod page;
mod process;
mod table;
pub(crate) mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use api::observed;
use bulla_guard::{ClaimStore, Refused, Stats};
use bulla_journal::{Health, Status};
use bulla_keystore::{ENDS_WITHIN, Keystore, Summary};
use bulla_rpc::{CallOutcome, Client, Clock, Endpoint, Load, RanOutcome, SystemClock, Target};
pub(crate) use bus::BusWatch;
pub(crate) use door::Door;
pub(crate) use notify::Notify;
pub(crate) use table::markdown;

use crate::failure::{Failure, Result};
use crate::journal::Journalled;
use api::ApiCounts;
use health::{Readiness, check};
use page::Page;
use table::*;

/// How old the keystore's sums may be: they are made of whole tables.
const SUMMARY_AGE: Duration = Duration::from_secs(60);
/// How old the broker's word on the own queue may be.
const QUEUE_AGE: Duration = Duration::from_secs(10);
/// How old the claim store's figures may be.
const CLAIMS_AGE: Duration = Duration::from_secs(5);
/// How long a database or the broker may take to answer a look.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a process is made of, as far as it is shown.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) claims: Arc<dyn ClaimStore>,
    /// What its server has in hand; `None` once it ended.
    pub(crate) load: Box<dyn Fn() -> Option<Load> + Send + Sync>,
    pub(crate) bus: BusWatch,
    pub(crate) journal: Journalled,
    /// Of a control-plane process.
    pub(crate) keystore: Option<Keystore>,
}

/// Shows it.
pub(crate) struct Observer {
    parts: Parts,
    api: ApiCounts,
    summary: Remembered<Option<Summary>>,
    queue: Remembered<Option<u64>>,
    claims: Remembered<std::result::Result<Stats, String>>,
}

/// What is asked for no more often than it may be old.
struct Remembered<T> {
    age: Duration,
    last: tokio::sync::Mutex<Option<(Instant, u64, T)>>,
}

impl<T: Clone> Remembered<T> {
    fn new(age: Duration) -> Self {
        Self { age, last: tokio::sync::Mutex::new(None) }
    }

    /// The answer, and when it was given, in Unix seconds.
    async fn get(&self, ask: impl Future<Output = T>) -> (T, u64) {
        let mut last = self.last.lock().await;
        if let Some((asked, at, value)) = &*last
            && asked.elapsed() < self.age
        {
            return (value.clone(), *at);
        }
        let (value, at) = (ask.await, SystemClock.now().secs());
        *last = Some((Instant::now(), at, value.clone()));
        (value, at)
    }
}

/// An answer to a request for one of the pages.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Answer {
    fn text(status: u16, body: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.to_owned() }
    }
}

impl Observer {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            api: ApiCounts::default(),
            summary: Remembered::new(SUMMARY_AGE),
            queue: Remembered::new(QUEUE_AGE),
            claims: Remembered::new(CLAIMS_AGE),
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.parts.client.endpoint()
    }

    /// What is asked for, if it is one of ours.
    pub(crate) async fn answer(&self, path: &str) -> Option<Answer> {
        match path {
            // That this runs is the answer.
            "/healthz" => Some(Answer::text(200, "ok\n")),
            "/readyz" => {
                let readiness = self.readiness().await;
                let (status, body) = (readiness.status(), readiness.json());
                Some(Answer { status, kind: "application/json", body })
            }
            "/metrics" => match self.page().await.encode() {
                Ok(body) => Some(Answer { status: 200, kind: page::CONTENT_TYPE, body }),
                Err(_) => Some(Answer::text(500, "the metrics can't be written\n")),
            },
            _ => None,
        }
    }

    /// In one line.
    pub(crate) async fn status_line(&self) -> String {
        self.readiness().await.line()
    }

    async fn readiness(&self) -> Readiness {
        let bus = self.parts.bus.problem().map_or(Ok(()), Err);
        let mut checks = vec![check("bus", bus), check("statement", self.statement())];
        checks.push(check("claims", self.claims_answer().await.map(drop)));
        if let Some(keystore) = &self.parts.keystore {
            checks.push(check("keystore", answers(keystore).await));
        }
        if let Some(Health { status: Status::Failing { why }, .. }) = self.parts.journal.health() {
            checks.push(check("journal", Err(why)));
        } else if self.parts.journal.health().is_some() {
            checks.push(check("journal", Ok(())));
        }
        Readiness::new(checks)
    }

    /// Whether others' messages are acted on.
    fn statement(&self) -> std::result::Result<(), String> {
        let endpoint = self.endpoint();
        if let Err(refusal) = endpoint.check_component_messages() {
            return Err(refusal.to_string());
        }
        let Some(statement) = endpoint.statement() else {
            // Who needs one was asked above; who tells others needs one itself.
            return match self.parts.keystore {
                Some(_) => Err("there is none".to_owned()),
                None => Ok(()),
            };
        };
        let end = statement.not_after;
        if self.parts.keystore.is_some() && end <= endpoint.now().secs() {
            return Err(format!("it was current until {}", crate::output::date(end)));
        }
        Ok(())
    }

    async fn claims_answer(&self) -> std::result::Result<Stats, String> {
        let stats = async {
            match tokio::time::timeout(PATIENCE, self.parts.claims.stats()).await {
                Ok(stats) => stats.map_err(|error| error.to_string()),
                Err(_) => Err(slow()),
            }
        };
        self.claims.get(stats).await.0
    }

    async fn page(&self) -> Page {
        let mut page = Page::default();
        let identity = self.endpoint().identity();
        page.info(BUILD, &[env!("CARGO_PKG_VERSION")]);
        let instance = identity.instance().unwrap_or_default();
        page.info(PROCESS, &[identity.principal().as_str(), instance]);
        self.messages(&mut page);
        self.claims(&mut page).await;
        self.bus(&mut page).await;
        self.keys(&mut page);
        match &self.parts.keystore {
            Some(keystore) => {
                self.keystore(keystore, &mut page).await;
                self.api.add(&mut page);
            }
            None => self.own_floors(&mut page).await,
        }
        page.count(EXEMPTIONS, self.endpoint().floors().exemptions().len());
        self.journal(&mut page);
        traces::add(&mut page);
        page.events(self.endpoint().events());
        process::add(&mut page);
        page
    }

    fn messages(&self, page: &mut Page) {
        let counters = self.endpoint().counters();
        for (outcome, count) in RanOutcome::ALL.iter().zip(&counters.ran) {
            page.whole(REQUESTS, &[outcome.as_str()], count.get());
        }
        page.whole(REQUESTS, &["denied"], counters.denied.get());
        page.whole(REQUESTS, &["duplicate"], counters.duplicates.get());
        page.whole(REQUESTS, &["retried"], counters.retried.get());
        page.durations(REQUEST_DURATION, counters.handling.read());
        if let Some(load) = (self.parts.load)() {
            page.count(REQUESTS_IN_HAND, load.messages);
            page.count(REQUESTS_RUNNING, load.running);
            page.count(REQUESTS_CAPACITY, load.capacity);
        }
        for (refusal, count) in counters.refusals() {
            page.whole(REFUSALS, &[refusal], count);
        }
        for (outcome, count) in CallOutcome::ALL.iter().zip(&counters.calls) {
            page.whole(CALLS, &[outcome.as_str()], count.get());
        }
        page.durations(CALL_DURATION, counters.calling.read());
        page.count(CALLS_WAITING, self.parts.client.waiting());
        page.whole(SENT, &[], counters.sent.get());
        page.whole(REPLIES, &[], counters.replies.get());
        page.whole(OFFERS, &[], counters.offers.get());
        page.whole(NOTICES, &[], counters.notices.get());
        page.whole(GAPS, &[], counters.gaps.get());
        page.whole(EXEMPTED, &[], counters.exempted.get());
        page.whole(BELOW_TARGET, &[], counters.below_target.get());
    }

    async fn claims(&self, page: &mut Page) {
        let counters = self.endpoint().counters();
        page.durations(CLAIM_DURATION, counters.claiming.read());
        page.whole(CLAIM_ERRORS, &[], counters.claim_errors.get());
        let stats = self.claims_answer().await;
        page.flag(CLAIMS_UP, stats.is_ok());
        let Ok(stats) = stats else { return };
        page.whole(CLAIMS_HELD, &[], stats.entries);
        page.whole(CLAIMS_IN_FLIGHT, &[], stats.in_flight);
        page.whole(CLAIM_SENDERS, &[], stats.senders);
        page.whole(CLAIM_REPLY_BYTES, &[], stats.reply_bytes);
        let events = [
            ("granted", stats.granted),
            ("taken-over", stats.taken_over),
            ("duplicate", stats.duplicates),
            ("in-doubt", stats.in_doubt),
            ("lost", stats.lost),
            ("reply-dropped", stats.replies_dropped),
            ("purged", stats.purged),
        ];
        for (event, count) in events {
            page.whole(CLAIMS, &[event], count);
        }
        for reason in Refused::ALL {
            page.whole(CLAIMS_REFUSED, &[reason.as_str()], stats.refused(reason));
        }
        if let Some(until) = stats.blind_until {
            page.whole(CLAIMS_BLIND, &[], until);
        }
    }

    async fn bus(&self, page: &mut Page) {
        let bus = &self.parts.bus;
        page.flag(BUS_UP, bus.problem().is_none());
        page.whole(BUS_LOST, &[], bus.lost());
        page.whole(BUS_RECONNECTED, &[], bus.reconnected());
        page.whole(BUS_RETURNED, &[], bus.returned());
        let endpoint = self.endpoint();
        let own = Target::Principal(endpoint.identity().principal().clone());
        let Some(inbox) = own.inbox(&endpoint.options().exchange) else { return };
        let waiting = async {
            let asked = endpoint.transport().waiting(&inbox);
            tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
        };
        if let Some(waiting) = self.queue.get(waiting).await.0 {
            page.whole(QUEUE_MESSAGES, &[], waiting);
        }
    }

    fn keys(&self, page: &mut Page) {
        let identity = self.endpoint().identity();
        if let Some(own) = identity.initiator() {
            page.whole(OWN_KEY_END, &["sign"], own.credential().validity.not_after);
        }
        let receive = identity.receive_keys();
        if let Some(end) = receive.iter().map(|key| key.credential.validity.not_after).max() {
            page.whole(OWN_KEY_END, &["receive"], end);
        }
        if let Some(statement) = self.endpoint().statement() {
            page.whole(STATEMENT_EPOCH, &[], statement.epoch);
            page.whole(STATEMENT_AT, &[], statement.issued_at);
            page.whole(STATEMENT_END, &[], statement.not_after);
        }
    }

    async fn keystore(&self, keystore: &Keystore, page: &mut Page) {
        page.flag(KEYSTORE_UP, answers(keystore).await.is_ok());
        let summary = async {
            let summary = tokio::time::timeout(PATIENCE, keystore.summary()).await.ok()?;
            summary.inspect_err(|error| tracing::warn!(%error, "no sums of the keystore")).ok()
        };
        let (Some(summary), at) = self.summary.get(summary).await else { return };
        page.whole(SUMMARY_AT, &[], at);
        for (kind, key_type, count) in &summary.principals {
            page.whole(PRINCIPALS, &[kind, key_type], *count);
        }
        for keys in &summary.keys {
            let of = keys.purpose.as_str();
            page.whole(KEYS, &[of], keys.count);
            page.whole(KEYS_OVER, &[of], keys.over);
            for (within, count) in ENDS_WITHIN.iter().zip(keys.within) {
                page.whole(KEYS_ENDING, &[of, &within.to_string()], count);
            }
            if let Some(next) = keys.next {
                page.whole(NEXT_KEY_END, &[of], next);
            }
        }
        for floor in &summary.floors {
            page.whole(FLOORS, &[floor.level.as_str()], floor.peers);
            page.whole(FLOORS_REHEARSED, &[floor.level.as_str()], floor.marked);
        }
        for seen in &summary.seen {
            page.whole(CENSUS, &[seen.level.as_str()], seen.peers);
            page.whole(CENSUS_BELOW, &[seen.level.as_str()], seen.marked);
        }
    }

    /// An agent knows few peers.
    async fn own_floors(&self, page: &mut Page) {
        let store = self.endpoint().floors().store();
        let Ok(records) = store.records().await else { return };
        let mut levels: Vec<_> = records.iter().map(|(_, record)| record.accepts).collect();
        levels.sort_unstable();
        levels.dedup();
        for level in levels {
            let at = records.iter().filter(|(_, record)| record.accepts == level);
            let rehearsed = at.clone().filter(|(_, record)| record.target.is_some()).count();
            page.whole(FLOORS, &[level.as_str()], at.count() as u64);
            page.whole(FLOORS_REHEARSED, &[level.as_str()], rehearsed as u64);
        }
    }

    fn journal(&self, page: &mut Page) {
        let Some(health) = self.parts.journal.health() else { return };
        page.flag(JOURNAL_UP, health.status == Status::Writing);
        page.count(JOURNAL_QUEUED, health.queued);
        page.count(JOURNAL_CAPACITY, health.capacity);
        page.number(JOURNAL_LAG, &[], health.lag.as_secs_f64());
        page.whole(JOURNAL_LOST, &[], health.lost);
        page.whole(JOURNAL_RECORDS, &[], health.records);
        page.whole(JOURNAL_UNSIGNED, &[], health.records.saturating_sub(health.signed));
        if let Some(at) = health.signed_at {
            page.whole(JOURNAL_CHECKPOINT, &[], at);
        }
        if let Some(free) = self.parts.journal.disk_free() {
            page.whole(JOURNAL_DISK, &[], free);
        }
    }
}

async fn answers(keystore: &Keystore) -> std::result::Result<(), String> {
    match tokio::time::timeout(PATIENCE, keystore.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(slow()),
    }
}

fn slow() -> String {
    format!("it did not answer within {} s", PATIENCE.as_secs())
}

/// Opens the door for metrics, if there is to be one.
pub(crate) async fn open_door(listen: Option<std::net::SocketAddr>) -> Result<Option<Door>> {
    match listen {
        Some(address) => Door::open(address).await.map(Some),
        None => Ok(None),
    }
}

/// Keeps the service manager informed until `stop`: that we live, and how we do.
pub(crate) fn keep_informed(
    notify: &Notify,
    observer: &Arc<Observer>,
    stop: &tokio_util::sync::CancellationToken,
) -> Option<tokio_util::task::AbortOnDropHandle<()>> {
    let (own, observer, until) = (notify.clone(), observer.clone(), stop.clone());
    if notify.is_there() {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(STATUS_EVERY);
            let mut told = String::new();
            loop {
                tokio::select! {
                    () = until.cancelled() => return,
                    _ = tick.tick() => {}
                }
                let line = observer.status_line().await;
                if line != told {
                    own.status(&line);
                    told = line;
                }
            }
        });
    }
    notify.keep_alive(stop)
}

/// How often the service manager is told how we do, if that changed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// A setting is wrong.
fn usage(why: &str) -> Failure {
    Failure::usage(why)
}
