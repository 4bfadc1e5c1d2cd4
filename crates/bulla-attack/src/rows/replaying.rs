//! Repeating what was said.

use std::time::Duration;

use bulla_seal::mutants::Check;

use bulla_guard::{
    ClaimKey, ClaimRequest, ClaimStore, Limits, MemoryClaims, Scope, StoreOptions, SweepRequest,
    Worker,
};
use bulla_rpc::{Clock, Target};
use bulla_seal::{
    FanoutSigner, FanoutSpec, GroupSession, Hedge, Level, MessageBuf, MessageKind, Outcome, Parsed,
    Protection, ReplyBinding, ReplySpec, RequestSpec, Route, UnixTime,
};

use super::altering::refuse;
use super::posing::make_method;
use super::{ALL, BOTH, DIRECT, NONE, PAIR, REQUESTS, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::{
    Expected, Mark, Peer, PeerOptions, Sent, Stage, Taken, World, hedge, intruder_body,
};

pub(super) const AT_ONCE: Row = Row {
    id: "P01-replay-at-once",
    tries: "publish a message again that just ran, three times",
    incident: "class: replay; Trove keeps the last 16 ids and forgets, plain AMQP keeps none",
    expected: "call: the stored answer, byte-identical; cast and fanout: nothing",
    kinds: REQUESTS,
    other_kinds: "a reply that comes again is R03",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ClaimOnce]],
    run: play!(at_once),
};

/// Lets a message that was kept back run, and gives it out with the mark of before and its answer.
pub(super) async fn run_once(world: &World) -> Result<(Sent, Mark, Option<Sent>), Trouble> {
    run_once_from(world, &world.control).await
}

/// The same, from another sender.
async fn run_once_from(
    world: &World,
    sender: &Peer,
) -> Result<(Sent, Mark, Option<Sent>), Trouble> {
    let Taken { sent, call, .. } = world.take_from(sender, "work").await?;
    let (from, answers) = (world.ledger.count(), world.agent.hand.count());
    world.inject_with(&sent).await?;
    world.ledger.wait(from + 1).await?;
    if let Some(call) = call {
        call.await??;
    }
    let answer = world.agent.hand.since(answers).into_iter().find(Sent::is_reply);
    Ok((sent, world.mark(&world.agent), answer))
}

/// Waits for the answers to `copies` of a message that ran, which must be the stored one.
pub(super) async fn answered_again(
    world: &World,
    mark: &Mark,
    first: Option<&Sent>,
    copies: usize,
) -> Result<Seen, Trouble> {
    let answers = if world.cell.kind == Kind::Call { copies } else { 0 };
    let again = || world.agent.hand.since(mark.sent()).into_iter().filter(Sent::is_reply);
    world.until(|| again().count() >= answers).await;
    let same = |sent: &Sent| first.is_some_and(|first| first.payload == sent.payload);
    let seen = world.judge(mark, &world.agent, Expected::nothing().answers(answers)).await?;
    if !seen.held() {
        return Ok(seen);
    }
    let again: Vec<_> = again().take(answers).collect();
    Ok(match answers {
        0 => Seen::Held("nothing ran, nothing was said".to_owned()),
        _ if again.len() == answers && again.iter().all(same) => {
            Seen::Held("the stored answer, byte-identical".to_owned())
        }
        _ => Seen::Unexpected(format!("{} answers, not all the stored one", again.len())),
    })
}

async fn at_once(world: Stage) -> Result<Seen, Trouble> {
    let (sent, mark, answer) = run_once(&world).await?;
    for _ in 0..3 {
        world.inject(&sent.to, sent.payload.clone()).await?;
    }
    answered_again(&world, &mark, answer.as_ref(), 3).await
}

pub(super) const FLAG: Row = Row {
    id: "P08-redelivered-flag",
    tries: "mark a first delivery as redelivered, and a repeated one as new",
    incident: "class: RabbitMQ's redelivered flag taken for an idempotence check, as its own guide \
               suggests; the flag is the broker's word",
    expected: "runs exactly once; the copy gets the stored answer",
    kinds: REQUESTS,
    other_kinds: "replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::FlagIgnored], &[Check::ClaimOnce]],
    run: play!(flag),
};

