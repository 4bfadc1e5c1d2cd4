//! The codec holds for any message, and no bytes make it panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use bulla_oslo::wire::{
    self, Call, Failure, Id, Message, Monitor, Plain, PlainReply, PlainRequest, ReplyQueue, Sealed,
    SealedReply, SealedRequest,
};
use proptest::prelude::*;
use serde_json::{Map, Value};

const MAX: usize = 1 << 16;

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 16]>().prop_map(Id)
}

fn call() -> impl Strategy<Value = Option<Call>> {
    let queue =
        "reply_[!#-\\[\\]-~]{1,60}".prop_filter_map("a name", |name| ReplyQueue::parse(&name));
    let monitor = proptest::option::of((1u32..100_000).prop_map(|n| f64::from(n) / 16.0))
        .prop_map(|seconds| seconds.and_then(Monitor::from_secs));
    let call = (id(), queue, monitor).prop_map(|(id, reply_queue, monitor)| Call {
        id,
        reply_queue,
        monitor,
    });
    proptest::option::of(call)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::vec((any::<String>(), value()), 0..4)
        .prop_map(|members| members.into_iter().collect())
}

fn failure() -> impl Strategy<Value = Failure> {
    (any::<String>(), any::<String>(), any::<String>(), object()).prop_map(
        |(class, module, message, kwargs)| Failure {
            class,
            module,
            message,
            traceback: vec!["Traceback\n".to_owned()],
            args: kwargs.values().cloned().collect(),
            kwargs,
        },
    )
}

proptest! {
    #[test]
    fn sealed_messages_come_back(frame in proptest::collection::vec(any::<u8>(), 1..2000), call in call(), unique in id(), ending: bool, of in id()) {
        let body = wire::request(&frame, call.as_ref(), unique);
        let sent = SealedRequest { frame: frame.clone(), call, unique_id: unique };
        prop_assert_eq!(wire::read(&body, MAX), Ok(Message::Sealed(Sealed::Request(sent))));
        let body = wire::reply(&frame, ending, of, unique);
        let sent = SealedReply { frame, ending, call: of, unique_id: unique };
        prop_assert_eq!(wire::read(&body, MAX), Ok(Message::Sealed(Sealed::Reply(sent))));
    }

    #[test]
    fn plain_messages_come_back(
        method in "[a-z_]{1,20}", args in object(), context in object(), call in call(), unique_id in id(),
        namespace in proptest::option::of("[a-z]{1,8}"), version in proptest::option::of("[0-9]\\.[0-9]{1,3}"),
    ) {
        let request = PlainRequest { method, args, namespace, version, context, call, unique_id };
        prop_assert_eq!(wire::read(&request.body(), MAX), Ok(Message::Plain(Plain::Request(request))));
    }

    #[test]
    fn plain_replies_come_back(result in value(), failure in proptest::option::of(failure()), ending: bool, call in id(), unique_id in id()) {
        // An object with the one member `bulla` would be a seal.
        prop_assume!(result.get("bulla").is_none());
        let reply = PlainReply { result, failure, ending, call, unique_id };
        prop_assert_eq!(wire::read(&reply.body(), MAX), Ok(Message::Plain(Plain::Reply(reply))));
    }

    #[test]
    fn a_changed_body_is_refused_or_another_message(frame in proptest::collection::vec(any::<u8>(), 1..200), at: proptest::sample::Index, to: u8) {
        let mut body = wire::request(&frame, None, Id([9; 16]));
        let at = at.index(body.len());
        body[at] = to;
        if let Ok(Message::Sealed(Sealed::Request(read))) = wire::read(&body, MAX) {
            // What was read is what was written there: nothing in a body is skipped.
            prop_assert_eq!(wire::read(&wire::request(&read.frame, read.call.as_ref(), read.unique_id), MAX),
                Ok(Message::Sealed(Sealed::Request(read))));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
        let _ = wire::read(&bytes, MAX);
        let _ = wire::read(text.as_bytes(), MAX);
        let inner = serde_json::json!({"oslo.version": "2.0", "oslo.message": text});
        let _ = wire::read(inner.to_string().as_bytes(), MAX);
    }
}
