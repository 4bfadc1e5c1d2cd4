//! Another root key follows, with calls flowing, in separate processes over a real RabbitMQ.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulla_rpc::KeyFile;
use bulla_services::{VirtualHost, require};
use common::*;

fn root_of(key: &Path) -> u32 {
    KeyFile::read(key).map_or(0, |file| file.root_sequence)
}

fn learns(key: &Path, root: u32) {
    eventually("it trusts the new root", || (root_of(key) == root).then_some(()));
}

fn ping(deployment: &Deployment, id: &str) {
    let answer = deployment.call(&format!("agent/{id}"), "agent.ping", "{}");
    assert_eq!(answer["pong"], true);
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_new_root_is_announced_while_calls_flow() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let on = deployment.add_agent("on-1", &[]);
    let off = deployment.add_agent("off-1", &[]);
    let shared = deployment.add_agent("old-1", &["--key-type", "shared"]);
    let join = deployment.path("join-1.join");
    deployment.ok(&["agent", "add", "join-1", "--out", path(&join)]);
    let _on = deployment.agent(&on, &[]);
    // It has spoken once, and is away now.
    let was_on = deployment.agent(&off, &[]);
    ping(&deployment, "off-1");
    was_on.stop();
    let host_key = deployment.path("conductor.key");
    deployment.ok(&["component", "add", "conductor", "--out", path(&host_key)]);

    // A host that calls all the time.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stop, done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let caller = {
        let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
        let key = host_key.clone();
        runtime.spawn(async move {
            let host = bulla::Connection::open(&key, None).await.unwrap();
            let target: bulla::Target = "agent/on-1".parse().unwrap();
            while !stop.load(Ordering::SeqCst) {
                let request = host.client().request(&target, "ping").namespace("agent");
                match request.call::<_, serde_json::Value>(&serde_json::json!({})).await {
                    Ok(_) => done.fetch_add(1, Ordering::SeqCst),
                    Err(error) => {
                        eprintln!("{error}");
                        failed.fetch_add(1, Ordering::SeqCst)
                    }
                };
            }
            host.close().await;
        })
    };
    eventually("calls flow", || (done.load(Ordering::SeqCst) > 20).then_some(()));

    // The root's key on another machine: what goes between them is public.
    let (first, second) = (deployment.home().join("root.key"), deployment.path("root-2.key"));
    let (request, handover) = (deployment.path("request"), deployment.path("handover"));
    deployment.ok(&["root", "request", "--out", path(&request)]);
    let nowhere = deployment.path("no-home");
    let signed = bulla(&nowhere)
        .args(["root", "rotate", "--root-key", path(&first), "--out", path(&second)])
        .args(["--request", path(&request), "--handover", path(&handover), "--overlap", "7d"])
        .output()
        .unwrap();
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    assert!(!nowhere.exists());
    assert_eq!(second.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&second).unwrap();
    let secret = secret.lines().last().unwrap();
    assert!(!std::fs::read_to_string(&handover).unwrap().contains(secret));
    assert_eq!(deployment.json(&["root", "install", path(&handover)])["root"], 2);
    // A second time it is an old one.
    let said = deployment.fails(1, &["root", "install", path(&handover)]);
    assert!(said.contains("root-stale"), "{said}");
    let shown = deployment.json(&["root", "show"]);
    assert_eq!((&shown[0]["sequence"], &shown[1]["trusted"]), (&2.into(), &true.into()));

    // Who is added now never heard of the first one.
    let new = deployment.add_agent("new-1", &[]);
    let fresh = KeyFile::read(&new).unwrap();
    assert!(fresh.root_sequence == 2 && fresh.former_root.is_none());
    let _new = deployment.agent(&new, &[]);
    ping(&deployment, "new-1");
    // The host by itself, the agent when it next asks.
    learns(&host_key, 2);
    assert_eq!(deployment.json(&["agent", "rotate", "on-1", "--timeout", "150s"])["rotated"], 1);
    learns(&on, 2);
    let file = KeyFile::read(&on).unwrap();
    assert_eq!(file.former_root.as_ref().unwrap().key, root_text(&off));
    // Who was off, who holds a shared key, and who was invited before, at their next start.
    assert_eq!((root_of(&off), root_of(&shared)), (1, 1));
    let _off = deployment.agent(&off, &[]);
    let _shared = deployment.agent(&shared, &[]);
    let _joined = deployment.start(&["agent", "run", "--join", path(&join)], "answers on");
    let joined = deployment.path("join-1.key");
    for (id, key) in [("off-1", &off), ("old-1", &shared), ("join-1", &joined)] {
        ping(&deployment, id);
        learns(key, 2);
        ping(&deployment, id);
    }

    // The next one, with the root's key at hand; only the present root announces it.
    let third = deployment.path("root-3.key");
    let rotate = |old: &Path| {
        ["root", "rotate", "--root-key", path(old), "--out", path(&third)].map(str::to_owned)
    };
    let said = deployment.fails(1, &rotate(&first).each_ref().map(String::as_str));
    assert!(said.contains("not the root key that is trusted now"), "{said}");
    assert!(!third.exists());
    assert_eq!(deployment.json(&rotate(&second).each_ref().map(String::as_str))["root"], 3);
    learns(&host_key, 3);
    // From one to three.
    let so_far = done.load(Ordering::SeqCst);
    eventually("calls still flow", || (done.load(Ordering::SeqCst) > so_far + 50).then_some(()));
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(caller).unwrap();
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    eprintln!("{} calls, none failed", done.load(Ordering::SeqCst));
}

/// The root in a key file.
fn root_text(key: &Path) -> String {
    KeyFile::read(key).unwrap().root.clone()
}
