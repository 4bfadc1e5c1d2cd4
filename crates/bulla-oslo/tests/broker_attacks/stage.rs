//! The deployment that is attacked, who uses it, and what a broker's user can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulla_oslo::{OsloTransport, Queues};
use bulla_policy::{Source, starter};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::foreign::{Argument, ForeignQueue};
use bulla_transport::{Address, ConsumeOptions, Consumer, Inbox, Outbound};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::common::rpc::{Keys, World, options, until, validity};
use crate::common::{carrier, endpoint};

pub const EXCHANGE: &str = "trove";
pub const SECRET: &str = "correct-horse-battery";

/// What ran: where, the method, its arguments.
pub type Ran = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Somebody who serves.
pub struct Served {
    pub endpoint: Endpoint,
    pub server: Server,
}

impl Served {
    pub fn refusals(&self) -> u64 {
        self.endpoint.counters().refusals().values().sum()
    }

    pub fn duplicates(&self) -> u64 {
        self.endpoint.counters().duplicates.get()
    }
}

/// A conductor, a task manager and guests, who calls them, and the broker's user.
pub struct Stage {
    pub url: String,
    pub world: World,
    pub ran: Ran,
    pub conductor: Served,
    pub tasks: Served,
    pub a: Served,
    pub b: Served,
    pub keys_a: Keys,
    pub tasks_client: Client,
    pub api: Client,
    pub guest_a: Client,
    pub attacker: Arc<OsloTransport>,
    pub numbers: AtomicU64,
}

pub fn noting(ran: &Ran, at: &str, name: &'static str) -> Method {
    let (ran, at) = (ran.clone(), at.to_owned());
    Method::new(name, move |_, args: Value| {
        ran.lock().push((at.clone(), name.to_owned(), args));
        std::future::ready(Ok(()))
    })
}

pub fn guest_methods(ran: &Ran, at: &str) -> Router {
    let by = at.to_owned();
    ["create_user", "restart", "stop_db"]
        .into_iter()
        .fold(Router::new(), |router, name| router.with(noting(ran, at, name)))
        .method("enable_root", |_, _: Value| async {
            Ok(json!({"name": "root", "password": format!("root-{SECRET}")}))
        })
        .method("slow", move |_, args: Value| {
            let by = by.clone();
            async move {
                tokio::time::sleep(Duration::from_secs_f64(args["seconds"].as_f64().unwrap()))
                    .await;
                Ok(format!("done by {by}"))
            }
        })
        .method("broken", |_, _: Value| async {
            Err::<Value, _>(RemoteError::new("RuntimeError", format!("can't log in with {SECRET}")))
        })
}

pub fn topic(name: &str) -> Inbox {
    Inbox::Topic { exchange: EXCHANGE.into(), topic: name.into() }
}

pub fn named(principal: &str, topic: &str) -> Target {
    Target::Named {
        principal: principal.parse().unwrap(),
        exchange: EXCHANGE.into(),
        topic: topic.into(),
        server: None,
    }
}

pub fn guest(name: &str) -> Target {
    named(&format!("agent/{name}"), &format!("guestagent.{name}"))
}

pub fn conductor() -> Target {
    named("component/conductor", "trove-conductor")
}

pub fn tasks() -> Target {
    named("component/taskmanager", "trove-taskmanager")
}

pub async fn call(
    client: &Client,
    to: &Target,
    method: &str,
    args: Value,
) -> Result<Value, CallError> {
    client.request(to, method).timeout(Duration::from_secs(20)).call(&args).await
}