async fn flag(world: Stage) -> Result<Seen, Trouble> {
    let Taken { sent, call, .. } = world.take().await?;
    let from = world.mark(&world.agent);
    world.agent.hand.flag(Some(true));
    world.inject(&sent.to, sent.payload.clone()).await?;
    let first = world.judge_quietly(&from, Expected::nothing().runs(1)).await;
    world.agent.hand.flag(Some(false));
    if let Some(seen) = first {
        call.inspect(|call| call.abort());
        return Ok(seen);
    }
    if let Some(call) = call {
        call.await??;
    }
    let answer = world.agent.hand.since(from.sent()).into_iter().find(Sent::is_reply);
    let mark = world.mark(&world.agent);
    world.inject(&sent.to, sent.payload).await?;
    answered_again(&world, &mark, answer.as_ref(), 1).await
}

pub(super) const OTHER_WORKER: Row = Row {
    id: "P02-replay-to-another-worker",
    tries: "publish a message again to a queue that another host consumes too",
    incident: "Trove: the same bytes run again at another worker of the service (each remembers alone)",
    expected: "nothing runs; call: the stored answer",
    kinds: DIRECT,
    other_kinds: "fanouts have a queue of their own for each member",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ClaimOnce]],
    run: play!(other_worker),
};

async fn other_worker(world: Stage) -> Result<Seen, Trouble> {
    let second = world.second_host()?;
    world.serve(&second, &PeerOptions::with(&world.control_claims)).await?;
    let target = Target::Principal(world.control.keys.party.principal.clone());
    let fresh = world.agent.again(None)?;
    let (from, n) = (world.ledger.count(), world.number());
    let (sent, call) = world
        .take_sent(&fresh, async {
            Ok(match world.cell.kind {
                Kind::Call => Some(fresh.call(&target, "work", n)),
                _ => {
                    fresh.cast(&target, "work", n).await?;
                    None
                }
            })
        })
        .await?;
    let answers = [world.control.hand.count(), second.hand.count()];
    world.inject_with(&sent).await?;
    world.ledger.wait(from + 1).await?;
    if let Some(call) = call {
        call.await??;
    }
    let mark = world.mark(&world.control);
    for _ in 0..20 {
        world.inject_with(&sent).await?;
    }
    let said = || {
        let hosts = [&world.control, &second].into_iter().zip(answers);
        let sent = hosts.flat_map(|(host, from)| host.hand.since(from));
        sent.filter(|sent| sent.is_reply() && sent.payload.len() > 64).collect::<Vec<_>>()
    };
    let copies = if world.cell.kind == Kind::Call { 21 } else { 0 };
    world.until(|| said().len() >= copies || world.ledger.count() > from + 1).await;
    let said = said();
    let first = said.first().map(|first| first.payload.clone());
    if said.iter().any(|sent| Some(&sent.payload) != first.as_ref()) {
        return Ok(Seen::GotThrough("different answers to one message".to_owned()));
    }
    let expected = Expected::nothing().answers(usize::MAX);
    match world.judge(&mark, &world.control, expected).await? {
        Seen::Held(_) => Ok(Seen::Held(format!("nothing ran; {} equal answers", said.len()))),
        other => Ok(other),
    }
}

pub(super) const RESTART: Row = Row {
    id: "P03-replay-after-restart",
    tries: "publish a message again after its receiver was restarted and forgot",
    incident: "Trove: the ids that it has seen are gone with the process",
    expected: "before-start",
    kinds: REQUESTS,
    other_kinds: "replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::RestartGate]],
    run: play!(restart),
};

async fn restart(world: Stage) -> Result<Seen, Trouble> {
    let (sent, _, _) = run_once_from(&world, &world.control.again(None)?).await?;
    // No skew, so that honest calls work again two seconds later.
    let options = StoreOptions { skew_s: 0, ..StoreOptions::default() };
    let claims = MemoryClaims::new(options, world.clock.now().ns / 1_000_000);
    let restarted = world.restart_agent(claims).await?;
    let mark = world.mark(&restarted);
    world.inject(&sent.to, sent.payload).await?;
    world.clock.set(2);
    world.judge(&mark, &restarted, Expected::refused("before-start", 1)).await
}

pub(super) const TAKE_OVER: Row = Row {
    id: "P04-replay-after-worker-loss",
    tries: "publish a message again whose worker was lost while it ran",
    incident: "class: at-least-once delivery taken for exactly-once (a redelivered payment)",
    expected: "in doubt: a sealed error, always the same; never run",
    kinds: DIRECT,
    other_kinds: "a fanout's runs are each member's own",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::TakeOver]],
    run: play!(take_over),
};

