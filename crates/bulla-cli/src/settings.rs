//! Settings: flags over `BULLA_*` over `bulla.toml` in the home folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_keystore::{AGENT_LIFETIME, AGENT_LIFETIMES, KEY_LIFETIMES};
use bulla_oslo::Queues;
use clap::ValueEnum;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::api_settings::Api;
use crate::failure::{Failure, Result};
use crate::journal::JournalSettings;
use crate::observe::traces::TraceSettings;
use crate::queue_settings::Queue;
use crate::when;

/// The file with the settings, in the home folder.
pub(crate) const FILE: &str = "bulla.toml";
/// Where the API listens unless set.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:7443";

/// Everything that can be set in `bulla.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) bus: Bus,
    pub(crate) broker_users: BrokerUsers,
    pub(crate) api: Api,
    pub(crate) control: Control,
    pub(crate) kek: Kek,
    pub(crate) claims: Claims,
    pub(crate) keystore: KeystoreSettings,
    pub(crate) agents: Agents,
    pub(crate) components: Components,
    pub(crate) policy: Policy,
    pub(crate) journal: JournalSettings,
    pub(crate) metrics: Metrics,
    pub(crate) traces: TraceSettings,
    pub(crate) queue: Queue,
}

/// Who may call what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Policy {
    pub(crate) file: Option<PathBuf>,
}

/// Where metrics are served beside the API's own door.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Metrics {
    pub(crate) listen: Option<SocketAddr>,
}

/// What holds for all agents.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Agents {
    pub(crate) credential_life: Option<String>,
}

impl Agents {
    /// How long credentials of agents live.
    pub(crate) fn life(&self) -> Result<Duration> {
        let Some(text) = &self.credential_life else { return Ok(AGENT_LIFETIME) };
        let (least, most) = AGENT_LIFETIMES;
        let life = when::duration(text).filter(|life| (least..=most).contains(life));
        life.ok_or_else(|| {
            Failure::usage(format!(
                "[agents] credential-life {text:?}: give a while from 1h to 365d, such as 30d"
            ))
        })
    }
}

/// What holds for all component types.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Components {
    pub(crate) key_life: Option<String>,
}

impl Components {
    /// How long their keys to receive with live, unless the settings say otherwise.
    const KEY_LIFE: Duration = Duration::from_secs(60 * 86_400);

    /// How long their keys to receive with live.
    pub(crate) fn life(&self) -> Result<Duration> {
        let Some(text) = &self.key_life else { return Ok(Self::KEY_LIFE) };
        let (least, most) = KEY_LIFETIMES;
        let life = when::duration(text).filter(|life| (least..=most).contains(life));
        life.ok_or_else(|| {
            Failure::usage(format!(
                "[components] key-life {text:?}: give a while from 1h to 365d, such as 48h"
            ))
        })
    }
}

/// How messages travel on a RabbitMQ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carrier {
    /// Frames as they are.
    #[default]
    Native,
    /// In oslo.messaging's bodies, on its exchanges and queues.
    Oslo,
}

/// oslo.messaging's options that change exchanges and queues, by their names there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OsloQueues {
    amqp_durable_queues: bool,
    amqp_auto_delete: bool,
    rabbit_quorum_queue: bool,
    rabbit_transient_quorum_queue: bool,
    rabbit_stream_fanout: bool,
    rabbit_ha_queues: bool,
    rabbit_quorum_delivery_limit: i32,
    rabbit_quorum_max_memory_length: i32,
    rabbit_quorum_max_memory_bytes: i32,
    rabbit_transient_queues_ttl: Option<i32>,
}

