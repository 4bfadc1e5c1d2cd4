//! One test for each way in which a proven or unproven peer may try to bend the rules.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use bulla_seal::sign::{SignatureUse, sign1};
use bulla_seal::*;
use common::*;

fn parse(frame: &Frame) -> Parsed {
    Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap()
}

fn value() -> ReplySpec {
    ReplySpec { outcome: Outcome::Value, index: 0 }
}

struct Pair {
    world: World,
    component: Component,
    agent: Agent,
    ours: Session,
    theirs: Arc<Session>,
    offer: bytes::Bytes,
    route: Route,
}

fn pair(suite: Suite) -> Pair {
    let mut world = World::new();
    let component = world.component("control", suite);
    let agent = world.agent("db-1", suite);
    let (ours, theirs, offer) = sessions(&mut world, &component, &agent);
    let route = route_to(&agent.party);
    Pair { world, component, agent, ours, theirs, offer, route }
}

impl Pair {
    fn seal(&self, protection: Protection<'_>) -> Frame {
        let spec = RequestSpec { protection, ..spec(&self.route) };
        let buf = request_plaintext(&[0xa0]);
        self.ours.seal_request(&spec, &hedge(1), buf).unwrap().into_frame(None)
    }
}

/// The id and the digest of a request are visible to the broker, which may hand them to another
/// agent that has a session of its own with the same component.
#[test]
fn another_agent_cannot_answer_in_its_own_session() {
    let mut p = pair(Suite::X25519);
    let thief = p.world.agent("thief", Suite::X25519);
    let (ours, theirs, _) = sessions(&mut p.world, &p.component, &thief);
    let request = p.seal(Protection::Sealed);
    let binding = ReplyBinding {
        request: request.id(),
        digest: request.digest(),
        level: Level::Sealed,
        route: p.route.clone(),
    };
    // This crate does not even seal it …
    let buf = MessageBuf::from_plaintext(&[1]);
    let refused = theirs.seal_reply(&binding, value(), &hedge(1), buf);
    assert_eq!(refused.unwrap_err(), SealError::Audience);
    // … nor does it open what names the thief's session for a request to somebody else.
    let own = ReplyBinding { route: route_to(&thief.party), ..binding.clone() };
    let buf = MessageBuf::from_plaintext(&[1]);
    let reply = theirs.seal_reply(&own, value(), &hedge(1), buf).unwrap().into_frame(None);
    assert_eq!(ours.open_reply(parse(&reply), &binding).unwrap_err(), Refusal::ReplyMismatch);
}

#[test]
fn a_request_is_for_the_other_end_of_its_session() {
    let p = pair(Suite::X25519);
    let other = route_to(&Party::new(p.agent.party.principal.clone(), 2));
    let refused = p.ours.seal_request(&spec(&other), &hedge(1), request_plaintext(&[0xa0]));
    assert_eq!(refused.unwrap_err(), SealError::Audience);
    let group = Audience::Group(GroupName::new("all").unwrap());
    let group = Route::new("bulla", "agent.db-1", None, group).unwrap();
    let notification = RequestSpec { kind: MessageKind::Notification, ..spec(&group) };
    let refused = p.ours.seal_request(&notification, &hedge(1), request_plaintext(&[0xa0]));
    assert_eq!(refused.unwrap_err(), SealError::Audience);
    let request = p.seal(Protection::Sealed);
    for route in [&other, &group] {
        let refused = p.theirs.open_request(parse(&request), &expected(route)).unwrap_err();
        assert_eq!(refused, Refusal::AudienceMismatch);
    }
}

/// With the receiver's KEM key alone a thief has the session's MAC key, but no signing key.
#[test]
fn a_mac_does_not_pass_for_a_signature() {
    let p = pair(Suite::X25519);
    let maced = RequestSpec { protection: Protection::Maced, ..spec(&p.route) };
    let refused = p.ours.seal_request(&maced, &hedge(1), request_plaintext(&[0xa0]));
    assert_eq!(refused.unwrap_err(), SealError::Protection);
    let shared = shared_session(&p.component.party, &p.agent.party);
    let signed = Protection::Signed(&p.component.key);
    let signed = RequestSpec { protection: signed, ..spec(&p.route) };
    let refused = shared.seal_request(&signed, &hedge(1), request_plaintext(&[0xa0]));
    assert_eq!(refused.unwrap_err(), SealError::Protection);
    // Nor with a key that is not the session's.
    let wrong = RequestSpec { protection: Protection::Signed(&p.agent.key), ..spec(&p.route) };
    let refused = p.ours.seal_request(&wrong, &hedge(1), request_plaintext(&[0xa0]));
    assert_eq!(refused.unwrap_err(), SealError::Protection);
}

