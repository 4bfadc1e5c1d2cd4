//! The connection to Redis: its scripts, and what a restart means.

use std::collections::HashMap;
use std::time::Duration;

use bulla_seal::Digest;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};
use tokio::sync::Mutex;
use url::Url;

use super::RedisOptions;
use super::read::Reader;
use crate::claim::Gate;
use crate::store::{NewStore, Reply, StoreError};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Doubles are exact up to here; no time or count that is meant comes near.
const EXACT: u64 = (1 << 53) - 1;

/// The scripts by what they do.
#[derive(Debug)]
pub(super) struct Scripts(Vec<Script>);

macro_rules! text {
    ($($file:literal),*) => { concat!($(include_str!(concat!("lua/", $file, ".lua"))),*) };
}

macro_rules! scripts {
    ($($number:literal $name:ident $($file:literal),*;)*) => {
        impl Scripts {
            fn new() -> Self {
                Self(vec![$(Script::new(text!("begin", "known", $($file),*)),)*])
            }

            $(pub(super) fn $name(&self) -> usize { $number })*
        }
    };
}

scripts! {
    0 claim "claim";
    1 complete "reply", "complete";
    2 extend "extend";
    3 answer "reply", "answer";
    4 settle "settle";
    5 purge "purge";
    6 lose "lose";
}

/// The arguments of a script.
pub(super) struct Call {
    now_ms: Option<u64>,
    skew_s: u64,
    args: Vec<Vec<u8>>,
}

impl Call {
    /// `now_ms`: a clock instead of Redis's.
    pub(super) fn new(now_ms: Option<u64>, skew_s: u64) -> Self {
        Self { now_ms, skew_s, args: Vec::with_capacity(16) }
    }

    pub(super) fn arg(&mut self, arg: impl AsRef<[u8]>) -> &mut Self {
        self.args.push(arg.as_ref().to_vec());
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.arg(number.min(EXACT).to_string())
    }

    pub(super) fn flag(&mut self, flag: bool) -> &mut Self {
        self.arg(if flag { "1" } else { "0" })
    }

    pub(super) fn reply(&mut self, reply: Option<&Reply>) -> &mut Self {
        let sealed = reply.and_then(Reply::sealed).map(|sealed| &sealed[..]);
        let digest = reply.map(Reply::digest);
        self.arg(digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
        self.flag(sealed.is_some()).arg(sealed.unwrap_or_default())
    }
}

/// What the store holds.
pub(super) struct Held {
    pub(super) entries: u64,
    pub(super) in_flight: u64,
    pub(super) senders: u64,
    pub(super) reply_bytes: u64,
    pub(super) gate: Gate,
}

pub(super) struct Link {
    pub(super) scripts: Scripts,
    connection: ConnectionManager,
    address: String,
    /// What this process offers as the epoch of a store that has none.
    epoch: String,
    names: Names,
    options: RedisOptions,
    /// One at a time judges a restart.
    judging: Mutex<()>,
}

/// The names of the keys. In braces: one slot of a cluster holds all of them.
struct Names {
    ledger: String,
    senders: String,
    leases: String,
    expiry: String,
    claim: String,
}

impl Names {
    fn new(prefix: &str) -> Self {
        let name = |what: &str| format!("{{{prefix}}}:{what}");
        Self {
            ledger: name("ledger"),
            senders: name("senders"),
            leases: name("leases"),
            expiry: name("expiry"),
            claim: name("claim:"),
        }
    }
}

impl Link {
    pub(super) async fn open(options: RedisOptions) -> Result<Self, StoreError> {
        let address = address(&options.url)?;
        let failed = |error: RedisError| io_error(&address, &error);
        let bad = |_| StoreError::Address {
            why: format!("`{address}` is not understood; write redis://host:6379/0"),
        };
        let client = Client::open(options.url.as_str()).map_err(bad)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(2)
            .set_max_delay(Duration::from_millis(500))
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let connection =
            ConnectionManager::new_with_config(client, config).await.map_err(failed)?;
        let link = Self {
            scripts: Scripts::new(),
            connection,
            epoch: epoch(),
            names: Names::new(&options.prefix),
            address: address.clone(),
            options,
            judging: Mutex::new(()),
        };
        link.judge().await?;
        Ok(link)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn claim_prefix(&self) -> &str {
        &self.names.claim
    }

    fn failed(&self, error: &RedisError) -> StoreError {
        io_error(&self.address, error)
    }

    async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// Runs a script on the store, and on the claim `id` if there is one: one round trip.
    pub(super) async fn run(
        &self,
        script: usize,
        id: Option<&Digest>,
        call: &Call,
    ) -> Result<Reader, StoreError> {
        let Some(script) = self.scripts.0.get(script) else { return Err(StoreError::Closed) };
        let command = self.command("EVALSHA", script.get_hash(), id, call);
        let answer = match self.query(&command).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Redis was restarted, or somebody flushed its scripts: nothing runs before it
                // is judged what that means.
                self.rejudge(script.get_hash()).await?;
                self.query(&command).await
            }
            answer => answer,
        };
        answer.map(|value| Reader::new(&self.address, value)).map_err(|error| self.failed(&error))
    }

