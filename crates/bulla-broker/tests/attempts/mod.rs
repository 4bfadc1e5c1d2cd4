//! What somebody with an agent's broker login could try.

use std::future::Future;

use bulla_transport::{ConsumeOptions, Inbox, ReplyName, Transport};
use lapin::options::*;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

use crate::common::World;

/// How many attempts [`try_all`] makes.
pub const ATTEMPTS: usize = 28;

type Outcome = Result<(), String>;
type Outcomes = Vec<(&'static str, Outcome)>;

/// One login's connection; a refusal ends a channel, so each attempt has its own.
struct Intruder {
    connection: Connection,
}

impl Intruder {
    async fn new(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        Self { connection }
    }

    async fn attempt<T, F>(&self, run: impl FnOnce(Channel) -> F) -> Outcome
    where
        F: Future<Output = lapin::Result<T>>,
    {
        let channel = self.connection.create_channel().await.unwrap();
        let result = run(channel.clone()).await.map(drop).map_err(|error| error.to_string());
        // A refusal has closed it.
        let _ = channel.close(200, "done".into()).await;
        result
    }

    async fn publish(&self, exchange: &str, key: &str) -> Outcome {
        self.publish_with(exchange, key, BasicProperties::default()).await
    }

    async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
    ) -> Outcome {
        let (exchange, key) = (name(exchange), name(key));
        self.attempt(|channel| async move {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let options = BasicPublishOptions::default();
            channel.basic_publish(exchange, key, options, b"forged", properties).await?.await
        })
        .await
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Outcome {
        let (queue, exchange, key) = (name(queue), name(exchange), name(key));
        self.attempt(|channel| async move {
            let options = QueueBindOptions::default();
            channel.queue_bind(queue, exchange, key, options, FieldTable::default()).await
        })
        .await
    }

    async fn declare_queue(&self, queue: &str, arguments: FieldTable) -> Outcome {
        let queue = name(queue);
        self.attempt(|channel| async move {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue, options, arguments).await
        })
        .await
    }

    async fn declare_exchange(&self, exchange: &str, arguments: FieldTable) -> Outcome {
        let exchange = name(exchange);
        self.attempt(|channel| async move {
            let (kind, options) = (ExchangeKind::Topic, ExchangeDeclareOptions::default());
            channel.exchange_declare(exchange, kind, options, arguments).await
        })
        .await
    }

    async fn bind_exchange(&self, to: &str, from: &str, key: &str) -> Outcome {
        let (to, from, key) = (name(to), name(from), name(key));
        self.attempt(|channel| async move {
            let options = ExchangeBindOptions::default();
            channel.exchange_bind(to, from, key, options, FieldTable::default()).await
        })
        .await
    }
}

fn name(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}

/// Everything that the agent `id`, which owns the login of `url`, must not do. The victim is
/// `agent/victim`; `component/billing` is internal.
pub async fn try_all(world: &World, url: &str, id: &str) -> Outcomes {
    prepare(world).await;
    let intruder = Intruder::new(url).await;
    let own = format!("agent.{id}");
    intruder.declare_queue(&own, FieldTable::default()).await.unwrap();
    let mut tried = listening(&intruder, &own).await;
    tried.extend(queues(&intruder, &own).await);
    tried.extend(publishing(&intruder, id).await);
    tried.extend(declaring(&intruder).await);
    tried.push(("reading the management API", management(world, url).await));
    tried
}

/// What the others have: queues, exchanges and bindings, as their processes declare them.
async fn prepare(world: &World) {
    world.add("victim").await;
    world.users.prepare(&["all".to_owned(), "dbs".to_owned()]).await.unwrap();
    let exchange = || "bulla".to_owned();
    let options = ConsumeOptions::default();
    for topic in ["agent.victim", "component.control", "component.billing", "enrol.control"] {
        let inbox = Inbox::Topic { exchange: exchange(), topic: topic.to_owned() };
        world.admin.declare(&inbox, &options).await.unwrap();
    }
    let (topic, server) = ("component.control".to_owned(), "host-1".to_owned());
    let inbox = Inbox::Server { exchange: exchange(), topic, server };
    world.admin.declare(&inbox, &options).await.unwrap();
    for (principal, process) in [("component/api", "1"), ("agent/victim", "1")] {
        let name = ReplyName::new(principal, process).unwrap();
        let inbox = Inbox::Reply { exchange: exchange(), name };
        world.admin.declare(&inbox, &options).await.unwrap();
    }
}