#[test]
fn a_topic_may_demand_a_signature_inside_the_seal() {
    for suite in [Suite::X25519, Suite::XWing] {
        let p = pair(suite);
        let strict = Expected { inner_signature: true, ..expected(&p.route) };
        let plain = p.seal(Protection::Sealed);
        let signed = p.seal(Protection::SealedSigned(&p.component.key));
        assert!(!p.theirs.open_request(parse(&plain), &expected(&p.route)).unwrap().is_signed());
        let refused = p.theirs.open_request(parse(&plain), &strict).unwrap_err();
        assert_eq!(refused, Refusal::SignatureInvalid);
        for expected in [&strict, &expected(&p.route)] {
            let opened = p.theirs.open_request(parse(&signed), expected).unwrap();
            assert!(opened.is_signed());
            assert_eq!(opened.body().unwrap().method, "ping");
            assert_eq!(opened.digest(), signed.digest());
        }
        // The envelope's own signature does as well, where the level allows it.
        let readable = p.seal(Protection::Signed(&p.component.key));
        let low = Expected { level: Level::Signed, ..strict };
        assert!(p.theirs.open_request(parse(&readable), &low).unwrap().is_signed());
    }
}

/// Who holds the session's keys can seal any plaintext, but no signature that is not its own.
#[test]
fn a_forged_signature_inside_the_seal_is_refused() {
    let p = pair(Suite::X25519);
    let strict = Expected { inner_signature: true, ..expected(&p.route) };
    let forged = |signature: [u8; 64]| {
        let mut plaintext = Vec::new();
        let body = RequestBody {
            namespace: None,
            method: "ping",
            version: "1.0",
            args: &[0xa0],
            context: None,
            trace_parent: None,
            reply_to: None,
        };
        body.write(&mut plaintext);
        plaintext[0] = 0x88;
        cbor::Writer::new(&mut plaintext).bytes(&signature);
        let buf = MessageBuf::from_plaintext(&plaintext);
        p.ours.seal_request(&spec(&p.route), &hedge(1), buf).unwrap().into_frame(None)
    };
    for expected in [&strict, &expected(&p.route)] {
        let refused = p.theirs.open_request(parse(&forged([7; 64])), expected).unwrap_err();
        assert_eq!(refused, Refusal::SignatureInvalid);
    }
    // A shared-key session has nobody who could sign.
    let shared = shared_session(&p.component.party, &p.agent.party);
    let sealed = shared.seal_request(&spec(&p.route), &hedge(1), request_plaintext(&[0xa0]));
    let refused = shared.open_request(parse(&sealed.unwrap().into_frame(None)), &strict);
    assert_eq!(refused.unwrap_err(), Refusal::SignatureInvalid);
}

#[test]
fn suites_outside_the_accepted_set_are_refused() {
    let p = pair(Suite::X25519);
    let offer = Offer::parse(&p.offer).unwrap();
    let own = &*p.agent.credential;
    assert_eq!(offer.check_for(own, SuiteSet::all(), NOW, DEFAULT_SKEW), Ok(()));
    let strong = SuiteSet::only(Suite::XWing);
    let refused = offer.check_for(own, strong, NOW, DEFAULT_SKEW);
    assert_eq!(refused, Err(Refusal::SuiteNotAllowed));
    let stranger = &*p.component.audience;
    let refused = offer.check_for(stranger, SuiteSet::all(), NOW, DEFAULT_SKEW);
    assert_eq!(refused, Err(Refusal::AudienceMismatch));
    // Messages of a session that was opened before the set shrank.
    let strict = Expected { suites: strong, ..expected(&p.route) };
    let request = p.seal(Protection::Sealed);
    let refused = p.theirs.open_request(parse(&request), &strict).unwrap_err();
    assert_eq!(refused, Refusal::SuiteNotAllowed);
    // Only the header says another suite: [suite, kind, level] behind the private label.
    let mut bytes = request.bytes().to_vec();
    let own_label = [0x3a, 0x00, 0x01, 0x00, 0x00, 0x83];
    let at = bytes.windows(6).position(|w| w == own_label).unwrap() + 6;
    for suite in [0, 2] {
        bytes[at] = suite;
        let parsed = Parsed::parse(bytes::BytesMut::from(&bytes[..]), DEFAULT_MAX_FRAME).unwrap();
        let refused = p.theirs.open_request(parsed, &expected(&p.route)).unwrap_err();
        assert_eq!(refused, Refusal::SuiteNotAllowed);
    }
}

