//! What every claim store must do. A store's tests call [`run`] and [`agrees_with_memory`] with a
//! way to open fresh stores.

mod differential;

use std::sync::Arc;

use bulla_seal::{Digest, MessageId, Party, Principal};
use bytes::Bytes;

use crate::claim::Limits;
use crate::key::{ClaimKey, Scope, Worker};
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Duplicate, Grant, Lost, Refused,
    Reply, StoreError, StoreOptions, SweepRequest,
};

pub use differential::agrees_with_memory;

/// A time to start from, in Unix milliseconds.
pub const NOW_MS: u64 = 1_800_000_000_000;
/// The same in Unix seconds.
pub const NOW_S: u64 = NOW_MS / 1000;
/// The lease that the requests of this module ask for.
pub const LEASE_MS: u64 = 30_000;
/// The first of two workers.
pub const ALICE: Worker = Worker(0xa11ce);
/// The other.
pub const BOB: Worker = Worker(0xb0b);

type Checked = Result<(), StoreError>;

/// Runs every check, each on a store of its own from `fresh`, which must take everything
/// (nothing counted as lost).
///
/// # Panics
/// When the store does not conform.
pub async fn run<F>(fresh: impl Fn(StoreOptions) -> F) -> Checked
where
    F: Future<Output = Result<Arc<dyn ClaimStore>, StoreError>>,
{
    let options = StoreOptions::default();
    done_is_answered_again(&*fresh(options).await?).await?;
    casts_have_no_reply(&*fresh(options).await?).await?;
    another_digest_is_a_conflict(&*fresh(options).await?).await?;
    keys_differ_by_every_part(&*fresh(options).await?).await?;
    lease_over_is_taken_over_if_idempotent(&*fresh(options).await?).await?;
    lease_over_is_in_doubt_otherwise(&*fresh(options).await?).await?;
    old_workers_change_nothing(&*fresh(options).await?).await?;
    leases_are_extended(&*fresh(options).await?).await?;
    sweeper_settles_leases(&*fresh(options).await?).await?;
    purged_ids_are_refused(&*fresh(options).await?).await?;
    ids_are_never_purged_early(&*fresh(options).await?).await?;
    senders_have_quotas(&fresh).await?;
    places_come_back(&fresh).await?;
    replies_have_a_budget(&fresh).await?;
    a_lost_store_is_blind(&*fresh(options).await?).await?;
    one_claimer_wins(fresh(options).await?).await
}

/// A request number `n` of `agent/a` for a shared queue, not idempotent, by [`ALICE`] at
/// [`NOW_MS`].
pub fn request(n: u128) -> ClaimRequest {
    ClaimRequest {
        key: key("agent/a", n),
        digest: digest(n),
        iat: NOW_S,
        exp: NOW_S + 60,
        idempotent: false,
        worker: ALICE,
        now_ms: NOW_MS,
        lease_ms: LEASE_MS,
        envelope: None,
    }
}

/// A key for `component/control`'s shared queue.
pub fn key(sender: &str, n: u128) -> ClaimKey {
    let scope = Scope::shared(&party("component/control"), "control");
    ClaimKey::new(scope, party(sender), MessageId(n.to_be_bytes()))
}

/// A digest unlike those of other numbers.
pub fn digest(n: u128) -> Digest {
    let mut bytes = [0x5a; Digest::LEN];
    for (to, from) in bytes.iter_mut().zip(n.to_be_bytes()) {
        *to = from;
    }
    Digest(bytes)
}

/// A reply of a few bytes.
pub fn reply(text: &'static str) -> Reply {
    Reply::new(Bytes::from_static(text.as_bytes()))
}

/// A completion with that reply.
pub fn done(text: &'static str) -> Completion {
    Completion::Done { reply: Some(reply(text)) }
}

fn party(name: &str) -> Party {
    match name.parse::<Principal>() {
        Ok(principal) => Party::new(principal, 1),
        Err(error) => unreachable!("{error}"),
    }
}

/// Claims, and must be granted.
///
/// # Panics
/// When the claim is not granted.
pub async fn granted(store: &dyn ClaimStore, request: &ClaimRequest) -> Result<Grant, StoreError> {
    match store.claim(request.clone()).await? {
        ClaimOutcome::Granted(grant) => Ok(grant),
        other => unreachable!("expected a grant, got {other:?}"),
    }
}

