//! A listener with a made-up control plane behind it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bulla_api::{
    Administration, Agent, AgentDetails, BusStatus, CallFailure, CallRequest, CastRequest, Claimed,
    Client, Component, ControlPlane, Endpoint, ExemptRequest, Group, JournalEntry, JournalItem,
    JournalRequest, JournalStream, KeyType, Operation, Page, PageRequest, Peer, PeerExemption,
    PolicyMistake, ProgressSender, RaiseRequest, RequestKey, Seen, Sent, State, Status, TakenBack,
    TapEvent, TapItem, TapStream, Turn, router,
};
use bulla_http::certs::{self, Files};
use bulla_http::{Identity, Limits, Listener, Options, Token};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

/// Only stops a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);
const AGENTS: usize = 2500;

pub(crate) struct Setup {
    pub(crate) plane: Arc<Plane>,
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    address: SocketAddr,
}

/// Does what its tests tell it.
pub(crate) struct Plane {
    pub(crate) entered: Notify,
    pub(crate) release: Notify,
    pub(crate) dropped: Arc<Notify>,
    failure: Mutex<Option<CallFailure>>,
    /// An operation that nobody may ask for.
    pub(crate) closed: Mutex<Option<&'static str>>,
    down: Mutex<Option<String>>,
    bus: broadcast::Sender<TapItem>,
    pub(crate) casts: AtomicU64,
    answers: Answers,
    pub(crate) journal: broadcast::Sender<JournalItem>,
}

/// First answers, by who asked and key; an entry without one is under way.
type Answers = Arc<Mutex<HashMap<String, ([u8; 32], Option<Vec<u8>>)>>>;

struct FirstTurn(Answers, String);

#[async_trait]
impl Turn for FirstTurn {
    fn every(&self) -> Duration {
        LONG
    }

    async fn go_on(&mut self) {}

    async fn done(self: Box<Self>, answer: Vec<u8>) {
        self.0.lock().get_mut(&self.1).unwrap().1 = Some(answer);
    }
}

#[async_trait]
impl Administration for Plane {
    async fn first_answer(&self, request: &RequestKey) -> Result<Claimed, CallFailure> {
        let name = format!("{} {}", request.by, request.key);
        let mut answers = self.answers.lock();
        match answers.get(&name) {
            Some((digest, _)) if *digest != request.digest => Err(CallFailure::KeyReused),
            Some((_, None)) => Err(CallFailure::KeyInUse),
            Some((_, Some(answer))) => Ok(Claimed::Done(answer.clone())),
            None => {
                answers.insert(name.clone(), (request.digest, None));
                Ok(Claimed::First(Box::new(FirstTurn(self.answers.clone(), name))))
            }
        }
    }

    async fn follow_journal(&self, request: JournalRequest) -> Result<JournalStream, CallFailure> {
        let after = request.after;
        let items = BroadcastStream::new(self.journal.subscribe()).map(Result::unwrap);
        let first = stream::iter(after.map(|place| journal_item(&place)));
        Ok(first.chain(items).boxed())
    }
}

/// What came back, unparsed.
pub(crate) struct Raw {
    pub(crate) head: String,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

struct TellWhenDropped(Arc<Notify>);

impl Drop for TellWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Setup {
    pub(crate) async fn tls() -> Self {
        Self::tls_with(Limits::default()).await
    }

    pub(crate) async fn tls_with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = certs::make(dir.path(), &[], "ada").unwrap();
        Self::serve(dir, Options::tls(loopback(), files.server_tls()).limits(limits)).await
    }

    pub(crate) async fn loopback() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::create(&token_path(dir.path())).unwrap();
        Self::serve(dir, Options::plain_loopback(loopback(), token).unwrap()).await
    }

    async fn serve(dir: TempDir, options: Options) -> Self {
        let plane = Arc::new(Plane {
            entered: Notify::new(),
            release: Notify::new(),
            dropped: Arc::new(Notify::new()),
            failure: Mutex::new(None),
            closed: Mutex::new(None),
            down: Mutex::new(None),
            bus: broadcast::channel(64).0,
            casts: AtomicU64::new(0),
            answers: Answers::default(),
            journal: broadcast::channel(64).0,
        });
        let listener = Listener::bind(options).await.unwrap();
        let (url, address) = (listener.url(), listener.local_addr());
        let stop = CancellationToken::new();
        let served = Arc::clone(&plane) as Arc<dyn ControlPlane>;
        let task = tokio::spawn(listener.serve(router(served), stop.clone()));
        Self { plane, dir, url, stop, task, address }
    }

    pub(crate) fn files(&self) -> Files {
        Files::in_dir(self.dir.path())
    }

    pub(crate) fn client(&self) -> Client {
        let url = self.url.clone();
        let endpoint = if url.starts_with("https") {
            Endpoint::Tls { url, files: self.files().operator_tls() }
        } else {
            Endpoint::Loopback { url, token: token_path(self.dir.path()) }
        };
        Client::new(&endpoint).unwrap()
    }

    /// A request of the test's own making, to the loopback door.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: &str) -> Raw {
        self.raw_with(method, path, "content-type: application/json", body).await
    }

    /// The same with headers of the test's own.
    pub(crate) async fn raw_with(&self, method: &str, path: &str, head: &str, body: &str) -> Raw {
        let token = Token::load(&token_path(self.dir.path())).unwrap();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {}\r\n\
             {head}\r\ncontent-length: {}\r\n\r\n{body}",
            token.authorization().as_str(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        Raw {
            head: head.to_owned(),
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: body.to_owned(),
        }
    }
}

