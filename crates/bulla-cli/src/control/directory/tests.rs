//! A whole deployment on the in-memory bus, with a real keystore: the control plane, agents of
//! both key types and services of the user's own, each from a key file.

use std::path::Path;
use std::sync::Arc;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_keystore::{Kek, KeyType};
use bulla_rpc::{
    CallError, Client, Clock, Endpoint, EndpointOptions, Identity, KeyFile, PolicyRule, ReceiveKey,
    RemoteDirectory, Server, ServerOptions, SystemClock, Target,
};
use bulla_seal::{Suite, SuiteSet, TrustDomain};
use bulla_transport::MemoryBus;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::control::key_file::{KeyFiles, component_key_file};

pub(crate) struct Deployment {
    pub(crate) keystore: Keystore,
    pub(crate) bus: MemoryBus,
    /// The control plane's client.
    pub(crate) control: Client,
    server: Server,
    _folder: TempDir,
}

/// A principal in a process of its own, as far as it knows.
pub(crate) struct Process {
    pub(crate) client: Client,
    pub(crate) directory: RemoteDirectory,
    pub(crate) server: Server,
}

pub(crate) fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn server_options() -> ServerOptions {
    let claims = Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()));
    ServerOptions { only_host: true, ..ServerOptions::new(claims) }
}

impl Deployment {
    pub(crate) async fn new() -> Self {
        Self::with_roles(&["group:*"]).await
    }

    async fn with_roles(roles: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let path = folder.path().join("keystore.db");
        let keystore = Keystore::init(path, &domain, kek).await.unwrap().keystore;
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        keystore.add_component(CONTROL, &roles, SuiteSet::all()).await.unwrap();
        let bus = MemoryBus::new();
        let (kem, audience) = keystore.component_keys(CONTROL).await.unwrap();
        let hour = Duration::from_secs(3600);
        let (key, signing) = keystore.issue_signing(CONTROL, "h1", hour).await.unwrap();
        let receive = vec![ReceiveKey { credential: Arc::new(audience), key: kem }];
        let trust = keystore.trust_store();
        let identity = Identity::pair(trust, key, Arc::new(signing), receive).unwrap();
        let directory = Arc::new(KeystoreDirectory::new(keystore.clone()));
        let transport = Arc::new(bus.transport());
        let endpoint =
            Endpoint::new(identity, directory, transport, EndpointOptions::default()).unwrap();
        let statement = keystore.statement().await.unwrap();
        endpoint.take_statement(statement.as_bytes()).unwrap();
        let router = directory_router(keystore.clone());
        let server = Server::start(endpoint.clone(), router, server_options()).await.unwrap();
        Self { keystore, bus, control: Client::new(endpoint), server, _folder: folder }
    }

    pub(crate) async fn agent_file(&self, id: &str, key_type: KeyType) -> KeyFile {
        let keys = self.keystore.add_agent(id, key_type, Suite::X25519).await.unwrap();
        KeyFiles::new(&self.keystore).await.unwrap().agent(id, keys, None).unwrap()
    }

    async fn service_file(&self, name: &str) -> KeyFile {
        self.keystore.add_component(name, &[], SuiteSet::all()).await.unwrap();
        component_key_file(&self.keystore, name, &format!("{name}-1"), None).await.unwrap()
    }

    pub(crate) async fn run(&self, file: &KeyFile, router: Router) -> Process {
        self.run_with(file, router, server_options()).await
    }

    async fn run_with(&self, file: &KeyFile, router: Router, server: ServerOptions) -> Process {
        let (identity, given) = file.open(Path::new("test.key"), SystemClock.now()).unwrap();
        let directory = RemoteDirectory::new(given).unwrap();
        let transport = Arc::new(self.bus.transport());
        let options = EndpointOptions::default();
        let endpoint =
            Endpoint::new(identity, Arc::new(directory.clone()), transport, options).unwrap();
        let client = Client::new(endpoint.clone());
        directory.attach(&client);
        if endpoint.check_component_messages().is_err() {
            client.ask_statement().await.unwrap();
        }
        let server = Server::start(endpoint, router, server).await.unwrap();
        Process { client, directory, server }
    }