fn sweep_at(now_ms: u64) -> SweepRequest {
    SweepRequest { now_ms, worker: BOB, lease_ms: LEASE_MS }
}

fn held(until_ms: u64) -> ClaimOutcome {
    Duplicate::Held { until_ms }.into()
}

fn answered(text: &'static str) -> ClaimOutcome {
    Duplicate::Done { reply: Some(reply(text)) }.into()
}

fn refused(reason: Refused) -> ClaimOutcome {
    ClaimOutcome::Refused(reason)
}

async fn done_is_answered_again(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let grant = granted(store, &first).await?;
    assert_eq!(grant, Grant { worker: ALICE, attempt: 1, until_ms: NOW_MS + LEASE_MS });
    let second = ClaimRequest { worker: BOB, now_ms: NOW_MS + 5, ..first.clone() };
    assert_eq!(store.claim(first.clone()).await?, held(grant.until_ms), "even to its own worker");
    assert_eq!(store.claim(second.clone()).await?, held(grant.until_ms));
    assert_eq!(store.complete(&first.key, grant, done("sealed")).await?, Completed::Stored);
    assert_eq!(store.claim(second.clone()).await?, answered("sealed"));
    let late = ClaimRequest { now_ms: NOW_MS + LEASE_MS * 10, ..second };
    assert_eq!(store.claim(late).await?, answered("sealed"));
    let stats = store.stats().await?;
    assert_eq!((stats.entries, stats.in_flight, stats.granted, stats.duplicates), (1, 0, 1, 4));
    assert_eq!(stats.reply_bytes, 6);
    Ok(())
}

async fn casts_have_no_reply(store: &dyn ClaimStore) -> Checked {
    let cast = request(1);
    let grant = granted(store, &cast).await?;
    store.complete(&cast.key, grant, Completion::Done { reply: None }).await?;
    assert_eq!(store.claim(cast).await?, Duplicate::Done { reply: None }.into());
    Ok(())
}

async fn another_digest_is_a_conflict(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let other = ClaimRequest { digest: digest(2), ..first.clone() };
    let grant = granted(store, &first).await?;
    assert_eq!(store.claim(other.clone()).await?, refused(Refused::IdConflict));
    store.complete(&first.key, grant, done("x")).await?;
    assert_eq!(store.claim(other).await?, refused(Refused::IdConflict));
    assert_eq!(store.claim(first).await?, answered("x"), "the conflict changed nothing");
    assert_eq!(store.stats().await?.refused(Refused::IdConflict), 2);
    Ok(())
}

async fn keys_differ_by_every_part(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    granted(store, &first).await?;
    let mut keys = vec![key("agent/a", 2), key("agent/b", 1), first.key.clone(), first.key.clone()];
    if let [.., reborn, elsewhere] = keys.as_mut_slice() {
        reborn.sender.incarnation = 2;
        elsewhere.scope = Scope::server(&party("component/control"), "control", "host-1");
    }
    for key in keys {
        granted(store, &ClaimRequest { key, ..first.clone() }).await?;
    }
    assert_eq!(store.len().await?, 5);
    assert_eq!(store.held_by(&party("agent/a")).await?, 3);
    assert_eq!(store.stats().await?.senders, 3);
    Ok(())
}

async fn lease_over_is_taken_over_if_idempotent(store: &dyn ClaimStore) -> Checked {
    let first = ClaimRequest { idempotent: true, ..request(1) };
    let alice = granted(store, &first).await?;
    let just_before = ClaimRequest { worker: BOB, now_ms: alice.until_ms - 1, ..first.clone() };
    assert_eq!(store.claim(just_before).await?, held(alice.until_ms));
    let after = ClaimRequest { worker: BOB, now_ms: alice.until_ms, ..first.clone() };
    let bob = granted(store, &after).await?;
    assert_eq!((bob.worker, bob.attempt), (BOB, 2));
    assert_eq!(
        store.complete(&first.key, alice, done("old")).await?,
        Completed::Lost(Lost::TakenOver)
    );
    assert_eq!(store.complete(&first.key, bob, done("new")).await?, Completed::Stored);
    assert_eq!(store.claim(first).await?, answered("new"));
    assert_eq!(store.stats().await?.taken_over, 1);
    // Declared idempotent only after the first run began: that run may not have been.
    let plain = request(2);
    granted(store, &plain).await?;
    let later = ClaimRequest { idempotent: true, now_ms: NOW_MS + LEASE_MS, ..plain };
    assert_eq!(store.claim(later).await?, Duplicate::InDoubt { error: None }.into());
    Ok(())
}