impl Plane {
    pub(crate) fn fail_with(&self, failure: CallFailure) {
        *self.failure.lock() = Some(failure);
    }

    pub(crate) fn disconnect(&self, why: &str) {
        *self.down.lock() = Some(why.to_owned());
    }

    pub(crate) fn pass(&self, item: TapItem) {
        self.bus.send(item).unwrap();
    }
}

#[async_trait]
impl ControlPlane for Plane {
    async fn authorize(
        &self,
        _: &Identity,
        operation: &Operation,
        named: &[(&str, &str)],
    ) -> Result<(), CallFailure> {
        match &*self.closed.lock() {
            Some(closed) if **closed == *operation.id => {
                Err(CallFailure::Denied { rule: format!("closed {named:?}") })
            }
            _ => Ok(()),
        }
    }

    async fn call(
        &self,
        by: &Identity,
        request: CallRequest,
        progress: ProgressSender,
    ) -> Result<Value, CallFailure> {
        let _tell = TellWhenDropped(Arc::clone(&self.dropped));
        match request.method.as_str() {
            "echo" => Ok(json!({"request": request, "by": by.name()})),
            "fail" => Err(self.failure.lock().clone().unwrap()),
            "count" => {
                for n in 0..request.args["to"].as_u64().unwrap() {
                    let _ = progress.send(json!(n)).await;
                }
                Ok(json!("counted"))
            }
            "wait" | "progress-then-wait" => {
                if request.method != "wait" {
                    progress.send(json!("started")).await.unwrap();
                }
                self.entered.notify_one();
                self.release.notified().await;
                Ok(json!("done"))
            }
            other => panic!("no test has a method {other}"),
        }
    }