    async fn agent(&self, id: &str, key_type: KeyType) -> Process {
        let file = self.agent_file(id, key_type).await;
        self.run(&file, whoami()).await
    }

    async fn service(&self, name: &str) -> Process {
        let file = self.service_file(name).await;
        self.run(&file, whoami()).await
    }
}

/// Says who called, and runs only once for each call.
fn whoami() -> Router {
    let method = Method::new("whoami", |context: Context, _: Value| async move {
        Ok(context.sender().to_string())
    });
    Router::new().with(method.open_to_agents().open_to_components())
}

async fn ask(client: &Client, whom: &str) -> Result<String, CallError> {
    client.call(&target(whom), "whoami", &json!({})).await
}

/// Asks the control plane's directory directly, as a principal that is up to no good would.
async fn look_up(client: &Client, method: &str, args: Value) -> Result<Value, CallError> {
    let control = target("component/control");
    client.request(&control, method).namespace(wire::NAMESPACE).call(&args).await
}

fn is_denied<T: std::fmt::Debug>(result: &Result<T, CallError>) -> bool {
    matches!(result, Err(CallError::Remote(error)) if error.kind == kinds::NOT_PERMITTED)
}

#[tokio::test]
async fn everyone_reaches_whom_they_may_call_and_nobody_else() {
    let world = Deployment::new().await;
    // Added before the services: their key files know nothing of them.
    let pair = world.agent("pair-1", KeyType::Pair).await;
    let shared = world.agent("shared-1", KeyType::Shared).await;
    let (api, worker) = (world.service("api").await, world.service("worker").await);
    for (caller, name) in
        [(&world.control, "control"), (&api.client, "api"), (&worker.client, "worker")]
    {
        for agent in ["agent/pair-1", "agent/shared-1"] {
            let who = ask(caller, agent).await.unwrap();
            assert_eq!(who, format!("component/{name}#1"), "{name} calls {agent}");
        }
    }
    for (agent, name) in [(&pair, "pair-1"), (&shared, "shared-1")] {
        for service in ["component/api", "component/worker", "component/api@api-1"] {
            let who = ask(&agent.client, service).await.unwrap();
            assert_eq!(who, format!("agent/{name}#1"), "{name} calls {service}");
        }
    }
    assert_eq!(ask(&api.client, "component/worker").await.unwrap(), "component/api#1");
    assert_eq!(ask(&worker.client, "component/api").await.unwrap(), "component/worker#1");
    // Agents don't even find each other.
    for (agent, other) in [(&pair, "agent/shared-1"), (&shared, "agent/pair-1")] {
        let error = ask(&agent.client, other).await.unwrap_err();
        assert!(matches!(error, CallError::UnknownTarget { .. }), "{error}");
    }
    for client in [&api.client, &pair.client, &shared.client, &world.control] {
        let error = ask(client, "component/nobody").await.unwrap_err();
        assert!(matches!(error, CallError::UnknownTarget { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_shared_key_agent_knows_services_that_came_after_it() {
    let world = Deployment::new().await;
    let shared = world.agent("shared-1", KeyType::Shared).await;
    let late = world.service("late").await;
    // The service calls first: the agent looks the kid up that it never saw.
    assert_eq!(ask(&late.client, "agent/shared-1").await.unwrap(), "component/late#1");
    let later = world.service("later").await;
    // The agent calls first: the service looks the kid up.
    assert_eq!(ask(&shared.client, "component/later").await.unwrap(), "agent/shared-1#1");
    assert_eq!(ask(&later.client, "agent/shared-1").await.unwrap(), "component/later#1");
}

#[tokio::test]
async fn nobody_gets_anothers_keys() {
    let world = Deployment::new().await;
    let pair = world.agent("pair-1", KeyType::Pair).await;
    let (one, two) =
        (world.agent("one", KeyType::Shared).await, world.agent("two", KeyType::Shared).await);
    let (api, worker) = (world.service("api").await, world.service("worker").await);
    let [of_one, of_api] = [("agent/one", "component/worker"), ("agent/two", "component/api")];
    let key = |(agent, component): (&str, &str)| {
        let (agent, component) = (agent.parse().unwrap(), component.parse().unwrap());
        let keystore = world.keystore.clone();
        async move { keystore.pair_key(&agent, &component).await.unwrap() }
    };
    let worker_one = key(of_one).await;
    let api_two = key(of_api).await;
    let of = |kid: Kid| json!({ "kid": kid.to_string() });

    // A pair's component gets the key, its agent the name, everybody else nothing.
    let given = look_up(&worker.client, wire::PAIR, of(worker_one.kid)).await.unwrap();
    assert_eq!(given["key"], json!(KeyText::new(&worker_one.key)));
    let given = look_up(&one.client, wire::PAIR, of(worker_one.kid)).await.unwrap();
    assert_eq!((&given["kid"], given.get("key")), (&json!(worker_one.kid.to_string()), None));
    for other in [&two.client, &pair.client, &api.client] {
        assert_eq!(look_up(other, wire::PAIR, of(worker_one.kid)).await.unwrap(), Value::Null);
    }
    assert_eq!(look_up(&one.client, wire::PAIR, of(api_two.kid)).await.unwrap(), Value::Null);

    // By name a component gets only its own, and an agent nothing of agents.
    let by_name = |name: &str| json!({ "principal": name });
    let given = look_up(&api.client, wire::PEER, by_name("agent/one")).await.unwrap();
    assert_ne!(given["key"], json!(KeyText::new(&worker_one.key)));
    let api_one = key(("agent/one", "component/api")).await;
    assert_eq!(given["key"], json!(KeyText::new(&api_one.key)));
    for agent in [&pair.client, &one.client] {
        assert!(is_denied(&look_up(agent, wire::PEER, by_name("agent/two")).await));
        let given = look_up(agent, wire::PEER, by_name("component/api")).await.unwrap();
        assert_eq!(given.get("key"), None);
    }

    // Whoever was removed gets nothing more, though its credential is still good.
    world.keystore.remove_agent("pair-1").await.unwrap();
    assert!(is_denied(&look_up(&pair.client, wire::PEER, by_name("component/api")).await));
    world.keystore.add_agent("pair-1", KeyType::Pair, Suite::X25519).await.unwrap();
    assert!(is_denied(&look_up(&pair.client, wire::GROUPS, json!({})).await));
    let args = json!({ "group": "all" });
    assert!(is_denied(&look_up(&pair.client, wire::GROUP_KEY, args).await));
}

/// A member that says what it heard.
fn listener(name: &'static str, heard: mpsc::Sender<String>) -> Router {
    let method = Method::new("hear", move |context: Context, word: String| {
        let heard = heard.clone();
        async move {
            let from = context.sender().principal.to_string();
            heard.send(format!("{name} heard {word} from {from}")).await.unwrap();
            Ok(())
        }
    });
    Router::new().with(method.open_to_components())
}

#[tokio::test]
async fn a_fanout_reaches_the_members_through_keys_that_they_asked_for() {
    let world = Deployment::new().await;
    let web = GroupName::new("web").unwrap();
    world.keystore.add_group(&web).await.unwrap();
    let (heard, mut words) = mpsc::channel(16);
    let mut members = Vec::new();
    for (name, key_type) in [("in-1", KeyType::Pair), ("in-2", KeyType::Shared)] {
        let file = world.agent_file(name, key_type).await;
        world.keystore.add_member(&web, &Principal::agent(name).unwrap()).await.unwrap();
        members.push(world.run(&file, listener(name, heard.clone())).await);
    }
    let file = world.service_file("api").await;
    world.keystore.add_member(&web, &Principal::component("api").unwrap()).await.unwrap();
    let api = world.run(&file, listener("api", heard.clone())).await;
    let outside = world.agent("out", KeyType::Pair).await;
    for process in members.iter().chain([&api, &outside]) {
        process.server.join_groups().await.unwrap();
    }
    assert_eq!(members[0].directory.groups().await.unwrap().len(), 2);

    // From the control plane, and from a member that got the key from it.
    for (sender, name) in [(&world.control, "control"), (&api.client, "api")] {
        sender.fanout(&target("group/web"), "hear", &"hello").await.unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            let word = tokio::time::timeout(Duration::from_secs(60), words.recv()).await;
            all.push(word.unwrap().unwrap());
        }
        all.sort();
        let line = |who: &str| format!("{who} heard hello from component/{name}");
        assert_eq!(all, [line("api"), line("in-1"), line("in-2")]);
    }

    // Who is no member gets no key, whatever it asks for.
    assert!(outside.directory.group_key(&web, None).await.is_err());
    assert!(outside.directory.group_key(&web, Some(1)).await.is_err());
    let args = json!({ "group": "web" });
    assert!(is_denied(&look_up(&outside.client, wire::GROUP_KEY, args).await));
    let groups = outside.directory.groups().await.unwrap();
    assert_eq!(groups, [GroupName::new("all").unwrap()]);
}

#[tokio::test]
async fn group_keys_are_not_taken_from_a_control_plane_without_the_role() {
    let world = Deployment::with_roles(&["group:all"]).await;
    let web = GroupName::new("web").unwrap();
    world.keystore.add_group(&web).await.unwrap();
    for (name, key_type) in [("pair-1", KeyType::Pair), ("shared-1", KeyType::Shared)] {
        let agent = world.agent(name, key_type).await;
        world.keystore.add_member(&web, &Principal::agent(name).unwrap()).await.unwrap();
        let refused = agent.directory.group_key(&web, None).await.unwrap_err().to_string();
        assert!(refused.contains("role `group:web`"), "{refused}");
        let all = GroupName::new("all").unwrap();
        assert!(agent.directory.group_key(&all, None).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_is_known_needs_no_control_plane() {
    let world = Deployment::new().await;
    let agent = world.agent("pair-1", KeyType::Pair).await;
    let api = world.service("api").await;
    assert_eq!(ask(&api.client, "agent/pair-1").await.unwrap(), "component/api#1");
    let whom: Principal = "agent/pair-1".parse().unwrap();
    let unknown: Principal = "agent/unknown".parse().unwrap();
    assert!(api.directory.peer(&unknown).await.unwrap().is_none());
    world.control.close();
    world.server.drain(Duration::from_secs(10)).await;
    // A fresh entry needs no question; a stranger can't be asked for.
    assert!(api.directory.peer(&whom).await.unwrap().is_some());
    assert!(agent.directory.pair_by_kid(Kid([1; 8])).await.unwrap().is_none());
    assert!(api.directory.pair_by_kid(Kid([1; 8])).await.is_err());
}

#[tokio::test]
async fn a_connection_of_the_library_is_called_looked_up_and_fanned_out_to() {
    let world = Deployment::new().await;
    let path = Path::new("in-1.key");
    let file = world.agent_file("in-1", KeyType::Shared).await;
    let options = EndpointOptions::default();
    let transport = Arc::new(world.bus.transport());
    let connection = bulla::Connection::over(&file, path, transport, options).unwrap();
    let (heard, mut words) = mpsc::channel(16);
    let claims = Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()));
    let options = bulla::ServeOptions::new().claims(bulla::Claims::Store(claims));
    let serving = connection.serve(listener("in-1", heard), options).await.unwrap();
    let api = world.service("api").await;
    // It is in its groups as soon as it serves.
    api.client.cast(&target("agent/in-1"), "hear", &"a cast").await.unwrap();
    world.control.fanout(&target("group/all"), "hear", &"all").await.unwrap();
    let mut both = Vec::new();
    for _ in 0..2 {
        let word = tokio::time::timeout(Duration::from_secs(60), words.recv()).await;
        both.push(word.unwrap().unwrap());
    }
    both.sort();
    let line = |what: &str, from: &str| format!("in-1 heard {what} from component/{from}");
    assert_eq!(both, [line("a cast", "api"), line("all", "control")]);
    assert_eq!(ask(connection.client(), "component/api").await.unwrap(), "agent/in-1#1");
    assert_eq!(serving.drain(Duration::from_secs(60)).await, 0);
    connection.close().await;
}

#[tokio::test]
async fn a_policy_tells_members_of_a_group_from_others() {
    let world = Deployment::new().await;
    let web = GroupName::new("web").unwrap();
    world.keystore.add_group(&web).await.unwrap();
    let (agent, component) = (Principal::agent, Principal::component);
    world.keystore.add_component("api", &[], SuiteSet::all()).await.unwrap();
    let rule = |text: &str| {
        let policy = bulla_policy::Source::parse(text).unwrap().compile().unwrap();
        Arc::new(PolicyRule::new(policy))
    };
    let by_group = "@id(\"web\") permit (principal in Group::\"web\", action, resource);";
    let options = || ServerOptions { authorization: rule(by_group), ..server_options() };
    let file = world.service_file("conductor").await;
    let _conductor = world.run_with(&file, whoami(), options()).await;
    let whoami_of = async |process: &Process, to: &str| {
        process.client.call::<_, String>(&target(to), "whoami", &json!({})).await
    };
    for key_type in [KeyType::Pair, KeyType::Shared] {
        let (inside, outside) = (format!("in-{key_type:?}"), format!("out-{key_type:?}"));
        let (member, other) =
            (world.agent(&inside, key_type).await, world.agent(&outside, key_type).await);
        world.keystore.add_member(&web, &agent(&inside).unwrap()).await.unwrap();
        whoami_of(&member, "component/conductor").await.unwrap();
        let error = whoami_of(&other, "component/conductor").await.unwrap_err();
        assert!(error.to_string().contains(bulla_policy::NO_RULE), "{error}");
    }
    // And an agent that is called by components: the control plane is in no such group.
    let file = world.agent_file("db-1", KeyType::Pair).await;
    let _called = world.run_with(&file, whoami(), options()).await;
    let call =
        async || world.control.call::<_, String>(&target("agent/db-1"), "whoami", &json!({})).await;
    let error = call().await.unwrap_err();
    assert!(error.to_string().contains(bulla_policy::NO_RULE), "{error}");
    world.keystore.add_member(&web, &component("control").unwrap()).await.unwrap();
    let file = world.agent_file("db-2", KeyType::Pair).await;
    let called = world.run_with(&file, whoami(), options()).await;
    let db2 = target("agent/db-2");
    world.control.call::<_, String>(&db2, "whoami", &json!({})).await.unwrap();
    // Agents learn nothing of each other that way.
    let asked = called.directory.groups_of(&agent("in-Pair").unwrap()).await;
    assert!(asked.unwrap_err().to_string().contains("not agents"));
}

#[tokio::test]
async fn while_nobody_knows_the_groups_what_asks_for_them_is_denied() {
    let world = Deployment::new().await;
    let text = "@id(\"web\") forbid (principal in Group::\"web\", action, resource);\n\
                @id(\"rest\") permit (principal, action, resource);";
    let policy = bulla_policy::Source::parse(text).unwrap().compile().unwrap();
    let rule = Arc::new(PolicyRule::new(policy));
    let options = ServerOptions { authorization: rule, ..server_options() };
    let file = world.service_file("conductor").await;
    let _conductor = world.run_with(&file, whoami(), options).await;
    let agent = world.agent("db-1", KeyType::Pair).await;
    let to = target("component/conductor");
    // It knows how to seal to it, and then the directory is gone.
    let conductor_is = Principal::component("conductor").unwrap();
    assert!(agent.directory.peer(&conductor_is).await.unwrap().is_some());
    let call = async || agent.client.call::<_, String>(&to, "whoami", &json!({})).await;
    let gone = world.server.drain(Duration::from_secs(1)).await;
    assert_eq!(gone, 0);
    let error = call().await.unwrap_err();
    assert!(error.to_string().contains(bulla_policy::NO_GROUPS), "{error}");
}