async fn lease_over_is_in_doubt_otherwise(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let grant = granted(store, &first).await?;
    let after = ClaimRequest { worker: BOB, now_ms: grant.until_ms, ..first.clone() };
    assert_eq!(store.claim(after.clone()).await?, Duplicate::InDoubt { error: None }.into());
    assert_eq!(
        store.complete(&first.key, grant, done("late")).await?,
        Completed::Lost(Lost::InDoubt)
    );
    let error = reply("unknown");
    let stored = store.answer_in_doubt(&first.key, error.clone()).await?;
    assert_eq!(stored.as_ref(), Some(&error));
    let stored = store.answer_in_doubt(&first.key, reply("another")).await?;
    assert_eq!(stored.as_ref(), Some(&error), "the first error stays");
    let again = store.claim(after).await?;
    assert_eq!(again, Duplicate::InDoubt { error: Some(error) }.into());
    assert_eq!(store.stats().await?.in_doubt, 1);
    Ok(())
}

async fn old_workers_change_nothing(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let unknown = Grant { worker: ALICE, attempt: 1, until_ms: 0 };
    assert_eq!(
        store.complete(&first.key, unknown, done("x")).await?,
        Completed::Lost(Lost::Unknown)
    );
    assert_eq!(store.answer_in_doubt(&first.key, reply("x")).await?, None);
    let grant = granted(store, &first).await?;
    for wrong in [Grant { worker: BOB, ..grant }, Grant { attempt: 2, ..grant }] {
        let completed = store.complete(&first.key, wrong, done("x")).await?;
        assert_eq!(completed, Completed::Lost(Lost::TakenOver));
        let extended = store.extend(&first.key, wrong, u64::MAX / 2).await?;
        assert_eq!(extended, Err(Lost::TakenOver));
    }
    assert_eq!(store.answer_in_doubt(&first.key, reply("x")).await?, None);
    assert_eq!(store.complete(&first.key, grant, done("mine")).await?, Completed::Stored);
    let again = store.complete(&first.key, grant, done("twice")).await?;
    assert_eq!(again, Completed::Lost(Lost::Done));
    assert_eq!(store.claim(first).await?, answered("mine"));
    assert_eq!(store.stats().await?.lost, 4);
    Ok(())
}

async fn leases_are_extended(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let grant = granted(store, &first).await?;
    let longer = Grant { until_ms: grant.until_ms + 1000, ..grant };
    assert_eq!(store.extend(&first.key, grant, longer.until_ms).await?, Ok(longer));
    assert_eq!(store.extend(&first.key, grant, 0).await?, Ok(longer), "never shortened");
    let after = ClaimRequest { worker: BOB, now_ms: grant.until_ms, ..first.clone() };
    assert_eq!(store.claim(after).await?, held(longer.until_ms));
    assert_eq!(store.complete(&first.key, grant, done("x")).await?, Completed::Stored);
    assert_eq!(store.extend(&first.key, grant, u64::MAX / 2).await?, Err(Lost::Done));
    Ok(())
}