impl OsloQueues {
    /// Names and flags of exchanges and queues under them.
    pub(crate) fn queues(&self) -> Queues {
        let default = Queues::default();
        Queues {
            durable: self.amqp_durable_queues,
            auto_delete: self.amqp_auto_delete,
            quorum: self.rabbit_quorum_queue,
            transient_quorum: self.rabbit_transient_quorum_queue,
            stream_fanout: self.rabbit_stream_fanout,
            mirrored: self.rabbit_ha_queues,
            delivery_limit: self.rabbit_quorum_delivery_limit,
            max_in_memory_length: self.rabbit_quorum_max_memory_length,
            max_in_memory_bytes: self.rabbit_quorum_max_memory_bytes,
            transient_ttl: self.rabbit_transient_queues_ttl.unwrap_or(default.transient_ttl),
        }
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Bus {
    pub(crate) url: Option<String>,
    pub(crate) key_file_url: Option<String>,
    pub(crate) exchange: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    /// The CA itself: of key files.
    #[serde(skip)]
    pub(crate) ca_pem: Option<String>,
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) quorum_queues: bool,
    pub(crate) carrier: Carrier,
    pub(crate) oslo: OsloQueues,
    pub(crate) message_ttl_s: Option<u64>,
    pub(crate) max_message: Option<usize>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds the broker's password.
        f.debug_struct("Bus").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// Where the broker's users are made, one for each agent. No secret but the password, which
/// prints redacted by being left out.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct BrokerUsers {
    pub(crate) url: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// From the environment only.
    #[serde(skip)]
    pub(crate) password: Option<Zeroizing<String>>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) prefix: String,
    /// The component types that agents may call.
    pub(crate) components: Vec<String>,
    pub(crate) login: LoginKind,
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
}

/// How agents log in at the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LoginKind {
    /// With a password of their own.
    #[default]
    Password,
    /// With a client certificate of their own.
    Certificate,
}

impl Default for BrokerUsers {
    fn default() -> Self {
        Self {
            url: None,
            user: None,
            password_file: None,
            password: None,
            ca: None,
            prefix: "agent.".to_owned(),
            components: vec!["control".to_owned()],
            login: LoginKind::default(),
            client_cert: None,
            client_key: None,
        }
    }
}

impl std::fmt::Debug for BrokerUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password, though it should not.
        f.debug_struct("BrokerUsers")
            .field("url", &self.url.is_some())
            .field("prefix", &self.prefix)
            .field("components", &self.components)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Control {
    pub(crate) instance: Option<String>,
}

/// Where the key-encryption key is. Names and paths only, and no secret.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Kek {
    pub(crate) provider: Provider,
    pub(crate) path: Option<PathBuf>,
    pub(crate) variable: Option<String>,
    pub(crate) credential: Option<String>,
    pub(crate) module: Option<PathBuf>,
    pub(crate) token: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) pin_file: Option<PathBuf>,
    /// A copy that `bulla doctor` looks at.
    pub(crate) backup: Option<PathBuf>,
    /// The one that a rotation goes over to.
    pub(crate) next: Option<Box<Self>>,
}

/// Who hands the key-encryption key over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Provider {
    /// A file.
    #[default]
    File,
    /// An environment variable.
    Environment,
    /// systemd, as a credential.
    Credential,
    /// A token, through its PKCS#11 library.
    Pkcs11,
}

/// Where the control plane remembers which messages ran.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Claims {
    pub(crate) store: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// From the environment only.
    #[serde(skip)]
    pub(crate) password: Option<Zeroizing<String>>,
    pub(crate) only_host: bool,
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("Claims")
            .field("store", &self.store.is_some())
            .field("only_host", &self.only_host)
            .finish_non_exhaustive()
    }
}

/// Where the keystore is.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct KeystoreSettings {
    pub(crate) url: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// From the environment only.
    #[serde(skip)]
    pub(crate) password: Option<Zeroizing<String>>,
    /// As whom `bulla init` and `bulla db` log in.
    pub(crate) owner_url: Option<String>,
    pub(crate) owner_password_file: Option<PathBuf>,
    /// From the environment only.
    #[serde(skip)]
    pub(crate) owner_password: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for KeystoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("KeystoreSettings").field("url", &self.url.is_some()).finish_non_exhaustive()
    }
}

/// A store's password: as given, or alone in a file.
pub(crate) fn password(
    given: Option<&Zeroizing<String>>,
    file: Option<&PathBuf>,
    of: &str,
) -> Result<Option<Zeroizing<String>>> {
    if given.is_some() {
        return Ok(given.cloned());
    }
    let Some(path) = file else { return Ok(None) };
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        Failure::new(format!("can't read the {of}'s password {}: {error}", path.display()))
    })?;
    Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
}

impl Settings {
    /// The text of a new `bulla.toml`: every setting with its default, commented out.
    pub(crate) const TEMPLATE: &'static str = include_str!("bulla.toml");

