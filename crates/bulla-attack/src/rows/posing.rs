//! Posing as somebody else.

use std::sync::Arc;

use bulla_rpc::Clock;
use bulla_seal::mutants::Check;
use bulla_seal::sign::{SignatureUse, Unverified, sign1};
use bulla_seal::{
    Credential, FanoutSigner, FanoutSpec, GroupSession, Issuer, IssuerCredential, IssuerRight, Kid,
    MessageBuf, MessageKind, Offer, OsRandom, Protection, RequestSpec, Route, SigningKey, SuiteSet,
    UnixTime, Validity, shared,
};
use bytes::Bytes;

use super::{BOTH, DIRECT, FANOUT, NONE, PAIR, REQUESTS, play};
use crate::cell::{KeyType, Kind};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::{Parts, resign_offer};
use crate::world::{
    Authority, Expected, Forged, Keyring, Peer, PeerOptions, Stage, World, blank, hedge,
    intruder_body,
};

/// A message of this cell's kind, made in a session of the intruder's.
fn make(world: &World, forged: &Forged, now: UnixTime) -> Result<Bytes, Trouble> {
    make_method(world, forged, now, "work")
}

pub(super) fn make_method(
    world: &World,
    forged: &Forged,
    now: UnixTime,
    method: &str,
) -> Result<Bytes, Trouble> {
    let args = bulla_rpc::value::to_vec(&World::args(world.number()))?;
    let reply_to = match world.cell.kind {
        Kind::Call => {
            let name = forged.session.requester().principal.as_str();
            bulla_transport::ReplyName::new(name, "ffff").map(|name| name.to_string())
        }
        _ => None,
    };
    let body =
        bulla_seal::RequestBody { reply_to: reply_to.as_deref(), ..intruder_body(method, &args) };
    let kind = if world.cell.kind == Kind::Call { MessageKind::Call } else { MessageKind::Cast };
    Ok(world.seal(forged, kind, &body, now, 60)?.bytes().clone())
}

/// The same with another sender's name, of the same length, in the header.
fn rename(frame: &[u8], name: &str) -> Result<Bytes, Trouble> {
    let parts = Parts::of(frame)?;
    let mut head = parts.head()?;
    head.iss = Some(name.to_owned());
    Ok(parts.with_head(&head).frame())
}

async fn refused(
    world: &World,
    victim: &Peer,
    payload: Bytes,
    name: &'static str,
) -> Result<Seen, Trouble> {
    let mark = world.mark(victim);
    let to = match world.cell.kind {
        Kind::Fanout => world.group_address(),
        _ => world.address_of(&victim.keys),
    };
    world.inject(&to, payload).await?;
    world.judge(&mark, victim, Expected::refused(name, 1)).await
}

pub(super) const AGENT_AS_AGENT: Row = Row {
    id: "I01-agent-as-another-agent",
    tries: "with one agent's keys, send the control plane a message labelled as another agent's",
    incident: "Trove: a guest reports for another guest with its own valid key (identity is not bound to content); Puppet's MCollective: the caller id is what the client says",
    expected: "sender-mismatch",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are R01",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::SenderName, Check::HeaderBound]],
    run: play!(agent_as_agent),
};

async fn agent_as_agent(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, &world, now)?;
    let forged = rename(&make(&world, &own, now)?, world.agent.keys.name())?;
    refused(&world, &world.control, forged, "sender-mismatch").await
}

pub(super) const AGENT_AS_COMPONENT: Row = Row {
    id: "I02-agent-as-component",
    tries: "with one agent's keys, order another agent about in the control component's name",
    incident: "CVE-2020-11651 (Salt): whoever reaches the master's port publishes jobs to every minion; MCollective's shared client key gives every server the right to command all others",
    expected: "signature-invalid (shared key: not-authentic)",
    kinds: DIRECT,
    other_kinds: "fanouts are I09 and I10",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::CredentialSignature], &[Check::KeyPerAgent]],
    run: play!(agent_as_component),
};