async fn sweeper_settles_leases(store: &dyn ClaimStore) -> Checked {
    let envelope = Some(Bytes::from_static(b"envelope"));
    let plain = ClaimRequest { envelope: envelope.clone(), ..request(1) };
    let again = ClaimRequest { idempotent: true, envelope: envelope.clone(), ..request(2) };
    let bare = ClaimRequest { idempotent: true, ..request(3) };
    for each in [&plain, &again, &bare] {
        granted(store, each).await?;
    }
    let early = store.sweep(sweep_at(NOW_MS + LEASE_MS - 1)).await?;
    assert!(early.in_doubt.is_empty() && early.taken_over.is_empty());
    let now_ms = NOW_MS + LEASE_MS;
    let swept = store.sweep(sweep_at(now_ms)).await?;
    let in_doubt: Vec<_> = swept.in_doubt.iter().map(|x| (&x.key, &x.envelope)).collect();
    assert_eq!(in_doubt, [(&plain.key, &envelope)]);
    let expected = Grant { worker: BOB, attempt: 2, until_ms: now_ms + LEASE_MS };
    let taken: Vec<_> =
        swept.taken_over.iter().map(|(x, grant)| (&x.key, &x.envelope, *grant)).collect();
    assert_eq!(taken, [(&again.key, &envelope, expected)]);
    assert_eq!(store.complete(&again.key, expected, done("x")).await?, Completed::Stored);
    // Without its envelope only a redelivery can run it again.
    let redelivered = ClaimRequest { worker: BOB, now_ms, ..bare };
    assert_eq!(granted(store, &redelivered).await?.attempt, 2);
    let stats = store.stats().await?;
    assert_eq!((stats.in_doubt, stats.taken_over, stats.in_flight), (1, 2, 1));
    Ok(())
}

/// Long enough after `exp` for every store to have forgotten it.
fn well_after(exp: u64) -> u64 {
    (exp + 120 + 60) * 1000
}

async fn purged_ids_are_refused(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let grant = granted(store, &first).await?;
    store.complete(&first.key, grant, done("sealed")).await?;
    let swept = store.sweep(sweep_at(well_after(first.exp))).await?;
    assert_eq!(swept.purged, 1);
    let stats = store.stats().await?;
    assert_eq!((stats.entries, stats.senders, stats.reply_bytes), (0, 0, 0));
    assert_eq!((stats.purged_exp, stats.purged), (first.exp, 1));
    // The clock is set back: the mark does not care.
    assert_eq!(store.claim(first.clone()).await?, refused(Refused::Purged));
    let other = ClaimRequest { exp: first.exp, ..request(2) };
    assert_eq!(store.claim(other.clone()).await?, refused(Refused::Purged));
    granted(store, &ClaimRequest { exp: first.exp + 1, ..other }).await?;
    assert_eq!(store.stats().await?.refused(Refused::Purged), 2);
    Ok(())
}

async fn ids_are_never_purged_early(store: &dyn ClaimStore) -> Checked {
    let first = request(1);
    let running = ClaimRequest { lease_ms: 3_600_000, ..request(2) };
    let grant = granted(store, &first).await?;
    store.complete(&first.key, grant, done("sealed")).await?;
    let held_by_alice = granted(store, &running).await?;
    let swept = store.sweep(sweep_at((first.exp + 120) * 1000 + 999)).await?;
    assert_eq!(swept.purged, 0, "expiry and skew are not over");
    assert_eq!(store.claim(first.clone()).await?, answered("sealed"));
    assert_eq!(store.sweep(sweep_at(well_after(first.exp))).await?.purged, 1);
    // What still runs stays, and so does its answer.
    assert_eq!(store.complete(&running.key, held_by_alice, done("slow")).await?, Completed::Stored);
    assert_eq!(store.sweep(sweep_at(held_by_alice.until_ms + 60_000)).await?.purged, 1);
    assert_eq!(store.claim(running).await?, refused(Refused::Purged));
    Ok(())
}

fn small(senders: u64, per_sender: u64, shared: u64, reply_bytes: u64) -> StoreOptions {
    let limits = Limits { senders, per_sender, shared, reply_bytes };
    StoreOptions { limits, ..StoreOptions::default() }
}

async fn senders_have_quotas<F>(fresh: &impl Fn(StoreOptions) -> F) -> Checked
where
    F: Future<Output = Result<Arc<dyn ClaimStore>, StoreError>>,
{
    let store = fresh(small(2, 2, 1, 100)).await?;
    let from = |sender, n| ClaimRequest { key: key(sender, n), ..request(n) };
    for n in 0..3 {
        granted(&*store, &from("agent/a", n)).await?;
    }
    assert_eq!(store.claim(from("agent/a", 3)).await?, refused(Refused::SenderQuota));
    // The flood took what is shared, not what is another's.
    for n in 0..2 {
        granted(&*store, &from("agent/b", n)).await?;
    }
    assert_eq!(store.claim(from("agent/b", 2)).await?, refused(Refused::SenderQuota));
    assert_eq!(store.claim(from("agent/c", 0)).await?, refused(Refused::StoreFull));
    assert_eq!(store.claim(from("agent/a", 0)).await?, held(NOW_MS + LEASE_MS));
    let stats = store.stats().await?;
    assert_eq!((stats.entries, stats.senders), (5, 2));
    assert_eq!(stats.refused(Refused::SenderQuota), 2);
    assert_eq!(stats.refused(Refused::StoreFull), 1);
    Ok(())
}

