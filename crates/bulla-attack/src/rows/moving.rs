//! Moving messages to where they do not belong.

use bulla_seal::mutants::Check;

use super::altering::{altered, refuse};
use bulla_rpc::Target;

use super::{ALL, BOTH, DIRECT, NONE, REQUESTS, play};
use crate::cell::KeyType;
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::{Expected, PeerOptions, Stage, Taken};

pub(super) const EXCHANGE: Row = Row {
    id: "M04-other-exchange",
    tries: "take a message that the same sender made for the same receiver on another exchange",
    incident: "class: cross-environment replay; oslo.messaging binds nothing to its exchange",
    expected: "not-authentic (fanout: signature-invalid)",
    kinds: REQUESTS,
    other_kinds: "a reply is bound to its request, which is bound to its exchange",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ExchangeBound]],
    run: play!(exchange),
};

async fn exchange(world: Stage) -> Result<Seen, Trouble> {
    let staging = format!("{}-b", world.exchange());
    for part in ["", ".agent", ".reply"] {
        world.clean_up_exchange(format!("{staging}{part}"));
    }
    let elsewhere = world.control.again(Some(&staging))?;
    let mut taken = world.take_from(&elsewhere, "work").await?;
    taken.sent.to = world.address();
    let payload = taken.sent.payload.clone();
    refuse(&world, taken, vec![payload], altered(&world)).await
}

pub(super) const KIND: Row = Row {
    id: "M05-other-kind",
    tries: "write another kind into the header: a cast becomes a call, a call a notification",
    incident: "class: confused message types (oslo.messaging tells a call from a cast by two \
               unprotected fields)",
    expected: "not-authentic (fanout: signature-invalid)",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::HeaderBound, Check::KindBound],
        &[Check::HeaderBound, Check::KindBound, Check::FanoutSignature],
    ],
    run: play!(kind),
};

async fn kind(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let mut head = parts.head()?;
    match world.cell.kind {
        Kind::Call | Kind::Fanout => head.set(1, 3),
        Kind::Cast => head.set(1, 1),
        // An outcome: the value becomes an error.
        Kind::Reply => head.set(4, 3),
    }
    let forged = parts.with_head(&head).frame();
    refuse(&world, taken, vec![forged], altered(&world)).await
}

pub(super) const OTHER_AGENT: Row = Row {
    id: "M01-other-agents-queue",
    tries: "take a message for one agent to another agent's queue",
    incident: "Trove: a message made for guest A is carried out by guest B (methods without arguments)",
    expected: "audience-mismatch (shared key: session-unknown)",
    kinds: DIRECT,
    other_kinds: "fanouts go to every member; a reply is bound to its call",
    keys: BOTH,
    other_key: NONE,
    red: &[&[
        Check::KeyPerAgent,
        Check::OfferAudience,
        Check::Audience,
        Check::Directions,
        Check::TopicBound,
        Check::AudienceBound,
    ]],
    run: play!(other_agent),
};

async fn other_agent(world: Stage) -> Result<Seen, Trouble> {
    let other = world.second_agent().await?;
    let taken = world.take_from(&world.control.again(None)?, "work").await?;
    taken.call.inspect(|call| call.abort());
    let mark = world.mark(&other);
    world.inject(&world.address_of(&other.keys), taken.sent.payload).await?;
    let name = match world.cell.key {
        KeyType::Pair => "audience-mismatch",
        KeyType::Shared => "session-unknown",
    };
    world.judge(&mark, &other, Expected::refused(name, 1)).await
}

pub(super) const OTHER_HOST: Row = Row {
    id: "M02-other-hosts-queue",
    tries: "take a message for one host of a component to another host of it, which holds the same keys",
    incident: "class: redirection inside a cluster; oslo.messaging's server name is only a routing key",
    expected: "not-authentic",
    kinds: DIRECT,
    other_kinds: "fanouts and replies name no host",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ServerBound]],
    run: play!(other_host),
};

async fn other_host(world: Stage) -> Result<Seen, Trouble> {
    let second = world.second_host()?;
    world.serve(&second, &PeerOptions::with(&world.control_claims)).await?;
    let control = world.control.keys.party.principal.clone();
    let (first, other) = (
        Target::Server(control.clone(), "h1".to_owned()),
        Target::Server(control, "h2".to_owned()),
    );
    let fresh = world.agent.again(None)?;
    let n = world.number();
    let (sent, call) = world
        .take_sent(&fresh, async {
            Ok(match world.cell.kind {
                Kind::Call => Some(fresh.call(&first, "work", n)),
                _ => {
                    fresh.cast(&first, "work", n).await?;
                    None
                }
            })
        })
        .await?;
    call.inspect(|call| call.abort());
    let mark = world.mark(&second);
    world.inject(&other.address(world.exchange()), sent.payload).await?;
    world.judge(&mark, &second, Expected::refused("not-authentic", 1)).await
}

pub(super) const OTHER_TOPIC: Row = Row {
    id: "M03-other-topic",
    tries: "take a message for one receiver to the group's fanout exchange, and a fanout to the receiver's own queue",
    incident: "class: topic confusion; a message's topic is only the queue that it was found in",
    expected: "kind-not-allowed",
    kinds: REQUESTS,
    other_kinds: "replies are R06",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::QueueKind, Check::Audience, Check::TopicBound, Check::AudienceBound]],
    run: play!(other_topic),
};

async fn other_topic(world: Stage) -> Result<Seen, Trouble> {
    let mut taken = world.take().await?;
    taken.call.as_ref().inspect(|call| call.abort());
    taken.sent.to = match world.cell.kind {
        Kind::Fanout => world.address_of(&world.agent.keys),
        _ => world.group_address(),
    };
    let Taken { sent, .. } = &taken;
    let payload = sent.payload.clone();
    refuse(&world, taken, vec![payload], Expected::refused("kind-not-allowed", 1)).await
}