async fn agent_as_component(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let control = world.control.keys.party.clone();
    let agent = world.agent.keys.party.clone();
    if let Some(k) = &world.mallory.keys.k {
        let taken = world.take().await?;
        taken.call.inspect(|call| call.abort());
        let kid = crate::world::kid_of(&Parts::of(&taken.sent.payload)?.head()?.handle);
        let kid = kid.ok_or_else(|| Trouble::new("no key id"))?;
        let key = shared::pair_key(k, &agent, &control.principal, 1);
        let session = Arc::new(shared::session(kid, &key, control, agent));
        let forged = make(&world, &Forged { session, offer: None }, now)?;
        return refused(&world, &world.agent, forged, "not-authentic").await;
    }
    let issuer = world.authority.components.credential();
    let forger = Keyring { party: control, ..forged_host(issuer.kid, &world, now)? };
    let forged = make(&world, &world.open_as(&forger, &world.agent, now)?, now)?;
    refused(&world, &world.agent, forged, "signature-invalid").await
}

/// A credential of the control component's that the intruder signed itself, in the name of the
/// issuer with this kid.
fn forged_host(issuer: Kid, world: &World, now: UnixTime) -> Result<Keyring, Trouble> {
    let key = SigningKey::generate(&mut OsRandom::default())?;
    let pretended = IssuerCredential {
        kid: issuer,
        domain: world.authority.trust.domain().clone(),
        right: IssuerRight::Components,
        key: key.verifying_key(),
        validity: Validity { not_before: 0, not_after: now.secs() + 10 * 86_400 },
    };
    let issuer = Issuer::new(key.clone(), pretended)?;
    let party = world.control.keys.party.clone();
    let valid = crate::world::a_day(now);
    let credential = Credential {
        signing: Some(key.verifying_key()),
        instance: Some("h1".to_owned()),
        ..blank(&party, valid, SuiteSet::all())?
    };
    let credential = Arc::new(issuer.issue(&credential)?);
    Ok(Keyring { party, signing: Some((key, credential)), receive: None, k: None })
}

pub(super) const COMPONENT_AS_COMPONENT: Row = Row {
    id: "I03-component-as-another",
    tries: "with one component's keys, send messages labelled as another component type's",
    incident: "class: one service's credentials are as good as any other's (all OpenStack services share one broker login and no identity)",
    expected: "sender-mismatch",
    kinds: REQUESTS,
    other_kinds: "replies are R01",
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::SenderName, Check::HeaderBound],
        &[Check::SenderName, Check::HeaderBound, Check::FanoutSignature],
    ],
    run: play!(component_as_component),
};

async fn component_as_component(world: Stage) -> Result<Seen, Trouble> {
    let billing = world.other_component().await?;
    let taken = world.take_from(&billing, "work").await?;
    taken.call.inspect(|call| call.abort());
    let forged = rename(&taken.sent.payload, world.control.keys.name())?;
    refused(&world, &world.agent, forged, "sender-mismatch").await
}

pub(super) const WRONG_ROOT: Row = Row {
    id: "I04-wrong-root",
    tries: "open a session with a credential of the control component's name that another root's issuer signed",
    incident: "class: a certificate of any authority is taken (Puppet CVE-2011-3872, agent certificates good for the master's name)",
    expected: "issuer-unknown",
    kinds: REQUESTS,
    other_kinds: "replies use the session that was opened",
    keys: PAIR,
    other_key: "shared-key agents take no credentials; fanouts to them are verified alike",
    red: &[&[Check::IssuerKnown, Check::CredentialSignature, Check::IssuerRight]],
    run: play!(wrong_root),
};

async fn wrong_root(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let stranger = Authority::new(now)?;
    let id = world.name("control");
    let keys = stranger.component(&id, crate::world::a_day(now), world.suite())?;
    let forged = speak(&world, &keys, now)?;
    refused(&world, &world.agent, forged, "issuer-unknown").await
}

/// A message of this cell's kind to the honest agent or the group, with these keys.
fn speak(world: &World, keys: &Keyring, now: UnixTime) -> Result<Bytes, Trouble> {
    if world.cell.kind == Kind::Fanout {
        let (key, credential) = keys.signing()?;
        let signer = FanoutSigner::new(key.clone(), credential.clone())?;
        return fan_out(world, &signer, now, now.ns);
    }
    make(world, &world.open_as(keys, &world.agent, now)?, now)
}