    /// Reads the home folder's file, if there is one, and puts the environment over it.
    pub(crate) fn load(home: &Path) -> Result<Self> {
        let path = home.join(FILE);
        let mut settings = match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                return Err(Failure::new(format!("can't read {}: {error}", path.display())));
            }
        };
        settings.overlay_environment()?;
        Ok(settings)
    }

    /// Puts the environment over what is set.
    pub(crate) fn overlay_environment(&mut self) -> Result<()> {
        self.overlay(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            // The parser's own text quotes the line, which may hold the broker's password.
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            Failure::usage(format!("{} line {line}: {}", path.display(), error.message()))
        })
    }

    fn overlay(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<()> {
        let bad = |name: &str| Failure::usage(format!("the value of {name} can't be used"));
        if let Some(url) = get("BULLA_BUS_URL") {
            self.bus.url = Some(url);
        }
        if let Some(carrier) = get("BULLA_BUS_CARRIER") {
            let known = Carrier::from_str(&carrier, false);
            self.bus.carrier = known.map_err(|_| bad("BULLA_BUS_CARRIER"))?;
        }
        if let Some(exchange) = get("BULLA_BUS_EXCHANGE") {
            self.bus.exchange = Some(exchange);
        }
        if let Some(ca) = get("BULLA_BUS_CA") {
            self.bus.ca = Some(ca.into());
        }
        if let Some(path) = get("BULLA_BUS_CLIENT_CERT") {
            self.bus.client_cert = Some(path.into());
        }
        if let Some(path) = get("BULLA_BUS_CLIENT_KEY") {
            self.bus.client_key = Some(path.into());
        }
        if let Some(size) = get("BULLA_BUS_MAX_MESSAGE") {
            self.bus.max_message = Some(size.parse().map_err(|_| bad("BULLA_BUS_MAX_MESSAGE"))?);
        }
        if let Some(url) = get("BULLA_BROKER_USERS_URL") {
            self.broker_users.url = Some(url);
        }
        if let Some(user) = get("BULLA_BROKER_USERS_USER") {
            self.broker_users.user = Some(user);
        }
        if let Some(path) = get("BULLA_BROKER_USERS_PASSWORD_FILE") {
            self.broker_users.password_file = Some(path.into());
        }
        if let Some(password) = get("BULLA_BROKER_USERS_PASSWORD") {
            self.broker_users.password = Some(password.into());
        }
        if let Some(path) = get("BULLA_BROKER_USERS_CA") {
            self.broker_users.ca = Some(path.into());
        }
        if let Some(listen) = get("BULLA_API_LISTEN") {
            self.api.listen = Some(listen.parse().map_err(|_| bad("BULLA_API_LISTEN"))?);
        }
        self.api.tls.overlay(&get);
        if let Some(listen) = get("BULLA_METRICS_LISTEN") {
            self.metrics.listen = Some(listen.parse().map_err(|_| bad("BULLA_METRICS_LISTEN"))?);
        }
        if let Some(endpoint) = get("BULLA_TRACES_ENDPOINT") {
            self.traces.endpoint = Some(endpoint);
        }
        if let Some(ca) = get("BULLA_TRACES_CA") {
            self.traces.ca = Some(ca.into());
        }
        if let Some(sample) = get("BULLA_TRACES_SAMPLE") {
            self.traces.sample = Some(sample.parse().map_err(|_| bad("BULLA_TRACES_SAMPLE"))?);
        }
        if let Some(service) = get("BULLA_TRACES_SERVICE") {
            self.traces.service = Some(service);
        }
        if let Some(path) = get("BULLA_API_CA") {
            self.api.ca = Some(path.into());
        }
        if let Some(path) = get("BULLA_API_ACCESS_KEY") {
            self.api.access_key = Some(path.into());
        }
        if let Some(path) = get("BULLA_API_KEYSTONE_TOKEN") {
            self.api.keystone_token = Some(path.into());
        }
        if let Some(instance) = get("BULLA_CONTROL_INSTANCE") {
            self.control.instance = Some(instance);
        }
        if let Some(provider) = get("BULLA_KEK_PROVIDER") {
            let known = Provider::from_str(&provider, false);
            self.kek.provider = known.map_err(|_| bad("BULLA_KEK_PROVIDER"))?;
        }
        if let Some(path) = get("BULLA_KEK_PATH") {
            self.kek.path = Some(path.into());
        }
        if let Some(path) = get("BULLA_KEK_BACKUP") {
            self.kek.backup = Some(path.into());
        }
        if let Some(store) = get("BULLA_CLAIMS_STORE") {
            self.claims.store = Some(store);
        }
        if let Some(path) = get("BULLA_CLAIMS_PASSWORD_FILE") {
            self.claims.password_file = Some(path.into());
        }
        if let Some(password) = get("BULLA_CLAIMS_PASSWORD") {
            self.claims.password = Some(password.into());
        }
        if let Some(only) = get("BULLA_CLAIMS_ONLY_HOST") {
            self.claims.only_host = only.parse().map_err(|_| bad("BULLA_CLAIMS_ONLY_HOST"))?;
        }
        if let Some(store) = get("BULLA_QUEUE_STORE") {
            self.queue.store = Some(store);
        }
        if let Some(path) = get("BULLA_QUEUE_STORE_PASSWORD_FILE") {
            self.queue.store_password_file = Some(path.into());
        }
        if let Some(password) = get("BULLA_QUEUE_STORE_PASSWORD") {
            self.queue.store_password = Some(password.into());
        }
        if let Some(path) = get("BULLA_QUEUE_STORE_CA") {
            self.queue.store_ca = Some(path.into());
        }
        if let Some(life) = get("BULLA_AGENTS_CREDENTIAL_LIFE") {
            self.agents.credential_life = Some(life);
        }
        if let Some(path) = get("BULLA_POLICY_FILE") {
            self.policy.file = Some(path.into());
        }
        if let Some(url) = get("BULLA_KEYSTORE_URL") {
            self.keystore.url = Some(url);
        }
        if let Some(path) = get("BULLA_KEYSTORE_PASSWORD_FILE") {
            self.keystore.password_file = Some(path.into());
        }
        if let Some(password) = get("BULLA_KEYSTORE_PASSWORD") {
            self.keystore.password = Some(password.into());
        }
        if let Some(url) = get("BULLA_KEYSTORE_OWNER_URL") {
            self.keystore.owner_url = Some(url);
        }
        if let Some(path) = get("BULLA_KEYSTORE_OWNER_PASSWORD_FILE") {
            self.keystore.owner_password_file = Some(path.into());
        }
        if let Some(password) = get("BULLA_KEYSTORE_OWNER_PASSWORD") {
            self.keystore.owner_password = Some(password.into());
        }
        Ok(())
    }
}

