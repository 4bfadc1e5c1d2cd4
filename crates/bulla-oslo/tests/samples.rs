//! Every captured message of oslo.messaging and of Trove parses and is written again as an equal object.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;

use bulla_oslo::wire::{self, Driver, Message, Notification, Plain};
use serde_json::Value;

const MAX: usize = 1 << 20;

fn samples() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name.starts_with("topology") {
            continue;
        }
        let sample: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for message in sample["messages"].as_array().unwrap() {
            found.push((name.clone(), message.clone()));
        }
    }
    found
}

/// The objects within the objects, as a reader in Python has them.
fn unfolded(body: &[u8]) -> Value {
    let outer: Value = serde_json::from_slice(body).unwrap();
    let Some(text) = outer["oslo.message"].as_str() else { return outer };
    let mut inner: Value = serde_json::from_str(text).unwrap();
    if let Some(failure) = inner.get("failure").and_then(Value::as_str) {
        inner["failure"] = serde_json::from_str(failure).unwrap();
    }
    inner
}

#[test]
fn every_sample_comes_back_equal() {
    let (mut requests, mut replies, mut notifications) = (0, 0, 0);
    for (name, message) in samples() {
        let body = message["body"].as_str().unwrap().as_bytes();
        let again = match wire::read(body, MAX) {
            Ok(Message::Plain(Plain::Request(request))) => {
                requests += 1;
                request.body()
            }
            Ok(Message::Plain(Plain::Reply(reply))) => {
                replies += 1;
                reply.body()
            }
            Ok(Message::Sealed(_)) => panic!("{name}: taken for sealed"),
            Err(_) => {
                let (notification, driver) =
                    Notification::read(body, MAX).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(driver == Driver::MessagingV2, name.contains("v2"), "{name}");
                notifications += 1;
                notification.body(driver)
            }
        };
        assert_eq!(unfolded(&again), unfolded(body), "{name}");
        let outer: Value = serde_json::from_slice(&again).unwrap();
        let was: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(outer.get("oslo.version"), was.get("oslo.version"), "{name}");
    }
    assert!(
        requests >= 18 && replies >= 12 && notifications >= 2,
        "{requests} {replies} {notifications}"
    );
}