async fn take_over(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parsed = Parsed::parse(taken.sent.payload.clone(), bulla_seal::MAX_FRAME)?;
    let (me, sender) = (&world.agent.keys.party, world.control.keys.party.clone());
    let scope = Scope::shared(me, &bulla_rpc::target::topic_of(&me.principal));
    let claim = ClaimRequest {
        key: ClaimKey::new(scope, sender, parsed.header().id),
        digest: parsed.digest(),
        iat: parsed.header().iat,
        exp: parsed.header().exp,
        idempotent: false,
        worker: Worker(99),
        now_ms: world.clock.now().ns / 1_000_000 - 10_000,
        lease_ms: 1,
        envelope: None,
    };
    world.agent_claims.claim(claim).await?;
    let mark = world.mark(&world.agent);
    for _ in 0..3 {
        world.inject(&taken.sent.to, taken.sent.payload.clone()).await?;
    }
    let answers = if world.cell.kind == Kind::Call { 3 } else { 0 };
    let said = || world.agent.hand.since(mark.sent()).into_iter().filter(Sent::is_reply);
    world.until(|| said().count() >= answers || world.ledger.count() > mark.ran()).await;
    let all: Vec<_> = said().collect();
    let equal = all.windows(2).all(|pair| matches!(pair, [a, b] if a.payload == b.payload));
    let expected = Expected::nothing().answers(answers);
    match world.judge(&mark, &world.agent, expected).await? {
        Seen::Held(_) if !equal || all.len() < answers => {
            Ok(Seen::Unexpected(format!("{} answers, not all the same", all.len())))
        }
        Seen::Held(_) => {
            if let Some(call) = taken.call {
                return Ok(match call.await? {
                    Err(error) if error.to_string().contains("OutcomeUnknown") => {
                        Seen::Held("a sealed error: outcome unknown".to_owned())
                    }
                    other => Seen::Unexpected(format!("the caller got {other:?}")),
                });
            }
            Ok(Seen::Held("nothing ran, nothing was said".to_owned()))
        }
        other => Ok(other),
    }
}

pub(super) const BEFORE_EXPIRY: Row = Row {
    id: "P05-replay-before-expiry",
    tries: "publish a message again in the last second in which any clock still takes it",
    incident: "class: replay caches that forget before messages die",
    expected: "nothing runs; call: the stored answer",
    kinds: REQUESTS,
    other_kinds: "replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ClaimOnce]],
    run: play!(before_expiry),
};

/// Puts everybody's clock to `secs`, by waiting for what is more than the skew: a receiver whose
/// clock jumps further begins anew, and refuses what was issued before.
async fn clock_to(world: &World, secs: u64) -> Result<(), Trouble> {
    loop {
        let off = secs.saturating_sub(bulla_rpc::SystemClock.now().secs());
        if off < world.settings.endpoint.skew {
            world.clock.set(i64::try_from(off)?);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn before_expiry(world: Stage) -> Result<Seen, Trouble> {
    world.messages_live(2);
    let (sent, mark, answer) = run_once(&world).await?;
    let head = Parts::of(&sent.payload)?.head()?;
    // Everybody's clock, the receiver's too, stands at the end of expiry and skew.
    let last = head.exp.unwrap_or_default() + world.settings.endpoint.skew - 1;
    clock_to(&world, last).await?;
    world.inject(&sent.to, sent.payload).await?;
    let seen = answered_again(&world, &mark, answer.as_ref(), 1).await;
    world.clock.set(0);
    seen
}

pub(super) const HELD_BACK: Row = Row {
    id: "P06-held-back-until-over",
    tries: "hold a message back, and deliver it one second after its expiry and the skew",
    incident: "class: delayed delivery of commands (a reboot that comes a day later)",
    expected: "expired",
    kinds: REQUESTS,
    other_kinds: "a reply is for a call, which has timed out",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::MessageTimes]],
    run: play!(held_back),
};

async fn held_back(world: Stage) -> Result<Seen, Trouble> {
    world.messages_live(2);
    let taken = world.take().await?;
    taken.call.as_ref().inspect(|call| call.abort());
    let head = Parts::of(&taken.sent.payload)?.head()?;
    let first = head.exp.unwrap_or_default() + world.settings.endpoint.skew + 1;
    let mark = world.mark(&world.agent);
    clock_to(&world, first).await?;
    world.inject(&taken.sent.to, taken.sent.payload).await?;
    let counters = world.agent.endpoint.counters();
    world
        .until(|| counters.refused_by_name("expired") > 0 || world.ledger.count() > mark.ran())
        .await;
    world.clock.set(0);
    world.judge(&mark, &world.agent, Expected::refused("expired", 1)).await
}

pub(super) const CLOCK_BACK: Row = Row {
    id: "P07-clock-set-back",
    tries: "set the receiver's clock back (NTP is unauthenticated) to before a message was forgotten, and publish it again",
    incident: "class: time-shifting attacks on replay caches (NTP, CVE-2015-7704 and others)",
    expected: "purged",
    kinds: REQUESTS,
    other_kinds: "replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::PurgeMark]],
    run: play!(clock_back),
};

async fn clock_back(world: Stage) -> Result<Seen, Trouble> {
    world.messages_live(5);
    let (sent, mark, _) = run_once(&world).await?;
    // As the store's own sweeper does when the clock stands there.
    let later = (world.clock.now().secs() + 3600) * 1000;
    let sweep = SweepRequest { now_ms: later, worker: Worker(1), lease_ms: 1000 };
    world.agent_claims.sweep(sweep).await?;
    world.inject(&sent.to, sent.payload).await?;
    let counters = world.agent.endpoint.counters();
    world
        .until(|| counters.refused_by_name("purged") > 0 || world.ledger.count() > mark.ran())
        .await;
    // Honest messages count again when they outlive what was forgotten.
    world.clock.set(70);
    world.judge(&mark, &world.agent, Expected::refused("purged", 1)).await
}

pub(super) const FLOOD_STORE: Row = Row {
    id: "P09-replay-store-flood",
    tries: "as one agent, fill the receiver's memory of what ran, so that it forgets another's message; then publish that again",
    incident: "class: evicting caches (Trove remembers the last 16 ids; MCollective a fixed number of seconds)",
    expected: "sender-quota for the flood; the other's message does not run again",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::SenderQuota], &[Check::NoEviction]],
    run: play!(flood_store),
};