/// A fanout to the group, whose key every member has.
fn fan_out(
    world: &World,
    signer: &FanoutSigner,
    now: UnixTime,
    sequence: u64,
) -> Result<Bytes, Trouble> {
    let group = &world.group.group;
    let topic = bulla_rpc::target::group_topic(group);
    let audience = bulla_seal::Audience::Group(group.clone());
    let route = Route::new(world.exchange(), &topic, None, audience)?;
    let args = bulla_rpc::value::to_vec(&World::args(world.number()))?;
    let mut buf = MessageBuf::with_capacity(256);
    intruder_body("work", &args).write(buf.sink());
    let expires = now.secs() + 60;
    let spec = FanoutSpec { kind: MessageKind::Fanout, route: &route, expires, sequence };
    let fanout = GroupSession::new(&world.group).seal(signer, &spec, &hedge(now)?, buf)?;
    Ok(signer.sign(fanout).bytes().clone())
}

pub(super) const WRONG_ISSUER: Row = Row {
    id: "I05-agent-issuer-makes-component",
    tries: "with the key of the issuer of agents (the enrolment service), issue a component's credential",
    incident: "class: one signing key for everything (Puppet's CA signs agents and the master's own identity alike)",
    expected: "issuer-unknown",
    kinds: REQUESTS,
    other_kinds: "replies use the session that was opened",
    keys: PAIR,
    other_key: "shared-key agents take no credentials; fanouts to them are verified alike",
    red: &[&[Check::IssuerRight]],
    run: play!(wrong_issuer),
};

async fn wrong_issuer(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let mut keys = forged_host(random(&world), &world, now)?;
    let (key, credential) = keys.signing()?.clone();
    let payload = Unverified::parse(credential.as_bytes())?.dangerous_payload();
    let agents = world.authority.agents.credential();
    let signed =
        sign1(SignatureUse::Credential, &world.authority.agents_key, Some(agents.kid), payload);
    // A receiver that lets its issuers sign anything reads it so.
    let mut lenient = bulla_seal::TrustStore::new(
        world.authority.trust.domain().clone(),
        world.authority.agents_key.verifying_key(),
    );
    let pretended = IssuerCredential { right: IssuerRight::Components, ..agents.clone() };
    lenient.add_issuer(&pretended.sign(&world.authority.agents_key))?;
    keys.signing = Some((key, Arc::new(lenient.verify(&signed, now)?)));
    let forged = speak(&world, &keys, now)?;
    refused(&world, &world.agent, forged, "issuer-unknown").await
}

fn random(world: &World) -> Kid {
    crate::world::random_kid().unwrap_or(Kid(world.number().to_be_bytes()))
}

pub(super) const EXPIRED: Row = Row {
    id: "I06-expired-credential",
    tries: "with a component's key whose credential ended two days ago, open a session or fan out now",
    incident: "class: expiry of certificates is not looked at (Ansible and Salt keys have none; MCollective's ssl_client plugin compares keys, not certificates)",
    expected: "credential-expired",
    kinds: REQUESTS,
    other_kinds: "replies use the session that was opened",
    keys: PAIR,
    other_key: "shared keys have epochs instead; fanouts to them are verified alike",
    red: &[
        &[Check::CredentialTime],
        &[Check::CredentialTime, Check::OfferBound, Check::HeaderBound],
    ],
    run: play!(expired),
};

async fn expired(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now().secs();
    let valid = Validity { not_before: now - 4 * 86_400, not_after: now - 2 * 86_400 };
    untimely(&world, valid, now - 3 * 86_400, "credential-expired").await
}