/// The files of a home folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    pub(crate) fn kek(&self) -> PathBuf {
        self.dir.join("kek")
    }

    pub(crate) fn root_key(&self) -> PathBuf {
        self.dir.join("root.key")
    }

    /// Where the keystore is unless the settings say otherwise.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.dir.join("keystore.db")
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.dir.join("api.token")
    }

    /// Where the queues are unless the settings say otherwise.
    pub(crate) fn queue_store(&self) -> PathBuf {
        self.dir.join("queue.db")
    }

    /// Where the running queue service writes its address.
    pub(crate) fn queue_url(&self) -> PathBuf {
        self.dir.join("queue.url")
    }

    /// What pre-signed grants of queues are signed with.
    pub(crate) fn spread_key(&self) -> PathBuf {
        self.dir.join("queue-spread.key")
    }

    pub(crate) fn grants_key(&self) -> PathBuf {
        self.dir.join("queue-grants.key")
    }

    /// Where the running control plane writes its API's address.
    pub(crate) fn api_url(&self) -> PathBuf {
        self.dir.join("api.url")
    }

    /// Where the passwords of database roles are unless said otherwise.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("database")
    }

    pub(crate) fn agents(&self) -> PathBuf {
        self.dir.join("agents")
    }

    pub(crate) fn components(&self) -> PathBuf {
        self.dir.join("components")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What checkpoints of journals are signed with.
    pub(crate) fn journal_key(&self) -> PathBuf {
        self.dir.join("journal.key")
    }

    /// Where journals are unless the settings say otherwise.
    pub(crate) fn journals(&self) -> PathBuf {
        self.state().join("journal")
    }

    /// Stands there until the control plane first used a broker.
    pub(crate) fn unused(&self) -> PathBuf {
        self.state().join("unused")
    }

    /// Whether it has a keystore, here or on a server.
    pub(crate) fn keystore_is_there(&self, settings: &Settings) -> bool {
        self.keystore().exists() || settings.keystore.url.is_some()
    }

    pub(crate) fn is_initialised(&self) -> bool {
        // The keystore may be on a server.
        self.keystore().exists() || self.tls().exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_the_defaults() {
        let from_template = Settings::parse(Settings::TEMPLATE, Path::new(FILE)).unwrap();
        assert_eq!(format!("{from_template:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn every_setting_of_the_template_can_be_set() {
        let uncommented: String = Settings::TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let settings = Settings::parse(&uncommented, Path::new(FILE)).unwrap();
        assert!(settings.bus.url.is_some() && settings.api.listen.is_some());
        let tls = &settings.api.tls;
        assert!(tls.certificate.is_some() && tls.key.is_some() && tls.client_ca.is_some());
        assert!(tls.operator_certificate.is_some() && tls.operator_key.is_some());
        assert!(settings.api.access_key.is_some() && settings.api.keystone_token.is_some());
        let rate = settings.api.rate().unwrap();
        assert_eq!(rate, crate::api_settings::Api::default().rate().unwrap());
        assert!(
            settings.api.failures().unwrap().is_some() && !settings.api.roles().unwrap().is_empty()
        );
        assert!(!settings.api.keystone.roles.is_empty() && settings.api.keystone.url.is_some());
        assert!(settings.control.instance.is_some());
        assert_eq!(settings.agents.life().unwrap(), AGENT_LIFETIME);
        let users = &settings.broker_users;
        assert!(users.url.is_some() && users.user.is_some() && users.password_file.is_some());
        assert!(users.ca.is_some() && users.client_cert.is_some() && users.client_key.is_some());
        let next = settings.kek.next.as_ref().unwrap();
        assert!(settings.kek.backup.is_some() && next.token.is_some());
        assert!(settings.claims.store.is_some() && settings.claims.password_file.is_some());
        assert!(settings.keystore.url.is_some() && settings.keystore.password_file.is_some());
        let keystore = &settings.keystore;
        assert!(keystore.owner_url.is_some() && keystore.owner_password_file.is_some());
        let traces = &settings.traces;
        assert!(settings.metrics.listen.is_some() && traces.endpoint.is_some());
        assert!(traces.ca.is_some() && traces.sample.is_some() && traces.service.is_some());
    }

    #[test]
    fn the_environment_is_over_the_file() {
        let mut settings = Settings::parse("[bus]\nexchange = 'a'\n", Path::new(FILE)).unwrap();
        settings.overlay(|name| (name == "BULLA_BUS_EXCHANGE").then(|| "b".into())).unwrap();
        assert_eq!(settings.bus.exchange.as_deref(), Some("b"));
        settings.overlay(|name| (name == "BULLA_CLAIMS_PASSWORD").then(|| "hush".into())).unwrap();
        settings.overlay(|name| (name == "BULLA_CLAIMS_ONLY_HOST").then(|| "true".into())).unwrap();
        assert!(settings.claims.only_host && settings.claims.password.is_some());
        settings
            .overlay(|name| (name == "BULLA_BROKER_USERS_PASSWORD").then(|| "hush".into()))
            .unwrap();
        assert!(settings.broker_users.password.is_some());
        for name in [
            "BULLA_KEYSTORE_PASSWORD",
            "BULLA_KEYSTORE_URL",
            "BULLA_KEYSTORE_OWNER_URL",
            "BULLA_KEYSTORE_OWNER_PASSWORD",
        ] {
            settings
                .overlay(|asked| (asked == name).then(|| "postgres://u:hush@h/d".into()))
                .unwrap();
        }
        assert!(settings.keystore.url.is_some() && settings.keystore.password.is_some());
        assert!(!format!("{settings:?}").contains("hush"));
        assert!(settings.overlay(|name| (name == "BULLA_API_LISTEN").then(|| "x".into())).is_err());
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_without_its_text() {
        let text = "[bus]\nurl = 'amqp://u:secret@h'\nurll = 'amqp://u:secret@h'\n";
        let error = Settings::parse(text, Path::new(FILE)).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("urll"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