    fn command(&self, how: &str, script: &str, id: Option<&Digest>, call: &Call) -> Cmd {
        let names = &self.names;
        let mut command = redis::cmd(how);
        command.arg(script).arg(if id.is_some() { 5 } else { 4 });
        command.arg(&names.ledger).arg(&names.senders).arg(&names.leases).arg(&names.expiry);
        if let Some(id) = id {
            let mut name = names.claim.clone().into_bytes();
            name.extend_from_slice(id.as_bytes());
            command.arg(name);
        }
        let now = call.now_ms.map_or_else(String::new, |now_ms| now_ms.to_string());
        command.arg(now).arg(call.skew_s).arg(&self.epoch);
        for arg in &call.args {
            command.arg(arg.as_slice());
        }
        command
    }

    async fn rejudge(&self, needed: &str) -> Result<(), StoreError> {
        let _one = self.judging.lock().await;
        let mut exists = redis::cmd("SCRIPT");
        exists.arg("EXISTS").arg(needed);
        let there = self.query(&exists).await.map_err(|error| self.failed(&error))?;
        if there == Value::Array(vec![Value::Int(1)]) {
            return Ok(());
        }
        tracing::warn!(store = %self.address, "the claim store was restarted");
        self.judge().await
    }

    /// Looks at what this Redis promises and whether it is the one of before, and only then gives
    /// it the scripts.
    async fn judge(&self) -> Result<(), StoreError> {
        let info = self.info().await?;
        let policy = info.get("maxmemory_policy").map_or("unknown", String::as_str);
        if policy != "noeviction" {
            let why = format!(
                "its maxmemory-policy is {policy}, so it may forget what ran; set \
                 `maxmemory-policy noeviction`"
            );
            return Err(StoreError::Unfit { path: self.address.clone(), why });
        }
        if info.get("role").is_some_and(|role| role != "master") {
            let why = "it is a replica; give the primary's address".to_owned();
            return Err(StoreError::Unfit { path: self.address.clone(), why });
        }
        let keeps = self.keeps(&info).await;
        if !keeps {
            tracing::warn!(
                store = %self.address,
                "this Redis may lose its last writes in a crash (not `appendonly yes` and \
                 `appendfsync always`): each restart counts as a lost store"
            );
        }
        self.open_script(&info, keeps).await?;
        let mut load = redis::pipe();
        for script in &self.scripts.0 {
            load.load_script(script).ignore();
        }
        let loaded: Result<(), _> = load.query_async(&mut self.connection.clone()).await;
        loaded.map_err(|error| self.failed(&error))
    }

    async fn open_script(
        &self,
        info: &HashMap<String, String>,
        keeps: bool,
    ) -> Result<(), StoreError> {
        let mut call = Call::new(None, self.options.store.skew_s);
        call.arg(info.get("run_id").map_or("", String::as_str)).flag(keeps);
        call.flag(self.options.new_store == NewStore::NothingBefore);
        call.number(self.options.store.limits.per_sender);
        let text = text!("begin", "open");
        let opened = self.query(&self.command("EVAL", text, None, &call)).await;
        opened.map(drop).map_err(|error| self.failed(&error))
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

    pub(super) async fn held_by(&self, sender: &str) -> Result<u64, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(&self.names.senders).arg(sender);
        let value = self.query(&get).await.map_err(|error| self.failed(&error))?;
        Reader::new(&self.address, value).number(0)
    }

    pub(super) async fn held(&self) -> Result<Held, StoreError> {
        let names = &self.names;
        let mut pipe = redis::pipe();
        pipe.zcard(&names.expiry).zcard(&names.leases).hlen(&names.senders);
        let fields = ["reply_bytes", "purged_exp", "blind_until"];
        pipe.cmd("HMGET").arg(&names.ledger).arg(&fields);
        let value: Result<Value, _> = pipe.query_async(&mut self.connection.clone()).await;
        let answer = Reader::new(&self.address, value.map_err(|error| self.failed(&error))?);
        let ledger = answer.row(3)?;
        let blind_until = if ledger.has(2) { Some(ledger.number(2)?) } else { None };
        Ok(Held {
            entries: answer.number(0)?,
            in_flight: answer.number(1)?,
            senders: answer.number(2)?,
            reply_bytes: ledger.number(0)?,
            gate: Gate { purged_exp: ledger.number(1)?, blind_until },
        })
    }
}

/// The address without user and password, for messages.
fn address(url: &str) -> Result<String, StoreError> {
    let bad = |why: &str| StoreError::Address { why: why.to_owned() };
    // What the parser says could quote the password.
    let parsed = Url::parse(url).map_err(|_| bad("it can't be parsed"))?;
    if !matches!(parsed.scheme(), "redis" | "rediss") {
        return Err(bad("it begins with neither redis:// nor rediss://"));
    }
    Ok(crate::address::without_credentials(&parsed))
}

fn io_error(address: &str, error: &RedisError) -> StoreError {
    let (path, why) = (address.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::AuthenticationFailed => StoreError::Unfit { path, why },
        _ => StoreError::Io { path, why },
    }
}

/// Names a life of the store. It need not be secret, only new.
fn epoch() -> String {
    use std::hash::BuildHasher;
    let state = std::collections::hash_map::RandomState::new();
    format!("{:016x}{:016x}", state.hash_one(0u8), state.hash_one(1u8))
}
