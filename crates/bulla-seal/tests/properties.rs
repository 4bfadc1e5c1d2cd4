//! What must hold for every message, not just for the ones that somebody thought of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::{Arc, LazyLock};

use bulla_seal::*;
use bytes::BytesMut;
use common::*;
use proptest::prelude::*;

/// Both ends of a session of every suite, made once.
struct Fixture {
    suite: Suite,
    ours: Session,
    theirs: Arc<Session>,
    key: Option<SigningKey>,
    route: Route,
}

static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(|| {
    [Suite::Shared, Suite::X25519, Suite::XWing].into_iter().map(fixture).collect()
});

fn fixture(suite: Suite) -> Fixture {
    if suite == Suite::Shared {
        let component = Party::new(Principal::component("control").unwrap(), 1);
        let agent = Party::new(Principal::agent("db-1").unwrap(), 1);
        let session = || shared_session(&component, &agent);
        let ours = Arc::into_inner(session()).unwrap();
        return Fixture { suite, ours, theirs: session(), key: None, route: route_to(&agent) };
    }
    let mut world = World::new();
    let component = world.component("control", suite);
    let agent = world.agent("db-1", suite);
    let (ours, theirs, _) = sessions(&mut world, &component, &agent);
    Fixture { suite, ours, theirs, key: Some(component.key), route: route_to(&agent.party) }
}

const KINDS: [MessageKind; 3] = [MessageKind::Call, MessageKind::Cast, MessageKind::Notification];

impl Fixture {
    /// The protections that this suite has: sealed, sealed and signed inside, readable.
    fn protection(&self, which: usize) -> Protection<'_> {
        match (which, &self.key) {
            (0, _) | (1, None) => Protection::Sealed,
            (1, Some(key)) => Protection::SealedSigned(key),
            (_, Some(key)) => Protection::Signed(key),
            (_, None) => Protection::Maced,
        }
    }

    fn seal(&self, kind: MessageKind, which: usize, args: &[u8], counter: u64) -> Frame {
        let spec = RequestSpec {
            kind,
            route: &self.route,
            expires: NOW.secs() + 60,
            protection: self.protection(which),
        };
        let sealed =
            self.ours.seal_request(&spec, &hedge(counter), request_plaintext(&string(args)));
        sealed.unwrap().into_frame(None)
    }

    fn open(&self, bytes: &[u8], route: &Route) -> Result<OpenedRequest, Refusal> {
        let parsed = Parsed::parse(BytesMut::from(bytes), DEFAULT_MAX_FRAME)?;
        let expected = Expected { level: Level::Signed, ..Expected::new(route, NOW) };
        self.theirs.open_request(parsed, &expected)
    }

    fn reply(&self, binding: &ReplyBinding, spec: ReplySpec, payload: &[u8]) -> Frame {
        let buf = MessageBuf::from_plaintext(payload);
        self.theirs.seal_reply(binding, spec, &hedge(9), buf).unwrap().into_frame(None)
    }

    fn open_reply(&self, bytes: &[u8], binding: &ReplyBinding) -> Result<OpenedReply, Refusal> {
        let parsed = Parsed::parse(BytesMut::from(bytes), DEFAULT_MAX_FRAME)?;
        self.ours.open_reply(parsed, binding)
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::Writer::new(&mut out).bytes(bytes);
    out
}

fn any_request() -> impl Strategy<Value = (usize, usize, usize, Vec<u8>)> {
    (0..3usize, 0..3usize, 0..3usize, prop::collection::vec(any::<u8>(), 0..600))
}

