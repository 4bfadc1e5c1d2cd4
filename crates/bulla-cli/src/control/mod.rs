//! One control-plane process: `component/control` on the bus, with the keystore behind it.

pub(crate) mod admin;
pub(crate) mod agent_file;
pub(crate) mod agent_state;
pub(crate) mod agents;
mod answers;
mod authorize;
pub(crate) mod bus;
pub(crate) mod claims;
pub(crate) mod components;
pub(crate) mod desk;
pub(crate) mod directory;
mod door;
pub(crate) mod enrol;
pub(crate) mod examine;
pub(crate) mod explain;
pub(crate) mod journal_read;
pub(crate) mod journals;
pub(crate) mod kek;
pub(crate) mod key_file;
pub(crate) mod logins;
mod nonces;
mod peers;
mod plane;
mod policies;
mod policy_api;
pub(crate) mod policy_text;
pub(crate) mod queue_bus;
mod renewal;
mod statements;
pub(crate) mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::ClaimStore;
use bulla_journal::{Events, Text, events};
use bulla_keystore::{KekRing, Keystore, KeystoreError, SIGNING_LIFETIME, StoreAddress};
use bulla_rpc::enrol::EnrolServer;
use bulla_rpc::{
    Client, Clock, Endpoint, EndpointOptions, Identity, PolicyRule, ReceiveKey, Server,
    ServerOptions, SystemClock,
};
use bulla_seal::UnixTime;
use bulla_transport::Transport;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub(crate) use door::access_keys;
pub(crate) use plane::{Plane, tap_event};

use crate::failure::{Failure, Result};
use crate::journal::Journalled;
use crate::observe::traces::Traces;
use crate::observe::{BusWatch, Observer, Parts};
use crate::settings::{Home, Settings, password};
use answers::Answers;
use bus::Bus;
use desk::Desk;
use directory::{KeystoreDirectory, directory_router};

/// The component type of the control plane itself.
pub(crate) const CONTROL: &str = "control";
/// Renewal comes at half of a credential's life, or a minute after one that failed.
const RETRY_RENEWAL: Duration = Duration::from_secs(60);
/// How often it is looked whether a component type's key is due.
const LOOK_DUE_EVERY: Duration = Duration::from_secs(60);

/// A running control-plane process.
pub(crate) struct ControlNode {
    pub(crate) keystore: Keystore,
    pub(crate) client: Client,
    pub(crate) bus: Bus,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) started: UnixTime,
    /// Where operators change the deployment over the API.
    pub(crate) desk: Desk,
    /// The first answers to requests that may come again.
    answers: Answers,
    pub(crate) bus_watch: BusWatch,
    server: Mutex<Option<Server>>,
    claims: Arc<dyn ClaimStore>,
    enrolment: Mutex<Option<EnrolServer>>,
    journal: Journalled,
    rule: Arc<PolicyRule>,
    /// Signatures that were used, where other processes hear of them, too.
    nonces: Arc<dyn bulla_http::Nonces>,
    stop: CancellationToken,
}

/// Opens the keystore of a home folder.
pub(crate) async fn open_keystore(home: &Home) -> Result<Keystore> {
    if !home.is_initialised() {
        return Err(Failure::new(format!(
            "there is no deployment in {}; run `bulla init` first, or name its folder with --home",
            home.dir().display()
        )));
    }
    let keystore = open_keystore_with(home, kek::ring(home)?).await?.map_err(|error| {
        let keyless = matches!(error, KeystoreError::WrongKek { .. });
        let failure = Failure::from(error);
        if keyless { kek::with_loss(&failure) } else { failure }
    })?;
    told::recall_from_home(home, &keystore).await?;
    Ok(keystore)
}

/// The same as who owns its tables: for what the control plane itself has no right to.
pub(crate) async fn open_keystore_as_owner(home: &Home) -> Result<Keystore> {
    if !home.is_initialised() {
        return open_keystore(home).await;
    }
    let address = owner_address(home, &Settings::load(home.dir())?)?;
    Ok(Keystore::open(address, kek::ring(home)?).await?)
}

/// The same with other key-encryption keys.
pub(crate) async fn open_keystore_with(
    home: &Home,
    keks: KekRing,
) -> Result<Result<Keystore, KeystoreError>> {
    let settings = Settings::load(home.dir())?;
    let (life, key_life) = (settings.agents.life()?, settings.components.life()?);
    let opened = Keystore::open(keystore_address(home, &settings)?, keks).await;
    Ok(opened.and_then(|keystore| keystore.with_agent_life(life)?.with_key_life(key_life)))
}