#[test]
fn credentials_are_judged_at_the_message_s_time() {
    let mut world = World::new();
    let mut component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    // A signing credential that ends ten minutes from now, and an offer that says an hour.
    let mut short = (**component.signing).clone();
    short.validity.not_after = NOW.secs() + 600;
    component.signing = Arc::new(world.components.issue(&short).unwrap());
    let (ours, theirs, offer) = sessions(&mut world, &component, &agent);
    assert_eq!(ours.window().unwrap().exp, NOW.secs() + 600);
    let late = Hedge { now: UnixTime::from_secs(NOW.secs() + 600), ..hedge(1) };
    let route = route_to(&agent.party);
    let at = |hedge: &Hedge, session: &Session| {
        let spec = RequestSpec { expires: hedge.now.secs() + 60, ..spec(&route) };
        session.seal_request(&spec, hedge, request_plaintext(&[0xa0]))
    };
    assert_eq!(at(&late, &ours).unwrap_err(), SealError::SessionExpired);
    assert!(at(&hedge(1), &ours).is_ok());
    drop((theirs, offer));

    // A fanout under a credential that ended before the fanout was made.
    let key =
        GroupKey { group: GroupName::new("all").unwrap(), epoch: 1, key: Secret::new([8; 32]) };
    let session = GroupSession::new(&key);
    let route = Route::new("bulla", "g", None, Audience::Group(key.group.clone())).unwrap();
    let signer = FanoutSigner::new(component.key.clone(), component.signing.clone()).unwrap();
    let spec = FanoutSpec {
        kind: MessageKind::Fanout,
        route: &route,
        expires: late.now.secs() + 60,
        sequence: 0,
    };
    let sealed = session.seal(&signer, &spec, &late, request_plaintext(&[0xa0])).unwrap();
    let expected = Expected { now: late.now, ..expected(&route) };
    let refused = session.open(parse(&signer.sign(sealed)), &component.signing, &expected);
    assert_eq!(refused.unwrap_err(), Refusal::CredentialExpired);
}

#[test]
fn offers_are_taken_within_their_time_only() {
    let p = pair(Suite::X25519);
    let check = |secs: u64| {
        let offer = Offer::parse(&p.offer).unwrap();
        offer.check(&p.agent.party, UnixTime::from_secs(secs), DEFAULT_SKEW)
    };
    let now = NOW.secs();
    assert_eq!(check(now - DEFAULT_SKEW), Ok(()));
    assert_eq!(check(now - DEFAULT_SKEW - 1), Err(Refusal::OfferExpired));
    // What was sealed in the offer's time may live for a day more.
    assert_eq!(check(now + 3600 + MAX_LIFE + DEFAULT_SKEW), Ok(()));
    assert_eq!(check(now + 3600 + MAX_LIFE + DEFAULT_SKEW + 1), Err(Refusal::OfferExpired));
    assert_eq!(check(u64::MAX), Ok(()).and(Err(Refusal::OfferExpired)));
    let wrong = Party::new(p.agent.party.principal.clone(), 2);
    let offer = Offer::parse(&p.offer).unwrap();
    assert_eq!(offer.check(&wrong, NOW, DEFAULT_SKEW), Err(Refusal::AudienceMismatch));
    // An offer can't be made with a credential that is over.
    let ended = UnixTime::from_secs(LIFE.not_after);
    let initiator = p.component.initiator(&p.world);
    let refused = initiator.offer(&p.agent.credential, ended, 60, &mut Counting(9)).unwrap_err();
    assert_eq!(refused, OfferError::Credential(Refusal::CredentialExpired));
}

