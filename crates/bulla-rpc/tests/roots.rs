//! Another root is announced: what is believed, what is refused and counted, and what ends with the
//! former one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_rpc::directory::wire::TrustAnswer;
use bulla_rpc::*;
use bulla_seal::*;
use common::*;

const HOUR: u64 = 3_600;

fn key() -> SigningKey {
    SigningKey::generate(&mut OsRandom::default()).unwrap()
}

fn echo() -> Router {
    let echo = Method::new("echo", |_, n: u32| async move { Ok(n) });
    Router::new().with(echo.open_to_agents().open_to_components())
}

async fn call(client: &Client, to: &str) -> Result<u32, CallError> {
    let target: Target = to.parse().unwrap();
    client.request(&target, "echo").timeout(Duration::from_secs(20)).call(&7).await
}

fn announced(world: &World, sequence: u32, old: &SigningKey, new: &SigningKey, at: u64) -> Vec<u8> {
    let announcement = RootAnnouncement {
        domain: world.trust.domain().clone(),
        sequence,
        old: old.verifying_key(),
        new: new.verifying_key(),
        issued_at: at,
        until: at + HOUR,
    };
    announcement.sign(old, new).unwrap().to_vec()
}

/// The issuers as `root` signs them.
fn issuers(world: &World, root: &SigningKey) -> Vec<String> {
    world.trust.issuers().map(|(issuer, _)| BASE64.encode(issuer.sign(root))).collect()
}

fn saying(announcements: &[&[u8]], issuers: Vec<String>) -> TrustAnswer {
    let announcements = announcements.iter().map(|bytes| BASE64.encode(bytes)).collect();
    TrustAnswer { announcements, issuers, peers: vec![] }
}

#[tokio::test]
async fn what_is_forged_or_old_is_refused_and_counted_and_calls_go_on() {
    let world = World::new();
    let (agent, control) = (world.agent("a"), world.component("control", "h1"));
    let _server = Server::start(agent.clone(), echo(), options()).await.unwrap();
    let client = Client::new(control);
    let (second, third, other) = (key(), key(), key());
    let at = now().secs();
    let refused = |bytes: &[u8], refusal: Refusal, count: u64| {
        let judged = agent.judge_roots(&saying(&[bytes], vec![]));
        assert_eq!(judged.unwrap_err(), refusal);
        assert_eq!(agent.counters().refused(refusal), count);
    };
    refused(&announced(&world, 2, &other, &second, at), Refusal::RootInvalid, 1);
    refused(b"", Refusal::RootInvalid, 2);
    let first = announced(&world, 2, &world.root, &second, at);
    let mut unsigned = first.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    refused(&unsigned, Refusal::RootInvalid, 3);
    assert_eq!(*agent.identity().trust().root(), world.root.verifying_key());
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    // Two at once, as to one that was away for longer; then nothing is news.
    let next = announced(&world, 3, &second, &third, at);
    let answer = saying(&[&first, &next], issuers(&world, &third));
    let trust = agent.judge_roots(&answer).unwrap().unwrap();
    agent.trust_from_now_on(trust);
    let trust = agent.identity().trust();
    assert_eq!((*trust.root(), trust.root_sequence()), (third.verifying_key(), 3));
    assert!(agent.judge_roots(&saying(&[&next], issuers(&world, &third))).unwrap().is_none());
    refused(&first, Refusal::RootStale, 1);
    // What a former root says of issuers replaces nothing.
    assert!(agent.judge_roots(&saying(&[], issuers(&world, &second))).unwrap().is_none());
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    assert_eq!(agent.counters().refusals().values().sum::<u64>(), 4);
}

#[tokio::test]
async fn who_was_away_for_too_long_trusts_nobody() {
    let world = World::new();
    let (agent, control) = (world.agent("a"), world.component("control", "h1"));
    let _server = Server::start(agent.clone(), echo(), options()).await.unwrap();
    let client = Client::new(control);
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    let second = key();
    let over = announced(&world, 2, &world.root, &second, now().secs() - 2 * HOUR);
    let answer = saying(&[&over], issuers(&world, &second));
    assert_eq!(agent.judge_roots(&answer).unwrap_err(), Refusal::RootEnded);
    assert_eq!(agent.identity().trust().issuers().count(), 0);
    // Also not in sessions that it has.
    let target: Target = "agent/a".parse().unwrap();
    let calling = {
        let client = client.clone();
        tokio::spawn(async move { client.request(&target, "echo").call::<_, u32>(&7).await })
    };
    until("it is refused", || agent.counters().refused(Refusal::IssuerUnknown) > 0).await;
    assert!(!calling.is_finished());
    calling.abort();
}

#[tokio::test]
async fn what_only_the_former_root_signed_ends_with_it() {
    let mut world = World::new();
    let clock = Shifted::by(0);
    let at = |world: &World, identity| world.endpoint_at(identity, clock.clone() as Arc<dyn Clock>);
    let agent = at(&world, world.agent_identity("a", Suite::X25519, 1));
    let server = Server::start(agent.clone(), echo(), options()).await.unwrap();
    let control = Client::new(at(&world, world.component_identity("control", "h1", 1, validity())));
    // An issuer that whoever stole the former root's key made.
    let rogue = key();
    let credential = IssuerCredential {
        kid: Kid([0xd1; 8]),
        key: rogue.verifying_key(),
        ..world.components.credential().clone()
    };
    let by_thief = credential.sign(&world.root);
    let sound = std::mem::replace(&mut world.components, Issuer::new(rogue, credential).unwrap());
    world.trust.add_issuer(&by_thief).unwrap();
    let thief = Client::new(at(&world, world.component_identity("thief", "t1", 1, validity())));
    world.components = sound;

    let second = key();
    let known: Vec<_> = world.trust.issuers().map(|(issuer, _)| issuer.clone()).collect();
    let signed: Vec<_> = known
        .iter()
        .filter(|issuer| issuer.kid != Kid([0xd1; 8]))
        .map(|issuer| BASE64.encode(issuer.sign(&second)))
        .chain([BASE64.encode(&by_thief)])
        .collect();
    let first = announced(&world, 2, &world.root, &second, now().secs());
    let trust = agent.judge_roots(&saying(&[&first], signed)).unwrap().unwrap();
    agent.trust_from_now_on(trust);
    // While the former root counts, so do they.
    for client in [&control, &thief] {
        assert_eq!(call(client, "agent/a").await.unwrap(), 7);
    }
    // A server takes a jump of the clock for a lost memory.
    server.drain(Duration::ZERO).await;
    clock.set(3_500);
    assert!(!agent.retire_root());
    clock.set(3_700);
    assert!(agent.retire_root() && !agent.retire_root());
    assert_eq!(agent.identity().trust().former_root(), None);
    let _server = Server::start(agent.clone(), echo(), options()).await.unwrap();
    assert_eq!(call(&control, "agent/a").await.unwrap(), 7);
    let target: Target = "agent/a".parse().unwrap();
    let calling = {
        let thief = thief.clone();
        tokio::spawn(async move { thief.request(&target, "echo").call::<_, u32>(&7).await })
    };
    until("it is refused", || agent.counters().refused(Refusal::IssuerUnknown) > 0).await;
    assert!(!calling.is_finished());
    calling.abort();
}
