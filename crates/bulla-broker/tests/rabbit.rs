//! What an agent's broker user can and can't do, against a real RabbitMQ with that user's own
//! login. Every refusal is the broker's; a user with too wide rights shows that each attempt would
//! work without them.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod attempts;
mod bench;
mod common;

use attempts::{ATTEMPTS, try_all};
use bulla_broker::{BrokerError, BrokerUsers, Login, Password, with_login};
use bulla_services::require;
use bulla_transport::{
    Address, ConsumeOptions, Inbox, RabbitOptions, RabbitTransport, ReplyName, Transport,
    TransportError, TransportEvent,
};
use common::*;

#[tokio::test]
async fn what_an_agent_must_not_do_the_broker_refuses() {
    let Some(world) = World::start().await else { return };
    let intruder = world.add("intruder").await;
    for (name, outcome) in try_all(&world, &intruder, "intruder").await {
        let refused = outcome.expect_err(&format!("{name} got through"));
        assert!(
            refused.contains("ACCESS_REFUSED") || refused.contains("not_authorised"),
            "{name}: {refused}"
        );
    }
}

/// The same attempts by a user who may do everything: none of them fails for another reason.
#[tokio::test]
async fn with_too_wide_rights_every_attempt_gets_through() {
    let Some(world) = World::start().await else { return };
    world.rabbit.rabbitmqctl(&["add_user", "wide", "secret"]).unwrap();
    world.rabbit.rabbitmqctl(&["set_user_tags", "wide", "management"]).unwrap();
    world.rabbit.rabbitmqctl(&["set_permissions", "-p", "/", "wide", ".*", ".*", ".*"]).unwrap();
    let wide = world.rabbit.url_as("wide", "secret");
    let outcomes = try_all(&world, &wide, "intruder").await;
    assert_eq!(outcomes.len(), ATTEMPTS);
    for (name, outcome) in outcomes {
        outcome.unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// What topic permissions do not see: keys in headers, of dead letters, behind alternate exchanges.
#[tokio::test]
async fn no_way_around_routing_keys_leads_to_another() {
    let Some(world) = World::start().await else { return };
    let intruder = world.add("intruder").await;
    let (victim, internal, reply) = attempts::ways_around(&world, &intruder, "intruder").await;
    assert_eq!((victim, internal, reply), (0, 0, 0), "messages that arrived");
    // On exchanges that all share they would.
    world.rabbit.rabbitmqctl(&["add_user", "wide", "secret"]).unwrap();
    world.rabbit.rabbitmqctl(&["set_permissions", "-p", "/", "wide", ".*", ".*", ".*"]).unwrap();
    let wide = world.rabbit.url_as("wide", "secret");
    let (victim, internal, reply) = attempts::ways_around(&world, &wide, "intruder").await;
    assert!(victim > 0 && internal > 0 && reply > 0, "{victim} {internal} {reply}");
}

#[tokio::test]
async fn an_agent_can_do_its_work() {
    let Some(world) = World::start().await else { return };
    let url = world.add("db.1").await;
    let agent = connect(&url).await;
    let options = ConsumeOptions::default();
    let exchange = || "bulla".to_owned();
    let topic = |topic: &str| Inbox::Topic { exchange: exchange(), topic: topic.to_owned() };
    let to = |topic: &str| Address::Topic { exchange: exchange(), topic: topic.to_owned() };

    // Takes requests and a group's fanouts, and answers.
    let mut own = agent.consume(&topic("agent.db~1"), &options).await.unwrap();
    let fanout = |member: &str| Inbox::Fanout {
        exchange: exchange(),
        topic: "group.all".to_owned(),
        member: member.to_owned(),
    };
    let mut group = agent.consume(&fanout("agent.db~1"), &options).await.unwrap();
    world.admin.publish(&to("agent.db~1"), message("request")).await.unwrap();
    assert_eq!(next(&mut own).await, "request");
    let all = Address::Fanout { exchange: exchange(), topic: "group.all".to_owned() };
    world.admin.publish(&all, message("fanout")).await.unwrap();
    assert_eq!(next(&mut group).await, "fanout");
    let asker = ReplyName::new("component/api", "9f3a").unwrap();
    let inbox = Inbox::Reply { exchange: exchange(), name: asker.clone() };
    let mut replies = world.admin.consume(&inbox, &options).await.unwrap();
    let answer = Address::Reply { exchange: exchange(), to: asker, from: "agent/db.1".to_owned() };
    agent.publish(&answer, message("reply")).await.unwrap();
    assert_eq!(next(&mut replies).await, "reply");

    // Asks, to join and of its control plane, and is answered.
    let name = ReplyName::new("agent/db.1", "77").unwrap();
    let inbox = Inbox::Reply { exchange: exchange(), name: name.clone() };
    let mut answers = agent.consume(&inbox, &options).await.unwrap();
    for asked in ["enrol.control", "component.control"] {
        let mut desk = world.admin.consume(&topic(asked), &options).await.unwrap();
        agent.publish(&to(asked), message(asked)).await.unwrap();
        assert_eq!(next(&mut desk).await, asked);
        let from = "component/control".to_owned();
        let answer = Address::Reply { exchange: exchange(), to: name.clone(), from };
        world.admin.publish(&answer, message("answer")).await.unwrap();
        assert_eq!(next(&mut answers).await, "answer");
    }

    // A group that it is not in; and then it is.
    let other = Inbox::Fanout {
        exchange: exchange(),
        topic: "group.dbs".to_owned(),
        member: "agent.db~1".to_owned(),
    };
    world.users.prepare(&["dbs".to_owned()]).await.unwrap();
    let refused = agent.consume(&other, &options).await;
    assert!(matches!(refused, Err(TransportError::Refused { .. })), "not in the group");
    let survey = world.users.survey_of(&["db.1"]).await.unwrap();
    let member = agent_in("db.1", &["all", "dbs"]);
    assert_eq!(world.users.permit(&survey, &[member]).await.unwrap(), 1);
    agent.consume(&other, &options).await.unwrap();
}

#[tokio::test]
async fn a_removed_user_loses_its_connection_at_once() {
    let Some(world) = World::start().await else { return };
    let (url, other) = (world.add("db-1").await, world.add("db-2").await);
    let (agent, other) = (connect(&url).await, connect(&other).await);
    let mut events = agent.events();
    let removed = world.users.remove("db-1").await.unwrap();
    assert!(removed);
    lost(&mut events).await;
    let again = RabbitTransport::connect(RabbitOptions::new(&url).unwrap()).await;
    assert!(matches!(again, Err(TransportError::Refused { .. })), "{again:?}");
    assert!(!world.users.remove("db-1").await.unwrap(), "it can be repeated");
    // The other's is left alone.
    let inbox = Inbox::Topic { exchange: "bulla".to_owned(), topic: "agent.db-2".to_owned() };
    other.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_rotated_password_is_the_only_one() {
    let Some(world) = World::start().await else { return };
    let former = world.add("db-1").await;
    let agent = connect(&former).await;
    let text = "Zm9ydHktdHdvIGJ5dGVzIG9mIG5vdGhpbmcgLSAzMiE";
    let password = Password::parse(text).unwrap();
    assert!(world.users.has_password("db-1").await.unwrap());
    world.users.set_password("db-1", &password).await.unwrap();
    let next = with_login(&world.rabbit.url(), Some(("agent.db-1", &password))).unwrap();
    let refused = RabbitTransport::connect(RabbitOptions::new(&former).unwrap()).await;
    assert!(matches!(refused, Err(TransportError::Refused { .. })), "{refused:?}");
    let _newer = connect(&next).await;
    // What was connected still is, with the rights that it had.
    let inbox = Inbox::Topic { exchange: "bulla".to_owned(), topic: "agent.db-1".to_owned() };
    agent.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    assert!(!world.users.has_password("db-9").await.unwrap());
    let nobody = world.users.set_password("db-9", &password).await;
    assert!(matches!(nobody, Err(BrokerError::NoUser { .. })), "{nobody:?}");
    let mut events = agent.events();
    world.users.disconnect("db-1").await.unwrap();
    lost(&mut events).await;
    // Added anew, the name is another's: the former holder is cut off.
    let agent = connect(&next).await;
    let mut events = agent.events();
    world.add("db-1").await;
    lost(&mut events).await;
}

#[tokio::test]
async fn somebody_elses_user_is_left_alone() {
    let Some(world) = World::start().await else { return };
    world.rabbit.rabbitmqctl(&["add_user", "agent.guest", "secret"]).unwrap();
    let everything = ["set_permissions", "-p", "/", "agent.guest", ".*", ".*", ".*"];
    world.rabbit.rabbitmqctl(&everything).unwrap();
    let survey = world.users.survey_of(&["guest"]).await.unwrap();
    let added = world.users.add(&survey, &[agent("guest")]).await;
    assert!(matches!(added, Err(BrokerError::NotOurs { .. })), "{added:?}");
    let survey = world.users.survey().await.unwrap();
    let added = world.users.add(&survey, &[agent("db-1"), agent("guest")]).await;
    assert!(matches!(added, Err(BrokerError::NotOurs { .. })), "{added:?}");
    let removed = world.users.remove("guest").await;
    assert!(matches!(removed, Err(BrokerError::NotOurs { .. })), "{removed:?}");
    // Nor that of another deployment on the same broker.
    world.add("db-1").await;
    let options = world.options();
    let other = bulla_broker::Options { owner: "other.example".to_owned(), ..options };
    let other = BrokerUsers::new(other).unwrap();
    let removed = other.remove("db-1").await;
    assert!(matches!(removed, Err(BrokerError::NotOurs { .. })), "{removed:?}");
    assert!(other.known(&other.survey().await.unwrap()).is_empty());
    let known = world.users.known(&world.users.survey().await.unwrap());
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].name.as_str(), known[0].agent.as_deref()), ("agent.db-1", Some("db-1")));
    connect(&world.rabbit.url_as("agent.guest", "secret")).await.close().await;
}

