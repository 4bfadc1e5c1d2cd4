//! Reading what passes.

use bulla_seal::mutants::Check;

use bulla_rpc::Target;
use bulla_transport::{ConsumeOptions, Inbox};

use super::{ANSWERS, BOTH, DIRECT, NONE, REQUESTS, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::{SECRET_ARGUMENT, SECRET_ERROR, SECRET_RESULT, Stage, World};

pub(super) const ARGUMENTS: Row = Row {
    id: "E01-read-arguments",
    tries: "read the arguments of a request (a user's new password) from a copy of the queue",
    incident: "plain oslo.messaging: user passwords and tokens of every request readable by any \
               broker login (OpenStack Security Guide, messaging case study)",
    expected: "no secret on the bus",
    kinds: REQUESTS,
    other_kinds: "a reply has results: E02",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(arguments),
};

async fn arguments(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    Ok(look(&[&taken.sent.payload], &[SECRET_ARGUMENT]))
}

/// Whether one of the words stands in one of the messages.
pub(super) fn look(messages: &[&[u8]], words: &[&str]) -> Seen {
    for word in words {
        let needle = word.as_bytes();
        let stands = |message: &&&[u8]| message.windows(needle.len()).any(|part| part == needle);
        if messages.iter().any(|message| stands(&message)) {
            return Seen::GotThrough(format!("read `{word}` on the bus"));
        }
    }
    Seen::Held("no secret on the bus".to_owned())
}

pub(super) const RESULTS: Row = Row {
    id: "E02-read-results",
    tries: "read the result of a call (a root password) from a copy of the reply queue",
    incident: "Trove with plain oslo.messaging: the root password that enable_root returns, on the reply queue",
    expected: "no secret on the bus",
    kinds: ANSWERS,
    other_kinds: "requests are E01",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(results),
};

async fn results(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    taken.call.inspect(|call| call.abort());
    Ok(look(&[&taken.sent.payload], &[SECRET_RESULT]))
}

pub(super) const ERRORS: Row = Row {
    id: "E03-read-errors",
    tries: "read what an error says (a row of the database) from a copy of the reply queue",
    incident: "Trove's secure RPC: exceptions travel in clear (oslo.messaging bug 1648254), which also makes the conductor a decryption oracle",
    expected: "no secret on the bus",
    kinds: ANSWERS,
    other_kinds: "errors are answers",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(errors),
};

async fn errors(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take_method("fail").await?;
    taken.call.inspect(|call| call.abort());
    Ok(look(&[&taken.sent.payload], &[SECRET_ERROR]))
}

pub(super) const SQUAT_QUEUE: Row = Row {
    id: "E04-squat-on-a-queue",
    tries: "consume from an agent's queue beside the agent, to read or answer what comes",
    incident: "class: queue squatting; any RabbitMQ user with read permission on the vhost may consume any queue, at a higher priority",
    expected: "ciphertext only; what is given back runs once",
    kinds: DIRECT,
    other_kinds: "a group member has a queue of its own; the copy is E01",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(squat_queue),
};

async fn squat_queue(world: Stage) -> Result<Seen, Trouble> {
    let target = Target::Principal(world.agent.keys.party.principal.clone());
    let topic = target.topic();
    let inbox = Inbox::Topic { exchange: world.exchange().to_owned(), topic };
    let mut squatter = world.intruder.consume(&inbox, &ConsumeOptions::default()).await?;
    let squatting = tokio::spawn(async move {
        let taken = squatter.next().await;
        squatter.stop().await;
        taken.map(|delivery| {
            let payload = delivery.payload.clone();
            // Given back, so that the agent may have it in the end.
            delivery.acker.put_back();
            payload
        })
    });
    let from = world.ledger.count();
    let (mut calls, mut count) = (Vec::new(), 0);
    while !squatting.is_finished() && count < 500 {
        let n = world.number();
        count += 1;
        match world.cell.kind {
            Kind::Call => calls.push(world.control.call(&target, "work", n)),
            _ => world.control.cast(&target, "work", n).await?,
        }
        tokio::time::sleep(world.moment() / 4).await;
    }
    let stolen = squatting.await?.ok_or_else(|| Trouble::new("the squatter got nothing"))?;
    world.ledger.wait(from + count).await?;
    for call in calls {
        call.await??;
    }
    let mark = world.mark(&world.agent);
    let seen = world.judge(&mark, &world.agent, crate::world::Expected::nothing()).await?;
    if !seen.held() || world.ledger.count() != from + count {
        return Ok(Seen::GotThrough("something ran twice, or not at all".to_owned()));
    }
    Ok(look(&[&stolen], &[SECRET_ARGUMENT]))
}

pub(super) const SQUAT_REPLIES: Row = Row {
    id: "E05-squat-on-a-reply-queue",
    tries: "take the name of a caller's reply queue, and bind a queue of one's own to the caller's answers",
    incident: "class: queue squatting; oslo.messaging's reply queues have guessable owners and no protection",
    expected: "the queue is refused, the copy is ciphertext",
    kinds: ANSWERS,
    other_kinds: "requests are E04",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(squat_replies),
};

async fn squat_replies(world: Stage) -> Result<Seen, Trouble> {
    let target = Target::Principal(world.agent.keys.party.principal.clone());
    let name = hint_of(&world)?;
    let mut tap = world.bus.tap(world.exchange(), &[], std::slice::from_ref(&name)).await?;
    let inbox = Inbox::Reply { exchange: world.exchange().to_owned(), name: name.clone() };
    if world.intruder.consume(&inbox, &ConsumeOptions::default()).await.is_ok() {
        return Ok(Seen::GotThrough("the intruder holds the caller's reply queue".to_owned()));
    }
    world.control.call(&target, "work", world.number()).await??;
    let mut copies = Vec::new();
    let limit = world.moment() * 25;
    while let Ok(Some(tapped)) = tokio::time::timeout(limit, tap.next()).await {
        if tapped.routing_key.starts_with(name.as_str()) {
            copies.push(tapped.payload);
            break;
        }
    }
    if copies.is_empty() {
        return Err(Trouble::new("the copy of the answers is empty"));
    }
    let copies: Vec<&[u8]> = copies.iter().map(|copy| &copy[..]).collect();
    Ok(look(&copies, &[SECRET_RESULT]))
}

/// Where the control component's answers go.
pub(super) fn hint_of(world: &World) -> Result<bulla_transport::ReplyName, Trouble> {
    let sent = world.control.hand.since(0).into_iter().rev().find_map(|sent| sent.hint);
    sent.ok_or_else(|| Trouble::new("nobody called"))
}