/// A hostile sender signs an offer that outlives its credential.
#[test]
fn an_offer_may_not_outlive_its_credential() {
    let p = pair(Suite::X25519);
    let payload_at = |bytes: &[u8]| {
        let mut r = cbor::Reader::new(bytes);
        r.tag(18).unwrap();
        r.array(4).unwrap();
        r.bytes().unwrap();
        r.map(0).unwrap();
        r.bytes().unwrap().to_vec()
    };
    let payload = payload_at(&p.offer);
    let exp = (NOW.secs() + 3600).to_be_bytes();
    let at = payload.windows(4).rposition(|w| w == &exp[4..]).unwrap();
    let mut short = (**p.component.signing).clone();
    short.validity.not_after = NOW.secs() + 600;
    let short = p.world.components.issue(&short).unwrap();
    let with_exp = |secs: u64| {
        let mut payload = payload.clone();
        payload[at..at + 4].copy_from_slice(&secs.to_be_bytes()[4..]);
        // The short credential in place of the long one: both have one length.
        let old = p.component.signing.as_bytes();
        let from = payload.windows(old.len()).position(|w| w == &old[..]).unwrap();
        payload[from..from + old.len()].copy_from_slice(short.as_bytes());
        sign1(SignatureUse::Offer, &p.component.key, None, &payload)
    };
    let verify =
        |bytes: &[u8]| Offer::parse(bytes).unwrap().verify(&p.world.trust, |_| None).map(drop);
    assert_eq!(verify(&with_exp(NOW.secs() + 600)), Ok(()));
    assert_eq!(verify(&with_exp(NOW.secs() + 601)), Err(Refusal::OfferInvalid));
}

#[test]
fn issuers_keep_to_their_right_and_time() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    assert_eq!(world.agents.issue(&component.signing).unwrap_err(), Refusal::CredentialInvalid);
    assert_eq!(world.components.issue(&agent.credential).unwrap_err(), Refusal::CredentialInvalid);
    let broken = |change: &dyn Fn(&mut Credential)| {
        let mut credential = (**agent.credential).clone();
        change(&mut credential);
        world.agents.issue(&credential).map(drop)
    };
    assert_eq!(broken(&|_| {}), Ok(()));
    let changes: [&dyn Fn(&mut Credential); 9] = [
        &|c| c.validity.not_after = LIFE.not_after + 1,
        &|c| c.validity.not_before = c.validity.not_after,
        &|c| c.roles = vec![String::new()],
        &|c| c.roles = vec!["r".repeat(81)],
        &|c| c.roles = vec!["r".into(); 33],
        &|c| c.instance = Some("host".into()),
        &|c| c.suites = SuiteSet::any(),
        &|c| c.suites = SuiteSet::only(Suite::XWing),
        &|c| c.party.incarnation = 0,
    ];
    for (i, change) in changes.iter().enumerate() {
        assert_eq!(broken(change), Err(Refusal::CredentialInvalid), "change {i}");
    }
    // A short-lived issuer can't be used to make what outlives it, however it is signed.
    let root = SigningKey::generate(&mut world.random).unwrap();
    let issuer = |not_after| {
        let key = SigningKey::from_seed(Secret::new([3; 32])).unwrap();
        let validity = Validity { not_after, ..LIFE };
        let credential = IssuerCredential {
            kid: Kid([9; 8]),
            domain: world.domain.clone(),
            right: IssuerRight::Agents,
            key: key.verifying_key(),
            validity,
        };
        (credential.sign(&root), Issuer::new(key, credential).unwrap())
    };
    let (short, _) = issuer(NOW.secs() + 60);
    let (_, long) = issuer(LIFE.not_after);
    let mut trust = TrustStore::new(world.domain.clone(), root.verifying_key());
    trust.add_issuer(&short).unwrap();
    let made = long.issue(&agent.credential).unwrap();
    assert_eq!(trust.verify(made.as_bytes(), NOW).unwrap_err(), Refusal::CredentialInvalid);
    // Not signed by the root, or of another domain.
    let mut other = TrustStore::new(world.domain.clone(), agent.key.verifying_key());
    assert_eq!(other.add_issuer(&short).unwrap_err(), Refusal::IssuerUnknown);
    let domain = TrustDomain::new("other.example").unwrap();
    let mut other = TrustStore::new(domain, root.verifying_key());
    assert_eq!(other.add_issuer(&short).unwrap_err(), Refusal::IssuerUnknown);
    // Nor does a credential pass for an issuer's, or the root for an issuer.
    assert!(trust.add_issuer(made.as_bytes()).is_err());
    assert_eq!(trust.verify(&short, NOW).unwrap_err(), Refusal::IssuerUnknown);
}

