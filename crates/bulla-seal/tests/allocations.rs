//! On an established session, sealing and opening allocate nothing beyond the output buffer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use allocation_counter::measure;
use bulla_seal::*;
use bytes::BytesMut;
use common::*;

#[test]
fn requests_and_replies_allocate_only_their_output() {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    let (ours, theirs, _) = sessions(&mut world, &component, &agent);
    let route = route_to(&agent.party);
    // Each end makes the key of its messages' ids with the first that it writes.
    let first = ours.seal_request(&spec(&route), &hedge(0), request_plaintext(&[0xa0])).unwrap();
    let parsed = Parsed::parse(first.into_frame(None).bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
    let binding = theirs.open_request(parsed, &expected(&route)).unwrap().reply_binding();
    let first = ReplySpec { outcome: Outcome::Value, index: 0 };
    theirs.seal_reply(&binding, first, &hedge(0), MessageBuf::from_plaintext(&[0])).unwrap();
    let mut args = Vec::new();
    cbor::Writer::new(&mut args).bytes(&[5; 1024]);
    let value = ReplySpec { outcome: Outcome::Value, index: 0 };

    // One allocation: the buffer that the frame is made in.
    let mut buf = None;
    let info = measure(|| buf = Some(request_plaintext(&args)));
    assert_eq!(info.count_total, 1);
    let mut sealed = None;
    let buf = buf.unwrap();
    let info = measure(|| sealed = Some(ours.seal_request(&spec(&route), &hedge(1), buf).unwrap()));
    assert_eq!(info.count_total, 0, "sealing a request");
    // Closing the frame makes the buffer shareable, which takes its reference count.
    let mut frame = None;
    let info = measure(|| frame = Some(sealed.take().unwrap().into_frame(None)));
    assert!(info.count_total <= 1 && info.bytes_total < 64, "closing a frame: {info:?}");

    let received = BytesMut::from(&frame.unwrap().bytes()[..]);
    let mut opened = None;
    let info = measure(|| {
        let parsed = Parsed::parse(received, DEFAULT_MAX_FRAME).unwrap();
        opened = Some(theirs.open_request(parsed, &expected(&route)).unwrap());
    });
    assert_eq!(info.count_total, 0, "opening a request");
    let opened = opened.unwrap();
    let info = measure(|| assert_eq!(opened.body().unwrap().args.len(), args.len()));
    assert_eq!(info.count_total, 0, "reading a request");

    let binding = opened.reply_binding();
    let buf = MessageBuf::from_plaintext(&args);
    let info = measure(|| {
        sealed = Some(theirs.seal_reply(&binding, value, &hedge(1), buf).unwrap());
    });
    assert_eq!(info.count_total, 0, "sealing a reply");
    let frame = sealed.unwrap().into_frame(None);
    let received = BytesMut::from(&frame.bytes()[..]);
    let mut opened = None;
    let info = measure(|| {
        let parsed = Parsed::parse(received, DEFAULT_MAX_FRAME).unwrap();
        opened = Some(ours.open_reply(parsed, &binding).unwrap());
    });
    assert_eq!(info.count_total, 0, "opening a reply");
    assert_eq!(opened.unwrap().payload(), args);
}