async fn flood_store(world: Stage) -> Result<Seen, Trouble> {
    let victim = world.other_component().await?;
    let limits = Limits { senders: 8, per_sender: 4, shared: 4, ..Limits::default() };
    world.serve(&victim, &PeerOptions { limits, ..PeerOptions::default() }).await?;
    let target = Target::Principal(victim.keys.party.principal.clone());
    let n = world.number();
    let from = world.ledger.count();
    let honest = world.agent.again(None)?;
    let (sent, ()) = world.take_sent(&honest, honest.cast(&target, "work", n)).await?;
    world.inject_with(&sent).await?;
    world.ledger.wait(from + 1).await?;
    let now = world.clock.now();
    let flood = world.mallory.session(&victim, &world, now)?;
    let mark = world.mark(&victim);
    for _ in 0..20 {
        let payload = make_method(&world, &flood, now, "work")?;
        world.inject(&world.address_of(&victim.keys), payload).await?;
    }
    let settled = || {
        let refused = victim.endpoint.counters().refused_by_name("sender-quota");
        world.ledger.count() - mark.ran() >= 20 || refused >= 12
    };
    world.until(settled).await;
    world.inject_with(&sent).await?;
    honest.cast(&target, "work", world.number()).await?;
    let expected = Expected::refused("sender-quota", 12).runs(9).answers(20);
    let seen = world.judge(&mark, &victim, expected).await?;
    let again = world.ledger.since(from + 1).iter().filter(|ran| ran.n == n).count();
    Ok(if again > 0 { Seen::GotThrough("a forgotten message ran again".to_owned()) } else { seen })
}

pub(super) const CLONE: Row = Row {
    id: "P10-cloned-state",
    tries: "clone a machine with its random generator's state, let both copies speak, and look for the same key stream under two contents",
    incident: "class: nonce reuse after a snapshot (TLS servers in cloned VMs; ROCA of random generators, Debian's CVE-2008-0166)",
    expected: "different ids, keys and IVs",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::HedgedId]],
    run: play!(clone),
};

async fn clone(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let twin = hedge(now)?;
    let texts = [World::args(1), World::args(2)].map(|args| bulla_rpc::value::to_vec(&args));
    let [one, two] = texts;
    let (known, secret) = (one?, two?);
    let (a, b) = (sealed(&world, &twin, &known)?, sealed(&world, &twin, &secret)?);
    let (a, b) = (Parts::of(&a)?, Parts::of(&b)?);
    // Where two contents share a key stream, what is known of one tells the other.
    let (known, secret) = (plain(&world, &known), plain(&world, &secret));
    let guess: Vec<u8> =
        a.content.iter().zip(&b.content).zip(&known).map(|((a, b), known)| a ^ b ^ known).collect();
    if guess.starts_with(&secret) {
        return Ok(Seen::GotThrough("one copy's content read from the other's".to_owned()));
    }
    Ok(match a.head()?.id == b.head()?.id {
        true => Seen::Unexpected("two contents with one id".to_owned()),
        false => Seen::Held("different ids, keys and IVs".to_owned()),
    })
}

