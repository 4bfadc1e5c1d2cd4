//! Answers.

use bulla_rpc::{Clock, Target};
use bulla_seal::cbor::Writer;
use bulla_seal::mutants::Check;
use bulla_seal::{
    Audience, ErrorBody, Level, MessageBuf, Offer, Outcome, Parsed, ReplyBinding, ReplySpec, Route,
    Session, shared,
};
use bulla_transport::{Address, ReplyName};
use bytes::Bytes;
use serde_json::{Value, json};

use super::altering::refuse;
use super::{ANSWERS, BOTH, CALLS, NONE, PAIR, play};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::{Expected, Pending, Sent, Stage, World, hedge};

/// A call of the control component to the intruder's agent, kept back; what the intruder holds of
/// it.
struct Called {
    sent: Sent,
    call: Pending,
    session: Session,
}

async fn called(world: &World) -> Result<Called, Trouble> {
    let target = Target::Principal(world.mallory.keys.party.principal.clone());
    let n = world.number();
    let (sent, call) = world
        .take_sent(&world.control, async { Ok(world.control.call(&target, "work", n)) })
        .await?;
    let parts = Parts::of(&sent.payload)?;
    let session = match &world.mallory.keys.k {
        Some(_) => {
            let pairs = world.mallory.pairs.lock();
            let pair = pairs.first().ok_or_else(|| Trouble::new("no pair key"))?;
            let me = world.mallory.keys.party.clone();
            shared::session(pair.kid, &pair.key, world.control.keys.party.clone(), me)
        }
        None => {
            let offer = parts.offer.ok_or_else(|| Trouble::new("a first call has no offer"))?;
            let trust = &world.authority.trust;
            let verified = Offer::parse(&offer)?.verify(trust, |_| None)?;
            let own = world.mallory.keys.receive()?;
            verified.open(trust.domain(), &world.mallory.keys.party, &own.key)?
        }
    };
    Ok(Called { sent, call, session })
}

/// What an answer to this request is bound to, for an answer of the intruder's.
fn binding(world: &World, request: &Sent, level: Level) -> Result<ReplyBinding, Trouble> {
    let parsed = Parsed::parse(request.payload.clone(), bulla_seal::MAX_FRAME)?;
    let topic = match &request.to {
        Address::Topic { topic, .. } => topic,
        _ => return Err(Trouble::new("not a call to a topic")),
    };
    let audience = Audience::Party(world.mallory.keys.party.clone());
    let route = Route::new(world.exchange(), topic, None, audience)?;
    Ok(ReplyBinding { request: parsed.header().id, digest: parsed.digest(), level, route })
}

fn answer(
    world: &World,
    session: &Session,
    binding: &ReplyBinding,
    spec: ReplySpec,
    plaintext: &[u8],
) -> Result<Bytes, Trouble> {
    let buf = MessageBuf::from_plaintext(plaintext);
    let sealed = session.seal_reply(binding, spec, &hedge(world.clock.now())?, buf)?;
    Ok(sealed.into_frame(None).bytes().clone())
}

fn forged_value() -> Result<Vec<u8>, Trouble> {
    Ok(bulla_rpc::value::to_vec(&json!({ "forged": true }))?)
}

const VALUE: ReplySpec = ReplySpec { outcome: Outcome::Value, index: 0 };

fn reply_to(world: &World, hint: Option<ReplyName>) -> Result<Address, Trouble> {
    let to = hint.ok_or_else(|| Trouble::new("a call without a reply name"))?;
    let from = world.mallory.keys.name().to_owned();
    Ok(Address::Reply { exchange: world.exchange().to_owned(), to, from })
}

pub(super) const WRONG_PARTY: Row = Row {
    id: "R01-reply-from-another",
    tries: "with one agent's keys, answer a call that was made to another",
    incident: "Trove: a forged reply is believed; a reply is bound to nothing",
    expected: "reply-mismatch",
    kinds: ANSWERS,
    other_kinds: "it is about answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ReplyParty]],
    run: play!(wrong_party),
};

