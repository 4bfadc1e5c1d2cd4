//! A process on the bus, from its key file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bulla_rpc::identity::BusEntry;
use bulla_rpc::{
    Client, Clock, Endpoint, EndpointOptions, KeyFile, RemoteDirectory, Router, SystemClock,
};
use bulla_seal::Principal;
use bulla_transport::{Logins, QueueTransport, RabbitOptions, RabbitTransport, Transport};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::claims::{self, Claims, Owner, default_state};
use crate::error::ConnectError;
use crate::policies::Policies;
use crate::queue::{QUEUE_SCHEME, queue_options};
use crate::serving::{ServeOptions, Serving};
use crate::{renewal, statements};

/// Credentials begin this long before they are issued, for peers whose clock is behind.
pub(crate) const ISSUED_AFTER: Duration = Duration::from_secs(120);

/// One process as one principal on one bus.
///
/// Keep it as long as its client and its servers are used: peers that the key file does not name
/// are looked up through it.
pub struct Connection {
    client: Client,
    directory: RemoteDirectory,
    transport: Arc<dyn Transport>,
    key_file: PathBuf,
    since: Option<u64>,
    renewals: renewal::Asks,
    stop: CancellationToken,
    /// Ends what runs beside it.
    _stop: DropGuard,
}

impl Connection {
    /// Opens a key file and connects to its bus, or to `bus_url` (`amqp://`, `amqps://` or
    /// `queue+https://`) with
    /// the certificates that the key file names. Their paths are relative to the key file's
    /// folder.
    ///
    /// # Errors
    /// The key file can't be used, names no bus and none is given, or the bus can't be reached.
    pub async fn open(
        key_file: impl AsRef<Path>,
        bus_url: Option<&str>,
    ) -> Result<Self, ConnectError> {
        Self::open_around(key_file, bus_url, EndpointOptions::default(), |bus| bus).await
    }