/// Speaks now with a credential for another time: an offer is made in that time, and signed anew
/// with these times; that its key does not go with its digest is not looked at so early.
async fn untimely(
    world: &World,
    valid: Validity,
    within: u64,
    name: &'static str,
) -> Result<Seen, Trouble> {
    let (now, then) = (world.clock.now(), UnixTime::from_secs(within));
    let receive = world.control.keys.receive()?;
    let keys = world.authority.host(receive, "h1", valid)?;
    if world.cell.kind == Kind::Fanout {
        return refused(world, &world.agent, speak(world, &keys, now)?, name).await;
    }
    // The receiver's credential must hold at that time too, or no offer is made.
    let mut then_valid = world.agent.keys.clone();
    let lasting = Validity { not_before: 0, not_after: now.secs() + 4 * 86_400 };
    if let Some(receive) = &mut then_valid.receive {
        let credential = Credential { validity: lasting, ..Credential::clone(&receive.credential) };
        receive.credential = Arc::new(world.authority.agents.issue(&credential)?);
    }
    let own = world.open_with(&keys, &then_valid, then)?;
    let parts = Parts::of(&make(world, &own, then)?)?;
    let offer = parts.offer.clone().ok_or_else(|| Trouble::new("no offer"))?;
    let (key, _) = keys.signing()?;
    let offer = resign_offer(&offer, key, now.secs(), now.secs() + 3000)?;
    let mut head = parts.head()?;
    head.handle = Offer::parse(&offer)?.session_id().as_bytes().to_vec();
    (head.iat, head.exp) = (now.secs(), Some(now.secs() + 60));
    let forged = Parts { offer: Some(offer.to_vec()), ..parts.with_head(&head) };
    refused(world, &world.agent, forged.frame(), name).await
}

pub(super) const NOT_YET: Row = Row {
    id: "I07-not-yet-valid-credential",
    tries: "with a component's key whose credential begins tomorrow, speak today",
    incident: "class: validity is not looked at; credentials made in advance are stolen before they count",
    expected: "credential-not-yet-valid",
    kinds: REQUESTS,
    other_kinds: "replies use the session that was opened",
    keys: PAIR,
    other_key: "shared keys have epochs instead; fanouts to them are verified alike",
    red: &[
        &[Check::CredentialTime],
        &[Check::CredentialTime, Check::OfferBound, Check::HeaderBound],
    ],
    run: play!(not_yet),
};

async fn not_yet(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now().secs();
    let valid = Validity { not_before: now + 86_400, not_after: now + 2 * 86_400 };
    untimely(&world, valid, now + 86_400 + 3600, "credential-not-yet-valid").await
}

pub(super) const STOLEN_KEM: Row = Row {
    id: "I08-stolen-receive-key",
    tries: "with the stolen receiving key of an agent, make requests to it in sessions that were offered to it, where a signature is demanded inside the seal",
    incident: "class: key compromise impersonation",
    expected: "signature-invalid",
    kinds: DIRECT,
    other_kinds: "fanouts are signed; replies are the owner's",
    keys: PAIR,
    other_key: "a shared key is both ends' key: its thief is its owner",
    red: &[&[Check::InnerSignature]],
    run: play!(stolen_kem),
};

async fn stolen_kem(world: Stage) -> Result<Seen, Trouble> {
    let victim = world.agent.again(None)?;
    world.stop_agent().await;
    let options = PeerOptions { inner_signature: true, ..PeerOptions::default() };
    world.serve(&victim, &options).await?;
    let taken = world.take_from(&world.control.again(None)?, "work").await?;
    taken.call.inspect(|call| call.abort());
    let offer = Parts::of(&taken.sent.payload)?.offer;
    let offer = offer.ok_or_else(|| Trouble::new("a first message has no offer"))?;
    let trust = &world.authority.trust;
    let verified = Offer::parse(&offer)?.verify(trust, |_| None)?;
    let stolen = &world.agent.keys.receive()?.key;
    let session = verified.open(trust.domain(), &world.agent.keys.party, stolen)?;
    let forged = Forged { session: Arc::new(session), offer: Some(offer.into()) };
    // Not before the offer was made.
    let payload = make(&world, &forged, world.clock.now())?;
    let mark = world.mark(&victim);
    world.inject(&world.address_of(&victim.keys), payload).await?;
    world.judge_without_health(&mark, &victim, Expected::refused("signature-invalid", 1)).await
}

pub(super) const MEMBER_SIGNS: Row = Row {
    id: "I09-member-fans-out",
    tries: "as a member of a group, who holds its key, fan out to it under one's own credential",
    incident: "class: within a group any member can pose as the sender (OpenStack's Kite group keys)",
    expected: "not-permitted",
    kinds: FANOUT,
    other_kinds: "it is about fanouts",
    keys: PAIR,
    other_key: "a shared-key member has nothing to sign with; with a key of its own it is I10",
    red: &[&[Check::FanoutSigner, Check::Policy]],
    run: play!(member_signs),
};

async fn member_signs(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let forged = speak(&world, &world.mallory.keys, now)?;
    refused(&world, &world.agent, forged, "not-permitted").await
}

