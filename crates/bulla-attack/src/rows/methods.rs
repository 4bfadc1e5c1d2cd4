//! Methods, and who may run them.

use bulla_rpc::builtin::{CANCEL, NAMESPACE};
use bulla_rpc::{Clock, Target};
use bulla_seal::mutants::Check;
use bulla_seal::{MessageKind, RequestBody};
use serde_json::json;

use super::posing::make_method;
use super::{BOTH, CALLS, DIRECT, NONE, PAIR, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::{Expected, Peer, Stage, World, intruder_body};

pub(super) const CLOSED: Row = Row {
    id: "X01-method-that-is-not-open",
    tries: "with one agent's keys, call a method of the control plane that was opened to nobody",
    incident: "CVE-2020-11651 (Salt): the master's ClearFuncs offered its internal methods to every client",
    expected: "denied under seal, never run",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies name no method",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Policy]],
    run: play!(closed),
};

async fn closed(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, &world, now)?;
    let payload = make_method(&world, &own, now, "admin")?;
    denied(&world, &world.control, payload).await
}

/// A message that may not do what it asks for: a sealed denial, counted.
async fn denied(world: &World, victim: &Peer, payload: bytes::Bytes) -> Result<Seen, Trouble> {
    let counters = victim.endpoint.counters();
    let (mark, before) = (world.mark(victim), counters.denied.get());
    world.inject(&world.address_of(&victim.keys), payload).await?;
    world.until(|| counters.denied.get() > before || world.ledger.count() > mark.ran()).await;
    let answers = usize::from(world.cell.kind == Kind::Call);
    let denied = counters.denied.get() - before;
    match world.judge(&mark, victim, Expected::nothing().answers(answers)).await? {
        Seen::Held(_) if denied == 1 => Ok(Seen::Held("denied".to_owned())),
        Seen::Held(_) => Ok(Seen::Unexpected(format!("denied {denied} times"))),
        other => Ok(other),
    }
}

pub(super) const LATERAL: Row = Row {
    id: "X02-agent-calls-agent",
    tries: "with one agent's keys, call another agent",
    incident: "class: lateral movement from one guest to all (MCollective before Choria: any server's credentials reach every server)",
    expected: "denied under seal, never run",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies name no method",
    keys: PAIR,
    other_key: "two shared-key agents have no key in common",
    red: &[&[Check::Policy]],
    run: play!(lateral),
};

async fn lateral(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.open_as(&world.mallory.keys, &world.agent, now)?;
    let payload = make_method(&world, &own, now, "work")?;
    denied(&world, &world.agent, payload).await
}

pub(super) const NAMES: Row = Row {
    id: "X03-method-names-code",
    tries: "with a component's keys, call methods whose names are paths and internals",
    incident: "CVE-2020-11652 (Salt): a name from the wire becomes a path; oslo.messaging looks exceptions' classes up by name",
    expected: "no such method, told under seal; never run",
    kinds: DIRECT,
    other_kinds: "fanouts are routed alike; replies name no method",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::MethodDeclared]],
    run: play!(names),
};

async fn names(world: Stage) -> Result<Seen, Trouble> {
    let billing = world.other_component().await?;
    let target = Target::Principal(world.agent.keys.party.principal.clone());
    let names = ["../../../bin/sh", "__init__", "work.__globals__", "admin\u{0}work"];
    let mark = world.mark(&world.agent);
    for name in names {
        if world.cell.kind == Kind::Call {
            let call = billing.call(&target, name, world.number());
            if let Ok(value) = call.await? {
                return Ok(Seen::GotThrough(format!("`{name}` returned {value}")));
            }
        } else {
            billing.cast(&target, name, world.number()).await?;
        }
    }
    let answers = if world.cell.kind == Kind::Call { names.len() } else { 0 };
    world.judge(&mark, &world.agent, Expected::nothing().answers(answers)).await
}

pub(super) const CANCEL_OTHERS: Row = Row {
    id: "X04-cancel-anothers-run",
    tries: "with one agent's keys, stop a call of another agent's that is running, by its id, which the bus shows",
    incident: "class: operations named by guessable or visible ids (insecure direct object reference)",
    expected: "it goes on",
    kinds: CALLS,
    other_kinds: "what is not answered is stopped alike",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::CancelOwn]],
    run: play!(cancel_others),
};

async fn cancel_others(world: Stage) -> Result<Seen, Trouble> {
    let target = Target::Principal(world.control.keys.party.principal.clone());
    let from = world.ledger.count();
    let n = world.number();
    let sent = world.agent.hand.count();
    let call = world.agent.call(&target, "slow", n);
    world.ledger.wait(from + 1).await?;
    let request = world.agent.hand.since(sent).into_iter().find(|sent| !sent.is_reply());
    let request = request.ok_or_else(|| Trouble::new("nothing was called"))?;
    let id = hex::encode(Parts::of(&request.payload)?.head()?.id);
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, &world, now)?;
    let args = bulla_rpc::value::to_vec(&json!({ "message": id }))?;
    let body = RequestBody { namespace: Some(NAMESPACE), ..intruder_body(CANCEL, &args) };
    let payload = world.seal(&own, MessageKind::Cast, &body, now, 60)?.bytes().clone();
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), payload).await?;
    // A second message of the intruder's, so that the first has been dealt with.
    let own = make_method(&world, &own, now, "work")?;
    world.inject(&world.address_of(&world.control.keys), own).await?;
    world.ledger.wait(mark.ran() + 1).await?;
    tokio::time::sleep(world.moment()).await;
    world.ledger.finish();
    if let Err(error) = call.await? {
        return Ok(Seen::GotThrough(format!("the other's call ended: {error}")));
    }
    world.judge(&mark, &world.control, Expected::nothing().runs(1).answers(2)).await
}