    /// The same with these settings (but the exchange is the key file's), over what `around` makes
    /// of the connection to the bus: another carrier beside it.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_around(
        key_file: impl AsRef<Path>,
        bus_url: Option<&str>,
        mut options: EndpointOptions,
        around: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>,
    ) -> Result<Self, ConnectError> {
        let path = key_file.as_ref();
        let file = KeyFile::read(path)?;
        if let Some(bus) = &file.bus {
            options.exchange.clone_from(&bus.exchange);
        }
        let named = bus_url.or(file.bus.as_ref().map(|bus| bus.url.as_str()));
        if let Some(url) = named.filter(|url| url.starts_with(QUEUE_SCHEME)) {
            let queue = queue_options(&file, path, url)?.max_message(options.max_message);
            let transport = Arc::new(QueueTransport::connect(queue).await?);
            return Self::over(&file, path, transport, options);
        }
        let rabbit = rabbit(path, &file, bus_url)?.max_message(options.max_message);
        // Opened before the broker is troubled: a bad key file is told as such.
        file.open(path, SystemClock.now())?;
        let transport = Arc::new(RabbitTransport::connect(rabbit).await?);
        Self::over(&file, path, around(transport), options)
    }

    /// The same over a transport that is there already. `path` is the key file's, for messages
    /// and for what is kept beside it.
    ///
    /// # Errors
    /// The key file can't be used.
    pub fn over(
        file: &KeyFile,
        path: &Path,
        transport: Arc<dyn Transport>,
        options: EndpointOptions,
    ) -> Result<Self, ConnectError> {
        let (identity, given) = file.open(path, SystemClock.now())?;
        // A shared key has no credential that says since when it is there.
        let since = match identity.initiator() {
            // Nor has one that was renewed.
            _ if file.renewed => None,
            Some(own) => {
                Some(own.credential().validity.not_before.saturating_add(ISSUED_AFTER.as_secs()))
            }
            None => modified(path),
        };
        let directory = RemoteDirectory::new(given)?;
        let for_endpoint = Arc::new(directory.clone());
        let endpoint = Endpoint::new(identity, for_endpoint, transport.clone(), options)?;
        let client = Client::new(endpoint);
        directory.attach(&client);
        let stop = CancellationToken::new();
        statements::keep(&client, &stop);
        let renewals = renewal::keep(&client, file, path, &stop);
        let key_file = path.to_owned();
        let _stop = stop.clone().drop_guard();
        Ok(Self { client, directory, transport, key_file, since, renewals, stop, _stop })
    }

    /// Makes calls, casts and fanouts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The endpoint under client and servers. It takes no second [`Client`]: all calls of one
    /// endpoint share one reply queue.
    pub fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// Where peers are looked up.
    pub fn directory(&self) -> &RemoteDirectory {
        &self.directory
    }

    /// What carries the messages.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Who this process is.
    pub fn principal(&self) -> &Principal {
        self.endpoint().identity().principal()
    }

    /// Serves `router`'s methods: takes what is sent to this principal and to its groups, asking
    /// every 30 s which those are.
    ///
    /// # Errors
    /// The claims can't be kept, the bus can't be consumed from, or this is a component that does
    /// not say that it is the [only host](ServeOptions::only_host).
    pub async fn serve(
        &self,
        router: Router,
        options: ServeOptions,
    ) -> Result<Serving, ConnectError> {
        let default = || Claims::Folder(default_state(&self.key_file));
        let kept = options.claims.clone().unwrap_or_else(default);
        let endpoint = self.endpoint().clone();
        let owner = Owner {
            key_file: &self.key_file,
            party: endpoint.identity().party(),
            since: self.since,
        };
        let store = claims::open(&kept, &owner).await?;
        let agent = self.principal().is_agent();
        let router = self.renewals.offer(router, agent);
        let Some(policies) = self.policies(&options, &kept) else {
            statements::ask_first(&self.client).await;
            return Serving::start(endpoint.clone(), router, store, &options).await;
        };
        tokio::join!(statements::ask_first(&self.client), policies.ask_first());
        let router = if agent { policies.offer(router) } else { router };
        let options = options.authorization(policies.rule());
        let serving = Serving::start(endpoint.clone(), router, store, &options).await?;
        policies.keep(&self.stop);
        Ok(serving)
    }

    /// The policy that the control plane hands out, unless the service has a rule of its own or is
    /// the control plane.
    fn policies(&self, options: &ServeOptions, kept: &Claims) -> Option<Policies> {
        if options.has_authorization() || self.principal().as_str() == "component/control" {
            return None;
        }
        let folder = match kept {
            Claims::Folder(folder) | Claims::Log(folder) => folder.clone(),
            _ => default_state(&self.key_file),
        };
        Some(Policies::open(&self.client, &folder))
    }

    /// Ends: waiting calls end with [`CallError::Closed`](crate::CallError::Closed), and the bus
    /// is left. Drain servers first.
    pub async fn close(self) {
        self.client.close();
        self.transport.close().await;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} on {})", self.principal(), self.transport.name())
    }
}

/// When the file was last written, in Unix seconds.
fn modified(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn rabbit(path: &Path, file: &KeyFile, url: Option<&str>) -> Result<RabbitOptions, ConnectError> {
    let entry = file.bus.as_ref();
    let no_bus = || ConnectError::NoBus { path: path.to_owned() };
    let own = url.is_none();
    let url = url.or(entry.map(|bus| bus.url.as_str())).ok_or_else(no_bus)?;
    let mut options = RabbitOptions::new(url)?.connection_name(&file.principal);
    // A login that is given from outside is not this file's to change.
    if let Some(bus) = entry.filter(|_| own) {
        options = options.logins(Logins::of_urls(bus.urls()));
    }
    match entry {
        // Certificates are for TLS; a plain URL that is given on purpose has no use for them.
        Some(bus) if url.starts_with("amqps:") => with_certificates(options, path, bus),
        _ => Ok(options),
    }
}

fn with_certificates(
    options: RabbitOptions,
    path: &Path,
    bus: &BusEntry,
) -> Result<RabbitOptions, ConnectError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let options = match &bus.ca {
        Some(ca) => options.ca_file(&folder.join(ca))?,
        None => options,
    };
    match (&bus.client_cert, &bus.client_key) {
        (Some(cert), Some(key)) => {
            Ok(options.client_certificate_files(&folder.join(cert), &folder.join(key))?)
        }
        (None, None) => Ok(options),
        _ => Err(ConnectError::HalfCertificate { path: path.to_owned() }),
    }
}