impl Stage {
    pub async fn new(url: &str) -> Self {
        let (world, ran) = (World::new(), Ran::default());
        let serve = async |identity, router: Router, options: ServerOptions, at: &str| {
            let way = carrier(url, Queues::default()).await;
            let endpoint = endpoint(&world, identity, way, &[]).await;
            let server = Server::start(endpoint.clone(), router, options).await.unwrap();
            server.consume(&topic(at)).await.unwrap();
            Served { endpoint, server }
        };
        let policy = Source::parse(starter::TROVE).unwrap().compile().unwrap();
        let rule = ServerOptions { authorization: Arc::new(PolicyRule::new(policy)), ..options() };
        let component = |name: &str| world.component_identity(name, "h1", 1, validity());
        let heartbeat = Router::new().with(noting(&ran, "conductor", "heartbeat").open_to_agents());
        let conductor = serve(component("conductor"), heartbeat, rule, "trove-conductor").await;
        let of_tasks =
            ["restart", "delete_instance"].into_iter().fold(Router::new(), |router, name| {
                router.with(noting(&ran, "taskmanager", name).open_to_components())
            });
        let tasks = serve(component("taskmanager"), of_tasks, options(), "trove-taskmanager").await;
        let keys_a = world.agent_keys("guest-a", Suite::X25519, 1);
        let of = |name: &str| guest_methods(&ran, name);
        let a = keys_a.identity(&world.trust);
        let a = serve(a, of("guest-a"), options(), "guestagent.guest-a").await;
        let b = world.agent_identity("guest-b", Suite::X25519, 1);
        let b = serve(b, of("guest-b"), options(), "guestagent.guest-b").await;
        let api = carrier(url, Queues::default()).await;
        let api = Client::new(endpoint(&world, component("api"), api, &[]).await);
        let stage = Self {
            url: url.to_owned(),
            tasks_client: Client::new(tasks.endpoint.clone()),
            guest_a: Client::new(a.endpoint.clone()),
            attacker: carrier(url, Queues::default()).await,
            numbers: AtomicU64::new(0),
            world,
            ran,
            conductor,
            tasks,
            a,
            b,
            keys_a,
            api,
        };
        // Sessions open now, so that what passes later has no offer beside it.
        for name in ["guest-a", "guest-b"] {
            call(&stage.tasks_client, &guest(name), "restart", json!({})).await.unwrap();
        }
        stage.heartbeat("guest-a").await.unwrap();
        call(&stage.api, &self::tasks(), "restart", json!({"instance_id": "warm"})).await.unwrap();
        stage
    }

    pub async fn heartbeat(&self, of: &str) -> Result<Value, CallError> {
        let args = json!({"instance_id": of, "payload": {}, "sent": 1.0});
        call(&self.guest_a, &conductor(), "heartbeat", args).await
    }

    pub fn count(&self, at: &str, method: &str) -> usize {
        self.ran.lock().iter().filter(|ran| ran.0 == at && ran.1 == method).count()
    }

    pub fn nothing_ran(&self) {
        assert!(self.ran.lock().is_empty(), "{:?}", self.ran.lock());
    }

    /// Another caller, with a reply queue that somebody else takes from first.
    pub async fn robbed(&self) -> (Client, Box<dyn Consumer>) {
        let n = self.numbers.fetch_add(1, Ordering::Relaxed);
        let identity = self.world.component_identity(&format!("robbed-{n}"), "h1", 1, validity());
        let way = carrier(&self.url, Queues::default()).await;
        let client = Client::new(endpoint(&self.world, identity, way, &[]).await);
        client.listen().await.unwrap();
        let name = client.reply_name().clone();
        let thief = self.steal(&Inbox::Reply { exchange: EXCHANGE.into(), name }).await;
        (client, thief)
    }

    // What a user of the broker can do.

    /// Copies of what passes to a topic from now on.
    pub async fn sniff(&self, topic: &str) -> Box<dyn Consumer> {
        let n = self.numbers.fetch_add(1, Ordering::Relaxed);
        let control = self.attacker.queues().control(EXCHANGE);
        let queue = ForeignQueue {
            name: format!("sniffed-{n}"),
            bound: Some((control, topic.to_owned())),
            durable: false,
            auto_delete: true,
            own: true,
            arguments: Vec::new(),
            consume: Vec::new(),
        };
        self.take(queue).await
    }

    /// Takes what comes to a queue before its owner does.
    pub async fn steal(&self, inbox: &Inbox) -> Box<dyn Consumer> {
        let mut queue = ForeignQueue::clone(&self.attacker.queues().inbox(inbox));
        queue.own = false;
        queue.consume = vec![("x-priority".into(), Argument::Number(100))];
        self.take(queue).await
    }

    pub async fn take(&self, queue: ForeignQueue) -> Box<dyn Consumer> {
        let inbox = Inbox::Foreign(Arc::new(queue));
        self.attacker.inner().consume(&inbox, &ConsumeOptions::default()).await.unwrap()
    }

