//! Messages arrive as they were sent, once, and come back until they are settled.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    Factory, Fault, HANG, Verdict, check, consume, expect, fresh, message, next, text, topic_of,
};
use crate::transport::{ConsumeOptions, Consumer, Delivery, next_delivery};

/// Bytes of every value and no bytes at all arrive as they were sent.
///
/// # Errors
/// What was seen instead; so for all properties.
pub async fn bytes_arrive_unchanged(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    let (inbox, address) = topic_of(&fresh("bytes"));
    let mut consumer = consume(&party, &inbox).await?;
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
    for payload in [Bytes::from(all), Bytes::new()] {
        party.publish(&address, message(payload.clone())).await?;
        let delivery = next(&mut consumer).await?;
        check(delivery.payload == payload, || format!("{} bytes changed", payload.len()))?;
        delivery.acker.ack();
    }
    Ok(())
}

/// Two consumers of a topic get all of its messages between them, none twice.
///
/// # Errors
/// What was seen instead.
pub async fn competing_consumers_share(factory: &Factory<'_>) -> Verdict {
    let (sender, left, right) = (factory().await?, factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("competing"));
    let options = ConsumeOptions { prefetch: 1, ..ConsumeOptions::default() };
    let mut left = left.consume(&inbox, &options).await?;
    let mut right = right.consume(&inbox, &options).await?;
    for n in 0..50 {
        sender.publish(&address, text(&n.to_string())).await?;
    }
    let (mut seen, mut of_left, mut of_right) = (HashSet::new(), 0, 0);
    while seen.len() < 50 {
        let delivery = tokio::time::timeout(HANG, async {
            tokio::select! {
                delivery = left.next() => { of_left += 1; delivery }
                delivery = right.next() => { of_right += 1; delivery }
            }
        })
        .await?
        .ok_or_else(|| Fault("a consumer ended".to_owned()))?;
        let new = seen.insert(delivery.payload.clone());
        check(new, || format!("{:?} came twice", delivery.payload))?;
        delivery.acker.ack();
    }
    check(of_left > 0 && of_right > 0, || format!("{of_left} and {of_right} of 50"))
}

/// A thousand messages of one publisher arrive in the order that they were sent in.
///
/// # Errors
/// What was seen instead.
pub async fn one_publisher_is_in_order(factory: &Factory<'_>) -> Verdict {
    let (sender, receiver) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("order"));
    let mut consumer = consume(&receiver, &inbox).await?;
    for n in 0..1000 {
        let mut outbound = text(&n.to_string());
        outbound.confirm = false;
        // At once or not, which makes no difference.
        match sender.publish_now(&address, &outbound) {
            Some(sent) => sent?,
            None => sender.publish(&address, outbound).await?,
        }
    }
    for n in 0..1000 {
        let delivery = match n % 3 {
            0 => expect(&mut consumer, &n.to_string()).await?,
            _ => polled(&mut consumer, &n.to_string()).await?,
        };
        delivery.acker.ack();
    }
    Ok(())
}

/// The next message must be this one.
async fn polled(consumer: &mut Box<dyn Consumer>, wanted: &str) -> Result<Delivery, Fault> {
    let delivery = tokio::time::timeout(HANG, next_delivery(&mut **consumer)).await?;
    let delivery = delivery.ok_or_else(|| Fault("the consumer ended".to_owned()))?;
    check(delivery.payload == wanted.as_bytes(), || format!("wanted {wanted:?}"))?;
    Ok(delivery)
}

/// Consumers that wait are woken one for each message; one that is gone leaves its place to the others.
///
/// # Errors
/// What was seen instead.
pub async fn waiting_consumers_are_woken(factory: &Factory<'_>) -> Verdict {
    let (sender, receiver) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("woken"));
    let mut waiting = JoinSet::new();
    let mut first = None;
    for _ in 0..3 {
        let mut consumer = consume(&receiver, &inbox).await?;
        let taking = waiting.spawn(async move {
            let delivery = next_delivery(&mut *consumer).await?;
            delivery.acker.ack();
            Some(delivery.payload)
        });
        first.get_or_insert(taking);
        tokio::task::yield_now().await;
    }
    if let Some(first) = first {
        first.abort();
    }
    // Its consumer is dropped when this returns.
    let gone = waiting.join_next().await;
    check(matches!(gone, Some(Err(_))), || "a message came before one was sent".to_owned())?;
    let mut seen = HashSet::new();
    for word in ["one", "other"] {
        sender.publish(&address, text(word)).await?;
        let taken = tokio::time::timeout(HANG, waiting.join_next()).await?;
        let payload = taken.transpose()?.flatten();
        seen.insert(payload.ok_or_else(|| Fault("a consumer ended".to_owned()))?);
    }
    check(seen.len() == 2, || format!("{} of two messages", seen.len()))
}