async fn places_come_back<F>(fresh: &impl Fn(StoreOptions) -> F) -> Checked
where
    F: Future<Output = Result<Arc<dyn ClaimStore>, StoreError>>,
{
    let store = fresh(small(1, 1, 1, 100)).await?;
    let mut first = request(0);
    for round in 0..3u64 {
        let from = |sender, n| ClaimRequest { key: key(sender, n), ..first.clone() };
        granted(&*store, &from("agent/a", 0)).await?;
        granted(&*store, &from("agent/a", 1)).await?;
        let third = store.claim(from("agent/a", 2)).await?;
        assert_eq!(third, refused(Refused::SenderQuota), "round {round}");
        assert_eq!(store.claim(from("agent/b", 0)).await?, refused(Refused::StoreFull));
        let now_ms = well_after(first.exp);
        assert_eq!(store.sweep(sweep_at(now_ms)).await?.purged, 2);
        first = ClaimRequest { now_ms, iat: now_ms / 1000, exp: now_ms / 1000 + 60, ..first };
    }
    granted(&*store, &ClaimRequest { key: key("agent/b", 0), ..first }).await?;
    Ok(())
}

async fn replies_have_a_budget<F>(fresh: &impl Fn(StoreOptions) -> F) -> Checked
where
    F: Future<Output = Result<Arc<dyn ClaimStore>, StoreError>>,
{
    let store = fresh(small(9, 9, 9, 10)).await?;
    for (n, text) in [(0, "sixsix"), (1, "fiver"), (2, "four")] {
        let grant = granted(&*store, &request(n)).await?;
        store.complete(&request(n).key, grant, done(text)).await?;
    }
    assert_eq!(store.claim(request(0)).await?, answered("sixsix"));
    let digest_only = Reply::with_digest(reply("fiver").digest(), None);
    assert_eq!(store.claim(request(1)).await?, Duplicate::Done { reply: Some(digest_only) }.into());
    assert_eq!(store.claim(request(2)).await?, answered("four"));
    let stats = store.stats().await?;
    assert_eq!((stats.reply_bytes, stats.replies_dropped), (10, 1));
    Ok(())
}

async fn a_lost_store_is_blind(store: &dyn ClaimStore) -> Checked {
    let kept = request(1);
    let grant = granted(store, &kept).await?;
    store.complete(&kept.key, grant, done("kept")).await?;
    store.declare_lost(NOW_MS).await?;
    let at = |iat| ClaimRequest { iat, exp: NOW_S + 600, ..request(2) };
    assert_eq!(store.claim(at(NOW_S + 120)).await?, refused(Refused::BeforeStart));
    assert_eq!(store.claim(kept).await?, answered("kept"), "what is known stays known");
    granted(store, &at(NOW_S + 121)).await?;
    let stats = store.stats().await?;
    assert_eq!(stats.blind_until, Some(NOW_S + 120));
    assert_eq!(stats.refused(Refused::BeforeStart), 1);
    Ok(())
}

async fn one_claimer_wins(store: Arc<dyn ClaimStore>) -> Checked {
    for n in 0..8 {
        let claims = (0..64).map(|worker| {
            let store = Arc::clone(&store);
            let request = ClaimRequest { worker: Worker(worker), ..request(n) };
            tokio::spawn(async move { store.claim(request).await })
        });
        let mut winners = 0;
        for claim in claims.collect::<Vec<_>>() {
            match claim.await {
                Ok(outcome) => match outcome? {
                    ClaimOutcome::Granted(_) => winners += 1,
                    other => assert_eq!(other, held(NOW_MS + LEASE_MS)),
                },
                Err(error) => unreachable!("{error}"),
            }
        }
        assert_eq!(winners, 1);
    }
    Ok(())
}
