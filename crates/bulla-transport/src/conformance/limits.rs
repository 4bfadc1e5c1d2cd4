//! Time, size and number.

use std::time::Duration;

use super::{
    EXCHANGE, Factory, HANG, Verdict, check, consume, expect, fresh, message, next, text, topic_of,
    unexpected,
};
use crate::address::Address;
use crate::error::{PublishError, TransportError};
use crate::transport::{ConsumeOptions, TransportEvent};

/// A message whose time is over is not delivered, neither by its own limit nor by the queue's.
///
/// # Errors
/// What was seen instead; so for all properties.
pub async fn expired_messages_go(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    if !party.capabilities().ttl {
        return Ok(());
    }
    let (inbox, address) = topic_of(&fresh("ttl"));
    let (limited, to_limited) = topic_of(&fresh("queue-ttl"));
    let limit = Some(Duration::from_millis(50));
    let options = ConsumeOptions { queue_ttl: limit, ..ConsumeOptions::default() };
    party.declare(&inbox, &ConsumeOptions::default()).await?;
    party.declare(&limited, &options).await?;
    let mut brief = text("brief");
    brief.ttl = limit;
    party.publish(&address, brief).await?;
    party.publish(&to_limited, text("brief")).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut own = consume(&party, &inbox).await?;
    let mut of_queue = party.consume(&limited, &options).await?;
    party.publish(&address, text("lasting")).await?;
    party.publish(&to_limited, text("fresh")).await?;
    expect(&mut own, "lasting").await?.acker.ack();
    expect(&mut of_queue, "fresh").await?.acker.ack();
    Ok(())
}

/// An inbox that was deleted is gone with what waited in it; one that is not there is as good, and
/// the same name can be used again.
///
/// # Errors
/// What was seen instead.
pub async fn deleted_inboxes_are_gone(factory: &Factory<'_>) -> Verdict {
    let (owner, sender) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("deleted"));
    owner.delete(&inbox).await?;
    owner.declare(&inbox, &ConsumeOptions::default()).await?;
    sender.publish(&address, text("forgotten")).await?;
    owner.delete(&inbox).await?;
    if sender.capabilities().returns_unroutable {
        let mut strict = text("nobody's");
        strict.mandatory = true;
        match sender.publish(&address, strict).await {
            Err(PublishError::Unroutable { .. }) => {}
            other => return Err(unexpected("unroutable", other)),
        }
    }
    let mut consumer = consume(&owner, &inbox).await?;
    sender.publish(&address, text("anew")).await?;
    expect(&mut consumer, "anew").await?.acker.ack();
    Ok(())
}

/// A consumer has no more in hand than it asked for, and gets the next when it settles one.
///
/// # Errors
/// What was seen instead.
pub async fn prefetch_limits(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    if !party.capabilities().prefetch {
        return Ok(());
    }
    let (inbox, address) = topic_of(&fresh("prefetch"));
    let options = ConsumeOptions { prefetch: 2, ..ConsumeOptions::default() };
    let mut consumer = party.consume(&inbox, &options).await?;
    for n in 0..4 {
        party.publish(&address, text(&n.to_string())).await?;
    }
    let first = expect(&mut consumer, "0").await?;
    let second = expect(&mut consumer, "1").await?;
    let third = tokio::time::timeout(Duration::from_millis(300), consumer.next()).await;
    check(third.is_err(), || "a third delivery past a prefetch of two".to_owned())?;
    // Out of order: one settled behind one that is not must make room too.
    second.acker.ack();
    let third = expect(&mut consumer, "2").await?;
    first.acker.ack();
    third.acker.ack();
    expect(&mut consumer, "3").await?.acker.ack();
    Ok(())
}

/// A mandatory message that no queue takes is reported; another is gone without a word.
///
/// # Errors
/// What was seen instead.
pub async fn unroutable_is_told(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    if !party.capabilities().returns_unroutable {
        return Ok(());
    }
    let topic = fresh("nobody");
    let (_, address) = topic_of(&topic);
    party.publish(&address, text("optional")).await?;
    let mut mandatory = text("mandatory");
    mandatory.mandatory = true;
    match party.publish(&address, mandatory.clone()).await {
        Err(PublishError::Unroutable { address }) if address == topic => {}
        other => return Err(unexpected("Unroutable", other)),
    }
    mandatory.confirm = false;
    let mut events = party.events();
    match party.publish(&address, mandatory).await {
        Err(PublishError::Unroutable { .. }) => {}
        Ok(()) => {
            let event = tokio::time::timeout(HANG, events.recv()).await??;
            let wanted = TransportEvent::Returned { address: topic, payload: "mandatory".into() };
            check(event == wanted, || format!("wanted {wanted:?}, got {event:?}"))?;
        }
        other => return Err(unexpected("Unroutable or an event", other)),
    }
    let fanout = Address::Fanout { exchange: EXCHANGE.to_owned(), topic: fresh("nobody") };
    let mut mandatory = text("mandatory");
    mandatory.mandatory = true;
    match party.publish(&fanout, mandatory).await {
        Err(PublishError::Unroutable { .. }) => Ok(()),
        other => Err(unexpected("Unroutable", other)),
    }
}

/// The largest message passes, one byte more is refused and disturbs nothing.
///
/// # Errors
/// What was seen instead.
pub async fn largest_message_passes(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    let (inbox, address) = topic_of(&fresh("large"));
    let mut consumer = consume(&party, &inbox).await?;
    let limit = party.capabilities().max_message;
    let too_large = party.publish(&address, message(vec![7; limit + 1])).await;
    match too_large {
        Err(PublishError::TooLarge { size, limit: told }) if size == limit + 1 && told == limit => {
        }
        other => return Err(unexpected("TooLarge", other)),
    }
    party.publish(&address, message(vec![7; limit])).await?;
    let delivery = next(&mut consumer).await?;
    let whole = delivery.payload.len() == limit && delivery.payload.iter().all(|byte| *byte == 7);
    check(whole, || format!("{} of {limit} bytes", delivery.payload.len()))?;
    delivery.acker.ack();
    Ok(())
}

/// A closed transport takes nothing, its consumers end, and what is sent to its topics waits.
///
/// # Errors
/// What was seen instead.
pub async fn closed_means_closed(factory: &Factory<'_>) -> Verdict {
    let (closing, other) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("close"));
    let mut stopped = consume(&other, &inbox).await?;
    stopped.stop().await;
    check(stopped.next().await.is_none(), || "a stopped consumer delivers".to_owned())?;
    let mut consumer = consume(&closing, &inbox).await?;
    other.publish(&address, text("before")).await?;
    expect(&mut consumer, "before").await?.acker.ack();
    closing.close().await;
    let ended = tokio::time::timeout(HANG, consumer.next()).await?;
    check(ended.is_none(), || "a consumer of a closed transport delivers".to_owned())?;
    match closing.publish(&address, text("late")).await {
        Err(PublishError::Transport(TransportError::Closed)) => {}
        result => return Err(unexpected("Closed", result)),
    }
    let refused = closing.consume(&inbox, &ConsumeOptions::default()).await;
    check(matches!(refused, Err(TransportError::Closed)), || {
        "a closed transport consumes".to_owned()
    })?;
    other.publish(&address, text("after")).await?;
    let mut consumer = consume(&other, &inbox).await?;
    expect(&mut consumer, "after").await?.acker.ack();
    Ok(())
}