pub(super) const MEMBER_AS_CONTROL: Row = Row {
    id: "I10-member-as-control-plane",
    tries: "as a member of a group, who holds its key, fan out to it in the control component's name, with the credential that stands beside each of its fanouts",
    incident: "class: one symmetric group key for all (Kite; a syndic or shared psk of MCollective commands everybody)",
    expected: "signature-invalid",
    kinds: FANOUT,
    other_kinds: "it is about fanouts",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::FanoutSignature]],
    run: play!(member_as_control),
};

async fn member_as_control(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let (_, genuine) = world.control.keys.signing()?;
    let key = SigningKey::generate(&mut OsRandom::default())?;
    // As the genuine one in all but the key.
    let lookalike = forged_host(random(&world), &world, now)?;
    let mut credential = Credential::clone(&lookalike.signing()?.1);
    credential.kid = genuine.kid;
    credential.signing = Some(key.verifying_key());
    let issuer = IssuerCredential {
        right: IssuerRight::Components,
        key: key.verifying_key(),
        ..world.authority.components.credential().clone()
    };
    let credential = Arc::new(Issuer::new(key.clone(), issuer)?.issue(&credential)?);
    let signer = FanoutSigner::new(key, credential)?;
    let mut parts = Parts::of(&fan_out(&world, &signer, now, now.ns)?)?;
    parts.offer = Some(genuine.as_bytes().to_vec());
    refused(&world, &world.agent, parts.frame(), "signature-invalid").await
}

pub(super) const SUITE: Row = Row {
    id: "L01-suite-downgrade",
    tries: "write a weaker suite into the header of a captured message",
    incident: "class: downgrade of the cipher suite (FREAK, Logjam)",
    expected: "suite-not-allowed (reply: reply-mismatch)",
    kinds: super::ALL,
    other_kinds: NONE,
    keys: BOTH,
    other_key: NONE,
    red: &[
        &[Check::SuiteAllowed, Check::HeaderBound],
        &[Check::SuiteAllowed, Check::HeaderBound, Check::FanoutSignature],
    ],
    run: play!(suite),
};

async fn suite(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let parts = Parts::of(&taken.sent.payload)?;
    let mut head = parts.head()?;
    let other = match (world.cell.key, world.cell.kind) {
        (KeyType::Pair, Kind::Fanout) | (KeyType::Shared, _) => 1,
        (KeyType::Pair, _) => 0,
    };
    head.set(0, other);
    let name = if world.cell.kind == Kind::Reply { "reply-mismatch" } else { "suite-not-allowed" };
    let forged = vec![parts.with_head(&head).frame()];
    super::altering::refuse(&world, taken, forged, Expected::refused(name, 1)).await
}

pub(super) const LEVEL: Row = Row {
    id: "L02-level-downgrade",
    tries: "with an agent's keys, send a readable message (level signed), or answer a sealed call readably",
    incident: "Trove: no key means pass through, on both sides, so mixed operation works and so does downgrade",
    expected: "level-not-allowed",
    kinds: &[Kind::Call, Kind::Cast, Kind::Reply],
    other_kinds: "fanouts have one level",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::LevelAllowed], &[Check::ReplyLevel]],
    run: play!(level),
};

async fn level(world: Stage) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    if world.cell.kind == Kind::Reply {
        return super::replies::readable(world).await;
    }
    let forged = world.mallory.session(&world.control, &world, now)?;
    let route = world.route_to(forged.session.responder())?;
    let args = bulla_rpc::value::to_vec(&World::args(world.number()))?;
    let mut buf = MessageBuf::with_capacity(256);
    intruder_body("work", &args).write(buf.sink());
    let protection = match &world.mallory.keys.signing {
        Some((key, _)) => Protection::Signed(key),
        None => Protection::Maced,
    };
    let kind = if world.cell.kind == Kind::Call { MessageKind::Call } else { MessageKind::Cast };
    let spec = RequestSpec { kind, route: &route, expires: now.secs() + 60, protection };
    let sealed = forged.session.seal_request(&spec, &hedge(now)?, buf)?;
    let payload = sealed.into_frame(forged.offer.as_deref()).bytes().clone();
    refused(&world, &world.control, payload, "level-not-allowed").await
}
