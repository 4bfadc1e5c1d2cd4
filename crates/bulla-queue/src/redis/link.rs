//! The connection to Redis, its scripts, and what is checked before it is used.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, RedisError, Script, ServerErrorKind, TlsCertificates, Value};
use url::Url;

use super::read::Reader;
use super::{Clock, RedisOptions};
use crate::address;
use crate::name::Place;
use crate::record::RecordKind;
use crate::store::{Millis, StoreError};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

macro_rules! scripts {
    ($($act:ident $($file:literal)*;)*) => {
        /// What a script does.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Act { $($act),* }

        fn scripts() -> Vec<Script> {
            vec![$(Script::new(concat!(
                include_str!("lua/begin.lua"), $(include_str!(concat!("lua/", $file, ".lua"))),*
            ))),*]
        }
    };
}

scripts! {
    Claim "claim";
    Claimed "claimed";
    Create "create";
    Delete "delete";
    Forget "forget";
    Get "get";
    Keep "record" "keep";
    List "list";
    Next "next";
    Patch "patch";
    Pop "pop";
    Post "post_some" "post";
    PostOnce "record" "post_some" "post_once";
    Purge "purge";
    Queues "queues";
    Records "records";
    Release "release";
    Remove "remove";
    Renew "renew";
    Stats "sweep_some" "stats";
    Sweep "sweep_some" "sweep";
}

/// The arguments of a script.
#[derive(Default)]
pub(super) struct Args(Vec<Vec<u8>>);

impl Args {
    pub(super) fn arg(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.push(arg);
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }

    pub(super) fn push(&mut self, arg: impl Into<Vec<u8>>) {
        self.0.push(arg.into());
    }
}

pub(super) struct Link {
    scripts: Vec<Script>,
    connection: ConnectionManager,
    client: Client,
    at: String,
    clock: Clock,
    names: Names,
    /// Where this process is told what others post; it knows what it posts itself.
    channel: String,
    /// Whether it listens.
    listens: AtomicBool,
}

/// The names of the keys. In braces: one slot of a cluster holds all of them.
struct Names {
    last: String,
    ends: String,
    of: String,
    queue: String,
    names: String,
    posted: String,
    hosts: String,
    all: String,
    records: String,
    record_ends: String,
}

impl Names {
    fn new(prefix: &str) -> Self {
        let name = |what: &str| format!("{{{prefix}}}:{what}");
        Self {
            last: name("last"),
            ends: name("ends"),
            of: name("of:"),
            queue: name("queue:"),
            names: name("names:"),
            posted: name("posted:"),
            hosts: name("hosts"),
            all: name("all"),
            records: name("records:"),
            record_ends: name("record-ends"),
        }
    }
}

impl Link {
    pub(super) async fn open(options: &RedisOptions) -> Result<Self, StoreError> {
        let (client, at) = client(options)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(2)
            .set_max_delay(Duration::from_millis(500))
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let connection = ConnectionManager::new_with_config(client.clone(), config).await;
        let connection = connection.map_err(|error| io_error(&at, &error))?;
        let (names, clock) = (Names::new(&options.prefix), options.clock);
        let channel = format!("{}{:016x}", names.posted, super::new_tag(&at)?);
        let listens = AtomicBool::new(false);
        let link =
            Self { scripts: scripts(), connection, client, at, clock, names, channel, listens };
        link.examine().await?;
        link.load().await?;
        Ok(link)
    }

    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Those who are told to what queue something was posted, and which of them this is.
    pub(super) fn told(&self) -> (&str, &str) {
        (&self.names.hosts, &self.channel)
    }

    /// The key of an owner's index of records; a NUL and its name follow in a record's own.
    pub(super) fn records(&self, kind: RecordKind, owner: &str) -> String {
        format!("{}{}:{owner}", self.names.records, kind.text())
    }

    pub(super) fn record_ends(&self) -> &str {
        &self.names.record_ends
    }

    /// A record's fields.
    pub(super) async fn record(&self, key: &str) -> Result<Reader, StoreError> {
        let mut get = redis::cmd("HMGET");
        self.query(get.arg(key).arg("value").arg("ends")).await
    }

    /// A connection of its own, on which that is heard.
    pub(super) async fn listen(&self) -> Result<redis::aio::PubSub, StoreError> {
        let heard = async {
            let mut heard = self.client.get_async_pubsub().await?;
            heard.subscribe(&self.channel).await?;
            Ok(heard)
        };
        let heard = heard.await.map_err(|error| self.failed(&error))?;
        self.listens.store(true, Ordering::Relaxed);
        self.say_that_it_listens().await?;
        Ok(heard)
    }

    pub(super) fn is_deaf(&self) {
        self.listens.store(false, Ordering::Relaxed);
    }

    /// Again and again, as somebody may have emptied this Redis.
    pub(super) async fn say_that_it_listens(&self) -> Result<(), StoreError> {
        if !self.listens.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.query(redis::cmd("SADD").arg(&self.names.hosts).arg(&self.channel)).await.map(drop)
    }

    fn failed(&self, error: &RedisError) -> StoreError {
        io_error(&self.at, error)
    }

    pub(super) async fn query(&self, command: &Cmd) -> Result<Reader, StoreError> {
        let value: Result<Value, _> = command.query_async(&mut self.connection.clone()).await;
        value.map(|value| Reader::new(&self.at, value)).map_err(|error| self.failed(&error))
    }

    /// Runs a script on a queue: one round trip.
    pub(super) async fn run(
        &self,
        act: Act,
        at: &Place,
        now: Millis,
        args: Args,
    ) -> Result<Reader, StoreError> {
        self.run_in(act, at.project(), at.name(), now, args).await
    }

