//! The hostile broker: honest when told to be, and otherwise exactly as hostile as it says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bulla_transport::conformance::{Party, run_all};
use bulla_transport::hostile::{
    Act, HostileBroker, HostileTransport, Plan, Splice, Strip, Weights,
};
use bulla_transport::{Address, ConsumeOptions, Inbox, MemoryBus, Outbound, Transport};

fn inbox(topic: &str) -> Inbox {
    Inbox::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

fn address(topic: &str) -> Address {
    Address::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

fn message(payload: &[u8]) -> Outbound {
    Outbound { mandatory: true, confirm: true, ..Outbound::new(payload.to_vec().into()) }
}

/// What waits at `topic`, with its flags "redelivered".
async fn waiting(party: &HostileTransport, topic: &str) -> Vec<(Vec<u8>, bool)> {
    let mut consumer = party.consume(&inbox(topic), &ConsumeOptions::default()).await.unwrap();
    let mut all = vec![];
    while let Ok(Some(delivery)) =
        tokio::time::timeout(Duration::from_millis(1), consumer.next()).await
    {
        all.push((delivery.payload.to_vec(), delivery.redelivered));
        delivery.acker.ack();
    }
    all
}

/// What becomes of two messages, to `a` and to `b`, under a script for the second.
async fn second(script: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> [Vec<Vec<u8>>; 2] {
    let plan = Plan::script(move |sent, _| if sent.n == 1 { script() } else { vec![Act::Pass] });
    let broker = HostileBroker::new(&MemoryBus::new(), plan);
    let party = broker.transport("party");
    for topic in ["a", "b"] {
        party.declare(&inbox(topic), &ConsumeOptions::default()).await.unwrap();
    }
    party.publish(&address("a"), message(&[0x84, 1, 0x41, 7, 0xf6, 0xf6])).await.unwrap();
    party.publish(&address("b"), message(&[0x84, 1, 0x41, 8, 0x41, 9, 0xf6])).await.unwrap();
    let a = waiting(&party, "a").await.into_iter().map(|(payload, _)| payload).collect();
    let b = waiting(&party, "b").await.into_iter().map(|(payload, _)| payload).collect();
    [a, b]
}

const A: [u8; 6] = [0x84, 1, 0x41, 7, 0xf6, 0xf6];
const B: [u8; 7] = [0x84, 1, 0x41, 8, 0x41, 9, 0xf6];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_when_it_is_honest() {
    let broker = HostileBroker::new(&MemoryBus::with_limits(100_000, 1 << 20), Plan::honest());
    let factory = move || {
        let party: Party = Arc::new(broker.transport("party"));
        Box::pin(async move { Ok(party) }) as _
    };
    run_all(&factory).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_act_does_what_it_says() {
    let a = || vec![A.to_vec()];
    assert_eq!(second(Vec::new).await, [a(), vec![]]);
    assert_eq!(second(|| vec![Act::Pass, Act::Pass]).await, [a(), vec![B.to_vec(); 2]]);
    let cut = B[..3].to_vec();
    assert_eq!(second(|| vec![Act::Cut(3)]).await, [a(), vec![cut]]);
    let flipped = vec![0x85, 1, 0x41, 8, 0x41, 9, 0xf6];
    assert_eq!(second(|| vec![Act::Flip(0)]).await, [a(), vec![flipped]]);
    let rerouted = vec![A.to_vec(), B.to_vec()];
    assert_eq!(second(|| vec![Act::Reroute(address("a"))]).await, [rerouted, vec![]]);
    let spliced = vec![0x84, 1, 0x41, 8, 0xf6, 0xf6];
    let splice = || vec![Act::Splice(Splice::Offer, 0)];
    assert_eq!(second(splice).await, [a(), vec![spliced.clone()]]);
    assert_eq!(second(|| vec![Act::Strip(Strip::Offer)]).await, [a(), vec![spliced]]);
    assert_eq!(second(|| vec![Act::Replay(0)]).await, [vec![A.to_vec(); 2], vec![]]);
    assert_eq!(second(|| vec![Act::InPlace(0)]).await, [a(), vec![A.to_vec()]]);
    let swapped = [vec![A.to_vec(), B.to_vec()], vec![A.to_vec()]];
    assert_eq!(second(|| vec![Act::Swap(0)]).await, swapped);
    assert_eq!(second(|| vec![Act::Noise(9, 1)]).await[1][0].len(), 9);
    assert_eq!(second(|| vec![Act::Hold(1)]).await, [a(), vec![]]);
    assert_eq!(second(|| vec![Act::Delay(Duration::from_secs(1))]).await, [a(), vec![]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_comes_after_others_and_what_is_late_comes() {
    let plan = Plan::script(|sent, _| match sent.n {
        0 => vec![Act::Hold(2)],
        1 => vec![Act::Delay(Duration::from_secs(5))],
        _ => vec![Act::Pass],
    });
    let broker = HostileBroker::new(&MemoryBus::new(), plan);
    let party = broker.transport("party");
    party.declare(&inbox("a"), &ConsumeOptions::default()).await.unwrap();
    for n in 0..4 {
        party.publish(&address("a"), message(&[n])).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let order: Vec<_> = waiting(&party, "a").await.into_iter().map(|(p, _)| p[0]).collect();
    assert_eq!(order, [2, 0, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_has_no_say_and_who_starts_anew_gets_old_messages() {
    let weights = Weights { replay_at_start_percent: 100, ..Weights::NONE };
    let broker = HostileBroker::new(&MemoryBus::new(), Plan::weighted(1, weights));
    let (alice, bob) = (broker.transport("alice"), broker.transport("bob"));
    let mut consumer = alice.consume(&inbox("a"), &ConsumeOptions::default()).await.unwrap();
    bob.publish(&address("a"), message(b"1")).await.unwrap();
    bob.publish(&address("a"), message(b"2")).await.unwrap();
    let settled = consumer.next().await.unwrap();
    let in_hand = consumer.next().await.unwrap();
    settled.acker.ack();
    alice.crash().await;
    in_hand.acker.ack();
    assert!(consumer.next().await.is_none());
    let again = broker.transport("alice");
    let taken: Vec<_> = waiting(&again, "a").await;
    // What was in hand, then everything ever sent.
    let says = |payload: &[u8], redelivered| (payload.to_vec(), redelivered);
    assert_eq!(taken, [says(b"2", true), says(b"1", false), says(b"2", false)]);
}

#[tokio::test(start_paused = true)]
async fn flags_lie_both_ways() {
    let weights = Weights { lies_percent: 50, ..Weights::NONE };
    let broker = HostileBroker::new(&MemoryBus::new(), Plan::weighted(3, weights));
    let party = broker.transport("party");
    party.declare(&inbox("a"), &ConsumeOptions::default()).await.unwrap();
    for n in 0..40 {
        party.publish(&address("a"), message(&[n])).await.unwrap();
    }
    let mut consumer = party.consume(&inbox("a"), &ConsumeOptions::default()).await.unwrap();
    let mut first = vec![];
    for _ in 0..40 {
        first.push(consumer.next().await.unwrap());
    }
    assert!(first.iter().any(|delivery| delivery.redelivered));
    first.into_iter().for_each(|delivery| delivery.acker.put_back());
    assert!(waiting(&party, "a").await.iter().any(|(_, redelivered)| !redelivered));
}

#[tokio::test(start_paused = true)]
async fn a_seed_is_a_plan() {
    let mut logs = vec![];
    for seed in [5, 5, 6] {
        let plan = Plan::weighted(seed, Weights::default());
        let broker = HostileBroker::new(&MemoryBus::new(), plan);
        let party = broker.transport("party");
        for topic in ["a", "b"] {
            party.declare(&inbox(topic), &ConsumeOptions::default()).await.unwrap();
        }
        for n in 0..200 {
            let topic = if n % 3 == 0 { "b" } else { "a" };
            party.publish(&address(topic), message(&[n; 40])).await.unwrap();
        }
        logs.push(broker.log().iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    assert_eq!(logs[0], logs[1]);
    assert_ne!(logs[0], logs[2]);
    let all = logs[0].join("\n");
    for act in ["drop", "delay", "hold", "flip", "cut", "re-route", "splice", "replay", "swap"] {
        assert!(all.contains(act), "{act} never happened");
    }
}