/// Where a home folder's keystore is.
pub(crate) fn keystore_address(home: &Home, settings: &Settings) -> Result<StoreAddress> {
    let set = &settings.keystore;
    let Some(url) = &set.url else { return Ok(home.keystore().into()) };
    address("url", url, set.password.as_ref(), set.password_file.as_ref())
}

/// The same for who owns its tables, makes them and changes them.
pub(crate) fn owner_address(home: &Home, settings: &Settings) -> Result<StoreAddress> {
    let set = &settings.keystore;
    let Some(url) = &set.owner_url else { return keystore_address(home, settings) };
    address("owner-url", url, set.owner_password.as_ref(), set.owner_password_file.as_ref())
}

fn address(
    of: &str,
    url: &str,
    given: Option<&Zeroizing<String>>,
    file: Option<&PathBuf>,
) -> Result<StoreAddress> {
    let address: StoreAddress =
        url.parse().map_err(|error| Failure::usage(format!("[keystore] {of}: {error}")))?;
    Ok(match password(given, file, "keystore")? {
        Some(password) => address.with_password(&password)?,
        None => address,
    })
}

impl ControlNode {
    pub(crate) async fn start(
        home: &Home,
        settings: &Settings,
        bus: Bus,
        traces: &Traces,
    ) -> Result<Self> {
        let keystore = open_keystore(home).await?;
        let domain = keystore.trust_store().domain().clone();
        let journal = Journalled::control(home, &settings.journal, &domain)?;
        let transport = bus.transport().await?;
        let instance = instance_name(settings);
        let identity = identity(&keystore, &instance).await?;
        let directory = Arc::new(KeystoreDirectory::new(keystore.clone()));
        let options = EndpointOptions {
            renews: true,
            floors: Some(Arc::new(keystore.floors())),
            events: journal.events.clone(),
            journal_calls: settings.journal.calls.into(),
            tracer: traces.tracer(),
            ..bus::endpoint_options(&settings.bus)?
        };
        let endpoint = Endpoint::new(identity, directory, transport.clone(), options)?;
        // Agents act on nothing before they hold a statement: it is there before the first
        // message.
        let statement = keystore.statement().await?;
        endpoint.take_statement(statement.as_bytes())?;
        statements::note(home, &statement);
        let claims = claims::open(home, &settings.claims, &bus).await?;
        let nonces = nonces::ClaimedNonces::new(&claims, endpoint.identity().party())?;
        let rule = Arc::new(PolicyRule::default());
        policies::activate_file(&keystore, settings, &journal.events).await?;
        if let Some(document) = keystore.policy_document().await? {
            rule.take(&document);
        }
        let kept = claims.clone();
        let server_options = ServerOptions {
            authorization: rule.clone(),
            only_host: settings.claims.only_host,
            only_host_by_bus: true,
            ..ServerOptions::new(claims.clone())
        };
        let events = journal.events.clone();
        let logins = logins::Logins::new(settings, &keystore)?.with_events(&events);
        let logins = Arc::new(logins);
        let router = directory_router(keystore.clone());
        let router = renewal::with_renewal(router, &keystore, &logins, &events);
        let desk = Desk::of_process(home, settings, &keystore, &logins, &events);
        let party = endpoint.identity().party().clone();
        let answers = Answers::new(&keystore, kept, party, server_options.worker);
        let server = Server::start(endpoint.clone(), router, server_options).await?;
        let enroller =
            Arc::new(enrol::KeystoreEnroller { keystore: keystore.clone(), logins, events });
        let enrolment = EnrolServer::start(endpoint.clone(), enroller).await?;
        let client = Client::new(endpoint);
        client.listen().await?;
        let stop = CancellationToken::new();
        let bus_watch = BusWatch::start(&transport, &stop);
        let node = Self {
            keystore,
            client,
            bus,
            transport,
            started: SystemClock.now(),
            desk,
            answers,
            bus_watch,
            server: Mutex::new(Some(server)),
            claims,
            enrolment: Mutex::new(Some(enrolment)),
            journal,
            rule: rule.clone(),
            nonces: Arc::new(nonces),
            stop,
        };
        node.renew(instance);
        node.fill();
        node.rotate();
        statements::keep(home, &node.keystore, &node.client, &rule, &node.stop);
        Ok(node)
    }

    /// Takes over what changed in the settings' policy file. What runs is not touched: each message is
    /// judged by the former policy or by the new one.
    pub(crate) async fn reload(&self, home: &Home) {
        let reloaded = async {
            let settings = Settings::load(home.dir())?;
            policies::activate_file(&self.keystore, &settings, self.events()).await
        };
        match reloaded.await {
            Ok(()) => tracing::info!("reloaded"),
            Err(failure) => tracing::error!(%failure, "not reloaded; the former policy stays"),
        }
    }

