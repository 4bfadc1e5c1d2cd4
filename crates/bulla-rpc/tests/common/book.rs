//! What was asked, what ran and what came of it; and what must hold of the three together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bulla_rpc::*;
use bulla_seal::{Detail, MessageId, Outcome, Parsed};
use bulla_transport::hostile::Sent;
use parking_lot::Mutex;

/// A request as its sender made it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub by: String,
    pub method: &'static str,
    /// Where it may run.
    pub places: Vec<&'static str>,
}

/// A run: its number in the world, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub token: u64,
    pub place: String,
}

/// What a method gives back: whose request, which run, where.
pub type Value = (u32, u64, String);

#[derive(Debug, Default)]
struct Pages {
    asked: HashMap<u32, Asked>,
    ran: BTreeMap<u32, Vec<Ran>>,
    /// Ids of requests that may be answered anew: those of read-only methods.
    unclaimed: BTreeSet<MessageId>,
    tokens: u64,
    wrong: Vec<String>,
    /// How calls ended.
    ends: BTreeMap<String, u32>,
}

/// Shared by everybody on a stage.
#[derive(Debug, Clone, Default)]
pub struct Book(Arc<Mutex<Pages>>);

impl Book {
    /// Writes a request down before it is sent; its number is its only argument.
    pub fn ask(&self, by: &str, method: &'static str, places: &[&'static str]) -> u32 {
        let mut pages = self.0.lock();
        let n = u32::try_from(pages.asked.len()).unwrap() + 1;
        pages.asked.insert(n, Asked { by: by.into(), method, places: places.to_vec() });
        n
    }

    pub fn wrong(&self, what: String) {
        self.0.lock().wrong.push(what);
    }

    fn run(&self, n: u32, method: &str, place: &str, context: &Context) -> Value {
        let mut pages = self.0.lock();
        pages.tokens += 1;
        let token = pages.tokens;
        let sender = context.sender().principal.to_string();
        match pages.asked.get(&n) {
            None => pages.wrong.push(format!("{method}({n}) ran at {place} and nobody asked")),
            Some(asked)
                if asked.method != method
                    || asked.by != sender
                    || !asked.places.contains(&place) =>
            {
                let what = format!("{asked:?} ran as {method}({n}) of {sender} at {place}");
                pages.wrong.push(what);
            }
            Some(_) => {}
        }
        if method == "read" {
            pages.unclaimed.insert(context.message_id());
        }
        pages.ran.entry(n).or_default().push(Ran { token, place: place.into() });
        (n, token, place.into())
    }

    /// What came back for `n`.
    pub fn ended(&self, n: u32, end: Result<Value, CallError>) {
        let mut pages = self.0.lock();
        let name = match &end {
            Ok((m, token, place)) => {
                let this = Ran { token: *token, place: place.clone() };
                let runs = pages.ran.get(&n).cloned().unwrap_or_default();
                if *m != n || !runs.contains(&this) {
                    pages.wrong.push(format!("{n} got {m} of run {token} at {place}: {runs:?}"));
                }
                "value".to_owned()
            }
            Err(CallError::Timeout { .. }) => "timeout".into(),
            Err(CallError::Remote(error)) if error.kind == kinds::OUTCOME_UNKNOWN => {
                error.kind.clone()
            }
            Err(error) => {
                pages.wrong.push(format!("{n} ended with {error}"));
                "wrong".into()
            }
        };
        *pages.ends.entry(name).or_default() += 1;
    }

    /// Progress of `n` must rise.
    pub fn progressed(&self, n: u32, last: Option<u32>, item: (u32, u32)) {
        if item.0 != n || last.is_some_and(|last| item.1 <= last) {
            self.wrong(format!("{n} got progress {item:?} after {last:?}"));
        }
    }

    pub fn runs(&self) -> BTreeMap<u32, Vec<Ran>> {
        self.0.lock().ran.clone()
    }

    pub fn ends(&self) -> BTreeMap<String, u32> {
        self.0.lock().ends.clone()
    }

    /// Everything that is wrong, given all that honest parties put on the bus.
    pub fn verdict(&self, replies: &[Sent]) -> Vec<String> {
        let pages = self.0.lock();
        let mut wrong = pages.wrong.clone();
        for (n, runs) in &pages.ran {
            let once = pages.asked.get(n).is_none_or(|a| !["again", "read"].contains(&a.method));
            let places: BTreeSet<_> = runs.iter().map(|run| &run.place).collect();
            if once && places.len() < runs.len() {
                wrong.push(format!("{n} ran more than once at a place: {runs:?}"));
            }
        }
        wrong.extend(two_outcomes(replies, &pages.unclaimed));
        wrong
    }
}

/// Requests for which two different final outcomes were sealed and sent.
fn two_outcomes(replies: &[Sent], unclaimed: &BTreeSet<MessageId>) -> Vec<String> {
    let mut finals: HashMap<MessageId, &Sent> = HashMap::new();
    let mut wrong = vec![];
    for sent in replies {
        let Ok(parsed) = Parsed::parse(sent.message.payload.clone(), 1 << 20) else { continue };
        let Detail::Reply { in_reply_to, outcome, .. } = parsed.header().detail else { continue };
        if outcome == Outcome::Progress || unclaimed.contains(&in_reply_to) {
            continue;
        }
        let first = finals.entry(in_reply_to).or_insert(sent);
        if first.message.payload != sent.message.payload {
            wrong.push(format!("#{} and #{} end one request differently", first.n, sent.n));
        }
    }
    wrong
}

/// The methods of a server at `place`. `pace`: how long the slow ones take at the most.
pub fn router(book: &Book, place: &'static str) -> Router {
    let method = |name: &'static str, pause: fn(u32) -> u64| {
        let book = book.clone();
        let handler = move |context: Context, n: u32| {
            let book = book.clone();
            async move {
                let value = book.run(n, name, place, &context);
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(pause(n))).await;
                Ok(value)
            }
        };
        Method::new(name, handler).open_to_agents().open_to_components()
    };
    Router::new()
        .with(method("count", |_| 0))
        .with(method("slow", |n| u64::from(n % 5) * 500))
        .with(method("again", |n| u64::from(n % 3) * 400).idempotent())
        .with(method("read", |_| 0).read_only())
        .with(method("tell", |_| 0))
        .with(steps(book, place))
}

/// Reports five times, then gives its value.
fn steps(book: &Book, place: &'static str) -> Method {
    let book = book.clone();
    let handler = move |context: Context, n: u32| {
        let book = book.clone();
        async move {
            let value = book.run(n, "steps", place, &context);
            for step in 0..5u32 {
                // A connection that is gone takes no reports.
                context.progress(&(n, step)).await.ok();
                tokio::time::sleep(Duration::from_millis(u64::from(n % 4) * 20)).await;
            }
            Ok(value)
        }
    };
    Method::new("steps", handler).open_to_agents().open_to_components()
}