    pub async fn publish(&self, topic: &str, body: impl Into<Bytes>) {
        let exchange = Some(self.attacker.queues().control(EXCHANGE));
        let to = Address::Foreign { exchange, key: topic.to_owned() };
        self.attacker.inner().publish(&to, Outbound::new(body.into())).await.unwrap();
    }

    pub async fn reply(&self, queue: &str, body: impl Into<Bytes>) {
        let to = Address::Foreign { exchange: None, key: queue.to_owned() };
        self.attacker.inner().publish(&to, Outbound::new(body.into())).await.unwrap();
    }

    pub fn id(&self) -> String {
        format!(
            "{:032x}",
            0xa77ac_u128 << 64 | u128::from(self.numbers.fetch_add(1, Ordering::Relaxed))
        )
    }

    /// An ordinary oslo.messaging request in clear.
    pub fn plain(&self, method: &str, args: Value, more: Value) -> Bytes {
        let mut inner =
            json!({"method": method, "args": args, "version": "1.0", "_unique_id": self.id()});
        inner.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        enveloped(&inner)
    }

    /// The same message as the driver would tell it from the first.
    pub fn again(&self, body: &Bytes) -> Bytes {
        let mut inner = inner_of(body);
        inner["_unique_id"] = self.id().into();
        if inner.get("_msg_id").is_some() {
            inner["_msg_id"] = self.id().into();
        }
        enveloped(&inner)
    }

    pub fn with_frame(&self, body: &Bytes, frame: &[u8]) -> Bytes {
        with(&self.again(body), json!({"bulla": STANDARD.encode(frame)}))
    }

    /// These messages are all refused at that one, and nothing runs.
    pub async fn refused(&self, at: &Served, to: &str, bodies: Vec<Bytes>) {
        let (before, count) = (at.refusals(), bodies.len() as u64);
        self.ran.lock().clear();
        for body in bodies {
            self.publish(to, body).await;
        }
        until("all are refused", || at.refusals() >= before + count).await;
        self.nothing_ran();
    }

    /// A call to guest A, as the broker saw it.
    pub async fn seen_call(&self, method: &str, args: Value) -> Bytes {
        let mut seen = self.sniff("guestagent.guest-a").await;
        let to = guest("guest-a");
        let context = json!({"user": "ada", "auth_token": SECRET});
        let request = self.tasks_client.request(&to, method).context(&context).unwrap();
        request.call::<_, Value>(&args).await.unwrap();
        let body = seen.next().await.unwrap().payload;
        seen.stop().await;
        self.ran.lock().clear();
        body
    }

    /// The reply to a call that its caller never gets.
    pub async fn stolen_reply(&self, method: &str) -> Bytes {
        let (client, mut thief) = self.robbed().await;
        let to = guest("guest-a");
        let request = client.request(&to, method).timeout(Duration::from_secs(2));
        let nothing = request.call::<_, Value>(&json!({})).await;
        assert!(matches!(nothing, Err(CallError::Timeout { .. })), "{nothing:?}");
        let body = thief.next().await.unwrap().payload;
        client.close();
        body
    }

    pub async fn close(self) {
        for served in [self.conductor, self.tasks, self.a, self.b] {
            assert_eq!(served.server.drain(Duration::from_secs(5)).await, 0);
        }
    }
}

pub fn enveloped(inner: &Value) -> Bytes {
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string().into()
}

pub fn inner_of(body: &Bytes) -> Value {
    let outer: Value = serde_json::from_slice(body).unwrap();
    serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap()
}

/// The same message with other members.
pub fn with(body: &Bytes, members: Value) -> Bytes {
    let mut inner = inner_of(body);
    inner.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    enveloped(&inner)
}

pub fn frame_of(body: &Bytes) -> Vec<u8> {
    let inner = inner_of(body);
    let sealed = inner.get("bulla").unwrap_or_else(|| &inner["result"]["bulla"]);
    STANDARD.decode(sealed.as_str().unwrap()).unwrap()
}

/// All that a reader of the bus can see of a message: its text, and what base64 in it stands for.
pub fn shows(body: &Bytes, what: &str) -> bool {
    let within = |bytes: &[u8]| bytes.windows(what.len()).any(|part| part == what.as_bytes());
    within(body) || within(&frame_of(body))
}

pub fn replaced(frame: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = frame.windows(from.len()).position(|part| part == from).unwrap();
    [&frame[..at], to, &frame[at + from.len()..]].concat()
}
