//! Keeping others from working.

use std::time::Instant;

use bulla_rpc::{Clock, Target};
use bulla_seal::mutants::Check;
use bulla_seal::{MessageKind, Offer, OsRandom, Random, RequestBody};
use bulla_transport::ReplyName;
use bytes::Bytes;

use super::posing::make_method;
use super::{ALL, BOTH, CALLS, DIRECT, FANOUT, NONE, PAIR, REQUESTS, play};
use crate::bus::Bus;
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::{Parts, flip};
use crate::world::{Expected, Peer, PeerOptions, Sent, Stage, World, intruder_body};

/// What a bucket of `rate` a second, full at first, gives out since `begun`, and a little more.
fn allowance(rate: f64, begun: Instant) -> u64 {
    let allowed = rate * (1.05 + begun.elapsed().as_secs_f64() * 1.05) + 20.0;
    allowed as u64
}

/// Messages of a flood.
const FLOOD: usize = 2000;
/// What the flooded component does for strangers, a second.
const RATE: f64 = 50.0;

/// A component that does little for strangers.
async fn limited(world: &World) -> Result<Peer, Trouble> {
    let mut settings = world.settings.clone();
    settings.endpoint.offers_per_second = RATE as u32;
    settings.endpoint.lookups_per_second = RATE as u32;
    let victim = world.other_component_with(&settings).await?;
    world.serve(&victim, &PeerOptions::default()).await?;
    Ok(victim)
}

/// How many messages a flood has: a broker carries fewer in the same time.
fn flood(world: &World, memory: usize, broker: usize) -> usize {
    match world.bus {
        Bus::Memory(_) => memory,
        Bus::Rabbit(_) => broker,
    }
}

pub(super) const UNKNOWN_KIDS: Row = Row {
    id: "D01-unknown-key-ids",
    tries: "flood the control plane with messages that name key ids which nobody has",
    incident: "class: look-up amplification (each forged message a query to the database)",
    expected: "look-ups bounded by rate, each message refused",
    kinds: DIRECT,
    other_kinds: "fanouts carry their credential",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::LookupRate]],
    run: play!(unknown_kids),
};

async fn unknown_kids(world: Stage) -> Result<Seen, Trouble> {
    let victim = limited(&world).await?;
    let now = world.clock.now();
    let own = world.mallory.session(&victim, &world, now)?;
    let parts = Parts::of(&make_method(&world, &own, now, "work")?)?;
    let mut head = parts.head()?;
    let (begun, before) = (Instant::now(), victim.directory.lookups());
    let mark = world.mark(&victim);
    let mut random = OsRandom::default();
    for _ in 0..FLOOD {
        let mut kid = [0; 8];
        random.fill(&mut kid)?;
        head.handle = kid.to_vec();
        let forged = Parts { offer: None, ..parts.with_head(&head) };
        world.inject(&world.address_of(&victim.keys), forged.frame()).await?;
    }
    let seen = world.judge(&mark, &victim, Expected::any(FLOOD as u64)).await?;
    let asked = victim.directory.lookups() - before;
    if asked > allowance(RATE, begun) {
        return Ok(Seen::GotThrough(format!("{asked} look-ups for {FLOOD} messages")));
    }
    Ok(seen)
}

pub(super) const FORGED_OFFERS: Row = Row {
    id: "D02-forged-offers",
    tries: "flood the control plane with offers whose signatures are wrong",
    incident: "class: asymmetric work on demand (TLS handshake floods, CVE-2002-20001 D(HE)at)",
    expected: "verifications bounded by rate; a known sender still opens a session",
    kinds: DIRECT,
    other_kinds: "fanouts and replies carry no offer",
    keys: PAIR,
    other_key: "shared keys need no offer",
    red: &[&[Check::OfferRate]],
    run: play!(forged_offers),
};