async fn wrong_party(world: Stage) -> Result<Seen, Trouble> {
    let own = called(&world).await?;
    own.call.abort();
    let taken = world.take().await?;
    let request = world.control.hand.since(0).into_iter().rev().find(|sent| !sent.is_reply());
    let request = request.ok_or_else(|| Trouble::new("nobody called"))?;
    let binding = binding(&world, &request, Level::Sealed)?;
    let forged = answer(&world, &own.session, &binding, VALUE, &forged_value()?)?;
    refuse(&world, taken, vec![forged], Expected::refused("reply-mismatch", 1)).await
}

pub(super) const WRONG_REQUEST: Row = Row {
    id: "R02-reply-to-another-request",
    tries: "give a caller the genuine answer to another call of its own",
    incident: "Trove: an honest guest's result of another method answers a victim's pending call",
    expected: "not-authentic",
    kinds: ANSWERS,
    other_kinds: "it is about answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::HeaderBound, Check::RequestBound]],
    run: play!(wrong_request),
};

async fn wrong_request(world: Stage) -> Result<Seen, Trouble> {
    let (one, other) = (world.take().await?, world.take().await?);
    other.call.as_ref().inspect(|call| call.abort());
    let parts = Parts::of(&other.sent.payload)?;
    let mut head = parts.head()?;
    head.own = Parts::of(&one.sent.payload)?.head()?.own;
    let forged = vec![parts.with_head(&head).frame()];
    refuse(&world, one, forged, Expected::refused("not-authentic", 1)).await
}

pub(super) const TWICE: Row = Row {
    id: "R03-reply-twice",
    tries: "give a caller the genuine answer three more times",
    incident: "class: duplicate completion; oslo.messaging drops what it remembers and takes what it forgot",
    expected: "reply-mismatch ×3, nothing believed twice",
    kinds: ANSWERS,
    other_kinds: "it is about answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ReplyOnce]],
    run: play!(twice),
};

async fn twice(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    world.inject(&taken.sent.to, taken.sent.payload.clone()).await?;
    if let Some(call) = taken.call {
        call.await??;
    }
    let again = vec![taken.sent.payload.clone(); 3];
    once(&world, &taken.sent.to, again, 3).await
}

/// Answers to a call that has ended: none may be believed.
async fn once(
    world: &World,
    to: &Address,
    answers: Vec<Bytes>,
    count: u64,
) -> Result<Seen, Trouble> {
    let counters = world.control.endpoint.counters();
    let (mark, believed) = (world.mark(&world.control), counters.replies.get());
    for payload in answers {
        world.inject(to, payload).await?;
    }
    let refusals = || counters.refused_by_name("reply-mismatch");
    let before = mark.refused("reply-mismatch");
    world.until(|| counters.replies.get() > believed || refusals() >= before + count).await;
    if counters.replies.get() > believed {
        return Ok(Seen::GotThrough("an answer was believed after the last one".to_owned()));
    }
    world.judge(&mark, &world.control, Expected::refused("reply-mismatch", count)).await
}

pub(super) const AFTER_ERROR: Row = Row {
    id: "R04-reply-after-an-error",
    tries: "as the agent that was called, answer with an error and then with a value",
    incident: "class: two outcomes of one call",
    expected: "the error stands; reply-mismatch",
    kinds: ANSWERS,
    other_kinds: "it is about answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ReplyOnce]],
    run: play!(after_error),
};

async fn after_error(world: Stage) -> Result<Seen, Trouble> {
    let Called { sent, call, session } = called(&world).await?;
    let (to, binding) =
        (reply_to(&world, sent.hint.clone())?, binding(&world, &sent, Level::Sealed)?);
    let body = ErrorBody { kind: "Failed", message: "no", details: None, trace: None };
    let mut plain = Vec::new();
    body.write(&mut plain);
    let error = ReplySpec { outcome: Outcome::Error, index: 0 };
    let value = ReplySpec { outcome: Outcome::Value, index: 1 };
    world.inject(&to, answer(&world, &session, &binding, error, &plain)?).await?;
    if let Ok(value) = call.await? {
        return Ok(Seen::GotThrough(format!("the caller believed {value}")));
    }
    let late = answer(&world, &session, &binding, value, &forged_value()?)?;
    once(&world, &to, vec![late], 1).await
}

