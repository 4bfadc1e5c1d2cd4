//! Rust's peers and Python's on one broker: Trove's own guest reaches a conductor in Rust, sealed, with no
//! line of Trove changed; and Python's driver and the Rust client and server call each other.
//!
//! Python's side is Debian's oslo.messaging and Debian's Trove, with the driver by the transport's URL and
//! a section `[bulla]` alone.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod fleet;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla::{
    CallError, Client, Connection, Context, GroupName, Level, Method, RemoteError, Router,
    ServeOptions, Serving, Target,
};
use bulla_oslo::{Carriers, LegacyFile, LegacyPeer, LegacyReader, Rule};
use bulla_transport::Inbox;
use fleet::{EXCHANGE, Fleet, LIMIT, installed};
use parking_lot::Mutex;
use serde_json::{Value, json};

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn named(principal: &str, topic: &str, server: Option<&str>) -> Target {
    Target::Named {
        principal: principal.parse().unwrap(),
        exchange: EXCHANGE.into(),
        topic: topic.into(),
        server: server.map(str::to_owned),
    }
}

/// What was run here: method, who asked, arguments, context.
type Ran = Arc<Mutex<Vec<(String, String, Value, Value)>>>;

fn noting(ran: &Ran, name: &'static str) -> Method {
    let ran = ran.clone();
    Method::new(name, move |context: Context, args: Value| {
        let given: Option<Value> = context.context().ok().flatten();
        let sender = context.sender().principal.to_string();
        ran.lock().push((name.to_owned(), sender, args, given.unwrap_or_default()));
        std::future::ready(Ok(()))
    })
    .open_to_agents()
}

/// What the Python peers have too.
fn methods(ran: &Ran) -> Router {
    let open = |method: Method| method.open_to_agents().open_to_components();
    Router::new()
        .with(open(Method::new("echo", |_, args: Value| async move { Ok(args["value"].clone()) })))
        .with(open(Method::new("who", |context: Context, _: Value| async move {
            let given: Option<Value> = context.context().ok().flatten();
            Ok(json!([given.unwrap()["user_id"], context.sender().principal.as_str()]))
        })))
        .with(open(Method::new("slow", |_, args: Value| async move {
            tokio::time::sleep(Duration::from_secs_f64(args["seconds"].as_f64().unwrap())).await;
            Ok("done")
        })))
        .with(open(Method::new("fail", |_, args: Value| async move {
            let text = args["text"].as_str().unwrap_or_default().to_owned();
            let details =
                json!({"module": "builtins", "message": text, "args": [text], "kwargs": {}});
            Err::<Value, _>(RemoteError::new("LookupError", text).with_details(details))
        })))
        .with(open(
            Method::new("ping", |_, args: Value| async move { Ok(json!({"pong": args["arg"]})) })
                .namespace("baseapi")
                .version(2, 1),
        ))
        .with(open(noting(ran, "note")))
        .method("closed", |_, _: Value| async { Ok(()) })
}

async fn serve(connection: &Connection, router: Router, inboxes: &[Inbox]) -> Serving {
    let serving = connection.serve(router, ServeOptions::new().only_host()).await.unwrap();
    for inbox in inboxes {
        serving.server().consume(inbox).await.unwrap();
    }
    serving
}

