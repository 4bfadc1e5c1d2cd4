//! Redis.

use std::fs;
use std::path::Path;

use crate::certs::{Authority, Identity};
use crate::error::ServiceError;
use crate::instance::{Instance, directory, guard};
use crate::ports::free_port;
use crate::process::answers;

const PROGRAM: &str = "/usr/bin/redis-server";
const PASSWORD: &str = "test-only";

/// What a private Redis is started with.
#[derive(Debug, Clone)]
pub struct RedisBuilder {
    durable: bool,
    settings: String,
    tls: Option<(String, Identity)>,
}

impl RedisBuilder {
    /// Whether every write is on disk before it is answered (the default), or nothing ever is.
    #[must_use]
    pub fn durable(mut self, on: bool) -> Self {
        self.durable = on;
        self
    }

    /// With another port that speaks TLS, as `localhost` alone.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn tls(mut self, authority: &Authority) -> Result<Self, ServiceError> {
        self.tls = Some((authority.pem().to_owned(), authority.server(&["localhost"])?));
        Ok(self)
    }

    /// A further line of `redis.conf`.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push_str(line);
        self.settings.push('\n');
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub fn start(self) -> Result<Redis, ServiceError> {
        if !Path::new(PROGRAM).exists() {
            return Err(ServiceError::NotInstalled { server: "Redis", package: "redis-server" });
        }
        let (directory, port) = (directory("redis")?, free_port()?);
        let path = directory.path().join("redis.conf");
        let (tls_port, tls) = match &self.tls {
            Some((authority, server)) => with_tls(directory.path(), authority, server)?,
            None => (0, String::new()),
        };
        let appendonly =
            if self.durable { "appendonly yes\nappendfsync always" } else { "appendonly no" };
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsave \"\"\n{appendonly}\n\
             requirepass {PASSWORD}\nmaxmemory-policy noeviction\n{tls}{}",
            directory.path().display(),
            self.settings
        );
        fs::write(&path, text).map_err(ServiceError::io("redis.conf"))?;
        let args = vec![PROGRAM.to_owned(), path.display().to_string()];
        let hello = format!("AUTH {PASSWORD}\r\nPING\r\n");
        // While it loads its data it answers an error.
        let ready = Box::new(move || {
            answers(port, hello.as_bytes()) && loaded(port, hello.as_bytes()).unwrap_or_default()
        });
        let instance = Instance::start("Redis", directory, args, "TERM", ready)?;
        Ok(Redis { instance, port, tls_port })
    }
}

fn with_tls(
    folder: &Path,
    authority: &str,
    server: &Identity,
) -> Result<(u16, String), ServiceError> {
    let (port, mut settings) = (free_port()?, "tls-auth-clients no\n".to_owned());
    settings.push_str(&format!("tls-port {port}\n"));
    for (name, text) in
        [("ca-cert", authority), ("cert", &server.certificate), ("key", &server.key)]
    {
        let path = folder.join(format!("{name}.pem"));
        fs::write(&path, text).map_err(ServiceError::io("a certificate"))?;
        settings.push_str(&format!("tls-{name}-file {}\n", path.display()));
    }
    Ok((port, settings))
}

fn loaded(port: u16, hello: &[u8]) -> std::io::Result<bool> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    stream.write_all(hello)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+OK\r\n+PONG\r\n")
}

/// A private Redis on loopback.
pub struct Redis {
    instance: Instance,
    port: u16,
    tls_port: u16,
}

guard!(Redis, "Redis");

impl Redis {
    /// One that loses nothing when it is restarted.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`].
    pub fn start() -> Result<Self, ServiceError> {
        Self::builder().start()
    }

    /// One with more to it.
    pub fn builder() -> RedisBuilder {
        RedisBuilder { durable: true, settings: String::new(), tls: None }
    }

    /// Its address, with its password.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same over TLS, if it was started with it, by this name.
    pub fn tls_url(&self, host: &str) -> String {
        format!("rediss://:{PASSWORD}@{host}:{}/0", self.tls_port)
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{port}/0")
    }
}