async fn forged_offers(world: Stage) -> Result<Seen, Trouble> {
    let victim = limited(&world).await?;
    // Known to the victim from before.
    let target = Target::Principal(victim.keys.party.principal.clone());
    world.agent.call(&target, "health", 7).await??;
    let now = world.clock.now();
    let own = world.mallory.session(&victim, &world, now)?;
    let parts = Parts::of(&make_method(&world, &own, now, "work")?)?;
    let offer = parts.offer.clone().ok_or_else(|| Trouble::new("no offer"))?;
    let mut head = parts.head()?;
    let (mark, begun) = (world.mark(&victim), Instant::now());
    for n in 0..FLOOD {
        // Another signature is another offer, and another session.
        let end = offer.len() * 8 - 1;
        let offer = flip(&flip(&offer, end - n % 256), end - 256 - n / 256);
        head.handle = Offer::parse(&offer)?.session_id().as_bytes().to_vec();
        let forged = Parts { offer: Some(offer.to_vec()), ..parts.with_head(&head) };
        world.inject(&world.address_of(&victim.keys), forged.frame()).await?;
    }
    let seen = world.judge(&mark, &victim, Expected::any(FLOOD as u64)).await?;
    let verified = victim.endpoint.counters().refused_by_name("signature-invalid");
    if verified - mark.refused("signature-invalid") > allowance(RATE, begun) {
        return Ok(Seen::GotThrough(format!("{verified} signatures verified")));
    }
    // A part is kept for those that were here before.
    let fresh = world.agent.again(None)?;
    if let Err(error) = fresh.call(&target, "health", 7).await? {
        return Ok(Seen::GotThrough(format!("no new session for a known sender: {error}")));
    }
    Ok(seen)
}

pub(super) const HOARDING: Row = Row {
    id: "D03-session-hoarding",
    tries: "as one agent, open hundreds of sessions, each with an offer of its own",
    incident: "class: resource exhaustion by a proven client",
    expected: "openings bounded by rate, others' sessions stay",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies open nothing",
    keys: PAIR,
    other_key: "a pair key is one session",
    red: &[&[Check::SenderRate]],
    run: play!(hoarding),
};

async fn hoarding(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let count = flood(&world, 600, 300);
    let mut forged = Vec::with_capacity(count);
    for _ in 0..count {
        let own = world.mallory.session(&world.control, &world, now)?;
        forged.push(make_method(&world, &own, now, "health")?);
    }
    let counters = world.control.endpoint.counters();
    let (begun, before) = (Instant::now(), counters.offers.get());
    let mark = world.mark(&world.control);
    for payload in forged {
        world.inject(&world.address_of(&world.control.keys), payload).await?;
    }
    let opened = || counters.offers.get() - before;
    let limited = || counters.refused_by_name("rate-limited") - mark.refused("rate-limited");
    world.until(|| opened() + limited() >= count as u64).await;
    if opened() > allowance(100.0, begun) {
        return Ok(Seen::GotThrough(format!("{} sessions opened", opened())));
    }
    let limited = limited();
    let expected = Expected::any(limited).answers(count);
    world.judge(&mark, &world.control, expected).await
}

pub(super) const NOTICES: Row = Row {
    id: "D04-notice-amplification",
    tries: "send an agent hundreds of calls in sessions that it does not know, each asking for a notice",
    incident: "class: reflection and amplification",
    expected: "notices bounded by rate",
    kinds: CALLS,
    other_kinds: "only calls are noticed",
    keys: PAIR,
    other_key: "shared keys need no offer",
    red: &[&[Check::NoticeRate]],
    run: play!(notices),
};

async fn notices(world: Stage) -> Result<Seen, Trouble> {
    let hint = super::reading::hint_of(&world)?;
    let (sent, begun) = stray_calls(&world, 500, &hint).await?;
    let notices = notices_since(&world, &sent).await;
    if notices as u64 > allowance(50.0, begun) {
        return Ok(Seen::GotThrough(format!("{notices} notices for 500 messages")));
    }
    let expected = Expected::refused("session-unknown", 500).answers(500);
    world.judge(&sent, &world.agent, expected).await
}

async fn stray_calls(
    world: &World,
    count: usize,
    hint: &ReplyName,
) -> Result<(crate::world::Mark, Instant), Trouble> {
    let taken = world.take().await?;
    taken.call.inspect(|call| call.abort());
    let parts = Parts::of(&taken.sent.payload)?;
    let mut head = parts.head()?;
    let (mark, begun) = (world.mark(&world.agent), Instant::now());
    let mut random = OsRandom::default();
    for _ in 0..count {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        head.handle = id.to_vec();
        random.fill(&mut id)?;
        head.id = id.to_vec();
        let payload = Parts { offer: None, ..parts.with_head(&head) }.frame();
        let sent = Sent { to: taken.sent.to.clone(), payload, hint: Some(hint.clone()) };
        world.inject_with(&sent).await?;
    }
    Ok((mark, begun))
}