pub(super) const IN_CLEAR: Row = Row {
    id: "R05-reply-in-clear",
    tries: "answer a call in the clear: oslo.messaging's JSON, and a bare value",
    incident: "Trove: forged replies and exceptions in clear text are believed, the exception's class chosen by the attacker",
    expected: "malformed ×2",
    kinds: ANSWERS,
    other_kinds: "requests are A01",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::NoPlaintext]],
    run: play!(in_clear),
};

async fn in_clear(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let id = Parts::of(&taken.sent.payload)?.head()?.own.get(3).cloned().unwrap_or_default();
    let mut bare = Vec::new();
    let mut w = Writer::new(&mut bare);
    w.array(2);
    w.raw(&id);
    w.raw(&forged_value()?);
    let inner = json!({ "result": { "forged": true }, "failure": null, "ending": true });
    let oslo = json!({ "oslo.version": "2.0", "oslo.message": inner.to_string() });
    let forged = vec![oslo.to_string().into(), bare.into()];
    refuse(&world, taken, forged, Expected::refused("malformed", 2)).await
}

pub(super) const REFLECT: Row = Row {
    id: "R06-reflected-request",
    tries: "give a caller its own request back as the answer, as it is and with a reply's header",
    incident: "class: reflection (one key for both directions, as Trove has it)",
    expected: "kind-not-allowed, not-authentic",
    kinds: ANSWERS,
    other_kinds: "it is about answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[
        Check::HeaderBound,
        Check::KindBound,
        Check::AudienceBound,
        Check::RequestBound,
        Check::Directions,
    ]],
    run: play!(reflect),
};

async fn reflect(world: Stage) -> Result<Seen, Trouble> {
    let target = Target::Principal(world.agent.keys.party.principal.clone());
    let n = world.number();
    let (sent, call) = world
        .take_sent(&world.control, async { Ok(world.control.call(&target, "work", n)) })
        .await?;
    let parts = Parts::of(&sent.payload)?;
    let mut head = parts.head()?;
    let mut id = Vec::new();
    Writer::new(&mut id).bytes(&head.id);
    (head.iss, head.exp) = (None, None);
    head.own.truncate(3);
    head.set(1, 5);
    head.own.extend([id, vec![1], vec![0]]);
    let reflected = Parts { offer: None, ..parts.with_head(&head) };
    let to = reply_to(&world, sent.hint.clone())?;
    let mark = world.mark(&world.control);
    world.inject(&to, sent.payload.clone()).await?;
    world.inject(&to, reflected.frame()).await?;
    let counters = world.control.endpoint.counters();
    let refused = || counters.refused_by_name("not-authentic") > mark.refused("not-authentic");
    world.until(|| call.is_finished() || refused()).await;
    if call.is_finished() {
        return Ok(match call.await? {
            Ok(value) => Seen::GotThrough(format!("the caller believed its own request: {value}")),
            Err(error) => Seen::GotThrough(format!("the call ended: {error}")),
        });
    }
    world.inject(&sent.to, sent.payload).await?;
    call.await??;
    let expected = Expected::refused("kind-not-allowed", 1).and("not-authentic", 1).runs(1);
    world.judge(&mark, &world.control, expected).await
}

pub(super) const REDIRECT: Row = Row {
    id: "R07-reply-redirected",
    tries: "with an agent's keys, call the control plane and ask for the answer in another agent's reply queue",
    incident: "Trove: a service's reply can be sent into any queue (confused deputy)",
    expected: "runs, and answers nobody",
    kinds: CALLS,
    other_kinds: "only calls are answered",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ReplyNameSpace]],
    run: play!(redirect),
};

async fn redirect(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let victim = world.agent.hand.since(0).into_iter().find_map(|sent| sent.hint);
    let victim = victim.ok_or_else(|| Trouble::new("the agent never called"))?.to_string();
    let own = world.mallory.session(&world.control, &world, now)?;
    let args = bulla_rpc::value::to_vec(&World::args(world.number()))?;
    let body = bulla_seal::RequestBody {
        reply_to: Some(&victim),
        ..crate::world::intruder_body("work", &args)
    };
    let frame = world.seal(&own, bulla_seal::MessageKind::Call, &body, now, 60)?;
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), frame.bytes().clone()).await?;
    world.judge(&mark, &world.control, Expected::nothing().runs(1)).await
}