/// A queue of one's own, bound to what is for others.
async fn listening(intruder: &Intruder, own: &str) -> Outcomes {
    vec![
        (
            "hearing another agent's requests",
            intruder.bind(own, "bulla.agent", "agent.victim").await,
        ),
        ("hearing every agent's requests", intruder.bind(own, "bulla.agent", "#").await),
        ("hearing agents by a pattern", intruder.bind(own, "bulla.agent", "agent.*").await),
        (
            "hearing another agent's answers",
            intruder.bind(own, "bulla.agent.reply", "agent.victim.#").await,
        ),
        ("hearing all answers to agents", intruder.bind(own, "bulla.agent.reply", "#").await),
        (
            "hearing answers to a component",
            intruder.bind(own, "bulla.reply", "component.api.1").await,
        ),
        (
            "hearing what a component is asked",
            intruder.bind(own, "bulla.component.control", "#").await,
        ),
        ("hearing who joins", intruder.bind(own, "bulla.enrol", "#").await),
        ("hearing a group that it is not in", intruder.bind(own, "group.dbs_fanout", "").await),
        (
            "having an exchange carry others' requests on",
            intruder.bind_exchange("bulla.component.control", "bulla.agent", "#").await,
        ),
    ]
}

/// Queues of others.
async fn queues(intruder: &Intruder, own: &str) -> Outcomes {
    let victim = || name("agent.victim");
    let consume = intruder.attempt(|channel| async move {
        let options = BasicConsumeOptions::default();
        channel.basic_consume(victim(), name("x"), options, FieldTable::default()).await
    });
    let get = intruder.attempt(|channel| async move {
        channel.basic_get(victim(), BasicGetOptions::default()).await
    });
    let purge = intruder.attempt(|channel| async move {
        channel.queue_purge(victim(), QueuePurgeOptions::default()).await
    });
    let (exchange, own) = (name("bulla.agent"), own.to_owned());
    let unbind = intruder.attempt(|channel| async move {
        channel.queue_unbind(victim(), exchange, victim(), FieldTable::default()).await
    });
    let bind = intruder.bind("agent.victim", "bulla.agent", &own);
    let mut tried = vec![
        ("consuming from another's queue", consume.await),
        ("getting from another's queue", get.await),
        ("purging another's queue", purge.await),
        ("unbinding another's queue", unbind.await),
        ("binding another's queue", bind.await),
    ];
    let delete = intruder.attempt(|channel| async move {
        channel.queue_delete(victim(), QueueDeleteOptions::default()).await
    });
    tried.push(("deleting another's queue", delete.await));
    tried
}

async fn publishing(intruder: &Intruder, id: &str) -> Outcomes {
    vec![
        ("publishing to another agent", intruder.publish("bulla.agent", "agent.victim").await),
        (
            "publishing to a component that agents may not call",
            intruder.publish("bulla.component.billing", "component.billing").await,
        ),
        (
            "publishing to one host of a component",
            intruder.publish("bulla.component.control", "component.control.host-1").await,
        ),
        (
            "answering another agent",
            intruder.publish("bulla.agent.reply", &format!("agent.victim.1.agent.{id}")).await,
        ),
        ("publishing to a group", intruder.publish("group.all_fanout", "").await),
        ("the default exchange, to an agent's queue", intruder.publish("", "agent.victim").await),
        (
            "the default exchange, to a component's queue",
            intruder.publish("", "component.control").await,
        ),
        (
            "the default exchange, to a reply queue",
            intruder.publish("", "reply.component.api.1").await,
        ),
    ]
}

async fn declaring(intruder: &Intruder) -> Outcomes {
    vec![
        (
            "declaring an exchange",
            intruder.declare_exchange("bulla.mine", FieldTable::default()).await,
        ),
        (
            "declaring a queue of another's name",
            intruder.declare_queue("agent.third", FieldTable::default()).await,
        ),
        (
            "declaring another's reply queue",
            intruder.declare_queue("reply.agent.third.1", FieldTable::default()).await,
        ),
    ]
}