#[tokio::test]
async fn a_wrong_login_or_address_is_told_without_the_password() {
    let Some(world) = World::start().await else { return };
    let with = |user: &str, password: &str, url: &str| {
        let options = bulla_broker::Options {
            user: user.to_owned(),
            password: password.to_owned().into(),
            url: url.to_owned(),
            ..world.options()
        };
        BrokerUsers::new(options).unwrap()
    };
    let url = world.rabbit.management_address();
    let wrong = with("bulla", "wr0ng", &url).check().await.unwrap_err();
    assert!(matches!(wrong, BrokerError::NotAllowed { .. }), "{wrong:?}");
    assert!(!format!("{wrong} {wrong:?}").contains("wr0ng"));
    world.rabbit.rabbitmqctl(&["add_user", "low", "secret"]).unwrap();
    let low = with("low", "secret", &url).survey().await.unwrap_err();
    assert!(matches!(low, BrokerError::NotAllowed { .. }), "{low:?}");
    let closed = with("bulla", "x", "http://127.0.0.1:1").survey().await.unwrap_err();
    assert!(closed.to_string().contains("management plugin"), "{closed}");
    let amqp = format!("http://127.0.0.1:{}", world.rabbit.port());
    let amqp = with("bulla", "x", &amqp).survey().await.unwrap_err();
    assert!(
        matches!(amqp, BrokerError::Unreachable { .. } | BrokerError::NotManagement { .. }),
        "{amqp:?}"
    );
    world.users.check().await.unwrap();
}