    /// The way of what happens here.
    pub(crate) fn events(&self) -> &Events {
        &self.journal.events
    }

    /// A signing credential lives an hour; the next one is made at its half.
    fn renew(&self, instance: String) {
        let (keystore, endpoint) = (self.keystore.clone(), self.client.endpoint().clone());
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let mut pause = SIGNING_LIFETIME / 2;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let issued = keystore.issue_signing(CONTROL, &instance, SIGNING_LIFETIME).await;
                let renewed = match issued {
                    Ok((key, credential)) => endpoint
                        .identity()
                        .renew(key, Arc::new(credential))
                        .map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                pause = match renewed {
                    Ok(()) => {
                        endpoint.forget_sessions();
                        let component = endpoint.identity().principal().clone();
                        let host = Text::new(&instance);
                        endpoint.events().emit(events::HostRenewed { component, host });
                        SIGNING_LIFETIME / 2
                    }
                    Err(error) => {
                        tracing::error!(%error, "the signing credential could not be renewed");
                        RETRY_RENEWAL
                    }
                };
            }
        });
    }

    /// Copies of keys for component types that read the database themselves are made with the keys;
    /// those that are missing, because a role was made by hand, are made now.
    fn fill(&self) {
        let keystore = self.keystore.clone();
        tokio::spawn(async move {
            match keystore.fill_component_keys().await {
                Ok(0) => {}
                Ok(made) => tracing::info!(made, "copied keys for component types"),
                Err(error) => tracing::error!(%error, "component types may miss keys of theirs"),
            }
        });
    }

    /// Component types' keys to receive with, by schedule: whichever process is first makes them.
    fn rotate(&self) {
        let (keystore, stop) = (self.keystore.clone(), self.stop.clone());
        let events = self.events().clone();
        tokio::spawn(async move {
            let mut failing = false;
            loop {
                let rotated = keystore.rotate_due_components().await;
                for audience in rotated.iter().flatten() {
                    let (component, epoch) = (audience.party.principal.clone(), audience.epoch);
                    let by = "schedule";
                    events.emit(events::ComponentRotated { component, epoch, by });
                }
                if let Some(error) = rotated.as_ref().err().filter(|_| !failing) {
                    tracing::error!(%error, "component types get no new keys by schedule");
                }
                failing = rotated.is_err();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_DUE_EVERY) => {}
                }
            }
        });
    }

    /// What is shown of it.
    pub(crate) fn observer(self: &Arc<Self>) -> Arc<Observer> {
        let node = Arc::downgrade(self);
        let load = move || node.upgrade()?.server.lock().as_ref().map(Server::load);
        Observer::new(Parts {
            client: self.client.clone(),
            claims: self.claims.clone(),
            load: Box::new(load),
            bus: self.bus_watch.clone(),
            journal: self.journal.clone(),
            keystore: Some(self.keystore.clone()),
        })
    }

    /// Lets what runs end, then closes the bus.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        let enrolment = self.enrolment.lock().take();
        if let Some(enrolment) = enrolment {
            enrolment.stop().await;
        }
        let server = self.server.lock().take();
        if let Some(server) = server {
            let cut = server.drain(grace).await;
            if cut > 0 {
                tracing::warn!(cut, "methods were still running and were cut off");
            }
        }
        self.client.close();
        self.transport.close().await;
        self.keystore.clone().close().await;
        self.journal.close().await;
    }
}

async fn identity(keystore: &Keystore, instance: &str) -> Result<Identity> {
    let receive = receive_keys(keystore).await?;
    let (key, signing) = keystore.issue_signing(CONTROL, instance, SIGNING_LIFETIME).await?;
    Ok(Identity::pair(keystore.trust_store(), key, Arc::new(signing), receive)?)
}

/// What the control plane receives with.
async fn receive_keys(keystore: &Keystore) -> bulla_keystore::Result<Vec<ReceiveKey>> {
    let keys = keystore.receive_keys(CONTROL).await?;
    let receive = |(key, credential)| ReceiveKey { credential: Arc::new(credential), key };
    Ok(keys.into_iter().map(receive).collect())
}

/// The host's name as far as it can be a name, unless set.
pub(crate) fn instance_name(settings: &Settings) -> String {
    if let Some(instance) = &settings.control.instance {
        return instance.clone();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
        .take(bulla_seal::principal::MAX_NAME)
        .collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
