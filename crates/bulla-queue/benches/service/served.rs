//! The service, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bulla_http::certs::Files;
use bulla_http::{
    AccessKeys, AccessSecret, Authenticators, ClientCertificates, KeyOwner, Limits, Listener,
    Options,
};
use bulla_queue::{EncryptedQueues, Plain, RestKey, Service, Store, StoreAddress, router};
use bulla_seal::Secret;
use tokio_util::sync::CancellationToken;

use crate::polls::POLLS;

/// Where the process is told that it is the service, with which store; that it encrypts; where the
/// certificates of TLS are.
const SERVE: &str = "BULLA_BENCH_STORE";
const ENCRYPT: &str = "BULLA_BENCH_ENCRYPT";
const TLS: &str = "BULLA_BENCH_TLS";
/// What requests over TLS are signed with.
pub(crate) const ACCESS_KEY: (&str, &str) = ("BULLBENCH", "a-secret-key-that-has-32-bytes-!");

pub(crate) fn is_to_serve() -> bool {
    std::env::var_os(SERVE).is_some()
}

struct Keys;

#[async_trait]
impl AccessKeys for Keys {
    async fn find(&self, _: &str) -> Result<Result<KeyOwner, &'static str>, String> {
        let secret = AccessSecret::new(ACCESS_KEY.1).unwrap();
        Ok(Ok(KeyOwner { user: "program/bench".to_owned(), secret }))
    }

    fn used(&self, _: &str) {}
}

pub(crate) fn serve() {
    let store = std::env::var(SERVE).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address: StoreAddress = store.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let mut store = address.open(now).await.unwrap();
        if std::env::var_os(ENCRYPT).is_some() {
            let key = RestKey::new(Secret::new([7; 32]));
            let encrypted = EncryptedQueues::open(store, key, Plain::Refused).await.unwrap();
            store = Arc::<EncryptedQueues>::new(encrypted) as Arc<dyn Store>;
        }
        let service = Service::new(store);
        // Connections that are there before the requests are not to be closed meanwhile.
        let header = Duration::from_secs(300);
        let limits = Limits { max_connections: POLLS + 1000, header, ..Limits::default() };
        let any = "127.0.0.1:0".parse().unwrap();
        let (service, options) = match std::env::var_os(TLS) {
            None => {
                let options = Options::dangerously_open_loopback(any).unwrap();
                (service.dangerously_open(), options)
            }
            Some(dir) => {
                let files = Files::in_dir(Path::new(&dir)).server_tls();
                let files = files.client_certificates(ClientCertificates::Optional);
                let by = Authenticators::default().access_keys(Arc::new(Keys), None);
                (service, Options::tls(any, files).authenticators(by))
            }
        };
        let listener = Listener::bind(options.limits(limits)).await.unwrap();
        println!("{}", listener.url());
        listener.serve(router(Arc::new(service)), CancellationToken::new()).await;
    });
}

pub(crate) struct Served {
    child: Option<Child>,
    pub(crate) port: u16,
    pid: u32,
}

impl Served {
    pub(crate) fn start(store: &str) -> Self {
        Self::spawn(store, |command| command)
    }

    pub(crate) fn encrypted(store: &str) -> Self {
        Self::spawn(store, |command| command.env(ENCRYPT, "1"))
    }

    pub(crate) fn tls(store: &str, files: &Path) -> Self {
        Self::spawn(store, |command| command.env(TLS, files))
    }

    pub(crate) fn other(port: u16, pid: u32) -> Self {
        Self { child: None, port, pid }
    }

    fn spawn(store: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = with(command.env(SERVE, store));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        let pid = child.id();
        Self { child: Some(child), port, pid }
    }

    /// Processor time so far, in milliseconds, with that of its children.
    pub(crate) fn cpu(&self) -> f64 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let own = self.pid.to_string();
        children.split_whitespace().chain([own.as_str()]).map(cpu_of).sum()
    }

    /// What it says of itself in `/proc`.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap();
    ticks * 10.0
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