#[test]
fn credentials_have_a_beginning_an_end_and_an_epoch() {
    let mut world = World::new();
    let agent = world.agent("db-1", Suite::X25519);
    let at =
        |secs| world.trust.verify(agent.credential.as_bytes(), UnixTime::from_secs(secs)).map(drop);
    assert_eq!(at(LIFE.not_before), Ok(()));
    assert_eq!(at(LIFE.not_after - 1), Ok(()));
    assert!(at(LIFE.not_before - 1).is_err());
    assert!(at(LIFE.not_after).is_err());
    assert!(at(u64::MAX).is_err());
    assert_eq!(agent.credential.check_epoch(1), Ok(()));
    assert_eq!(agent.credential.check_epoch(2), Err(Refusal::EpochStale));
}

#[test]
fn a_cache_that_gives_another_credential_is_not_believed() {
    let p = pair(Suite::X25519);
    let offer = Offer::parse(&p.offer).unwrap();
    let wrong = p.agent.credential.clone();
    let verified = offer.verify(&p.world.trust, |_| Some(wrong)).unwrap();
    assert_eq!(*verified.sender(), p.component.party);
}

#[test]
fn times_hold_at_their_edges_and_extremes() {
    let p = pair(Suite::X25519);
    let request = p.seal(Protection::Sealed);
    let at = |now: u64| {
        let expected = Expected { now: UnixTime::from_secs(now), ..expected(&p.route) };
        p.theirs.open_request(parse(&request), &expected).map(drop)
    };
    let now = NOW.secs();
    assert_eq!(at(now - DEFAULT_SKEW), Ok(()));
    assert_eq!(at(now - DEFAULT_SKEW - 1), Err(Refusal::NotYetValid));
    assert_eq!(at(now + 60 + DEFAULT_SKEW), Ok(()));
    assert_eq!(at(now + 60 + DEFAULT_SKEW + 1), Err(Refusal::Expired));
    assert_eq!(at(u64::MAX), Err(Refusal::Expired));
    assert_eq!(at(0), Err(Refusal::NotYetValid));
    let lives = |expires| {
        let spec = RequestSpec { expires, ..spec(&p.route) };
        p.ours.seal_request(&spec, &hedge(1), request_plaintext(&[0xa0])).map(drop)
    };
    assert_eq!(lives(now + MAX_LIFE), Ok(()));
    for expires in [0, now, now + MAX_LIFE + 1, u64::MAX] {
        assert_eq!(lives(expires), Err(SealError::Lifetime));
    }
}

/// A hostile agent that answers with endless nesting must not reach a recursive decoder.
#[test]
fn a_reply_is_one_item_of_bounded_depth() {
    let p = pair(Suite::X25519);
    let request = p.seal(Protection::Sealed);
    let opened = p.theirs.open_request(parse(&request), &expected(&p.route)).unwrap();
    let binding = opened.reply_binding();
    let answer = |outcome, plaintext: &[u8]| {
        let buf = MessageBuf::from_plaintext(plaintext);
        let spec = ReplySpec { outcome, index: 0 };
        let reply = p.theirs.seal_reply(&binding, spec, &hedge(1), buf).unwrap().into_frame(None);
        p.ours.open_reply(parse(&reply), &binding).map(drop)
    };
    assert_eq!(answer(Outcome::Value, &[1]), Ok(()));
    let mut deep = vec![0x81; 100_000];
    deep.push(1);
    for (outcome, plaintext) in [
        (Outcome::Value, &deep[..]),
        (Outcome::Progress, &[1, 2]),
        (Outcome::Value, &[]),
        (Outcome::Value, &[0x9f, 0xff]),
        (Outcome::Error, &[1]),
        (Outcome::Error, &[0x84, 0x60, 0x60, 0xf6, 0xf6]),
    ] {
        assert_eq!(answer(outcome, plaintext), Err(Refusal::Malformed));
    }
}

