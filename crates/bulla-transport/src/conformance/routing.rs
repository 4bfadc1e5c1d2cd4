//! Messages go where they are sent, and nowhere else.

use super::{EXCHANGE, Factory, Fault, Verdict, check, consume, expect, fresh, text, topic_of};
use crate::address::{Address, Inbox, ReplyName};
use crate::transport::ConsumeOptions;

/// What is sent to a topic arrives from that topic.
///
/// # Errors
/// What was seen instead; so for all properties.
pub async fn topics_deliver(factory: &Factory<'_>) -> Verdict {
    let (sender, receiver) = (factory().await?, factory().await?);
    let (inbox, address) = topic_of(&fresh("topic"));
    let mut consumer = consume(&receiver, &inbox).await?;
    sender.publish(&address, text("hello")).await?;
    let delivery = expect(&mut consumer, "hello").await?;
    check(*delivery.inbox == inbox, || format!("it says it is from {:?}", delivery.inbox))?;
    check(!delivery.redelivered, || "a first delivery says it is another".to_owned())?;
    delivery.acker.ack();
    Ok(())
}

/// A message to one server of a topic reaches that server only.
///
/// # Errors
/// What was seen instead.
pub async fn servers_are_addressed(factory: &Factory<'_>) -> Verdict {
    let (sender, receiver) = (factory().await?, factory().await?);
    let topic = fresh("server");
    let server = |server: &str| {
        let (exchange, topic, server) = (EXCHANGE.to_owned(), topic.clone(), server.to_owned());
        (
            Inbox::Server {
                exchange: exchange.clone(),
                topic: topic.clone(),
                server: server.clone(),
            },
            Address::Server { exchange, topic, server },
        )
    };
    let ((first, to_first), (second, to_second)) = (server("one"), server("two"));
    let mut first = consume(&receiver, &first).await?;
    let mut second = consume(&receiver, &second).await?;
    sender.publish(&to_second, text("for two")).await?;
    sender.publish(&to_first, text("for one")).await?;
    expect(&mut first, "for one").await?.acker.ack();
    expect(&mut second, "for two").await?.acker.ack();
    Ok(())
}

/// A fanout reaches every member once, also the one that was away.
///
/// # Errors
/// What was seen instead.
pub async fn fanout_reaches_everybody(factory: &Factory<'_>) -> Verdict {
    let (sender, here, away) = (factory().await?, factory().await?, factory().await?);
    let topic = fresh("fanout");
    let member = |member: &str| Inbox::Fanout {
        exchange: EXCHANGE.to_owned(),
        topic: topic.clone(),
        member: member.to_owned(),
    };
    let address = Address::Fanout { exchange: EXCHANGE.to_owned(), topic: topic.clone() };
    let mut present = consume(&here, &member("agent/here")).await?;
    away.declare(&member("agent/away"), &ConsumeOptions::default()).await?;
    if sender.capabilities().durable {
        away.close().await;
    }
    sender.publish(&address, text("all")).await?;
    sender.publish(&address, text("again")).await?;
    let back = factory().await?;
    let mut absent = consume(&back, &member("agent/away")).await?;
    for consumer in [&mut present, &mut absent] {
        expect(consumer, "all").await?.acker.ack();
        expect(consumer, "again").await?.acker.ack();
    }
    Ok(())
}

/// A reply reaches the inbox that it names and no other.
///
/// # Errors
/// What was seen instead.
pub async fn replies_reach_their_inbox_only(factory: &Factory<'_>) -> Verdict {
    let (first, second, responder) = (factory().await?, factory().await?, factory().await?);
    let name = |process: &str| {
        let process = format!("{process}{}", std::process::id());
        ReplyName::new("component/api", &process)
            .ok_or_else(|| Fault("the name of the inbox".to_owned()))
    };
    let (one, two) = (name("one")?, name("two")?);
    let inbox =
        |name: &ReplyName| Inbox::Reply { exchange: EXCHANGE.to_owned(), name: name.clone() };
    let to = |name: &ReplyName| Address::Reply {
        exchange: EXCHANGE.to_owned(),
        to: name.clone(),
        from: "agent/db.1".to_owned(),
    };
    let mut of_one = consume(&first, &inbox(&one)).await?;
    let mut of_two = consume(&second, &inbox(&two)).await?;
    responder.publish(&to(&two), text("for two")).await?;
    responder.publish(&to(&one), text("for one")).await?;
    expect(&mut of_one, "for one").await?.acker.ack();
    expect(&mut of_two, "for two").await?.acker.ack();
    let taken = second.consume(&inbox(&one), &ConsumeOptions::default()).await;
    check(taken.is_err(), || "another process could take the replies".to_owned())
}

/// The sender's hint arrives, and no hint stays none.
///
/// # Errors
/// What was seen instead.
pub async fn reply_hints_arrive(factory: &Factory<'_>) -> Verdict {
    let party = factory().await?;
    let (inbox, address) = topic_of(&fresh("hint"));
    let mut consumer = consume(&party, &inbox).await?;
    let hint = ReplyName::new("component/api", "9f3a");
    let mut hinted = text("hinted");
    hinted.reply_hint = hint.clone();
    party.publish(&address, hinted).await?;
    party.publish(&address, text("bare")).await?;
    let delivery = expect(&mut consumer, "hinted").await?;
    check(delivery.reply_hint == hint, || format!("got the hint {:?}", delivery.reply_hint))?;
    delivery.acker.ack();
    let delivery = expect(&mut consumer, "bare").await?;
    check(delivery.reply_hint.is_none(), || {
        format!("a hint from nowhere: {:?}", delivery.reply_hint)
    })?;
    delivery.acker.ack();
    Ok(())
}