async fn notices_since(world: &World, mark: &crate::world::Mark) -> usize {
    let counters = world.agent.endpoint.counters();
    let before = mark.refused("session-unknown");
    world.until(|| counters.refused_by_name("session-unknown") >= before + 500).await;
    tokio::time::sleep(world.moment()).await;
    world.agent.hand.since(mark.sent()).iter().filter(|sent| sent.is_reply()).count()
}

pub(super) const NOTICE_REDIRECT: Row = Row {
    id: "D05-notice-redirected",
    tries: "have an agent's notices sent to somebody who asked for none",
    incident: "class: reflection into a third party's queue",
    expected: "no notice",
    kinds: CALLS,
    other_kinds: "only calls are noticed",
    keys: PAIR,
    other_key: "shared keys need no offer",
    red: &[&[Check::NoticeNameSpace]],
    run: play!(notice_redirect),
};

async fn notice_redirect(world: Stage) -> Result<Seen, Trouble> {
    let victim = ReplyName::new(world.mallory.keys.name(), "ffff");
    let victim = victim.ok_or_else(|| Trouble::new("no such name"))?;
    let (mark, _) = stray_calls(&world, 5, &victim).await?;
    world.judge(&mark, &world.agent, Expected::refused("session-unknown", 5)).await
}

pub(super) const OVERSIZED: Row = Row {
    id: "D06-oversized",
    tries: "as one agent, send a message larger than is taken",
    incident: "class: memory exhaustion by size (oslo.messaging takes what the broker carries, up to 128 MiB)",
    expected: "too-large",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; the same limit is on the reply queue",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::FrameSize]],
    run: play!(oversized),
};

async fn oversized(world: Stage) -> Result<Seen, Trouble> {
    let size = u32::try_from(world.settings.endpoint.max_message)?.to_be_bytes();
    let mut args = [&[0x7a][..], &size].concat();
    args.resize(args.len() + world.settings.endpoint.max_message, b'a');
    authored(&world, &args, "too-large").await
}

/// A message of the intruder's agent, sealed as it should be, with these arguments.
async fn authored(world: &World, args: &[u8], name: &'static str) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, world, now)?;
    let kind = if world.cell.kind == Kind::Call { MessageKind::Call } else { MessageKind::Cast };
    let body: RequestBody<'_> = intruder_body("work", args);
    let payload = world.seal(&own, kind, &body, now, 60)?.bytes().clone();
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), payload).await?;
    world.judge(&mark, &world.control, Expected::refused(name, 1)).await
}

pub(super) const NESTED: Row = Row {
    id: "D07-deeply-nested",
    tries: "as one agent, seal arguments that are nested two hundred deep",
    incident: "class: stack exhaustion in recursive parsers (CVE-2020-11080, CVE-2024-36129 and their kind)",
    expected: "malformed",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are read alike",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Nesting]],
    run: play!(nested),
};

async fn nested(world: Stage) -> Result<Seen, Trouble> {
    let mut args = vec![0x81; 200];
    args.push(0);
    authored(&world, &args, "malformed").await
}

pub(super) const BOMBS: Row = Row {
    id: "D08-length-and-compression-bombs",
    tries: "send heads that claim sixteen exabytes, billions of items or a compressed gigabyte",
    incident: "class: allocation by an attacker's number (CVE-2022-41717), compression bombs",
    expected: "malformed, no memory taken",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Lengths]],
    run: play!(bombs),
};