/// Asks who has which queues, with the login of `url`.
async fn management(world: &World, url: &str) -> Outcome {
    let login = url.split("://").nth(1).and_then(|rest| rest.split_once('@')).unwrap().0;
    let (user, password) = login.split_once(':').unwrap();
    let options = bulla_broker::Options {
        user: user.to_owned(),
        password: password.to_owned().into(),
        ..world.options()
    };
    let users = bulla_broker::BrokerUsers::new(options).unwrap();
    match users.check().await {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("not_authorised: {error}")),
    }
}

/// Has messages arrive with keys that nobody looks at; how many came to the victim, to an internal
/// component, and into the victim's answers. What is refused on the way is as good as not tried.
pub async fn ways_around(world: &World, url: &str, id: &str) -> (u32, u32, u32) {
    prepare(world).await;
    let intruder = Intruder::new(url).await;
    let targets = ["agent.victim", "component.billing", "agent.victim.1.x"];
    // Keys in headers, on every exchange that it may write to, or not.
    let carriers = [
        ("bulla.component.control", "component.control".to_owned()),
        ("bulla.enrol", "enrol.control".to_owned()),
        ("bulla.reply", "component.api.1".to_owned()),
        ("bulla.agent", format!("agent.{id}")),
        ("bulla.agent.reply", format!("agent.{id}.1.agent.{id}")),
        ("bulla.component.billing", "component.control".to_owned()),
    ];
    for (exchange, key) in &carriers {
        for header in ["CC", "BCC"] {
            let keys = targets.map(|key| AMQPValue::LongString(key.into()));
            let mut headers = FieldTable::default();
            headers.insert(header.into(), AMQPValue::FieldArray(FieldArray::from(keys.to_vec())));
            let properties = BasicProperties::default().with_headers(headers);
            let _ = intruder.publish_with(exchange, key, properties).await;
        }
    }
    // Dead letters of queues of its own, of messages that it has answered itself or was sent.
    for (n, (exchange, _)) in carriers.iter().enumerate() {
        for (m, target) in targets.iter().enumerate() {
            let queue = format!("reply.agent.{id}.{n}{m}");
            let mut arguments = FieldTable::default();
            let text = |text: &str| AMQPValue::LongString(text.into());
            arguments.insert("x-dead-letter-exchange".into(), text(exchange));
            arguments.insert("x-dead-letter-routing-key".into(), text(target));
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(0));
            if intruder.declare_queue(&queue, arguments).await.is_ok() {
                let key = format!("agent.{id}.{n}{m}.#");
                intruder.bind(&queue, "bulla.agent.reply", &key).await.unwrap();
                let name = ReplyName::new(&format!("agent/{id}"), &format!("{n}{m}")).unwrap();
                let from = "component/control".to_owned();
                let to =
                    bulla_transport::Address::Reply { exchange: "bulla".into(), to: name, from };
                world.admin.publish(&to, crate::common::message("an answer")).await.unwrap();
            }
        }
        // An alternate exchange takes what its own exchange does not route.
        let own = format!("agent.{id}");
        let mut arguments = FieldTable::default();
        let text = AMQPValue::LongString((*exchange).into());
        arguments.insert("alternate-exchange".into(), text);
        if intruder.declare_exchange(&own, arguments).await.is_ok() {
            for target in targets {
                let _ = intruder.publish(&own, target).await;
            }
            let gone = name(&own);
            let _ = intruder
                .attempt(|channel| async move {
                    channel.exchange_delete(gone, ExchangeDeleteOptions::default()).await
                })
                .await;
        }
    }
    // Dead letters take a moment; a look takes longer than that.
    let mut found = [0; 3];
    for _ in 0..3 {
        found = arrived(world).await;
    }
    (found[0], found[1], found[2])
}

async fn arrived(world: &World) -> [u32; 3] {
    let waiting = world.rabbit.rabbitmqctl(&["list_queues", "name", "messages"]).unwrap();
    ["agent.victim", "component.billing", "reply.agent.victim.1"].map(|queue| {
        let line = waiting.lines().find(|line| line.split('\t').next() == Some(queue));
        let count = line.and_then(|line| line.split('\t').nth(1)).and_then(|n| n.parse().ok());
        count.unwrap_or_else(|| panic!("no {queue} in {waiting}"))
    })
}