#[test]
fn empty_names_in_a_body_are_refused() {
    let p = pair(Suite::X25519);
    let body = |namespace, method, version, reply_to| {
        let mut buf = MessageBuf::with_capacity(64);
        let body = RequestBody {
            namespace,
            method,
            version,
            args: &[0xa0],
            context: None,
            trace_parent: None,
            reply_to,
        };
        body.write(buf.sink());
        let sealed = p.ours.seal_request(&spec(&p.route), &hedge(1), buf).unwrap();
        p.theirs.open_request(parse(&sealed.into_frame(None)), &expected(&p.route)).map(drop)
    };
    assert_eq!(body(Some("n"), "m", "1.0", Some("r")), Ok(()));
    assert_eq!(body(Some(""), "m", "1.0", Some("r")), Err(Refusal::Malformed));
    assert_eq!(body(None, "", "1.0", None), Err(Refusal::Malformed));
    assert_eq!(body(None, "m", "", None), Err(Refusal::Malformed));
    assert_eq!(body(None, "m", "1.0", Some("")), Err(Refusal::Malformed));
}

#[test]
fn a_header_beyond_its_limit_does_not_parse() {
    let p = pair(Suite::X25519);
    let bytes = p.seal(Protection::Sealed).bytes().to_vec();
    // The sender's name blown up: lengths of name and header follow.
    let name = p.component.party.principal.as_str();
    let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    let long = vec![b'x'; 600];
    let mut r = cbor::Reader::new(&bytes[2..]);
    r.tag(16).unwrap();
    r.array(3).unwrap();
    let header_len = r.bytes().unwrap().len();
    let header_at = 2 + r.position() - header_len;
    let mut out = bytes[..header_at - 2].to_vec();
    let mut header = bytes[header_at..at - 1].to_vec();
    cbor::Writer::new(&mut header).text(std::str::from_utf8(&long).unwrap());
    header.extend_from_slice(&bytes[at + name.len()..header_at + header_len]);
    cbor::Writer::new(&mut out).bytes(&header);
    out.extend_from_slice(&bytes[header_at + header_len..]);
    let parsed = Parsed::parse(bytes::BytesMut::from(&out[..]), DEFAULT_MAX_FRAME);
    assert_eq!(parsed.unwrap_err(), Refusal::Malformed);
}

#[test]
fn an_offer_beyond_its_limit_does_not_parse() {
    let p = pair(Suite::X25519);
    let big = sign1(SignatureUse::Offer, &p.component.key, None, &[0; 7000]);
    let frame = p.seal(Protection::Sealed).with_offer(&big);
    assert_eq!(Parsed::parse(frame, DEFAULT_MAX_FRAME).unwrap_err(), Refusal::TooLarge);
    let small = p.seal(Protection::Sealed);
    let limit = small.bytes().len();
    assert!(Parsed::parse(small.bytes().clone(), limit).is_ok());
    let refused = Parsed::parse(small.bytes().clone(), limit - 1).unwrap_err();
    assert_eq!(refused, Refusal::TooLarge);
}

