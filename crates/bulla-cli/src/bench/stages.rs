//! What the steps of a sealed call take, each alone in a loop: what a call takes beside them is RPC,
//! runtime and bus.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_guard::{
    ClaimKey, ClaimOutcome, ClaimRequest, Completion, MemoryClaims, Scope, StoreOptions, Worker,
};
use bulla_rpc::{Clock, SystemClock, value};
use bulla_seal::{
    Audience, Digest, Expected, Hedge, Kid, MAX_FRAME, MessageBuf, MessageId, MessageKind, Outcome,
    Parsed, Party, Principal, Protection, ReplySpec, RequestBody, RequestSpec, Route, Secret,
    UnixTime, shared,
};
use bytes::BytesMut;
use rustix::time::ClockId;
use serde::Serialize;

use super::BenchError;
use super::lane::{Echo, METHOD};
use super::threads::since_start;

/// How long each step runs.
const LENGTH: Duration = Duration::from_millis(40);
/// Steps between two looks at the clock.
const BATCH: u32 = 32;

/// Nanoseconds of processor time of each step.
#[derive(Debug, Serialize)]
pub(super) struct Stages {
    pub(super) size: usize,
    pub(super) steps: [(&'static str, f64); 6],
}

pub(super) const STEPS: [&str; 6] =
    ["encode, decode", "seal request", "open request", "claim", "seal reply", "open reply"];
pub(super) const HEAD: [&str; 7] = {
    let [a, b, c, d, e, f] = STEPS;
    ["size", a, b, c, d, e, f]
};

impl Stages {
    pub(super) fn row(&self) -> Vec<String> {
        let steps = self.steps.iter().map(|(_, ns)| format!("{ns:.0}"));
        std::iter::once(super::report::size(self.size)).chain(steps).collect()
    }
}

/// Measures with a request and a reply whose text has `size` bytes.
pub(super) fn measure(size: usize) -> Result<Stages, BenchError> {
    let refused = BenchError::Refused;
    let broken = |_| BenchError::Broken("a step that fails");
    let caller = Party::new(Principal::component("control")?, 1);
    let agent = Party::new(Principal::agent("db-1")?, 1);
    let session = Arc::new(shared::session(
        Kid([7; 8]),
        &Secret::new([5; 32]),
        caller.clone(),
        agent.clone(),
    ));
    let audience = Audience::Party(agent.clone());
    let route = Route::new("bulla", "agent.db-1", None, audience)
        .map_err(|_| BenchError::Broken("a route"))?;
    let now = SystemClock.now();
    let hedge = Hedge { random: [1; 16], now, counter: 1, boot: [2; 16] };
    let spec = RequestSpec {
        kind: MessageKind::Call,
        route: &route,
        expires: now.secs() + 60,
        protection: Protection::Sealed,
    };
    let echo = Echo::of_size(size);
    let encoded = value::to_vec(&echo)?;
    let request = session.seal_request(&spec, &hedge, plaintext(&encoded)).map_err(broken)?;
    let request = request.into_frame(None).bytes().clone();
    let expected = Expected::new(&route, now);
    let parse = |frame: &[u8]| Parsed::parse(BytesMut::from(frame), MAX_FRAME);
    let opened = session.open_request(parse(&request)?, &expected).map_err(refused)?;
    let binding = opened.reply_binding();
    let of = ReplySpec { outcome: Outcome::Value, index: 0 };
    let reply = session.seal_reply(&binding, of, &hedge, MessageBuf::from_plaintext(&encoded));
    let reply = reply.map_err(broken)?.into_frame(None).bytes().clone();
    let times = [
        each(|| {
            let encoded = value::to_vec(&echo)?;
            black_box(value::decode::<Echo>(&encoded)?);
            Ok(())
        })?,
        each(|| {
            let sealed =
                session.seal_request(&spec, &hedge, plaintext(&encoded)).map_err(broken)?;
            black_box(sealed.into_frame(None));
            Ok(())
        })?,
        each(|| {
            black_box(session.open_request(parse(&request)?, &expected)?);
            Ok(())
        })?,
        claim(&caller, &agent, now)?,
        each(|| {
            let buf = MessageBuf::from_plaintext(&encoded);
            let sealed = session.seal_reply(&binding, of, &hedge, buf).map_err(broken)?;
            black_box(sealed.into_frame(None));
            Ok(())
        })?,
        each(|| {
            black_box(session.open_reply(parse(&reply)?, &binding)?);
            Ok(())
        })?,
    ];
    // Both ends encode, and both decode.
    let [codec, rest @ ..] = times;
    let [b, c, d, e, f] = rest;
    let ns = [codec * 2.0, b, c, d, e, f];
    let mut steps = STEPS.map(|name| (name, 0.0));
    steps.iter_mut().zip(ns).for_each(|((_, to), ns)| *to = ns);
    Ok(Stages { size, steps })
}

fn plaintext(args: &[u8]) -> MessageBuf {
    let body = RequestBody {
        namespace: None,
        method: METHOD,
        version: "1.0",
        args,
        context: None,
        trace_parent: None,
        reply_to: Some("component.control.bench"),
    };
    let mut buf = MessageBuf::with_capacity(args.len() + 128);
    body.write(buf.sink());
    buf
}

fn claim(caller: &Party, agent: &Party, now: UnixTime) -> Result<f64, BenchError> {
    let store = MemoryClaims::for_new_bus(StoreOptions::default());
    let (scope, now_ms) = (Scope::shared(agent, "agent.db-1"), now.ns / 1_000_000);
    let mut number = 0u128;
    each(|| {
        number += 1;
        let id = MessageId(number.to_be_bytes());
        let key = ClaimKey::new(scope.clone(), caller.clone(), id);
        let request = ClaimRequest {
            key: key.clone(),
            digest: Digest([7; Digest::LEN]),
            iat: now.secs(),
            exp: now.secs() + 60,
            idempotent: false,
            worker: Worker(1),
            now_ms,
            lease_ms: 30_000,
            envelope: None,
        };
        let ClaimOutcome::Granted(grant) = store.try_claim(&request) else {
            return Err(BenchError::Broken("a claim that is not granted"));
        };
        store.try_complete(&key, grant, Completion::Done { reply: None });
        Ok(())
    })
}

/// Nanoseconds of processor time of one `step`.
fn each(mut step: impl FnMut() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let mut least = f64::INFINITY;
    let end = Instant::now() + LENGTH;
    while Instant::now() < end {
        let before = since_start(ClockId::ThreadCPUTime);
        for _ in 0..BATCH {
            step()?;
        }
        let spent = since_start(ClockId::ThreadCPUTime) - before;
        least = least.min(spent.as_nanos() as f64 / f64::from(BATCH));
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs_and_takes_something() {
        let stages = measure(1024).unwrap();
        assert!(stages.steps.iter().all(|(_, ns)| *ns > 0.0 && ns.is_finite()), "{stages:?}");
    }
}
