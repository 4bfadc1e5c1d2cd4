//! Announcements of a new root, as whoever speaks for the control plane could hand them out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_rpc::Clock;
use bulla_rpc::directory::wire::TrustAnswer;
use bulla_seal::mutants::Check;
use bulla_seal::sign::{SignatureUse, Unverified, sign1};
use bulla_seal::{OsRandom, RootAnnouncement, SigningKey, VerifyingKey};
use bytes::Bytes;

use super::{BOTH, CALLS, NONE, play};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::{Peer, Stage, World};

fn key() -> Result<SigningKey, Trouble> {
    Ok(SigningKey::generate(&mut OsRandom::default())?)
}

fn after(world: &World, sequence: u32, old: &SigningKey, new: VerifyingKey) -> RootAnnouncement {
    let now = world.clock.now().secs();
    RootAnnouncement {
        domain: world.authority.trust.domain().clone(),
        sequence,
        old: old.verifying_key(),
        new,
        issued_at: now,
        until: now + 86_400,
    }
}

/// What whoever answers for the control plane says.
fn saying(announcement: &Bytes) -> TrustAnswer {
    TrustAnswer { announcements: vec![BASE64.encode(announcement)], ..TrustAnswer::default() }
}

/// Held if the agent refuses it by this name and counts it; through if it would trust `root`.
fn hear(agent: &Peer, said: &Bytes, root: VerifyingKey, name: &'static str) -> Seen {
    let count = || agent.refusals().get(name).copied().unwrap_or_default();
    let before = count();
    match agent.endpoint.judge_roots(&saying(said)) {
        Ok(Some(trust)) if *trust.root() == root => {
            Seen::GotThrough(format!("the agent trusts the intruder's root {root:?}"))
        }
        Err(refusal) if refusal.as_str() == name && count() > before => Seen::Held(name.to_owned()),
        other => Seen::Unexpected(format!("{other:?}")),
    }
}

pub(super) const FORGED: Row = Row {
    id: "V07-forged-root",
    tries: "as a control-plane host that was broken into, answer an agent's question for the root with one of the intruder's own",
    incident: "class: trust anchors that come over the channel that they are to protect (a CA file from the server that it is to authenticate)",
    expected: "root-invalid",
    kinds: CALLS,
    other_kinds: "announcements come in the answer to a call",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::RootSignature]],
    run: play!(forged),
};

async fn forged(world: Stage) -> Result<Seen, Trouble> {
    let (own, next) = (key()?, key()?);
    // In the name of the root that is trusted, signed by another.
    let genuine = after(&world, 2, &world.authority.root, next.verifying_key());
    let pretended = RootAnnouncement { old: own.verifying_key(), ..genuine.clone() };
    let signed = genuine.sign(&world.authority.root, &next)?;
    let payload = claims_of(&signed)?;
    let said = sign1(SignatureUse::Root, &own, None, &payload);
    let forged = sign1(SignatureUse::RootConsent, &next, None, &said);
    let first = hear(&world.agent, &forged, next.verifying_key(), "root-invalid");
    if !matches!(first, Seen::Held(_)) {
        return Ok(first);
    }
    let pretended = pretended.sign(&own, &next)?;
    Ok(hear(&world.agent, &pretended, next.verifying_key(), "root-invalid"))
}

/// What an announcement's inner signature is over.
fn claims_of(announcement: &[u8]) -> Result<Vec<u8>, Trouble> {
    let said = Unverified::parse(announcement)?.dangerous_payload();
    Ok(Unverified::parse(said)?.dangerous_payload().to_vec())
}

pub(super) const UNASKED: Row = Row {
    id: "V08-root-without-consent",
    tries: "with the old root's key, announce a root whose holder did not consent",
    incident: "class: unknown key share (keys that are certified without proof that somebody holds them)",
    expected: "root-invalid",
    kinds: CALLS,
    other_kinds: "announcements come in the answer to a call",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::RootConsent]],
    run: play!(unasked),
};

async fn unasked(world: Stage) -> Result<Seen, Trouble> {
    let (own, next) = (key()?, key()?);
    let genuine = after(&world, 2, &world.authority.root, next.verifying_key());
    let payload = claims_of(&genuine.sign(&world.authority.root, &next)?)?;
    let said = sign1(SignatureUse::Root, &world.authority.root, None, &payload);
    let forged = sign1(SignatureUse::RootConsent, &own, None, &said);
    Ok(hear(&world.agent, &forged, next.verifying_key(), "root-invalid"))
}

pub(super) const REPLAYED: Row = Row {
    id: "V09-root-replayed",
    tries: "hand an agent the announcement of a root that was followed by another since, to have a stolen key trusted again",
    incident: "class: rollback of trust anchors (what TUF numbers its root files against)",
    expected: "root-stale",
    kinds: CALLS,
    other_kinds: "announcements come in the answer to a call",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::RootSequence]],
    run: play!(replayed),
};

async fn replayed(world: Stage) -> Result<Seen, Trouble> {
    let (second, third) = (key()?, key()?);
    let root = &world.authority.root;
    let older = after(&world, 2, root, second.verifying_key()).sign(root, &second)?;
    let newer = after(&world, 3, &second, third.verifying_key()).sign(&second, &third)?;
    for genuine in [&older, &newer] {
        let judged = world.agent.endpoint.judge_roots(&saying(genuine))?;
        let Some(trust) = judged else {
            return Ok(Seen::Unexpected("a genuine announcement is no news".into()));
        };
        world.agent.endpoint.trust_from_now_on(trust);
    }
    Ok(hear(&world.agent, &older, second.verifying_key(), "root-stale"))
}