    async fn cast(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure> {
        self.casts.fetch_add(1, Ordering::SeqCst);
        Ok(Sent { message_id: format!("cast {} by {by}", request.target) })
    }

    async fn fanout(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure> {
        Ok(Sent { message_id: format!("fanout {} by {by}", request.target) })
    }

    async fn agents(&self, page: PageRequest) -> Result<Page<Agent>, CallFailure> {
        let after = page.after.clone().unwrap_or_default();
        let all = (0..AGENTS).map(|n| format!("a&{n:04}")).filter(|id| *id > after);
        let mut ids: Vec<_> = all.take(page.limit() as usize + 1).collect();
        let more = ids.len() > page.limit() as usize;
        ids.truncate(page.limit() as usize);
        let next = ids.last().filter(|_| more).cloned();
        Ok(Page { items: ids.into_iter().map(agent).collect(), next })
    }

    async fn agent(&self, id: &str) -> Result<AgentDetails, CallFailure> {
        let known = id.strip_prefix("a&").is_some();
        let unknown = CallFailure::UnknownTarget { target: format!("agent/{id}") };
        known.then(|| details(agent(id.to_owned()))).ok_or(unknown)
    }

    async fn components(&self, page: PageRequest) -> Result<Page<Component>, CallFailure> {
        let all = vec![Component {
            name: "conductor".into(),
            principal: "spiffe://example.org/component/conductor".into(),
            incarnation: 1,
            epoch: 1,
            state: State::Active,
            created_ms: 1,
            expires_ms: None,
        }];
        Ok(Page::of(all, &page, |component| component.name.clone()))
    }

    async fn groups(&self, page: PageRequest) -> Result<Page<Group>, CallFailure> {
        let group = |n| Group { name: format!("g/{n}"), epoch: 1, members: n, every_agent: false };
        Ok(Page::of((0..5).map(group).collect(), &page, |group| group.name.clone()))
    }

    async fn peers(&self, page: PageRequest) -> Result<Page<Peer>, CallFailure> {
        let all = vec![peer("agent/db-1", "sealed")];
        Ok(Page::of(all, &page, |peer| peer.principal.clone()))
    }

    async fn raise(&self, by: &Identity, request: RaiseRequest) -> Result<Peer, CallFailure> {
        assert_eq!(by.name(), "bearer");
        let target = request.shadow.then(|| request.level.clone());
        let accepts = if request.shadow { "signed" } else { &request.level };
        Ok(Peer { target, ..peer(&request.principal, accepts) })
    }

    async fn exempt(
        &self,
        _by: &Identity,
        request: ExemptRequest,
    ) -> Result<PeerExemption, CallFailure> {
        let ExemptRequest { principal, method, level, until_ms } = request;
        Ok(PeerExemption { id: "00ff".into(), principal, method, level, until_ms, live: true })
    }

    async fn take_back(&self, _by: &Identity, id: &str) -> Result<TakenBack, CallFailure> {
        let why = format!("there is no exemption {id}");
        if id == "00ff" {
            Ok(TakenBack { id: id.into() })
        } else {
            Err(CallFailure::BadRequest { why })
        }
    }

    async fn status(&self) -> Result<Status, CallFailure> {
        let problem = self.down.lock().clone();
        Ok(Status {
            version: "0".into(),
            trust_domain: "example.org".into(),
            component: "component/conductor".into(),
            started_ms: 1,
            bus: BusStatus { address: "memory".into(), connected: problem.is_none(), problem },
        })
    }

    async fn tap(&self, _by: &Identity) -> Result<TapStream, CallFailure> {
        Ok(BroadcastStream::new(self.bus.subscribe()).map(Result::unwrap).boxed())
    }
}

pub(crate) fn peer(principal: &str, accepts: &str) -> Peer {
    Peer {
        principal: principal.into(),
        incarnation: 1,
        accepts: accepts.into(),
        sends: "sealed".into(),
        target: None,
        seen: vec![Seen {
            method: "guest.resize".into(),
            level: "signed".into(),
            count: 3,
            last_ms: 5,
            below: 1,
            last_below_ms: Some(4),
        }],
        exemptions: vec![],
    }
}

/// One of each.
pub(crate) fn every_failure() -> Vec<CallFailure> {
    let target = || "agent/db-1".to_owned();
    let why = || "the cause".to_owned();
    vec![
        CallFailure::Remote {
            target: target(),
            error: "NoSpace".into(),
            message: "no space left".into(),
            details: Box::new(
                json!({"free": 0, "name": "x", "status": 200, "nested": [1, {"a": null}]}),
            ),
        },
        CallFailure::Timeout { target: target(), timeout_ms: 1500 },
        CallFailure::NobodyThere { target: target() },
        CallFailure::UnknownTarget { target: target() },
        CallFailure::NotFound { why: why() },
        CallFailure::Conflict { why: why() },
        CallFailure::PolicyRefused {
            mistakes: vec![PolicyMistake { line: Some(3), column: None, message: why() }],
        },
        CallFailure::KeyReused,
        CallFailure::KeyInUse,
        CallFailure::OutcomeUnknown { why: why() },
        CallFailure::TooLarge { size: 17, limit: 16 },
        CallFailure::BadRequest { why: why() },
        CallFailure::NotPermitted { why: why() },
        CallFailure::Busy { why: why() },
        CallFailure::BusDown { why: why() },
        CallFailure::Interrupted { target: target(), why: why() },
        CallFailure::Stopping,
        CallFailure::Internal { why: why() },
    ]
}

pub(crate) fn seen(n: u64) -> TapEvent {
    TapEvent {
        time_ms: n,
        queue: "agent.db-1".into(),
        size: 1024,
        key_id: Some("00ff".into()),
        offer: n == 0,
        head: "8301".into(),
    }
}

pub(crate) fn journal_item(place: &str) -> JournalItem {
    JournalItem {
        place: place.to_owned(),
        entry: JournalEntry {
            journal: "control".into(),
            seq: 7,
            time: "2026-11-22T22:13:45.123456789Z".into(),
            event: "agent-revoked".into(),
            class: "key".into(),
            fields: serde_json::Map::new(),
        },
    }
}

fn details(agent: Agent) -> AgentDetails {
    AgentDetails {
        agent,
        suite: "x25519".into(),
        join: None,
        alarms: 0,
        credentials: vec![],
        renewals: 0,
        renewed_ms: None,
        next_renewal_ms: None,
        shared_key: None,
        pairs: vec![],
        floor: None,
        last_seen: None,
    }
}

fn agent(id: String) -> Agent {
    Agent {
        principal: format!("spiffe://example.org/agent/{id}"),
        id,
        incarnation: 1,
        key_type: KeyType::Pair,
        epoch: 1,
        kid: None,
        state: State::Active,
        created_ms: 1,
        expires_ms: Some(2),
        groups: vec!["all".into()],
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn token_path(dir: &Path) -> std::path::PathBuf {
    dir.join("token")
}
