//! Moving messages to where they do not belong.

use bulla_seal::mutants::Check;

use super::altering::{altered, refuse};
use super::{ALL, BOTH, NONE, REQUESTS, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::Stage;

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
    world.clean_up_exchange(staging.clone());
    world.clean_up_exchange(format!("{staging}.reply"));
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
