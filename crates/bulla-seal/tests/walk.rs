//! A whole call through the seal, for every suite.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use bulla_seal::*;
use common::*;

fn call_and_reply(ours: &Session, theirs: &Arc<Session>, offer: Option<&[u8]>, target: &Party) {
    let route = route_to(target);
    let sealed = ours.seal_request(&spec(&route), &hedge(1), request_plaintext(&[0xa0])).unwrap();
    let binding = ReplyBinding {
        request: sealed.id(),
        digest: sealed.digest(),
        level: Level::Sealed,
        route: route.clone(),
    };
    let plain = request_plaintext(&[0xa0]).len();
    let frame = sealed.into_frame(offer);
    println!("call: {} bytes beyond the plaintext", frame.bytes().len() - plain);
    let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
    assert_eq!(parsed.offer(), offer);
    let opened = theirs.open_request(parsed, &expected(&route)).unwrap();
    assert_eq!(opened.body().unwrap().method, "ping");
    assert_eq!(opened.digest(), binding.digest);

    let reply_spec = ReplySpec { outcome: Outcome::Value, index: 0 };
    let buf = MessageBuf::from_plaintext(&[0x18, 0x2a]);
    let reply = theirs.seal_reply(&opened.reply_binding(), reply_spec, &hedge(1), buf).unwrap();
    let frame = reply.into_frame(None);
    println!("reply: {} bytes beyond the plaintext", frame.bytes().len() - 2);
    let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
    let reply = ours.open_reply(parsed, &binding).unwrap();
    assert_eq!(reply.payload(), [0x18, 0x2a]);
    assert_eq!((reply.outcome, reply.index), (Outcome::Value, 0));
}

#[test]
fn key_pair_calls() {
    for suite in [Suite::X25519, Suite::XWing] {
        let mut world = World::new();
        let component = world.component("control", suite);
        let agent = world.agent("db-1", suite);
        let (ours, theirs, offer) = sessions(&mut world, &component, &agent);
        println!("offer: {} bytes", offer.len());
        call_and_reply(&ours, &theirs, Some(&offer), &agent.party);
        call_and_reply(&ours, &theirs, None, &agent.party);
        // Either end may have rested in between.
        call_and_reply(&ours.rest().wake(), &theirs, None, &agent.party);
        call_and_reply(&ours, &Arc::new(theirs.rest().wake()), None, &agent.party);
    }
}

#[test]
fn shared_key_calls() {
    let agent = Party::new(Principal::agent("db-1").unwrap(), 1);
    let component = Party::new(Principal::component("control").unwrap(), 1);
    let key = shared::pair_key(&Secret::new([5; 32]), &agent, &component.principal, 1);
    let session = || shared::session(Kid([7; 8]), &key, component.clone(), agent.clone());
    call_and_reply(&session(), &Arc::new(session()), None, &agent);
}

#[test]
fn fanouts_alone_and_in_a_burst() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let group = GroupName::new("all").unwrap();
    let key = GroupKey { group: group.clone(), epoch: 3, key: Secret::new([8; 32]) };
    let session = GroupSession::new(&key);
    let signer = FanoutSigner::new(component.key.clone(), component.signing.clone()).unwrap();
    let route = Route::new("bulla", "group.all", None, Audience::Group(group)).unwrap();
    for count in [1usize, 2, 5] {
        let sealed: Vec<_> = (0..count as u64)
            .map(|i| {
                let spec = FanoutSpec {
                    kind: MessageKind::Fanout,
                    route: &route,
                    expires: NOW.secs() + 60,
                    sequence: i,
                };
                session.seal(&signer, &spec, &hedge(i), request_plaintext(&[0xa0])).unwrap()
            })
            .collect();
        for (i, frame) in signer.sign_batch(sealed).into_iter().enumerate() {
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            assert_eq!(parsed.claimed_signer(), Some(component.signing.kid));
            let credential = Arc::new(world.trust.verify(parsed.offer().unwrap(), NOW).unwrap());
            let opened = session.open(parsed, &credential, &expected(&route)).unwrap();
            assert_eq!(opened.sequence(), i as u64);
            assert_eq!(opened.body().unwrap().method, "ping");
            assert_eq!(opened.digest(), frame.digest());
        }
    }
}

#[test]
fn signed_level_is_readable_and_bound() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    let (ours, theirs, _) = sessions(&mut world, &component, &agent);
    let (shared, key_of) = (shared_session(&component.party, &agent.party), &component.key);
    let pairs =
        [(&ours, &theirs, Protection::Signed(key_of)), (&*shared, &shared, Protection::Maced)];
    let route = route_to(&agent.party);
    for (ours, theirs, protection) in pairs {
        let spec = RequestSpec { protection, ..spec(&route) };
        let sealed = ours.seal_request(&spec, &hedge(1), request_plaintext(&[0xa0])).unwrap();
        let frame = sealed.into_frame(None);
        assert!(frame.bytes().windows(4).any(|w| w == b"ping"));
        let parse = || Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
        let low = Expected { level: Level::Signed, ..expected(&route) };
        assert_eq!(
            theirs.open_request(parse(), &expected(&route)).unwrap_err(),
            Refusal::LevelNotAllowed
        );
        let opened = theirs.open_request(parse(), &low).unwrap();
        assert_eq!(opened.level(), Level::Signed);
        let reply_spec = ReplySpec { outcome: Outcome::Value, index: 0 };
        let buf = MessageBuf::from_plaintext(&[1]);
        let binding = opened.reply_binding();
        let reply =
            theirs.seal_reply(&binding, reply_spec, &hedge(1), buf).unwrap().into_frame(None);
        let parsed = Parsed::parse(reply.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
        assert_eq!(ours.open_reply(parsed, &binding).unwrap().payload(), [1]);
    }
}
