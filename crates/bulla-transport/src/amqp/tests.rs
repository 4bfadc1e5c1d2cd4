//! A connection against a broker that says what the test wants it to.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::channel::{Channel, Deliveries};
use super::confirms::Confirmation;
use super::connection::{Connection, Event};
use super::content::Publish;
use super::error::AmqpError;
use super::frame::{self, Parsed};
use super::handshake::Tuned;
use super::method::{self, MethodId, QueueDeclare, answer_to};
use super::write::{close_frame, open_frame};

const HEARTBEAT: u16 = 10;
const MAX_BODY: usize = 100;

/// The broker's end.
struct Broker {
    source: ReadHalf<DuplexStream>,
    sink: WriteHalf<DuplexStream>,
    read: BytesMut,
}

/// What arrived there: kind, channel, payload.
type Arrived = (u8, u16, Vec<u8>);

impl Broker {
    fn meet() -> (Connection, mpsc::Receiver<Event>, Self) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (source, sink) = tokio::io::split(ours);
        let tuned = Tuned { channel_max: 8, frame_max: 4096, heartbeat: HEARTBEAT };
        let (connection, events) =
            Connection::start(source, sink, BytesMut::new(), tuned, MAX_BODY);
        let (source, sink) = tokio::io::split(theirs);
        (connection, events, Self { source, sink, read: BytesMut::new() })
    }

    async fn next(&mut self) -> Option<Arrived> {
        loop {
            if let Parsed::Frame(frame, rest) = frame::parse(&self.read, 1 << 20).unwrap() {
                let arrived = (frame.kind, frame.channel, frame.payload.to_vec());
                self.read = BytesMut::from(rest);
                return Some(arrived);
            }
            if self.source.read_buf(&mut self.read).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next frame is this method on this channel.
    async fn expect(&mut self, channel: u16, (class, method): MethodId) -> Vec<u8> {
        let (kind, on, payload) = self.next().await.unwrap();
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!((kind, on, &payload[..4]), (frame::METHOD, channel, &wanted[..]));
        payload[4..].to_vec()
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut out = Vec::new();
        let mark = open_frame(&mut out, kind, channel);
        out.extend_from_slice(payload);
        close_frame(&mut out, mark);
        // A client that has gone hears nothing more.
        let _ = self.sink.write_all(&out).await;
    }

    async fn method(&mut self, channel: u16, (class, method): MethodId, arguments: &[u8]) {
        let id = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(frame::METHOD, channel, &[&id[..], arguments].concat()).await;
    }

    async fn channel(&mut self, connection: &Connection) -> Channel {
        let opening = connection.channel();
        let (channel, number) = tokio::join!(opening, async {
            let (_, number, _) = self.next().await.unwrap();
            self.method(number, answer_to(method::CHANNEL_OPEN), &[0; 4]).await;
            number
        });
        assert!(number > 0);
        channel.unwrap()
    }

    /// A consumer on channel 1.
    async fn consumer(&mut self, connection: &Connection, prefetch: u16) -> (Channel, Deliveries) {
        let channel = self.channel(connection).await;
        let (deliveries, ()) =
            tokio::join!(channel.consume("q", prefetch, false, false, &[]), async {
                self.expect(1, method::QOS).await;
                self.method(1, answer_to(method::QOS), &[]).await;
                self.expect(1, method::CONSUME).await;
                self.method(1, answer_to(method::CONSUME), b"\x01t").await;
            });
        (channel, deliveries.unwrap())
    }

    async fn deliver(&mut self, tag: u8, parts: &[&[u8]]) {
        let arguments = [b"\x01t\0\0\0\0\0\0\0", &[tag][..], b"\0\x01e\x01k"].concat();
        self.method(1, method::DELIVER, &arguments).await;
        self.content(parts).await;
    }

    async fn content(&mut self, parts: &[&[u8]]) {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let header = [b"\0\x3c\0\0", &(size as u64).to_be_bytes()[..], b"\0\0"].concat();
        self.frame(frame::HEADER, 1, &header).await;
        for part in parts {
            self.frame(frame::BODY, 1, part).await;
        }
    }
}

fn message<'a>(routing_key: &'a str, body: &'a Bytes) -> Publish<'a> {
    Publish {
        exchange: "e",
        routing_key,
        mandatory: true,
        content_type: "t",
        content_encoding: None,
        persistent: false,
        reply_to: None,
        expiration: None,
        body,
    }
}

#[tokio::test]
async fn messages_come_in_pieces_and_what_is_too_large_is_thrown_away() {
    let (connection, _events, mut broker) = Broker::meet();
    let (_channel, mut deliveries) = broker.consumer(&connection, 9).await;
    broker.deliver(1, &[b"he", b"llo"]).await;
    broker.deliver(2, &[&[7; 60], &[7; 60]]).await;
    broker.deliver(3, &[]).await;
    let first = deliveries.next().await.unwrap();
    assert_eq!((first.tag, &first.body[..]), (1, &b"hello"[..]));
    let third = deliveries.next().await.unwrap();
    assert_eq!((third.tag, third.body.len()), (3, 0));
    let rejected = broker.expect(1, method::REJECT).await;
    assert_eq!(rejected, b"\0\0\0\0\0\0\0\x02\0", "for good");
}

#[tokio::test]
async fn a_refusal_ends_the_channel_and_not_the_connection() {
    let (connection, _events, mut broker) = Broker::meet();
    let channel = broker.channel(&connection).await;
    let queue = QueueDeclare { name: "q", ..QueueDeclare::default() };
    let (refused, ()) = tokio::join!(channel.queue_declare(&queue), async {
        broker.expect(1, method::QUEUE_DECLARE).await;
        broker.method(1, method::CHANNEL_CLOSE, b"\x01\x93\x04text\0\0\0\0").await;
        broker.expect(1, method::CHANNEL_CLOSE_OK).await;
    });
    assert!(matches!(refused, Err(AmqpError::Refused { code: 403, .. })), "{refused:?}");
    assert!(!channel.is_open() && connection.is_up());
    assert!(channel.ack(1, false).is_err());
    // Its number is free, and nothing of the old channel is sent there.
    let again = broker.channel(&connection).await;
    drop(channel);
    drop(again);
    broker.expect(1, method::CHANNEL_CLOSE).await;
}

#[tokio::test]
async fn the_broker_answers_for_each_message() {
    let (connection, mut events, mut broker) = Broker::meet();
    let channel = broker.channel(&connection).await;
    let (confirming, ()) = tokio::join!(channel.confirm(), async {
        broker.expect(1, method::CONFIRM_SELECT).await;
        broker.method(1, answer_to(method::CONFIRM_SELECT), &[]).await;
    });
    confirming.unwrap();
    let body = Bytes::from_static(b"body");
    let told = ["a", "b"].map(|key| channel.publish_confirmed(&message(key, &body)).unwrap());
    for _ in 0..6 {
        broker.next().await.unwrap();
    }
    // The second finds no queue; then both are answered for.
    broker.method(1, method::RETURN, b"\x01\x38\x04text\x01e\x01b").await;
    broker.content(&[b"body"]).await;
    broker.method(1, method::ACK, b"\0\0\0\0\0\0\0\x02\x01").await;
    let [first, second] = told;
    assert_eq!(first.await.unwrap(), Confirmation::Taken);
    assert_eq!(second.await.unwrap(), Confirmation::Unroutable);
    // One for which nobody waits.
    broker.method(1, method::RETURN, b"\x01\x38\x04text\x01e\x01c").await;
    broker.content(&[b"other"]).await;
    let event = events.recv().await.unwrap();
    assert!(matches!(event, Event::Returned { routing_key, .. } if routing_key == "c"));
    // One that is never answered for.
    let lost = channel.publish_confirmed(&message("d", &body)).unwrap();
    drop(broker);
    assert!(matches!(lost.await, Err(AmqpError::Lost(_))));
    assert!(!connection.is_up());
}

#[tokio::test]
async fn what_the_protocol_forbids_ends_the_connection() {
    type Say = fn(&mut Broker) -> futures_util::future::BoxFuture<'_, ()>;
    let forbidden: &[(&str, Say)] = &[
        ("prefetch", |broker| {
            Box::pin(async {
                for tag in 1..=3 {
                    broker.deliver(tag, &[b"x"]).await;
                }
            })
        }),
        ("in the middle", |broker| {
            Box::pin(async {
                broker.method(1, method::DELIVER, b"\x01t\0\0\0\0\0\0\0\x01\0\x01e\x01k").await;
                broker.method(1, method::DELIVER, b"\x01t\0\0\0\0\0\0\0\x02\0\x01e\x01k").await;
            })
        }),
        ("longer than its header", |broker| {
            Box::pin(async {
                broker.deliver(1, &[b"x"]).await;
                broker.frame(frame::BODY, 1, b"more").await;
            })
        }),
        ("without a header", |broker| {
            Box::pin(async {
                broker.method(1, method::DELIVER, b"\x01t\0\0\0\0\0\0\0\x01\0\x01e\x01k").await;
                broker.frame(frame::BODY, 1, b"x").await;
            })
        }),
        ("a channel that is not open", |broker| {
            Box::pin(broker.method(7, method::ACK, b"\0\0\0\0\0\0\0\x01\0"))
        }),
        ("nobody asked for", |broker| {
            Box::pin(broker.method(1, answer_to(method::QUEUE_DELETE), &[0; 4]))
        }),
        ("larger than agreed", |broker| Box::pin(broker.frame(frame::BODY, 1, &[0; 4096]))),
        ("no known kind", |broker| Box::pin(broker.frame(9, 1, b""))),
    ];
    for (what, say) in forbidden {
        let (connection, _events, mut broker) = Broker::meet();
        let (channel, mut deliveries) = broker.consumer(&connection, 2).await;
        say(&mut broker).await;
        let why = connection.lost().await;
        assert!(why.contains("what it may not"), "{what}: {why}");
        assert!(!channel.is_open(), "{what}");
        while deliveries.next().await.is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_shows_that_it_lives_and_must_hear_the_same() {
    let (connection, _events, mut broker) = Broker::meet();
    let every = Duration::from_secs(HEARTBEAT.into());
    for _ in 0..5 {
        let begun = tokio::time::Instant::now();
        assert_eq!(broker.next().await, Some((frame::HEARTBEAT, 0, Vec::new())));
        assert!(begun.elapsed() <= every);
        broker.frame(frame::HEARTBEAT, 0, &[]).await;
    }
    assert!(connection.is_up());
    let begun = tokio::time::Instant::now();
    let why = connection.lost().await;
    assert!(why.contains("no sign of life"), "{why}");
    assert!(begun.elapsed() <= every * 3, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn both_may_end_it() {
    let (connection, mut events, mut broker) = Broker::meet();
    broker.method(0, method::BLOCKED, b"\x03why").await;
    assert!(matches!(events.recv().await, Some(Event::Blocked(why)) if why == "why"));
    broker.method(0, method::UNBLOCKED, &[]).await;
    assert!(matches!(events.recv().await, Some(Event::Unblocked)));
    broker.method(0, method::CLOSE, b"\x01\x40\x04text\0\0\0\0").await;
    assert_eq!(&*connection.lost().await, "text");
    broker.expect(0, method::CLOSE_OK).await;
    assert_eq!(broker.next().await, None, "the socket is closed");

    let (connection, _events, mut broker) = Broker::meet();
    let channel = broker.channel(&connection).await;
    let body = Bytes::from_static(b"last");
    channel.publish(&message("k", &body)).unwrap();
    let ((), ()) = tokio::join!(connection.close(), async {
        for _ in 0..3 {
            broker.next().await.unwrap();
        }
        broker.expect(0, method::CLOSE).await;
        broker.method(0, method::CLOSE_OK, &[]).await;
    });
    assert!(!connection.is_up());

    // With its last handle.
    let (connection, _events, mut broker) = Broker::meet();
    let channel = broker.channel(&connection).await;
    drop(connection);
    channel.publish(&message("k", &body)).unwrap();
    drop(channel);
    for _ in 0..3 {
        broker.next().await.unwrap();
    }
    broker.expect(1, method::CHANNEL_CLOSE).await;
    broker.expect(0, method::CLOSE).await;
    assert_eq!(broker.next().await, None);
}
