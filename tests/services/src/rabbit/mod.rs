//! RabbitMQ.

mod cluster;
mod files;
mod virtual_host;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certs::{Authority, Identity};
use crate::error::ServiceError;
use crate::process::{Process, answers};
pub use cluster::RabbitCluster;
use files::{Common, Layout};
pub use virtual_host::VirtualHost;

const SERVER: &str = "RabbitMQ";
const BIN: &str = "/usr/lib/rabbitmq/bin";
const USER: &str = "bulla";
const PASSWORD: &str = "test-only";
const START_LIMIT: Duration = Duration::from_secs(120);

/// What a private RabbitMQ is started with.
#[derive(Debug, Default, Clone)]
pub struct RabbitMqBuilder {
    tls: bool,
    client_certificate: bool,
    management: bool,
    users: Vec<User>,
    /// How many there are besides `/`.
    virtual_hosts: u32,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    password: String,
    permissions: [String; 3],
}

impl RabbitMqBuilder {
    /// Also listens with TLS, with certificates of its own, and takes client certificates
    /// (SASL EXTERNAL, the common name is the user).
    #[must_use]
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// The TLS listener refuses clients without a certificate of this server's authority.
    #[must_use]
    pub fn require_client_certificate(mut self, on: bool) -> Self {
        self.client_certificate = on;
        self
    }

    /// Also runs the management plugin and its HTTP API.
    #[must_use]
    pub fn management(mut self, on: bool) -> Self {
        self.management = on;
        self
    }

    /// Adds a user with the three permission patterns (configure, write, read) on `/`.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, permissions: [&str; 3]) -> Self {
        let permissions = permissions.map(str::to_owned);
        self.users.push(User { name: name.into(), password: password.into(), permissions });
        self
    }

    /// Starts it and waits until it answers: several seconds.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not start.
    pub fn start(self) -> Result<RabbitMq, ServiceError> {
        self.start_in(None)
    }

    /// Whether it starts with anything that is not there by default.
    fn is_defined(&self) -> bool {
        self.virtual_hosts > 0 || !self.users.is_empty()
    }

    fn start_in(self, cluster: Option<Common>) -> Result<RabbitMq, ServiceError> {
        if !Path::new(BIN).join("rabbitmq-server").exists() {
            return Err(ServiceError::NotInstalled { server: SERVER, package: "rabbitmq-server" });
        }
        let mut server = RabbitMq::prepare(&self, cluster)?;
        server.spawn()?;
        Ok(server)
    }
}

/// A private RabbitMQ on loopback.
pub struct RabbitMq {
    layout: Layout,
    authority: Authority,
    tls: bool,
    management: bool,
    process: Option<Process>,
    // Dropped last: the server writes into it until it ends.
    _directory: TempDir,
}

impl RabbitMq {
    /// A plain one.
    ///
    /// # Errors
    /// As [`RabbitMqBuilder::start`].
    pub fn start() -> Result<Self, ServiceError> {
        Self::builder().start()
    }

    /// One with more to it.
    pub fn builder() -> RabbitMqBuilder {
        RabbitMqBuilder::default()
    }

    fn prepare(wanted: &RabbitMqBuilder, cluster: Option<Common>) -> Result<Self, ServiceError> {
        let directory = tempfile::Builder::new()
            .prefix("bulla-rabbitmq-")
            .tempdir()
            .map_err(ServiceError::io("making a directory"))?;
        let authority = Authority::new("bulla test authority")?;
        let layout = Layout::new(directory.path(), cluster)?;
        let certificate = authority.server(&["localhost", "127.0.0.1"])?;
        layout.write(wanted, &authority, &certificate)?;
        let (tls, management) = (wanted.tls, wanted.management);
        Ok(Self { layout, authority, tls, management, process: None, _directory: directory })
    }

    fn spawn(&mut self) -> Result<(), ServiceError> {
        let mut process = self.layout.spawn()?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.answers() {
            if !process.running() || Instant::now() > deadline {
                process.stop();
                return Err(self.not_started());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
        Ok(())
    }

    fn answers(&self) -> bool {
        answers(self.layout.amqp, b"AMQP\0\0\x09\x01")
            && (!self.tls || answers(self.layout.tls, b""))
            && (!self.management || answers(self.layout.management, b""))
    }

    fn not_started(&self) -> ServiceError {
        ServiceError::NotStarted { server: SERVER, why: self.log_tail() }
    }

    /// The last lines of what the server wrote.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.layout.output()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        tail.join("\n")
    }

    /// Runs `rabbitmqctl` against this server and returns what it wrote.
    ///
    /// # Errors
    /// When it can't be run or fails.
    pub fn rabbitmqctl(&self, args: &[&str]) -> Result<String, ServiceError> {
        let command = format!("rabbitmqctl {}", args.first().copied().unwrap_or_default());
        let output = self
            .layout
            .command(&Path::new(BIN).join("rabbitmqctl"))
            .arg("-q")
            .args(args)
            .output()
            .map_err(ServiceError::io(&command))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let why = [output.stderr, output.stdout].concat();
        Err(ServiceError::Command { command, why: String::from_utf8_lossy(&why).into_owned() })
    }

    /// The address of the plain listener, with the credentials of a user who may do everything.
    pub fn url(&self) -> String {
        self.url_at(self.layout.amqp)
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/%2f")
    }

    /// The same with another user.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", self.layout.amqp)
    }

    /// The address of the TLS listener, with the same credentials.
    pub fn tls_url(&self) -> String {
        format!("amqps://{USER}:{PASSWORD}@localhost:{}/%2f", self.layout.tls)
    }

    /// The address of the TLS listener without credentials, for a client certificate.
    pub fn external_url(&self) -> String {
        format!("amqps://localhost:{}/%2f", self.layout.tls)
    }

    /// The address of the management API, if it runs.
    pub fn management_url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", self.layout.management)
    }

    /// The address of the management API without credentials, if it runs.
    pub fn management_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.layout.management)
    }

    /// The same over TLS, if both run.
    pub fn management_tls_address(&self) -> String {
        format!("https://localhost:{}", self.layout.management_tls)
    }

    /// Name and password of the user who may do everything.
    pub fn admin(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// The port of the plain listener.
    pub fn port(&self) -> u16 {
        self.layout.amqp
    }

    /// The certificate authority of the TLS listener, PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// A client certificate for the user `name`.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn client_certificate(&self, name: &str) -> Result<Identity, ServiceError> {
        self.authority.client(name)
    }

    /// The server's own directory.
    pub fn directory(&self) -> PathBuf {
        self.layout.directory.clone()
    }

    /// Ends it in an orderly way; what is durable stays.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in its tracks: connections stay, nobody answers, until [`RabbitMq::thaw`].
    pub fn freeze(&self) {
        if let Some(process) = &self.process {
            process.freeze();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        if let Some(process) = &self.process {
            process.thaw();
        }
    }

    /// Starts it again on the same ports with the same directory, ending it first if it runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        self.stop();
        self.spawn()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // Nothing of it is kept, so there is nothing to end in an orderly way.
        self.kill();
    }
}

impl std::fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RabbitMq(127.0.0.1:{})", self.layout.amqp)
    }
}

/// As which user commands of this server have to run: Debian's tools insist on `rabbitmq` when
/// they are started by root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=rabbitmq", "--regid=rabbitmq", "--clear-groups"]).arg(program);
    command
}
