//! `bulla serve`: one control-plane process.

use std::sync::Arc;
use std::time::Duration;

use bulla_http::{Certificates, Limits, Listener, Options, Token};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::ServeArgs;
use crate::control::bus::Bus;
use crate::control::{ControlNode, Plane};
use crate::failure::{Failure, Result};
use crate::observe::traces::{Service, Traces};
use crate::observe::{self, Door, Notify, Observer};
use crate::output::Output;
use crate::settings::{DEFAULT_LISTEN, Home, Settings};

/// How long what runs may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// A control plane with its API.
pub(crate) struct Running {
    pub(crate) node: Arc<ControlNode>,
    pub(crate) url: String,
    /// Where metrics are served beside the API.
    pub(crate) metrics: Option<String>,
    stop: CancellationToken,
    api: tokio::task::JoinHandle<()>,
    home: Home,
    certificates: Option<Certificates>,
    signals: StopSignals,
    hangup: Signal,
    observer: Arc<Observer>,
    traces: Traces,
    notify: Notify,
    _alive: Option<AbortOnDropHandle<()>>,
}

pub(crate) async fn run(home: &Home, args: &ServeArgs, out: Output) -> Result<()> {
    let settings = settings(home, args)?;
    if settings.bus.url.is_none() {
        return Err(Failure::usage(
            "`bulla serve` needs a broker: give --bus, BULLA_BUS_URL or [bus] url in bulla.toml \
             (`bulla up` has a bus in its own memory)",
        ));
    }
    let bus = Bus::from_settings(&settings.bus, "serve")?;
    let mut running = start(home, &settings, bus).await?;
    out.say(format!("Control plane on {}, API at {}.", running.node.bus.address(), running.url));
    if let Some(metrics) = &running.metrics {
        out.say(format!("Metrics at {metrics}/metrics."));
    }
    running.tell_ready().await;
    running.wait_for_stop().await;
    out.say("Stopping: letting what runs end.");
    running.stop().await;
    Ok(())
}

/// The settings with the flags over them.
pub(crate) fn settings(home: &Home, args: &ServeArgs) -> Result<Settings> {
    let mut settings = Settings::load(home.dir())?;
    if let Some(url) = &args.bus.bus {
        settings.bus.url = Some(url.clone());
    }
    if let Some(listen) = args.listen {
        settings.api.listen = Some(listen);
    }
    settings.api.plain |= args.plain;
    Ok(settings)
}

pub(crate) async fn start(home: &Home, settings: &Settings, bus: Bus) -> Result<Running> {
    // The door first: a port in use should not cost a half-started control plane.
    let listener = listen(home, settings).await?;
    let (url, certificates) = (listener.url(), listener.certificates());
    let door = observe::open_door(settings.metrics.listen).await?;
    let instance = crate::control::instance_name(settings);
    let service = Service { name: "bulla-control", instance: &instance };
    let traces = Traces::start(&settings.traces, &service)?;
    let node = Arc::new(ControlNode::start(home, settings, bus, &traces).await?);
    std::fs::write(home.api_url(), &url).map_err(|error| {
        Failure::new(format!("can't write {}: {error}", home.api_url().display()))
    })?;
    let stop = CancellationToken::new();
    let observer = node.observer();
    let listener = listener.authenticators(node.authenticators(&settings.api)?);
    let router = bulla_api::router(Arc::new(Plane(node.clone())));
    let router = observe::observed(router, &observer);
    let api = tokio::spawn(listener.serve(router, stop.clone()));
    let metrics = door.as_ref().map(Door::url);
    if let Some(door) = door {
        door.serve(observer.clone(), stop.clone());
    }
    let notify = Notify::from_env();
    let alive = observe::keep_informed(&notify, &observer, &stop);
    Ok(Running {
        node,
        url,
        metrics,
        stop,
        api,
        home: home.clone(),
        certificates,
        signals: StopSignals::listen()?,
        hangup: signal(SignalKind::hangup())?,
        observer,
        traces,
        notify,
        _alive: alive,
    })
}

async fn listen(home: &Home, settings: &Settings) -> Result<Listener> {
    let address = match settings.api.listen {
        Some(address) => address,
        None => DEFAULT_LISTEN
            .parse()
            .map_err(|_| Failure::new("the default address can't be parsed"))?,
    };
    let options = if settings.api.plain {
        Options::plain_loopback(address, Token::load_or_create(&home.token())?)?
    } else {
        let files = settings.api.tls.server(home)?;
        Options::tls(address, files.client_certificates(settings.api.client_certificates.into()))
    };
    Ok(Listener::bind(options.limits(Limits::default())).await?)
}

/// Ctrl-C and SIGTERM. Listened for before it is said that something runs: who is told so may stop
/// it at once.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Running {
    /// Until it is to stop; what changed is taken over on SIGHUP meanwhile.
    pub(crate) async fn wait_for_stop(&mut self) {
        loop {
            tokio::select! {
                () = self.signals.wait() => return,
                _ = self.hangup.recv() => {
                    self.notify.reloading();
                    self.reload_certificates();
                    self.node.reload(&self.home).await;
                    self.tell_ready().await;
                }
            }
        }
    }

    fn reload_certificates(&self) {
        if let Some(Err(error)) = self.certificates.as_ref().map(Certificates::reload) {
            tracing::error!(%error, "certificates can't be used; the former ones count on");
        }
    }

    /// Tells the service manager.
    pub(crate) async fn tell_ready(&self) {
        self.notify.ready(&self.observer.status_line().await);
    }

    pub(crate) async fn stop(self) {
        self.notify.stopping();
        self.stop.cancel();
        if let Err(error) = self.api.await {
            tracing::error!(%error, "the API ended badly");
        }
        self.node.stop(GRACE).await;
        self.traces.close().await;
        // Nobody is there any more.
        let _ = std::fs::remove_file(self.home.api_url());
    }
}