#[test]
fn a_fanout_s_proof_is_read_strictly() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let group = GroupName::new("all").unwrap();
    let session =
        GroupSession::new(&GroupKey { group: group.clone(), epoch: 1, key: Secret::new([8; 32]) });
    let signer = FanoutSigner::new(component.key.clone(), component.signing.clone()).unwrap();
    let route = Route::new("bulla", "g", None, Audience::Group(group)).unwrap();
    let spec = FanoutSpec {
        kind: MessageKind::Fanout,
        route: &route,
        expires: NOW.secs() + 60,
        sequence: 0,
    };
    let seal = |i| session.seal(&signer, &spec, &hedge(i), request_plaintext(&[0xa0])).unwrap();
    let frames = signer.sign_batch(vec![seal(1), seal(2), seal(3)]);
    // [signature, size, index, [path]]: 58 40 sig 03 00 82 …
    let bytes = frames[0].bytes().to_vec();
    let at = bytes.windows(4).rposition(|w| w == [0x03, 0x00, 0x82, 0x58]).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let parsed = Parsed::parse(bytes::BytesMut::from(&bytes[..]), DEFAULT_MAX_FRAME)?;
        session.open(parsed, &component.signing, &expected(&route)).map(drop)
    };
    assert_eq!(with(&|_| {}), Ok(()));
    assert_eq!(with(&|b| b[at + 1] = 1), Err(Refusal::SignatureInvalid));
    for (i, change) in [
        &(|b: &mut Vec<u8>| b[at + 1] = 3) as &dyn Fn(&mut Vec<u8>),
        &|b| b[at + 1] = 2,
        &|b| b[at] = 0,
        &|b| b[at] = 2,
        &|b| b[at + 2] = 0x81,
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(with(change), Err(Refusal::Malformed), "change {i}");
    }
    // The wrong audience, and the wrong group, whatever the bytes say.
    let agent = world.agent("db-1", Suite::X25519);
    let frame = signer.sign(seal(4));
    let own = route_to(&agent.party);
    let refused = session.open(parse(&frame), &component.signing, &expected(&own)).unwrap_err();
    assert_eq!(refused, Refusal::AudienceMismatch);
    let spec = FanoutSpec { route: &own, ..spec };
    let refused = session.seal(&signer, &spec, &hedge(1), request_plaintext(&[0xa0])).unwrap_err();
    assert_eq!(refused, SealError::Audience);
}

#[test]
fn keys_of_low_order_are_refused() {
    // u = 0 and u = 1 have order 2 and 4; any encapsulation gives an all-zero secret.
    for low in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let public = KemPublicKey::from_bytes(Suite::X25519, &low);
        let refused =
            public.map(|key| key.encapsulate(b"", None, &mut Counting(1), b"own", NOW).map(drop));
        assert!(!matches!(refused, Ok(Ok(()))));
        let key = KemSecretKey::generate(Suite::X25519, &mut Counting(5)).unwrap();
        assert_eq!(key.decapsulate(&low, b"", None).map(drop), Err(Refusal::OfferInvalid));
    }
    for (suite, len) in
        [(Suite::X25519, 31), (Suite::X25519, 33), (Suite::XWing, 32), (Suite::XWing, 1215)]
    {
        assert!(KemPublicKey::from_bytes(suite, &vec![9; len]).is_err());
        let key = KemSecretKey::generate(suite, &mut Counting(5)).unwrap();
        assert!(key.decapsulate(&vec![9; len], b"", None).is_err());
    }
}

#[test]
fn debug_output_shows_no_plaintext_and_no_randomness() {
    let p = pair(Suite::X25519);
    let mut secret = vec![0x4a];
    secret.extend_from_slice(b"topsecret!");
    let sealed =
        p.ours.seal_request(&spec(&p.route), &hedge(1), request_plaintext(&secret)).unwrap();
    let frame = sealed.into_frame(None);
    let opened = p.theirs.open_request(parse(&frame), &expected(&p.route)).unwrap();
    let reply = MessageBuf::from_plaintext(&secret);
    let sealed = p.theirs.seal_reply(&opened.reply_binding(), value(), &hedge(1), reply).unwrap();
    let reply =
        p.ours.open_reply(parse(&sealed.into_frame(None)), &opened.reply_binding()).unwrap();
    let mut pool = Pooled::new(Counting(77));
    pool.next16().unwrap();
    let error = ErrorBody { kind: "K", message: "topsecret!", details: None, trace: None };
    let shown = format!(
        "{opened:?} {reply:?} {:?} {pool:?} {error:?} {:?} {:?}",
        opened.body().unwrap(),
        p.component.key,
        p.agent.kem
    );
    assert!(!shown.contains("topsecret"), "{shown}");
    let bytes: Vec<String> = secret[1..5].iter().map(u8::to_string).collect();
    assert!(!shown.contains(&bytes.join(", ")), "{shown}");
    assert!(shown.contains("Pooled(..)"));
}
