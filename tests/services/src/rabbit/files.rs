//! The directory, ports and environment of one RabbitMQ.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BIN, PASSWORD, RabbitMqBuilder, SERVER, USER, unprivileged, virtual_host};
use crate::certs::{Authority, Identity};
use crate::error::ServiceError;
use crate::ports::free_port;
use crate::process::Process;

/// A port mapper of our own in the server's process group, so that the machine's is not touched
/// and nothing outlives the group.
const START: &str = r#"epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$@""#;

/// What the nodes of one cluster have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) epmd: u16,
    pub(super) cookie: String,
}

pub(super) struct Layout {
    pub(super) directory: PathBuf,
    pub(super) amqp: u16,
    pub(super) tls: u16,
    pub(super) management: u16,
    pub(super) management_tls: u16,
    distribution: u16,
    /// `None`: a node alone, with a port mapper of its own.
    cluster: Option<Common>,
    epmd: u16,
}

impl Layout {
    pub(super) fn new(directory: &Path, cluster: Option<Common>) -> Result<Self, ServiceError> {
        let epmd = match &cluster {
            Some(common) => common.epmd,
            None => free_port()?,
        };
        Ok(Self {
            directory: directory.to_owned(),
            amqp: free_port()?,
            tls: free_port()?,
            management: free_port()?,
            management_tls: free_port()?,
            distribution: free_port()?,
            cluster,
            epmd,
        })
    }

    pub(super) fn write(
        &self,
        wanted: &RabbitMqBuilder,
        authority: &Authority,
        certificate: &Identity,
    ) -> Result<(), ServiceError> {
        for name in ["mnesia", "log", "home"] {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).map_err(ServiceError::io(path.display().to_string()))?;
        }
        let mut plugins = Vec::new();
        if wanted.tls {
            plugins.push("rabbitmq_auth_mechanism_ssl");
        }
        if wanted.management {
            plugins.push("rabbitmq_management");
        }
        self.put("enabled_plugins", &format!("[{}].\n", plugins.join(",")))?;
        self.put("rabbitmq.conf", &self.configuration(wanted))?;
        if wanted.is_defined() {
            self.put("definitions.json", &definitions(wanted))?;
        }
        self.put("ca.pem", authority.pem())?;
        self.put("server.pem", &certificate.certificate)?;
        self.put("server.key", &certificate.key)?;
        let own = || format!("BULLA{}", self.amqp);
        let cookie = self.cluster.as_ref().map_or_else(own, |common| common.cookie.clone());
        self.put("home/.erlang.cookie", &cookie)?;
        let cookie = self.directory.join("home/.erlang.cookie");
        fs::set_permissions(&cookie, Permissions::from_mode(0o400))
            .map_err(ServiceError::io("the Erlang cookie"))?;
        self.hand_over()
    }

    fn put(&self, name: &str, content: &str) -> Result<(), ServiceError> {
        fs::write(self.directory.join(name), content).map_err(ServiceError::io(name))
    }

    fn configuration(&self, wanted: &RabbitMqBuilder) -> String {
        let mut text = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\n\
             log.console = true\nlog.console.level = info\nlog.file = false\n",
            self.amqp
        );
        if wanted.is_defined() {
            text += &format!("load_definitions = {}/definitions.json\n", self.directory.display());
        }
        if wanted.management {
            text += &format!(
                "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n",
                self.management
            );
        }
        if wanted.tls && wanted.management {
            let directory = self.directory.display();
            text += &format!(
                "management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = {}\n\
                 management.ssl.cacertfile = {directory}/ca.pem\n\
                 management.ssl.certfile = {directory}/server.pem\n\
                 management.ssl.keyfile = {directory}/server.key\n",
                self.management_tls
            );
        }
        if wanted.tls {
            let directory = self.directory.display();
            text += &format!(
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {directory}/ca.pem\n\
                 ssl_options.certfile = {directory}/server.pem\n\
                 ssl_options.keyfile = {directory}/server.key\n\
                 ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = {}\n\
                 ssl_cert_login_from = common_name\nauth_mechanisms.1 = PLAIN\n\
                 auth_mechanisms.2 = EXTERNAL\n",
                self.tls, wanted.client_certificate
            );
        }
        text
    }

    /// Root gives the directory to the user that the server runs as.
    fn hand_over(&self) -> Result<(), ServiceError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let done = Command::new("chown")
            .args(["-R", "rabbitmq:rabbitmq"])
            .arg(&self.directory)
            .status()
            .map_err(ServiceError::io("chown"))?;
        if done.success() {
            return Ok(());
        }
        Err(ServiceError::NotStarted {
            server: SERVER,
            why: "there is no user rabbitmq; reinstall rabbitmq-server".to_owned(),
        })
    }

    /// The Erlang name of the node.
    pub(super) fn node(&self) -> String {
        format!("bulla{}@localhost", self.amqp)
    }

    /// What the server writes.
    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    /// A command of this server: its user, environment and directory.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = unprivileged(program);
        self.environment(&mut command);
        command
    }

    pub(super) fn spawn(&self) -> Result<Process, ServiceError> {
        let output = File::create(self.output()).map_err(ServiceError::io("the server's log"))?;
        let errors = output.try_clone().map_err(ServiceError::io("the server's log"))?;
        let inner = unprivileged(&Path::new(BIN).join("rabbitmq-server"));
        let start = if self.cluster.is_some() { r#"exec "$@""# } else { START };
        let mut args = vec!["sh", "-c", start, "start"];
        args.extend(inner.get_program().to_str());
        args.extend(inner.get_args().filter_map(|arg| arg.to_str()));
        Process::start(&args, |command| {
            self.environment(command);
            command.stdout(output).stderr(errors);
        })
    }

    fn environment(&self, command: &mut Command) {
        let path = |name: &str| self.directory.join(name);
        command
            .current_dir(&self.directory)
            .env("WATCHED_DIRECTORY", &self.directory)
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", path("none"))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("HOME", path("home"));
    }
}

/// What the broker reads as it starts, which is a great deal quicker than being told by commands:
/// users and virtual hosts. With it, it makes no user of its own.
fn definitions(wanted: &RabbitMqBuilder) -> String {
    let numbered = (0..wanted.virtual_hosts).map(virtual_host::name);
    let hosts: Vec<String> = ["/".to_owned()].into_iter().chain(numbered).collect();
    let user = |name: &str, password: &str, tags: &str| {
        format!(r#"{{"name":"{name}","password":"{password}","tags":"{tags}"}}"#)
    };
    let permission = |user: &str, host: &str, [configure, write, read]: [&str; 3]| {
        let may = format!(r#""configure":"{configure}","write":"{write}","read":"{read}""#);
        // Patterns have backslashes, which JSON has too.
        format!(r#"{{"user":"{user}","vhost":"{host}",{}}}"#, may.replace('\\', "\\\\"))
    };
    let mut users = vec![user(USER, PASSWORD, "administrator")];
    let all = |host: &String| permission(USER, host, [".*"; 3]);
    let mut permissions: Vec<String> = hosts.iter().map(all).collect();
    for other in &wanted.users {
        users.push(user(&other.name, &other.password, ""));
        let patterns = other.permissions.each_ref().map(String::as_str);
        permissions.push(permission(&other.name, "/", patterns));
    }
    let hosts: Vec<String> = hosts.iter().map(|host| format!(r#"{{"name":"{host}"}}"#)).collect();
    format!(
        r#"{{"users":[{}],"vhosts":[{}],"permissions":[{}]}}"#,
        users.join(","),
        hosts.join(","),
        permissions.join(",")
    )
}