async fn bombs(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let huge = [0xff; 8];
    let bombs: Vec<Bytes> = [
        [&[0x84, 0x01, 0xd0, 0x83, 0x5b][..], &huge].concat(),
        [&[0x84, 0x01, 0x82, 0xd0, 0x83, 0x5b][..], &huge].concat(),
        [&[0x84, 0x01, 0xd0, 0x83, 0x5a, 0x7f, 0xff, 0xff, 0xff][..], &[0; 64]].concat(),
        [&[0x9b][..], &huge].concat(),
        [&[0xbb][..], &huge].concat(),
        [&[0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff][..], &[0x42; 64]].concat(),
        vec![0x81; 5000],
        vec![0x9f; 5000],
    ]
    .into_iter()
    .map(Bytes::from)
    .collect();
    let forged: Vec<_> = std::iter::repeat_n(bombs, 16).flatten().collect();
    let (count, before) = (forged.len() as u64, address_space());
    let expected = Expected::refused("malformed", count);
    let seen = super::altering::refuse(&world, taken, forged, expected).await?;
    let taken = address_space().saturating_sub(before);
    if taken > 1 << 20 {
        return Ok(Seen::GotThrough(format!("{} MiB of address space", taken / 1024)));
    }
    Ok(seen)
}

/// KiB of address space that this process has.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

pub(super) const POISON: Row = Row {
    id: "D09-poison-message",
    tries: "send bytes that nothing can be made of, and see whether they come back for ever",
    incident: "Trove and oslo.messaging: a body that does not decode stays unacknowledged and comes back after every restart",
    expected: "malformed once, and gone",
    kinds: REQUESTS,
    other_kinds: "a reply queue is its caller's own and goes with it",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::RefusedGone]],
    run: play!(poison),
};

async fn poison(world: Stage) -> Result<Seen, Trouble> {
    let mark = world.mark(&world.agent);
    world.inject(&world.address(), Bytes::from_static(b"\x80\x04pickled poison")).await?;
    let counters = world.agent.endpoint.counters();
    let came = || counters.refused_by_name("malformed") - mark.refused("malformed");
    world.until(|| came() > 0).await;
    tokio::time::sleep(world.moment() * 5).await;
    if came() > 1 {
        return Ok(Seen::GotThrough(format!("it came back {} times", came() - 1)));
    }
    world.judge(&mark, &world.agent, Expected::refused("malformed", 1)).await
}

pub(super) const HELD: Row = Row {
    id: "D10-copies-of-what-runs",
    tries: "as one agent, send a thousand copies of a message while it runs, so that all are held and nobody else is served",
    incident: "class: head-of-line blocking by unacknowledged messages (prefetch exhaustion)",
    expected: "runs once; honest calls are served meanwhile",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are not held",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::HeldCopies]],
    run: play!(held),
};

async fn held(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, &world, now)?;
    let payload = make_method(&world, &own, now, "slow")?;
    let mark = world.mark(&world.control);
    let to = world.address_of(&world.control.keys);
    let copies = usize::from(world.settings.endpoint.queues.prefetch) + 500;
    for _ in 0..copies {
        world.inject(&to, payload.clone()).await?;
    }
    world.ledger.wait(mark.ran() + 1).await?;
    let target = Target::Principal(world.control.keys.party.principal.clone());
    let honest = world.agent.call(&target, "health", 7);
    if !world.until(|| honest.is_finished()).await {
        honest.abort();
        return Ok(Seen::GotThrough("an honest call was not served".to_owned()));
    }
    honest.await??;
    world.ledger.finish();
    world.judge(&mark, &world.control, Expected::nothing().runs(1).answers(usize::MAX)).await
}

pub(super) const GAP: Row = Row {
    id: "D11-withheld-fanout",
    tries: "hold a fanout back and let the next pass, so that a member misses an order and nobody knows",
    incident: "class: silent loss; a broker may drop what it likes",
    expected: "the gap is counted",
    kinds: FANOUT,
    other_kinds: "a withheld call ends by its timeout, a cast is not noticed by itself",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::FanoutGap]],
    run: play!(gap),
};

async fn gap(world: Stage) -> Result<Seen, Trouble> {
    world.take().await?;
    let counters = world.agent.endpoint.counters();
    let (mark, before) = (world.mark(&world.agent), counters.gaps.get());
    world.control.fanout(&world.group.group, "work", world.number()).await?;
    world.ledger.wait(mark.ran() + 1).await?;
    let gaps = counters.gaps.get() - before;
    match world.judge(&mark, &world.agent, Expected::nothing().runs(1)).await? {
        Seen::Held(_) if gaps == 1 => Ok(Seen::Held("a gap of 1 was counted".to_owned())),
        Seen::Held(_) => Ok(Seen::GotThrough(format!("{gaps} gaps counted"))),
        other => Ok(other),
    }
}