    /// The same on a project, or nothing in particular.
    pub(super) async fn run_in(
        &self,
        act: Act,
        project: &str,
        name: &str,
        now: Millis,
        args: Args,
    ) -> Result<Reader, StoreError> {
        let Some(script) = self.scripts.get(act as usize) else { return Err(StoreError::Closed) };
        let names = &self.names;
        let queues = format!("{}{project}:", names.queue);
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(5).arg(&names.last).arg(&names.ends);
        command.arg(format!("{queues}{name}")).arg(format!("{}{project}", names.names));
        command.arg(&names.all);
        match self.clock {
            Clock::Own => command.arg(""),
            #[cfg(feature = "conformance")]
            Clock::OfRequest => command.arg(now),
        };
        #[cfg(not(feature = "conformance"))]
        let _ = now;
        command.arg(&names.of).arg(queues).arg(name);
        for arg in &args.0 {
            command.arg(arg.as_slice());
        }
        let mut connection = self.connection.clone();
        let value: Result<Value, _> = command.query_async(&mut connection).await;
        let value = match value {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Redis was restarted, or somebody flushed its scripts.
                self.examine().await?;
                self.load().await?;
                command.query_async(&mut connection).await
            }
            value => value,
        };
        value.map(|value| Reader::new(&self.at, value)).map_err(|error| self.failed(&error))
    }

    async fn load(&self) -> Result<(), StoreError> {
        let mut load = redis::pipe();
        for script in &self.scripts {
            load.load_script(script).ignore();
        }
        let loaded: Result<(), _> = load.query_async(&mut self.connection.clone()).await;
        loaded.map_err(|error| self.failed(&error))
    }

    /// Whether this Redis may be used, and what it promises.
    async fn examine(&self) -> Result<(), StoreError> {
        let info = self.info().await?;
        let unfit = |why: String| StoreError::Unfit { at: self.at.clone(), why };
        let policy = info.get("maxmemory_policy").map_or("unknown", String::as_str);
        if policy != "noeviction" {
            return Err(unfit(format!(
                "its maxmemory-policy is {policy}, so it may throw messages away; set \
                 `maxmemory-policy noeviction`"
            )));
        }
        if info.get("role").is_some_and(|role| role != "master") {
            return Err(unfit("it is a replica; give the primary's address".to_owned()));
        }
        if !self.keeps(&info).await {
            tracing::warn!(
                store = %self.at,
                "this Redis may lose the last messages in a crash of its own (not `appendonly yes` \
                 and `appendfsync always`)"
            );
        }
        Ok(())
    }

    async fn info(&self) -> Result<HashMap<String, String>, StoreError> {
        let text: Result<String, _> =
            redis::cmd("INFO").query_async(&mut self.connection.clone()).await;
        let text = text.map_err(|error| self.failed(&error))?;
        let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Whether what is answered survives a crash. Who may not look must fear that it does not.
    async fn keeps(&self, info: &HashMap<String, String>) -> bool {
        if info.get("aof_enabled").is_none_or(|enabled| enabled != "1") {
            return false;
        }
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg("appendfsync");
        let found: Result<Vec<String>, _> = get.query_async(&mut self.connection.clone()).await;
        found.is_ok_and(|found| found.get(1).is_some_and(|value| value == "always"))
    }

    /// A queue's metadata as they are written.
    pub(super) async fn metadata(&self, at: &Place) -> Result<Reader, StoreError> {
        let mut get = redis::cmd("HMGET");
        get.arg(format!("{}{}:{}", self.names.queue, at.project(), at.name())).arg("metadata");
        self.query(&get).await
    }

    /// Queues of all projects: project, NUL, name.
    pub(super) async fn all(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Reader, StoreError> {
        let begin = |at: &Place| format!("({}\0{}", at.project(), at.name());
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(&self.names.all).arg(after.map_or_else(|| "-".to_owned(), begin)).arg("+");
        self.query(range.arg("LIMIT").arg(0).arg(limit)).await
    }

    pub(super) async fn count(&self, project: &str) -> Result<Reader, StoreError> {
        let mut count = redis::cmd("ZCARD");
        self.query(count.arg(format!("{}{project}", self.names.names))).await
    }
}

/// A client, and the address without user and password, for messages.
fn client(options: &RedisOptions) -> Result<(Client, String), StoreError> {
    let bad = |why: String| StoreError::Address { why };
    // What the parser says could quote the password.
    let url = Url::parse(&options.url).map_err(|_| bad("it can't be parsed".to_owned()))?;
    let at = address::without_credentials(&url);
    let wrong = |_| bad(format!("`{at}` is not understood; write rediss://host:6379/0"));
    if url.fragment().is_some() {
        return Err(bad(format!("`{at}` has a #: certificates are always checked here")));
    }
    let client = match url.scheme() {
        "rediss" => {
            let root_cert = options.authorities.clone();
            let tls = TlsCertificates { client_tls: None, root_cert };
            Client::build_with_tls(options.url.as_str(), tls).map_err(wrong)?
        }
        "redis" if address::is_local(url.host_str().unwrap_or_default()) => {
            Client::open(options.url.as_str()).map_err(wrong)?
        }
        "redis" => {
            return Err(bad(format!(
                "`{at}` is another machine, and the way to it is not encrypted; write rediss://"
            )));
        }
        _ => return Err(bad("it begins with neither redis:// nor rediss://".to_owned())),
    };
    Ok((client, at))
}

fn io_error(at: &str, error: &RedisError) -> StoreError {
    let (at, why) = (at.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::AuthenticationFailed => StoreError::Unfit { at, why },
        _ => StoreError::Io { at, why },
    }
}