/// What 64 publishers send at once arrives, each message once.
///
/// # Errors
/// What was seen instead.
pub async fn nothing_is_lost_or_doubled(factory: &Factory<'_>) -> Verdict {
    let (sender, receiver) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("many"));
    let mut consumer = consume(&receiver, &inbox).await?;
    let mut publishers = JoinSet::new();
    for publisher in 0..64 {
        let (sender, address) = (Arc::clone(&sender), address.clone());
        publishers.spawn(async move {
            for n in 0..20 {
                let mut outbound = text(&format!("{publisher}.{n}"));
                outbound.confirm = n % 2 == 0;
                outbound.mandatory = n % 4 < 2;
                sender.publish(&address, outbound).await?;
            }
            Ok::<(), crate::PublishError>(())
        });
    }
    let mut seen = HashSet::new();
    while seen.len() < 64 * 20 {
        let delivery = next(&mut consumer).await?;
        let new = seen.insert(delivery.payload.clone());
        check(new, || format!("{:?} came twice", delivery.payload))?;
        delivery.acker.ack();
    }
    while let Some(done) = publishers.join_next().await {
        done??;
    }
    sender.publish(&address, text("last")).await?;
    expect(&mut consumer, "last").await?.acker.ack();
    Ok(())
}

/// What is put back comes again and says so; what was acknowledged does not.
///
/// # Errors
/// What was seen instead.
pub async fn put_back_comes_back(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    let (inbox, address) = topic_of(&fresh("put-back"));
    let mut consumer = consume(&party, &inbox).await?;
    party.publish(&address, text("one")).await?;
    expect(&mut consumer, "one").await?.acker.put_back();
    let again = expect(&mut consumer, "one").await?;
    check(!party.capabilities().redelivers || again.redelivered, || {
        "it does not say so".to_owned()
    })?;
    again.acker.ack();
    party.publish(&address, text("two")).await?;
    expect(&mut consumer, "two").await?.acker.ack();
    Ok(())
}

/// What is dropped without being settled comes again.
///
/// # Errors
/// What was seen instead.
pub async fn dropped_deliveries_come_back(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    if !party.capabilities().redelivers {
        return Ok(());
    }
    let (inbox, address) = topic_of(&fresh("dropped"));
    let mut consumer = consume(&party, &inbox).await?;
    party.publish(&address, text("one")).await?;
    drop(expect(&mut consumer, "one").await?);
    let again = expect(&mut consumer, "one").await?;
    check(again.redelivered, || "it does not say so".to_owned())?;
    again.acker.ack();
    Ok(())
}

/// What a process had in hand when it went away goes to the next, and what it had acknowledged
/// does not.
///
/// # Errors
/// What was seen instead.
pub async fn unsettled_deliveries_come_back(factory: &Factory<'_>) -> Verdict {
    let (sender, first, second) = (factory().await?, factory().await?, factory().await?);
    if !sender.capabilities().redelivers {
        return Ok(());
    }
    let (inbox, address) = topic_of(&fresh("unsettled"));
    let mut consumer = consume(&first, &inbox).await?;
    for word in ["done", "in hand", "not taken"] {
        sender.publish(&address, text(word)).await?;
    }
    expect(&mut consumer, "done").await?.acker.ack();
    let in_hand = expect(&mut consumer, "in hand").await?;
    first.close().await;
    drop((in_hand, consumer, first));
    let mut consumer = consume(&second, &inbox).await?;
    let again = expect(&mut consumer, "in hand").await?;
    check(again.redelivered, || "it does not say so".to_owned())?;
    again.acker.ack();
    expect(&mut consumer, "not taken").await?.acker.ack();
    sender.publish(&address, text("last")).await?;
    expect(&mut consumer, "last").await?.acker.ack();
    Ok(())
}