proptest! {
    #[test]
    fn what_is_sealed_opens((suite, kind, which, args) in any_request(), counter: u64) {
        let f = &FIXTURES[suite];
        let frame = f.seal(KINDS[kind], which, &args, counter);
        let opened = f.open(frame.bytes(), &f.route).unwrap();
        prop_assert_eq!(opened.kind(), KINDS[kind]);
        prop_assert_eq!(opened.id(), frame.id());
        prop_assert_eq!(opened.digest(), frame.digest());
        prop_assert_eq!(opened.body().unwrap().args, string(&args));
        prop_assert_eq!(opened.sender(), f.ours.requester());
        // Nothing of what is sealed shows.
        if which == 0 && args.len() >= 8 {
            prop_assert!(!frame.bytes().windows(8).any(|w| w == &args[..8]));
        }
        for (index, outcome) in [Outcome::Progress, Outcome::Value].into_iter().enumerate() {
            let spec = ReplySpec { outcome, index: index as u16 };
            let binding = opened.reply_binding();
            let reply = f.reply(&binding, spec, &string(&args));
            let got = f.open_reply(reply.bytes(), &binding).unwrap();
            prop_assert_eq!(got.payload(), string(&args));
            prop_assert_eq!((got.outcome, got.index, got.id), (outcome, index as u16, reply.id()));
        }
    }

    #[test]
    fn what_was_altered_is_refused(
        (suite, kind, which, args) in any_request(),
        at: prop::sample::Index,
        bit in 0..8u8,
        extra: u8,
    ) {
        let f = &FIXTURES[suite];
        let good = f.seal(KINDS[kind], which, &args, 1).bytes().to_vec();
        let at = at.index(good.len());
        let mut flipped = good.clone();
        flipped[at] ^= 1 << bit;
        prop_assert!(f.open(&flipped, &f.route).is_err());
        prop_assert!(f.open(&good[..at], &f.route).is_err());
        let mut longer = good.clone();
        longer.push(extra);
        prop_assert!(f.open(&longer, &f.route).is_err());
        let mut inserted = good.clone();
        inserted.insert(at, extra);
        prop_assert!(f.open(&inserted, &f.route).is_err());
        let binding = f.open(&good, &f.route).unwrap().reply_binding();
        let spec = ReplySpec { outcome: Outcome::Value, index: 0 };
        let reply = f.reply(&binding, spec, &string(&args)).bytes().to_vec();
        let at = at % reply.len();
        let mut flipped = reply.clone();
        flipped[at] ^= 1 << bit;
        prop_assert!(f.open_reply(&flipped, &binding).is_err());
        prop_assert!(f.open_reply(&reply[..at], &binding).is_err());
    }

    #[test]
    fn a_message_opens_only_where_it_was_sent((suite, kind, which, args) in any_request()) {
        let f = &FIXTURES[suite];
        let audience = f.route.audience().clone();
        let Audience::Party(party) = audience.clone() else { unreachable!() };
        let frame = f.seal(KINDS[kind], which, &args, 1);
        let topic = f.route.topic().to_owned();
        let next = Party::new(party.principal.clone(), party.incarnation + 1);
        let other = Party::new(Principal::agent("db-2").unwrap(), 1);
        let group = Audience::Group(GroupName::new("db-1").unwrap());
        for (exchange, topic, server, audience) in [
            ("other", &topic[..], None, audience.clone()),
            ("bulla", "other", None, audience.clone()),
            ("bulla", &topic, Some("host"), audience),
            ("bulla", &topic, None, Audience::Party(next)),
            ("bulla", &topic, None, Audience::Party(other)),
            ("bulla", &topic, None, group),
        ] {
            let route = Route::new(exchange, topic, server, audience).unwrap();
            prop_assert!(f.open(frame.bytes(), &route).is_err());
        }
        // Nor in the session of another suite, or the other way round in its own.
        for g in FIXTURES.iter().filter(|g| g.suite != f.suite) {
            prop_assert!(g.open(frame.bytes(), &f.route).is_err());
        }
        if f.suite == Suite::Shared {
            let back = shared_session(f.ours.responder(), f.ours.requester());
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            let expected = Expected { level: Level::Signed, ..Expected::new(&f.route, NOW) };
            prop_assert!(back.open_request(parsed, &expected).is_err());
        }
    }

    #[test]
    fn headers_and_contents_are_not_interchangeable((suite, kind, which, args) in any_request()) {
        let f = &FIXTURES[suite];
        let (a, b) = (f.seal(KINDS[kind], which, &args, 1), f.seal(KINDS[kind], which, &args, 2));
        prop_assert_ne!(a.id(), b.id());
        let (ah, bh) = (header_end(a.bytes()), header_end(b.bytes()));
        let mut swapped = a.bytes()[..ah].to_vec();
        swapped.extend_from_slice(&b.bytes()[bh..]);
        prop_assert!(f.open(&swapped, &f.route).is_err());
        // A header that says another kind.
        let own = [0x3a, 0x00, 0x01, 0x00, 0x00, 0x83];
        let at = a.bytes().windows(6).position(|w| w == own).unwrap() + 7;
        for other in KINDS.iter().filter(|other| **other != KINDS[kind]) {
            let mut bytes = a.bytes().to_vec();
            bytes[at] = other.to_wire();
            prop_assert!(f.open(&bytes, &f.route).is_err());
        }
    }

    #[test]
    fn a_reply_is_for_one_request_and_one_place((suite, _, which, args) in any_request(), index in 0..3u16) {
        let f = &FIXTURES[suite];
        let bind = |counter| {
            let frame = f.seal(MessageKind::Call, which, &args, counter);
            f.open(frame.bytes(), &f.route).unwrap().reply_binding()
        };
        let (one, two) = (bind(1), bind(2));
        let spec = ReplySpec { outcome: Outcome::Progress, index };
        let reply = f.reply(&one, spec, &string(&args));
        prop_assert!(f.open_reply(reply.bytes(), &one).is_ok());
        prop_assert!(f.open_reply(reply.bytes(), &two).is_err());
        let mixed = ReplyBinding { digest: two.digest, ..one.clone() };
        prop_assert!(f.open_reply(reply.bytes(), &mixed).is_err());
        let mixed = ReplyBinding { request: two.request, ..one.clone() };
        prop_assert!(f.open_reply(reply.bytes(), &mixed).is_err());
        // Reflected as a request.
        prop_assert!(f.open(reply.bytes(), &f.route).is_err());
        // [suite, kind, level, in-reply-to, outcome, index]: each replaced by another.
        let mut bytes = reply.bytes().to_vec();
        let at = header_end(&bytes);
        prop_assert_eq!((bytes[at - 2], bytes[at - 1]), (3, index as u8));
        bytes[at - 1] ^= 1;
        prop_assert!(f.open_reply(&bytes, &one).is_err());
        bytes[at - 1] ^= 1;
        bytes[at - 2] = 1;
        prop_assert!(f.open_reply(&bytes, &one).is_err());
    }

    /// Two copies of one process, with one random source, one clock and one counter.
    #[test]
    fn clones_never_share_an_id_or_a_key((suite, kind, which, args) in any_request(), other: Vec<u8>) {
        prop_assume!(args != other);
        let f = &FIXTURES[suite];
        let (a, b) = (f.seal(KINDS[kind], which, &args, 7), f.seal(KINDS[kind], which, &other, 7));
        prop_assert_ne!(a.id(), b.id());
        let binding = f.open(a.bytes(), &f.route).unwrap().reply_binding();
        let spec = ReplySpec { outcome: Outcome::Value, index: 0 };
        let x = f.reply(&binding, spec, &string(&args));
        let y = f.reply(&binding, spec, &string(&other));
        prop_assert_ne!(x.id(), y.id());
        // One key and IV would show as one key stream: the plaintexts begin alike.
        if binding.level == Level::Sealed {
            let stream = |frame: &Frame| {
                let at = header_end(frame.bytes()) + 1;
                let mut r = cbor::Reader::new(&frame.bytes()[at..]);
                r.bytes().unwrap()[..16].to_vec()
            };
            prop_assert_ne!(stream(&a), stream(&b));
        }
        // And the same content is the same message: nothing to tell apart.
        let again = f.seal(KINDS[kind], which, &args, 7);
        prop_assert_eq!(a.bytes(), again.bytes());
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse_everything(&bytes);
    }

    /// Mutants of good messages get further than noise. What parses is re-encoded from its parts
    /// and must be the same bytes: there is one encoding of everything.
    #[test]
    fn what_parses_re_encodes_to_the_same_bytes(
        (suite, kind, which, args) in any_request(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        reply: bool,
    ) {
        let f = &FIXTURES[suite];
        let mut frame = f.seal(KINDS[kind], which, &args, 1);
        if reply {
            let binding = f.open(frame.bytes(), &f.route).unwrap().reply_binding();
            frame = f.reply(&binding, ReplySpec { outcome: Outcome::Value, index: 300 }, &[1]);
        }
        let mut bytes = frame.bytes().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        parse_everything(&bytes);
        if Parsed::parse(BytesMut::from(&bytes[..]), DEFAULT_MAX_FRAME).is_ok() {
            prop_assert_eq!(re_encode(&bytes), bytes);
        }
    }
}

/// Where the protected header of a frame ends.
fn header_end(frame: &[u8]) -> usize {
    let mut r = cbor::Reader::new(frame);
    r.array(4).unwrap();
    r.uint().unwrap();
    let tag = r.any_tag().unwrap();
    r.array(if tag == 16 { 3 } else { 4 }).unwrap();
    r.bytes().unwrap();
    r.position()
}

fn parse_everything(bytes: &[u8]) {
    if let Ok(parsed) = Parsed::parse(BytesMut::from(bytes), DEFAULT_MAX_FRAME) {
        let _ = (parsed.digest(), parsed.claimed_sender().len(), parsed.claimed_group());
        let _ = format!("{parsed:?}");
        for f in FIXTURES.iter() {
            let _ = f.open(bytes, &f.route);
        }
    }
    if let Ok(offer) = Offer::parse(bytes) {
        let _ = (offer.session_id(), offer.audience());
    }
    let _ = (RequestBody::parse(bytes), ErrorBody::parse(bytes));
    let _ = sign::Unverified::parse(bytes);
    let _ = cbor::Reader::new(bytes).skip();
    let root = SigningKey::from_seed(Secret::new([1; 32])).unwrap().verifying_key();
    let mut trust = TrustStore::new(TrustDomain::new("d").unwrap(), root);
    let _ = (trust.verify(bytes, NOW).is_err(), trust.add_issuer(bytes).is_err());
}

/// Decodes frame, envelope and header item by item and writes them anew.
fn re_encode(bytes: &[u8]) -> Vec<u8> {
    let mut r = cbor::Reader::new(bytes);
    let mut out = Vec::new();
    let mut w = cbor::Writer::new(&mut out);
    r.array(4).unwrap();
    w.array(4);
    w.uint(r.uint().unwrap());
    let tag = r.any_tag().unwrap();
    w.tag(tag);
    let items = if tag == 16 { 3 } else { 4 };
    r.array(items).unwrap();
    w.array(items);
    w.bytes(&re_encode_header(r.bytes().unwrap()));
    r.map(0).unwrap();
    w.map(0);
    w.bytes(r.bytes().unwrap());
    if items == 4 {
        w.bytes(r.bytes().unwrap());
    }
    for _ in 0..2 {
        assert!(r.null().unwrap());
        w.null();
    }
    r.end().unwrap();
    out
}

fn re_encode_header(bytes: &[u8]) -> Vec<u8> {
    let mut r = cbor::Reader::new(bytes);
    let mut out = Vec::new();
    let mut w = cbor::Writer::new(&mut out);
    r.map(5).unwrap();
    w.map(5);
    for _ in 0..2 {
        let label = r.int().unwrap();
        w.int(label);
        if label == 1 { w.int(r.int().unwrap()) } else { w.bytes(r.bytes().unwrap()) }
    }
    w.int(r.int().unwrap());
    let request = r.clone().map(4).is_ok();
    let claims = if request { 4 } else { 2 };
    r.map(claims).unwrap();
    w.map(claims);
    for _ in 0..claims {
        let claim = r.int().unwrap();
        w.int(claim);
        match claim {
            1 => w.text(r.text().unwrap()),
            7 => w.bytes(r.bytes().unwrap()),
            _ => w.uint(r.uint().unwrap()),
        }
    }
    w.int(r.int().unwrap());
    w.uint(r.uint().unwrap());
    w.int(r.int().unwrap());
    let items = r.array_up_to(6).unwrap();
    w.array(items);
    for i in 0..items {
        if i == 3 { w.bytes(r.bytes().unwrap()) } else { w.uint(r.uint().unwrap()) }
    }
    r.end().unwrap();
    out
}

/// A random source that is stuck: ids still differ with the content, and offers with the time.
#[test]
fn a_stuck_random_source_repeats_no_key() {
    struct Stuck;
    impl Random for Stuck {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
            out.fill(0);
            Ok(())
        }
    }
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    let initiator = component.initiator(&world);
    let offer = |now| initiator.offer(&agent.credential, now, 60, &mut Stuck).unwrap();
    let (one, session) = offer(NOW);
    let (two, _) = offer(UnixTime::from_ns(NOW.ns + 1));
    assert_ne!(one, two);
    let other = world.agent("db-2", Suite::X25519);
    let (three, _) = initiator.offer(&other.credential, NOW, 60, &mut Stuck).unwrap();
    assert_ne!(one, three);
    let route = route_to(&agent.party);
    let mut seen = std::collections::HashSet::new();
    for i in 0..200u8 {
        let stuck = Hedge { random: [0; 16], now: NOW, counter: 0, boot: [0; 16] };
        let sealed =
            session.seal_request(&spec(&route), &stuck, request_plaintext(&[0x18, i | 0x20]));
        seen.insert(sealed.unwrap().id());
    }
    assert_eq!(
        seen.len(),
        (0..200u8).map(|i| i | 0x20).collect::<std::collections::HashSet<_>>().len()
    );
}