pub(super) const FORGED_NOTICE: Row = Row {
    id: "R08-forged-offer-needed",
    tries: "tell a caller two hundred times that its offer is needed",
    incident: "class: an unauthenticated hint that makes the victim work or weaken (TLS version fallback)",
    expected: "sent again once, byte-identical, runs once",
    kinds: CALLS,
    other_kinds: "only calls are sent again",
    keys: PAIR,
    other_key: "shared keys need no offer",
    red: &[&[Check::ResendOnce]],
    run: play!(forged_notice),
};

async fn forged_notice(world: Stage) -> Result<Seen, Trouble> {
    let target = Target::Principal(world.agent.keys.party.principal.clone());
    let n = world.number();
    let (sent, call) = world
        .take_sent(&world.control, async { Ok(world.control.call(&target, "work", n)) })
        .await?;
    let mut notice = Vec::new();
    let mut w = Writer::new(&mut notice);
    w.array(2);
    w.uint(0);
    w.bytes(&Parts::of(&sent.payload)?.head()?.id);
    let (to, from) = (reply_to(&world, sent.hint.clone())?, world.control.hand.count());
    let mark = world.mark(&world.control);
    for _ in 0..200 {
        world.inject(&to, notice.clone()).await?;
    }
    call.await??;
    tokio::time::sleep(world.moment() * 3).await;
    let again: Vec<_> =
        world.control.hand.since(from).into_iter().filter(|sent| !sent.is_reply()).collect();
    let same = |other: &Sent| -> Result<bool, Trouble> {
        let (one, other) = (Parts::of(&sent.payload)?, Parts::of(&other.payload)?);
        Ok(one.header == other.header && one.content == other.content)
    };
    if again.len() > 1 || !again.first().map_or(Ok(true), same)? {
        return Ok(Seen::GotThrough(format!("sent again {} times", again.len())));
    }
    match world.judge(&mark, &world.control, Expected::nothing().runs(1)).await? {
        Seen::Held(_) => Ok(Seen::Held(format!("sent again {} time, runs once", again.len()))),
        other => Ok(other),
    }
}

pub(super) const PROPERTIES: Row = Row {
    id: "R09-forged-properties",
    tries: "publish a captured call anew with a reply address of the intruder's choice in its properties",
    incident: "class: properties of AMQP taken for facts (reply_to, user_id, correlation_id)",
    expected: "answered where the sealed request says",
    kinds: CALLS,
    other_kinds: "only calls are answered",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ReplyAddress]],
    run: play!(properties),
};

async fn properties(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let elsewhere = ReplyName::new(world.control.keys.name(), "ffffffffffffffff");
    let forged = Sent { hint: elsewhere, ..taken.sent };
    let mark = world.mark(&world.agent);
    world.inject_with(&forged).await?;
    let call = taken.call.ok_or_else(|| Trouble::new("nobody waits"))?;
    if !world.until(|| call.is_finished()).await {
        call.abort();
        return Ok(Seen::GotThrough("the answer went where the properties said".to_owned()));
    }
    call.await??;
    world.judge(&mark, &world.agent, Expected::nothing().runs(1).answers(1)).await
}

/// L02 for answers: a sealed call, answered readably by the agent that was called.
pub(super) async fn readable(world: Stage) -> Result<Seen, Trouble> {
    let Called { sent, call, session } = called(&world).await?;
    let (to, binding) =
        (reply_to(&world, sent.hint.clone())?, binding(&world, &sent, Level::Signed)?);
    let forged = answer(&world, &session, &binding, VALUE, &forged_value()?)?;
    let mark = world.mark(&world.control);
    world.inject(&to, forged).await?;
    let counters = world.control.endpoint.counters();
    let name = "level-not-allowed";
    world.until(|| call.is_finished() || counters.refused_by_name(name) > mark.refused(name)).await;
    if call.is_finished() {
        let value: Result<Value, _> = call.await?;
        return Ok(Seen::GotThrough(format!("the caller believed {value:?}")));
    }
    call.abort();
    world.judge(&mark, &world.control, Expected::refused(name, 1)).await
}
