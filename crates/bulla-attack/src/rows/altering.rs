//! Altering what passes, or putting something else in its place.

use bulla_seal::cbor::Writer;
use bulla_seal::mutants::Check;
use bytes::Bytes;
use serde_json::json;

use super::{ALL, BOTH, DIRECT, NONE, PAIR, REQUESTS, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::{Parts, flip, steer};
use crate::world::{Expected, Stage, World, intruder_body};

pub(super) const PLAINTEXT: Row = Row {
    id: "A01-plaintext-injection",
    tries: "put a message in the clear into the queue: oslo.messaging's JSON, and the bare body",
    incident: "Trove's secure RPC: a message in the clear with a context that does not decode is \
               carried out (fails open)",
    expected: "malformed",
    kinds: REQUESTS,
    other_kinds: "a reply in the clear is R05",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::NoPlaintext]],
    run: play!(plaintext),
};

/// A body in the clear.
pub(super) fn clear_body(n: u64) -> Result<Vec<u8>, Trouble> {
    let args = bulla_rpc::value::to_vec(&World::args(n))?;
    let mut plain = Vec::new();
    intruder_body("work", &args).write(&mut plain);
    Ok(plain)
}

async fn plaintext(world: Stage) -> Result<Seen, Trouble> {
    let n = world.number();
    let inner = json!({
        "method": "work", "args": { "n": n }, "version": "1.0", "_context_is_admin": true,
        "_msg_id": "8d4b1f", "_reply_q": "reply_1", "_unique_id": "c0ffee",
    });
    let oslo = json!({ "oslo.version": "2.0", "oslo.message": inner.to_string() });
    let mark = world.mark(&world.agent);
    for payload in [Bytes::from(oslo.to_string()), clear_body(n)?.into()] {
        world.inject(&world.address(), payload).await?;
    }
    world.judge(&mark, &world.agent, Expected::refused("malformed", 2)).await
}

pub(super) const FALLBACK: Row = Row {
    id: "A02-decrypt-fallback",
    tries: "put a body in the clear where the ciphertext of a captured message was, hoping that \
            what does not decrypt is taken as it came",
    incident: "Trove's serializers: a value that does not decrypt is handed to the method as it is",
    expected: "not-authentic (fanout: signature-invalid)",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::NoFallback], &[Check::FanoutSignature, Check::NoFallback]],
    run: play!(fallback),
};

async fn fallback(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let mut parts = Parts::of(&taken.sent.payload)?;
    parts.content = match world.cell.kind {
        Kind::Reply => bulla_rpc::value::to_vec(&json!({ "n": 0, "forged": true }))?,
        _ => clear_body(world.number())?,
    };
    parts.content.extend([0; 16]);
    refuse(&world, taken, vec![parts.frame()], altered(&world)).await
}

/// What stands behind the content, and its tag.
const ONE_BY_ONE: u64 = 32;

/// Injects altered forms of a message that was kept back, and judges.
pub(super) async fn refuse(
    world: &World,
    taken: crate::world::Taken,
    forged: Vec<Bytes>,
    expected: Expected,
) -> Result<Seen, Trouble> {
    let victim = if world.cell.kind == Kind::Reply { &world.control } else { &world.agent };
    let mark = world.mark(victim);
    // One by one at first: were one taken, another that is run beside it and only denied could use up
    // the id before it.
    let mut alone = if world.cell.kind == Kind::Reply { 0 } else { ONE_BY_ONE };
    for (n, payload) in (1..).zip(forged) {
        world.inject(&taken.sent.to, payload).await?;
        if n <= alone && !world.until(|| world.were_dealt_with(&mark, victim, n)).await {
            alone = 0;
        }
    }
    if world.cell.kind == Kind::Reply {
        world.judge_reply(&mark, taken, expected).await
    } else {
        world.judge(&mark, victim, expected).await
    }
}

/// One refusal of what was altered in its ciphertext or header.
pub(super) fn altered(world: &World) -> Expected {
    match world.cell.kind {
        Kind::Fanout => Expected::refused("signature-invalid", 1),
        _ => Expected::refused("not-authentic", 1),
    }
}

pub(super) const BIT_FLIPS: Row = Row {
    id: "A03-bit-flips",
    tries: "invert one bit of every byte of a captured message, one message for each",
    incident: "Trove's AES-CBC serializer has no integrity: flips, truncation and splicing pass",
    expected: "every one refused, none answered",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::AeadTag], &[Check::FanoutSignature, Check::AeadTag]],
    run: play!(bit_flips),
};

async fn bit_flips(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    // What stands beside the envelope of an open session is not looked at: A04 has those bits.
    let mut parts = Parts::of(&taken.sent.payload)?;
    if world.cell.kind != Kind::Fanout {
        parts.offer = None;
    }
    let frame = parts.frame();
    // From the end, where the content is: a message that is only denied would use up the id.
    // Which bit of a byte goes by its place from the end too, so that it does not depend on how
    // long the names before it are.
    let forged: Vec<_> =
        (0..frame.len()).rev().zip(0..).map(|(at, n)| flip(&frame, at * 8 + n % 8)).collect();
    let count = forged.len() as u64;
    refuse(&world, taken, forged, Expected::any(count)).await
}

pub(super) const HEADER_SWAP: Row = Row {
    id: "A05-header-swap",
    tries: "put one message's header before another's content",
    incident: "class: protection that leaves the envelope out (oslo.messaging's bug 1648254; \
               Trove encrypts argument values one by one)",
    expected: "not-authentic (fanout: signature-invalid)",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::HeaderBound],
        &[Check::HeaderBound, Check::FanoutSignature],
        &[Check::HeaderBound, Check::RequestBound],
    ],
    run: play!(header_swap),
};