#[tokio::test]
async fn over_tls_and_with_certificates() {
    let builder = bulla_services::RabbitMq::builder().tls(true).management(true);
    let Some(rabbit) = require(builder.start()) else { return };
    let options = |ca: &str, prefix: &str| bulla_broker::Options {
        url: rabbit.management_tls_address(),
        ca: Some(ca.as_bytes().to_vec()),
        login: Login::Certificate,
        prefix: prefix.to_owned(),
        ..options(&rabbit)
    };
    let stranger = bulla_services::Authority::new("another authority").unwrap();
    let blind = BrokerUsers::new(options(stranger.pem(), "")).unwrap().check().await;
    assert!(matches!(blind, Err(BrokerError::Tls { .. })), "{blind:?}");

    let users = BrokerUsers::new(options(rabbit.ca_pem(), "")).unwrap();
    users.check().await.unwrap();
    let survey = users.survey().await.unwrap();
    let passwords = users.add(&survey, &[agent("db-1")]).await.unwrap();
    assert!(passwords[0].is_none());
    assert!(!users.has_password("db-1").await.unwrap());
    let url = with_login(&rabbit.tls_url(), None).unwrap();
    let party = |name: &str| {
        let identity = rabbit.client_certificate(name).unwrap();
        let options = RabbitOptions::new(&url).unwrap().ca_pem(rabbit.ca_pem());
        RabbitTransport::connect(options.client_certificate(identity.certificate, identity.key))
    };
    let agent = party("db-1").await.unwrap();
    let topic =
        |topic: &str| Inbox::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() };
    agent.consume(&topic("agent.db-1"), &ConsumeOptions::default()).await.unwrap();
    let foreign = agent.consume(&topic("agent.db-2"), &ConsumeOptions::default()).await;
    assert!(matches!(foreign, Err(TransportError::Refused { .. })));
    // No password opens it, and no other certificate.
    for password in ["", "x"] {
        let refused =
            RabbitTransport::connect(RabbitOptions::new(&rabbit.url_as("db-1", password)).unwrap());
        assert!(matches!(refused.await, Err(TransportError::Refused { .. })));
    }
    assert!(party("db-2").await.is_err());
    let mut events = agent.events();
    users.remove("db-1").await.unwrap();
    let event = tokio::time::timeout(HANG, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, TransportEvent::Lost { .. }), "{event:?}");
    assert!(party("db-1").await.is_err());
}