fn plain(world: &World, args: &[u8]) -> Vec<u8> {
    if world.cell.kind == Kind::Reply {
        return args.to_vec();
    }
    let mut out = Vec::new();
    intruder_body("work", args).write(&mut out);
    out
}

/// A message as a copy of the machine seals it: everything but the content is the same.
fn sealed(world: &World, twin: &Hedge, args: &[u8]) -> Result<bytes::Bytes, Trouble> {
    let now = twin.now;
    let buf = MessageBuf::from_plaintext(&plain(world, args));
    if world.cell.kind == Kind::Fanout {
        let (key, credential) = world.control.keys.signing()?;
        let signer = FanoutSigner::new(key.clone(), credential.clone())?;
        let audience = bulla_seal::Audience::Group(world.group.group.clone());
        let topic = bulla_rpc::target::group_topic(&world.group.group);
        let route = Route::new(world.exchange(), &topic, None, audience)?;
        let spec = FanoutSpec {
            kind: MessageKind::Fanout,
            route: &route,
            expires: now.secs() + 60,
            sequence: 1,
        };
        let fanout = GroupSession::new(&world.group).seal(&signer, &spec, twin, buf)?;
        return Ok(signer.sign(fanout).bytes().clone());
    }
    let forged = world.twin_session(now)?;
    let route = world.route_to(forged.session.responder())?;
    if world.cell.kind == Kind::Reply {
        let binding = ReplyBinding {
            request: bulla_seal::MessageId([1; 16]),
            digest: bulla_seal::Digest([2; 32]),
            level: Level::Sealed,
            route,
        };
        let spec = ReplySpec { outcome: Outcome::Value, index: 0 };
        let sealed = forged.session.seal_reply(&binding, spec, twin, buf)?;
        return Ok(sealed.into_frame(None).bytes().clone());
    }
    let kind = if world.cell.kind == Kind::Call { MessageKind::Call } else { MessageKind::Cast };
    let expires = now.secs() + 60;
    let spec = RequestSpec { kind, route: &route, expires, protection: Protection::Sealed };
    let sealed = forged.session.seal_request(&spec, twin, buf)?;
    Ok(sealed.into_frame(None).bytes().clone())
}

pub(super) const FUTURE: Row = Row {
    id: "P11-from-the-future",
    tries: "with an agent's keys and a clock ten minutes ahead, send what will be good for longer",
    incident: "class: pre-dated tokens (a nonce or timestamp that nobody checks forwards)",
    expected: "not-yet-valid",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies have no time of their own",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::MessageTimes, Check::OfferTimes]],
    run: play!(future),
};

async fn future(world: Stage) -> Result<Seen, Trouble> {
    let ahead = UnixTime::from_secs(world.clock.now().secs() + 600);
    let own = world.mallory.session(&world.control, &world, ahead)?;
    let payload = make_method(&world, &own, ahead, "work")?;
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), payload).await?;
    world.judge(&mark, &world.control, Expected::refused("not-yet-valid", 1)).await
}

pub(super) const LONG_LIFE: Row = Row {
    id: "P12-longer-life",
    tries: "write a later expiry into a captured message's header, so that it can be repeated for ever",
    incident: "class: tokens whose lifetime is the bearer's choice",
    expected: "lifetime-too-long",
    kinds: REQUESTS,
    other_kinds: "replies have no expiry",
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::Lifetime, Check::HeaderBound],
        &[Check::Lifetime, Check::HeaderBound, Check::FanoutSignature],
    ],
    run: play!(long_life),
};

async fn long_life(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let mut head = parts.head()?;
    head.exp = Some(head.iat + 30 * 86_400);
    let forged = vec![parts.with_head(&head).frame()];
    taken.call.as_ref().inspect(|call| call.abort());
    refuse(&world, taken, forged, Expected::refused("lifetime-too-long", 1)).await
}

pub(super) const OFFER_WINDOW: Row = Row {
    id: "P13-outside-the-offer",
    tries: "date a captured message before the offer that opened its session",
    incident: "class: session keys that outlive their session",
    expected: "offer-expired",
    kinds: DIRECT,
    other_kinds: "fanouts have no offer; replies use their request's",
    keys: PAIR,
    other_key: "pair keys have epochs instead of offers",
    red: &[&[Check::OfferWindow, Check::HeaderBound]],
    run: play!(offer_window),
};

async fn offer_window(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let mut head = parts.head()?;
    head.iat -= 300;
    let forged = vec![parts.with_head(&head).frame()];
    taken.call.as_ref().inspect(|call| call.abort());
    refuse(&world, taken, forged, Expected::refused("offer-expired", 1)).await
}
