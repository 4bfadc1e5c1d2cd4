//! A real RabbitMQ: what every transport must do, TLS, confinement, and loss of the broker.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bulla_services::{Authority, RabbitMq, require};
use bulla_transport::conformance::{Party, run_all};
use bulla_transport::{
    Address, ConsumeOptions, Consumer, Inbox, Outbound, PublishError, RabbitOptions,
    RabbitTransport, ReplyName, Transport, TransportError, TransportEvent,
};

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

/// One server for all tests that leave it alone.
fn shared() -> Option<&'static RabbitMq> {
    static SERVER: OnceLock<Option<RabbitMq>> = OnceLock::new();
    let start = || {
        let confined = ["^$", "^(confined|confined\\.reply)$", "^(confined|own|confined\\.reply)$"];
        let builder = RabbitMq::builder().tls(true).user("confined", "secret", confined);
        require(builder.start())
    };
    SERVER.get_or_init(start).as_ref()
}

async fn connect(url: &str) -> RabbitTransport {
    RabbitTransport::connect(RabbitOptions::new(url).unwrap()).await.unwrap()
}

fn inbox(topic: &str) -> Inbox {
    Inbox::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

fn address(topic: &str) -> Address {
    Address::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

fn message(payload: &str) -> Outbound {
    Outbound { persistent: true, confirm: true, ..Outbound::new(payload.to_owned().into()) }
}

async fn next(consumer: &mut Box<dyn Consumer>) -> String {
    let delivery = tokio::time::timeout(HANG, consumer.next()).await.unwrap().unwrap();
    delivery.acker.ack();
    String::from_utf8(delivery.payload.to_vec()).unwrap()
}

async fn conforms(options: RabbitOptions) {
    let options = options.max_message(1 << 20);
    let factory = move || {
        let options = options.clone();
        Box::pin(async move {
            let party: Party = Arc::new(RabbitTransport::connect(options).await?);
            Ok(party)
        }) as _
    };
    run_all(&factory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_in_the_clear() {
    let Some(server) = shared() else { return };
    conforms(RabbitOptions::new(&server.url()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_tls() {
    let Some(server) = shared() else { return };
    conforms(RabbitOptions::new(&server.tls_url()).unwrap().ca_pem(server.ca_pem())).await;
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let Some(server) = shared() else { return };
    let other = Authority::new("another authority").unwrap();
    let options = RabbitOptions::new(&server.tls_url()).unwrap().ca_pem(other.pem());
    let error = RabbitTransport::connect(options).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let Some(server) = shared() else { return };
    let options = RabbitOptions::new(&server.tls_url()).unwrap().ca_pem(server.ca_pem());
    let error = RabbitTransport::connect(options.server_name("broker.example")).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("broker.example"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let Some(server) = shared() else { return };
    let options = RabbitOptions::new(&server.url_as("bulla", "wr0ng")).unwrap();
    let error = RabbitTransport::connect(options).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
}

#[tokio::test]
async fn no_broker_is_told_at_once() {
    let options = RabbitOptions::new("amqp://user:secret@127.0.0.1:1/%2f").unwrap();
    let error = RabbitTransport::connect(options).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn client_certificates_stand_for_users() {
    let builder = RabbitMq::builder().tls(true).require_client_certificate(true).user(
        "db-1",
        "unused",
        [".*", ".*", ".*"],
    );
    let Some(server) = require(builder.start()) else { return };
    let options = || RabbitOptions::new(&server.external_url()).unwrap().ca_pem(server.ca_pem());
    let as_user = |name: &str| {
        let identity = server.client_certificate(name).unwrap();
        options().client_certificate(identity.certificate, identity.key)
    };
    let party = RabbitTransport::connect(as_user("db-1")).await.unwrap();
    let mut consumer = party.consume(&inbox("mutual"), &ConsumeOptions::default()).await.unwrap();
    party.publish(&address("mutual"), message("hello")).await.unwrap();
    assert_eq!(next(&mut consumer).await, "hello");

    let nobody = RabbitTransport::connect(as_user("nobody")).await.unwrap_err();
    assert!(matches!(nobody, TransportError::Refused { .. }), "{nobody:?}");
    let without = RabbitTransport::connect(options()).await.unwrap_err();
    assert!(matches!(without, TransportError::Tls { .. }), "{without:?}");
    let stranger = Authority::new("another authority").unwrap().client("db-1").unwrap();
    let stranger = options().client_certificate(stranger.certificate, stranger.key);
    let stranger = RabbitTransport::connect(stranger).await.unwrap_err();
    assert!(matches!(stranger, TransportError::Tls { .. }), "{stranger:?}");
}

#[tokio::test]
async fn replicated_queues_are_quorum_queues() {
    let Some(server) = shared() else { return };
    let party = connect(&server.url()).await;
    let options = ConsumeOptions { replicated: true, ..ConsumeOptions::default() };
    let mut consumer = party.consume(&inbox("quorum"), &options).await.unwrap();
    party.publish(&address("quorum"), message("hello")).await.unwrap();
    assert_eq!(next(&mut consumer).await, "hello");
    let queues = server.rabbitmqctl(&["list_queues", "name", "type"]).unwrap();
    assert!(queues.contains("quorum\tquorum"), "{queues}");
    let other = party.declare(&inbox("quorum"), &ConsumeOptions::default()).await.unwrap_err();
    assert!(other.to_string().contains("other properties"), "{other}");
    party.publish(&address("quorum"), message("still here")).await.unwrap();
    assert_eq!(next(&mut consumer).await, "still here");
}

#[tokio::test]
async fn a_confined_user_works_with_what_the_operator_made() {
    let Some(server) = shared() else { return };
    let topic =
        |topic: &str| Inbox::Topic { exchange: "confined".to_owned(), topic: topic.to_owned() };
    let operator = connect(&server.url()).await;
    let api = ReplyName::new("component/api", "1").unwrap();
    let replies = Inbox::Reply { exchange: "confined".to_owned(), name: api.clone() };
    operator.declare(&topic("own"), &ConsumeOptions::default()).await.unwrap();
    operator.declare(&topic("foreign"), &ConsumeOptions::default()).await.unwrap();
    let mut replies = operator.consume(&replies, &ConsumeOptions::default()).await.unwrap();

    let agent = connect(&server.url_as("confined", "secret")).await;
    let mut own = agent.consume(&topic("own"), &ConsumeOptions::default()).await.unwrap();
    let to = Address::Topic { exchange: "confined".to_owned(), topic: "own".to_owned() };
    operator.publish(&to, message("request")).await.unwrap();
    assert_eq!(next(&mut own).await, "request");
    let reply =
        Address::Reply { exchange: "confined".to_owned(), to: api, from: "agent/own".to_owned() };
    agent.publish(&reply, message("reply")).await.unwrap();
    assert_eq!(next(&mut replies).await, "reply");

    let foreign = agent.consume(&topic("foreign"), &ConsumeOptions::default()).await;
    assert!(matches!(foreign, Err(TransportError::Refused { .. })));
    let elsewhere = agent.publish(&address("own"), message("elsewhere")).await;
    let refused = matches!(elsewhere, Err(PublishError::Transport(TransportError::Refused { .. })));
    assert!(refused, "{elsewhere:?}");
    agent.publish(&reply, message("again")).await.unwrap();
    assert_eq!(next(&mut replies).await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_no_confirmed_message() {
    let Some(mut server) = require(RabbitMq::start()) else { return };
    let (sender, receiver) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut events = receiver.events();
    let mut consumer = receiver.consume(&inbox("work"), &ConsumeOptions::default()).await.unwrap();
    let name = ReplyName::new("component/api", "1").unwrap();
    let reply_inbox = Inbox::Reply { exchange: "bulla".to_owned(), name: name.clone() };
    let mut replies = receiver.consume(&reply_inbox, &ConsumeOptions::default()).await.unwrap();
    let sender = Arc::new(sender);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishing: Vec<_> = (0..4)
        .map(|worker| tokio::spawn(keep_publishing(Arc::clone(&sender), worker, stopped.clone())))
        .collect();
    let consuming = tokio::spawn(async move {
        let mut seen = HashSet::new();
        loop {
            match next(&mut consumer).await {
                last if last == "last" => return seen,
                payload => seen.insert(payload),
            };
        }
    });
    for crash in [false, true] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server = tokio::task::spawn_blocking(move || {
            if crash {
                server.kill();
            }
            server.restart().unwrap();
            server
        })
        .await
        .unwrap();
        wait_for(&mut events, |event| matches!(event, TransportEvent::Lost { .. })).await;
        wait_for(&mut events, |event| *event == TransportEvent::Connected).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.send(true).unwrap();
    let mut confirmed = HashSet::new();
    for worker in publishing {
        confirmed.extend(worker.await.unwrap());
    }
    sender.publish(&address("work"), message("last")).await.unwrap();
    let seen = consuming.await.unwrap();
    let lost: Vec<_> = confirmed.difference(&seen).collect();
    assert!(!confirmed.is_empty());
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), confirmed.len());

    // The reply inbox is there again too.
    let reply =
        Address::Reply { exchange: "bulla".to_owned(), to: name, from: "agent/db-1".to_owned() };
    sender.publish(&reply, message("reply")).await.unwrap();
    assert_eq!(next(&mut replies).await, "reply");
}

/// Publishes until told to stop; returns what the broker confirmed.
async fn keep_publishing(
    sender: Arc<RabbitTransport>,
    worker: u32,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Vec<String> {
    let mut confirmed = Vec::new();
    for n in 0.. {
        if *stopped.borrow() {
            break;
        }
        let payload = format!("{worker}.{n}");
        let outbound = Outbound { mandatory: worker.is_multiple_of(2), ..message(&payload) };
        if sender.publish(&address("work"), outbound).await.is_ok() {
            confirmed.push(payload);
        }
    }
    confirmed
}

async fn wait_for(
    events: &mut tokio::sync::broadcast::Receiver<TransportEvent>,
    wanted: impl Fn(&TransportEvent) -> bool,
) {
    loop {
        let event = tokio::time::timeout(HANG, events.recv()).await.unwrap().unwrap();
        if wanted(&event) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_are_told_of_a_lost_broker() {
    let Some(mut server) = require(RabbitMq::start()) else { return };
    let party = Arc::new(connect(&server.url()).await);
    party.declare(&inbox("work"), &ConsumeOptions::default()).await.unwrap();
    // Both kinds have a channel now, so that the next ones leave.
    for mandatory in [false, true] {
        let outbound = Outbound { mandatory, ..message("before") };
        party.publish(&address("work"), outbound).await.unwrap();
    }

    // A broker that does not answer, and then is gone.
    server.freeze();
    let to = address("work");
    let mut waiting = [false, true].map(|mandatory| {
        let outbound = Outbound { mandatory, ..message("unconfirmed") };
        party.publish(&to, outbound)
    });
    for publishing in &mut waiting {
        // The first poll hands the message to the connection.
        let early = std::future::poll_fn(|cx| Poll::Ready(publishing.as_mut().poll(cx))).await;
        assert!(early.is_pending(), "{early:?}");
    }
    let mut events = party.events();
    server.kill();
    for publishing in waiting {
        let result = tokio::time::timeout(HANG, publishing).await.unwrap();
        assert!(matches!(result, Err(PublishError::Unconfirmed)), "{result:?}");
    }
    wait_for(&mut events, |event| matches!(event, TransportEvent::Lost { .. })).await;

    let brief = Outbound { ttl: Some(Duration::from_millis(200)), ..message("brief") };
    let result = party.publish(&address("work"), brief).await;
    let down = matches!(result, Err(PublishError::Transport(TransportError::Unreachable { .. })));
    assert!(down, "{result:?}");

    let patient = {
        let party = Arc::clone(&party);
        tokio::spawn(async move {
            let outbound = Outbound { ttl: Some(HANG), ..message("patient") };
            party.publish(&address("work"), outbound).await
        })
    };
    let _server = tokio::task::spawn_blocking(move || server.restart().map(|()| server))
        .await
        .unwrap()
        .unwrap();
    let result = tokio::time::timeout(HANG, patient).await.unwrap().unwrap();
    assert!(result.is_ok(), "{result:?}");
}