async fn end(connection: Connection, serving: Serving) {
    assert_eq!(serving.drain(Duration::from_secs(10)).await, 0);
    connection.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_and_python_peers_reach_each_other_and_troves_guest_a_conductor_in_rust() {
    if !installed() {
        return;
    }
    let Some(fleet) = Fleet::new() else { return };
    let api = fleet.component("api", "api-1");
    fleet.bulla(&["group", "add", "all", "--member", "component/api"]);
    a_python_client_calls_a_rust_server(&fleet, &api).await;
    a_rust_client_calls_a_python_server(&fleet, &api).await;
    troves_guest_reports_to_a_conductor_in_rust(&fleet).await;
    a_guest_that_does_not_seal_yet_is_read_by_exemption(&fleet).await;
}

async fn a_python_client_calls_a_rust_server(fleet: &Fleet, api: &Path) {
    let ran = Ran::default();
    let connection = fleet.open(&fleet.component("conductor", "conductor-1")).await;
    let to = |server| named("component/conductor", "trove-conductor", server);
    let inboxes = [None, Some("h1")].map(|server| to(server).inbox(EXCHANGE).unwrap());
    let serving = serve(&connection, methods(&ran), &inboxes).await;
    // An agent in Rust, for what goes to a group.
    let agent = fleet.open(&fleet.agent("rs-1")).await;
    let (exchange, topic) = (EXCHANGE.to_owned(), "rust".to_owned());
    let inbox = Inbox::Fanout { exchange, topic, member: "m1".into() };
    let at_agent = serve(&agent, methods(&ran), &[inbox]).await;

    let mut peer = fleet.peer(api, "fanouts = rust:all", json!({}));
    let ask = |op: &str, method: &str, args: Value, more: Value| {
        let mut request =
            json!({"op": op, "topic": "trove-conductor", "method": method, "args": args});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let mut call =
        |method: &str, args: Value, more: Value| peer.ask(&ask("call", method, args, more));
    let value = json!({"a": [1, 2.5, null, true, "é", 1795299829.2872586], "b": {}});
    assert_eq!(call("echo", json!({"value": value}), json!({})), json!({"value": value}));
    let who = json!({"value": ["u1", "component/api"]});
    assert_eq!(call("who", json!({}), json!({"server": "h1"})), who);
    let ping = json!({"namespace": "baseapi", "version": "2.0"});
    assert_eq!(call("ping", json!({"arg": 7}), ping), json!({"value": {"pong": 7}}));
    // A class that Python's peers are allowed to raise comes as itself, whichever language it is from.
    let failed = call("fail", json!({"text": "no room"}), json!({}));
    assert!(failed["error"].as_str().unwrap().starts_with("LookupError"), "{failed}");
    assert!(failed["text"].as_str().unwrap().contains("no room"), "{failed}");
    // Longer than the caller waits between two signs of life.
    let slow = call("slow", json!({"seconds": 3.5}), json!({"monitor": 2}));
    assert_eq!(slow, json!({"value": "done"}));
    assert_eq!(call("closed", json!({}), json!({}))["error"], "NotPermitted");
    assert_eq!(
        call("echo", json!({"value": 1}), json!({"version": "1.9"}))["error"],
        "UnsupportedVersion"
    );
    assert_eq!(
        peer.ask(&ask("cast", "note", json!({"value": 1}), json!({}))),
        json!({"value": null})
    );
    until("the cast ran", || ran.lock().len() == 1).await;
    let fanout = ask("cast", "note", json!({"value": 2}), json!({"fanout": true, "topic": "rust"}));
    assert_eq!(peer.ask(&fanout), json!({"value": null}));
    until("the fanout ran", || ran.lock().len() == 2).await;
    assert_eq!(ran.lock()[1].2, json!({"value": 2}));
    for (connection, serving) in [(connection, serving), (agent, at_agent)] {
        assert_eq!(connection.endpoint().counters().refusals().values().sum::<u64>(), 0);
        end(connection, serving).await;
    }
}

async fn a_rust_client_calls_a_python_server(fleet: &Fleet, api: &Path) {
    let key = fleet.agent("py-1");
    let options = json!({"topic": "worker", "server": "w1"});
    let _peer = fleet.peer(&key, "fanouts = worker:all", options);
    let connection = fleet.open(api).await;
    let client = Carriers::client(connection.client()).unwrap();
    for server in [None, Some("w1")] {
        let to = named("agent/py-1", "worker", server);
        let value = json!({"a": [1, 2.5, null, true, "é"]});
        assert_eq!(call(&client, &to, "echo", json!({"value": value})).await.unwrap(), value);
    }
    let to = named("agent/py-1", "worker", None);
    let who = client.request(&to, "who").context(&json!({"user_id": "u7"})).unwrap();
    assert_eq!(who.call::<_, Value>(&json!({})).await.unwrap(), "u7");
    let ping = client.request(&to, "ping").namespace("baseapi").version("2.0");
    assert_eq!(ping.call::<_, Value>(&json!({"arg": 7})).await.unwrap(), json!({"pong": 7}));
    let failed = call(&client, &to, "fail", json!({"text": "no room"})).await;
    let Err(CallError::Remote(error)) = failed else { panic!("{failed:?}") };
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("Broken", "no room"));
    assert_eq!(error.details.unwrap()["module"], "__main__");
    assert_eq!(call(&client, &to, "slow", json!({"seconds": 3.5})).await.unwrap(), "done");
    let unknown = call(&client, &to, "unknown", json!({})).await;
    assert!(matches!(unknown, Err(CallError::Remote(_))), "{unknown:?}");
    client.cast(&to, "note", &json!({"value": 1})).await.unwrap();
    let all = Target::NamedGroup {
        group: GroupName::new("all").unwrap(),
        exchange: EXCHANGE.into(),
        topic: "worker".into(),
    };
    client.fanout(&all, "note", &json!({"value": 2})).await.unwrap();
    let begun = Instant::now();
    loop {
        let notes = call(&client, &to, "notes", json!({})).await.unwrap();
        let mut notes: Vec<i64> = serde_json::from_value(notes).unwrap();
        notes.sort_unstable();
        if notes == [1, 2] {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{notes:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connection.close().await;
}

async fn call(client: &Client, to: &Target, method: &str, args: Value) -> Result<Value, CallError> {
    client.request(to, method).timeout(Duration::from_secs(20)).call(&args).await
}

async fn troves_guest_reports_to_a_conductor_in_rust(fleet: &Fleet) {
    let policy = fleet.path("trove.cedar");
    std::fs::write(&policy, fleet.bulla(&["policy", "starter", "trove"])).unwrap();
    fleet.bulla(&["policy", "activate", policy.to_str().unwrap()]);
    let ran = Ran::default();
    let conductor = fleet.open(&fleet.component("conductor", "conductor-2")).await;
    let router = ["heartbeat", "update_backup", "report_root"]
        .into_iter()
        .fold(Router::new(), |router, name| router.with(noting(&ran, name)));
    let inbox = named("component/conductor", "trove-conductor", None).inbox(EXCHANGE).unwrap();
    let serving = serve(&conductor, router, &[inbox]).await;

    // Trove's guest: its configuration, and no line of its code.
    let (guest, other) =
        ("f9b4a958-5c27-4dbe-9c8c-61394b5c56aa", "0b7cc5b9-1d7b-4c9d-8d5c-0c2e6f3c1a11");
    let default = format!("guest_id = {guest}\nenable_secure_rpc_messaging = false\n");
    let config = fleet.config(&fleet.agent(guest), &default, "");
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trove_role.py");
    let mut trove = fleet.python(&role, &["guest", config.to_str().unwrap()]);
    let mut report = |method: &str, args: Value| {
        let asked = json!({"do": "conductor", "with": {"method": method, "args": args}});
        assert_eq!(trove.ask(&asked), json!({"value": null}));
    };
    let payload = json!({"service_status": "healthy"});
    report("heartbeat", json!({"instance_id": guest, "payload": payload, "sent": 1795299829.25}));
    until("the heartbeat came", || !ran.lock().is_empty()).await;
    let (method, sender, args, context) = ran.lock().remove(0);
    assert_eq!((method.as_str(), sender), ("heartbeat", format!("agent/{guest}")));
    assert_eq!(args["instance_id"], guest);
    assert_eq!(args["payload"], payload);
    assert_eq!(args["sent"], 1795299829.25);
    assert_eq!((&context["user"], &context["is_admin"]), (&json!("user"), &json!(true)));
    let of = bulla::Party::new(format!("agent/{guest}").parse().unwrap(), 1);
    let floors = conductor.endpoint().floors();
    let seen = floors.peer(&of).await.unwrap();
    assert_eq!(seen.record().accepts, Level::Sealed, "it came sealed, and sealed it has to come");

    // A guest speaks about itself alone.
    let denied = || conductor.endpoint().counters().denied.get();
    report("heartbeat", json!({"instance_id": other, "payload": payload, "sent": 2.0}));
    until("the other's heartbeat was denied", || denied() == 1).await;
    report(
        "update_backup",
        json!({"instance_id": guest, "backup_id": "b1", "sent": 3.0, "size": 1.5, "state": "BUILDING"}),
    );
    report("report_root", json!({"instance_id": guest}));
    until("backup and root were reported", || ran.lock().len() == 2).await;
    let backup = ran.lock().iter().find(|ran| ran.0 == "update_backup").unwrap().2.clone();
    assert_eq!((&backup["size"], &backup["state"]), (&json!(1.5), &json!("BUILDING")));

    // And the control plane in Rust calls the guest's manager: a result, and an exception.
    let tasks = fleet.open(&fleet.component("taskmanager", "taskmanager-1")).await;
    let client = Carriers::client(tasks.client()).unwrap();
    let to = named(&format!("agent/{guest}"), &format!("guestagent.{guest}"), None);
    let root = call(&client, &to, "enable_root", json!({})).await.unwrap();
    assert_eq!(root, json!({"_name": "root", "_password": "s3cret"}));
    let failed = call(&client, &to, "list_users", json!({})).await;
    let Err(CallError::Remote(error)) = failed else { panic!("{failed:?}") };
    assert_eq!(
        (error.kind.as_str(), error.message.as_str()),
        ("ValueError", "the database is down")
    );
    assert_eq!(error.details.unwrap()["module"], "builtins");
    assert_eq!(conductor.endpoint().counters().refusals().values().sum::<u64>(), 0);
    tasks.close().await;
    end(conductor, serving).await;
}

/// Trove's own encryption, as shipped: keys out of its database, an exemption for one method with an end, and
/// nothing else.
async fn a_guest_that_does_not_seal_yet_is_read_by_exemption(fleet: &Fleet) {
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trove_role.py");
    let url = fleet.host.url().replacen("amqp://", "rabbit://", 1);
    let write = |name: &str, text: String| {
        let path = fleet.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let trove = |more: &str| {
        format!(
            "[DEFAULT]\ntransport_url = {url}\ncontrol_exchange = {EXCHANGE}\n{more}\n\
             [database]\nconnection = sqlite:///{}\n",
            fleet.path("trove.sqlite").display()
        )
    };
    // What Trove's models make of an instance: its key, wrapped, in the database.
    let config = write("database.conf", trove("inst_rpc_key_encr_key = this-clouds-wrapping-key"));
    let mut database = fleet.python(&role, &["database", &config]);
    let made = database.ask(&json!({"do": "instance", "with": {}}));
    let guest = made["value"]["id"].as_str().unwrap().to_owned();
    drop(database);
    let wrapping = write("wrapping.key", "this-clouds-wrapping-key\n".to_owned());
    let address = format!("sqlite:///{}", fleet.path("trove.sqlite").display());
    fleet.bulla(&["keystore", "import-trove", &address, "--key-file", &wrapping]);
    fleet.agent(&guest);
    let of = format!("agent/{guest}");
    let until_then = ["--level", "aes-cbc", "--until", "2h"];
    fleet.bulla(&[&["peers", "exempt", &of, "heartbeat"], &until_then[..]].concat());
    let file = fleet.path("conductor.legacy");
    fleet.bulla(&["keystore", "legacy-file", "--out", file.to_str().unwrap()]);

    let ran = Ran::default();
    let conductor = fleet.open(&fleet.component("conductor", "conductor-3")).await;
    let endpoint = conductor.endpoint();
    let legacy = LegacyFile::read(&file, &endpoint.identity().trust()).unwrap();
    for exemption in legacy.exemptions() {
        endpoint.floors().store().add_exemption(exemption).await.unwrap();
    }
    endpoint.refresh_floors().await.unwrap();
    let rule = Rule {
        exchange: EXCHANGE.into(),
        topic: "trove-conductor".into(),
        peer: LegacyPeer::TroveGuests(Arc::new(legacy)),
    };
    let reader = LegacyReader::new(vec![rule], bulla_seal::DEFAULT_MAX_FRAME);
    let router = ["heartbeat", "report_root"]
        .into_iter()
        .fold(Router::new(), |router, name| router.with(noting(&ran, name)));
    let options = ServeOptions::new().only_host().unsealed(Arc::new(reader));
    let serving = conductor.serve(router, options).await.unwrap();
    let inbox = named("component/conductor", "trove-conductor", None).inbox(EXCHANGE).unwrap();
    serving.server().consume(&inbox).await.unwrap();

    // The guest as Trove ships it: rabbit://, and its key in its configuration.
    let text: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let key = text["keys"][&of].as_str().unwrap();
    let more = format!("guest_id = {guest}\ninstance_rpc_encr_key = {key}\n");
    let mut shipped = fleet.python(&role, &["guest", &write("guest.conf", trove(&more))]);
    let mut report = |method: &str, args: Value| {
        let asked = json!({"do": "conductor", "with": {"method": method, "args": args}});
        assert_eq!(shipped.ask(&asked), json!({"value": null}));
    };
    let payload = json!({"service_status": "healthy"});
    report("heartbeat", json!({"instance_id": guest, "payload": payload, "sent": 5.0}));
    until("the heartbeat came", || !ran.lock().is_empty()).await;
    let (_, sender, args, _) = ran.lock().remove(0);
    assert_eq!((sender, &args["payload"]), (of.clone(), &payload));
    let counters = endpoint.counters();
    assert_eq!(counters.exempted.get(), 1);
    // No other method of its, and nobody else's.
    report("report_root", json!({"instance_id": guest}));
    until("what is not exempted was refused", || counters.refusals().values().sum::<u64>() == 1)
        .await;
    assert!(ran.lock().is_empty());
    // Revoked, it is refused in spite of its exemption, as soon as the statement of it is here.
    fleet.bulla(&["agent", "revoke", &guest]);
    let begun = Instant::now();
    loop {
        let before = (counters.refusals().values().sum::<u64>(), counters.exempted.get());
        report("heartbeat", json!({"instance_id": guest, "payload": payload, "sent": 6.0}));
        let now = || (counters.refusals().values().sum::<u64>(), counters.exempted.get());
        until("it was judged", || now() != before).await;
        if now().0 > before.0 {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "a revoked guest is still read");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    end(conductor, serving).await;
}