/// Every single bit of one message of every suite and protection.
#[test]
fn every_flipped_bit_is_refused() {
    for f in FIXTURES.iter() {
        for which in 0..3 {
            let good = f.seal(MessageKind::Call, which, b"args", 1).bytes().to_vec();
            assert!(f.open(&good, &f.route).is_ok());
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(f.open(&bad, &f.route).is_err(), "{:?} {which} bit {bit}", f.suite);
            }
        }
    }
}

/// Every single bit of a fanout signed alone and of one in a batch, with the credential beside it.
#[test]
fn every_flipped_bit_of_a_fanout_is_refused() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let group = GroupName::new("all").unwrap();
    let key = GroupKey { group: group.clone(), epoch: 1, key: Secret::new([8; 32]) };
    let session = GroupSession::new(&key);
    let signer = FanoutSigner::new(component.key.clone(), component.signing.clone()).unwrap();
    let route = Route::new("bulla", "g", None, Audience::Group(group)).unwrap();
    let open = |bytes: &[u8]| {
        let parsed = Parsed::parse(BytesMut::from(bytes), DEFAULT_MAX_FRAME)?;
        let credential = parsed.offer().ok_or(Refusal::SessionUnknown)?;
        let credential = Arc::new(world.trust.verify(credential, NOW)?);
        session.open(parsed, &credential, &expected(&route)).map(drop)
    };
    for count in [1, 3] {
        let sealed = (0..count)
            .map(|sequence| {
                let spec = FanoutSpec {
                    kind: MessageKind::Fanout,
                    route: &route,
                    expires: NOW.secs() + 60,
                    sequence,
                };
                session.seal(&signer, &spec, &hedge(1), request_plaintext(&[0xa0])).unwrap()
            })
            .collect();
        let frames = signer.sign_batch(sealed);
        let good = frames[0].bytes().to_vec();
        assert_eq!(open(&good), Ok(()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad).is_err(), "{count} fanouts, bit {bit}");
        }
        // The proof of one does not fit another, nor another group's key.
        let other = GroupSession::new(&GroupKey { key: Secret::new([9; 32]), ..key.clone() });
        let parsed = Parsed::parse(BytesMut::from(&good[..]), DEFAULT_MAX_FRAME).unwrap();
        assert!(other.open(parsed, &component.signing, &expected(&route)).is_err());
    }
}