async fn header_swap(world: Stage) -> Result<Seen, Trouble> {
    let (one, other) = (world.take().await?, world.take().await?);
    let mut parts = Parts::of(&one.sent.payload)?;
    let donor = Parts::of(&other.sent.payload)?;
    (parts.content, parts.proof) = (donor.content, donor.proof);
    refuse(&world, one, vec![parts.frame()], altered(&world)).await
}

pub(super) const METHOD: Row = Row {
    id: "A06-method-version-namespace",
    tries: "write another method, version and namespace over those of a captured message, whose \
            plaintext is known",
    incident: "Trove: the method of a captured message is changed and its arguments kept, so that \
               restart(instance) becomes delete_instance(instance)",
    expected: "not-authentic ×3 (fanout: signature-invalid ×3)",
    kinds: REQUESTS,
    other_kinds: "a reply names no method",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::AeadTag], &[Check::FanoutSignature, Check::AeadTag]],
    run: play!(method),
};

async fn method(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    // [namespace null, "work", "1.0", …
    let mut body = Vec::new();
    let mut w = Writer::new(&mut body);
    w.array(7);
    w.null();
    w.text("work");
    w.text("1.0");
    let mut forged = Vec::new();
    for (at, from, to) in
        [(3, &b"work"[..], &b"wipe"[..]), (8, b"1.0", b"2.0"), (1, b"\xf6", b"\x60")]
    {
        debug_assert_eq!(body.get(at..at + from.len()), Some(from));
        let mut parts = parts.clone();
        steer(&mut parts.content, at, from, to);
        forged.push(parts.frame());
    }
    let name = if world.cell.kind == Kind::Fanout { "signature-invalid" } else { "not-authentic" };
    refuse(&world, taken, forged, Expected::refused(name, 3)).await
}

pub(super) const OFFER_FLIPS: Row = Row {
    id: "A04-offer-bit-flips",
    tries: "invert one bit of every byte of an offer that opens a session",
    incident: "class: unsigned key exchange (man in the middle at session set-up)",
    expected: "every one refused, none answered",
    kinds: DIRECT,
    other_kinds: "fanouts carry a credential, whose bits are in A03; replies carry no offer",
    keys: PAIR,
    other_key: "shared keys need no offer",
    red: &[&[Check::OfferNamed, Check::OfferSignature, Check::OfferBound]],
    run: play!(offer_flips),
};

async fn offer_flips(world: Stage) -> Result<Seen, Trouble> {
    let fresh = world.control.again(None)?;
    let taken = world.take_from(&fresh, "work").await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let offer = parts.offer.clone().ok_or_else(|| Trouble::new("a first call has no offer"))?;
    let forged: Vec<_> = (0..offer.len())
        .rev()
        .map(|at| {
            let offer = Some(flip(&offer, at * 8 + at % 8).to_vec());
            Parts { offer, ..parts.clone() }.frame()
        })
        .collect();
    let count = forged.len() as u64;
    taken.call.as_ref().inspect(|call| call.abort());
    refuse(&world, taken, forged, Expected::any(count)).await
}

pub(super) const LENGTHS: Row = Row {
    id: "A07-truncate-and-extend",
    tries: "cut a captured message at every length, and append to it",
    incident: "Trove's serializer: truncation and splicing go unnoticed",
    expected: "malformed, every one",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::TrailingBytes]],
    run: play!(truncate),
};

async fn truncate(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let frame = taken.sent.payload.clone();
    let mut forged: Vec<_> = (1..frame.len()).map(|len| frame.slice(..len)).collect();
    for tail in [&[0u8][..], &[0xf6], &[0x84, 0x01]] {
        forged.push([&frame[..], tail].concat().into());
    }
    let count = forged.len() as u64;
    refuse(&world, taken, forged, Expected::refused("malformed", count)).await
}

pub(super) const NON_CANONICAL: Row = Row {
    id: "A08-non-canonical-encoding",
    tries: "write a length of a captured message in a longer form than needed, which means the same",
    incident: "class: parser differentials (signature wrapping; two readers, two messages)",
    expected: "malformed",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Canonical]],
    run: play!(non_canonical),
};

async fn non_canonical(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let length = u32::try_from(parts.content.len())?.to_be_bytes();
    let head = [&[0x5a][..], &length].concat();
    let forged = vec![parts.frame_with(Some(&head))];
    refuse(&world, taken, forged, Expected::refused("malformed", 1)).await
}

pub(super) const DUPLICATE_KEY: Row = Row {
    id: "A09-duplicate-key",
    tries: "give the header of a captured message a second key id",
    incident: "class: duplicate keys that two parsers read differently (CVE-2017-12635, CouchDB)",
    expected: "malformed",
    kinds: ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::ClosedHeader, Check::HeaderBound],
        &[Check::ClosedHeader, Check::HeaderBound, Check::FanoutSignature],
    ],
    run: play!(duplicate_key),
};

async fn duplicate_key(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let mut parts = Parts::of(&taken.sent.payload)?;
    if let Some(first) = parts.header.first_mut() {
        *first += 1;
    }
    parts.header.extend([4, 0x48, 1, 2, 3, 4, 5, 6, 7, 8]);
    let forged = vec![parts.frame()];
    refuse(&world, taken, forged, Expected::refused("malformed", 1)).await
}
