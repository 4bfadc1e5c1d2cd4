//! One process as one principal, for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla::{
    Claims, Client, Connection, Context, EndpointOptions, Method, RemoteError, Router,
    ServeOptions, Serving, SharedClaims,
};
use bulla_oslo::wire::Malformed;
use bulla_rpc::{NamedGroup, Version};
use bulla_seal::Refusal;
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};
use tokio::sync::oneshot;

use crate::bodies;
use crate::bridge::{self, Bridge, Carriers, Handed, Known, NotTaken};
use crate::call::{self, Asked, Call};
use crate::errand::PyErrand;
use crate::errors::{Error, Usage, error, refused};
use crate::item::Item;
use crate::job::{Job, Work};
use crate::place::{Place, Sealed};
use crate::runtime::Runtime;
use crate::target::Target;
use crate::wait::{Queue, detached};

/// One process as one principal on its deployment's bus.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Peer {
    runtime: Runtime,
    bridge: Arc<Bridge>,
    work: Arc<Queue<Next>>,
    open: Mutex<Option<Open>>,
    principal: String,
    key_file: PathBuf,
}

/// What a server is to look at next.
enum Next {
    Sealed(Box<Work>),
    /// Something of Python's own, that waits in the same queue.
    Other(Py<PyAny>),
}

struct Open {
    connection: Arc<Connection>,
    carried: Option<Client>,
    serving: Option<Arc<Serving>>,
}

impl Peer {
    fn with<T>(&self, what: impl FnOnce(&mut Open) -> PyResult<T>) -> PyResult<T> {
        self.runtime.check()?;
        let mut open = self.open.lock();
        open.as_mut().map_or_else(|| Err(Error::new_err("it was closed")), what)
    }

    /// The client whose replies go to this queue, or natively.
    fn client(&self, reply_queue: Option<&str>) -> PyResult<Client> {
        self.with(|open| {
            let Some(queue) = reply_queue else { return Ok(open.connection.client().clone()) };
            if let Some(client) = open.carried.as_ref().filter(|c| c.reply_name().as_str() == queue)
            {
                return Ok(client.clone());
            }
            let client = open.connection.client().with_reply_queue(queue).map_err(error)?;
            open.carried = Some(client.clone());
            Ok(client)
        })
    }

    /// Hands a reply over to whom it answers.
    fn take(&self, py: Python<'_>, reply_queue: &str, frame: Bytes) -> PyResult<()> {
        self.runtime.check()?;
        let client = self.client(Some(reply_queue))?;
        detached(py, frame.len(), || {
            let _inside = self.runtime.handle().enter();
            client.take_reply(frame);
        });
        Ok(())
    }

    /// Counts what is not in the form that a carrier's messages have.
    fn malformed(&self, py: Python<'_>, malformed: Malformed) -> PyErr {
        let name = Refusal::Malformed.as_str();
        let counted = self.with(|open| {
            open.connection.endpoint().counters().refuse(name);
            Ok(())
        });
        counted.err().unwrap_or_else(|| refused(py, name, &malformed.to_string()))
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn begin(
        &self,
        py: Python<'_>,
        way: call::Way,
        target: &Target,
        method: String,
        args: &Bound<'_, PyAny>,
        namespace: Option<String>,
        version: String,
        context: Option<&Bound<'_, PyAny>>,
        life: f64,
        reply_queue: Option<&str>,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let life = Duration::try_from_secs_f64(life)
            .map_err(|_| Usage::new_err("a message lives longer than nothing"))?;
        let asked = Asked {
            client: self.client(reply_queue)?,
            target: target.0.clone(),
            namespace,
            method,
            version,
            args: Item::of(args, other)?,
            context: context.map(|context| Item::of(context, other)).transpose()?,
            life,
            way,
        };
        let weight = asked.args.weight() + asked.context.as_ref().map_or(0, Item::weight);
        Ok(detached(py, weight, || asked.begin(self.bridge.clone(), self.runtime.handle())))
    }
}

#[pymethods]
impl Peer {
    /// Opens a key file and connects to its bus, or to `bus` (`amqp://` or `amqps://`). `groups` are
    /// groups behind topics: (exchange, topic, group).
    #[staticmethod]
    #[pyo3(signature = (key_file, bus=None, groups=Vec::new()))]
    fn open(
        py: Python<'_>,
        key_file: PathBuf,
        bus: Option<String>,
        groups: Vec<(String, String, String)>,
    ) -> PyResult<Self> {
        let named = |(exchange, topic, group): (String, String, String)| {
            let group = bulla::GroupName::new(&group).map_err(error)?;
            Ok(NamedGroup { exchange, topic, group })
        };
        let groups = groups.into_iter().map(named).collect::<PyResult<_>>()?;
        let options = EndpointOptions { groups, ..EndpointOptions::default() };
        let runtime = Runtime::new()?;
        let bridge = Arc::<Bridge>::default();
        let file = bulla::KeyFile::read(&key_file).map_err(error)?;
        let exchange = file.bus.as_ref().map_or(&options.exchange, |bus| &bus.exchange).clone();
        let beside = bridge.clone();
        let around = move |native| Arc::new(Carriers { native, bridge: beside, exchange }) as _;
        let opened = Connection::open_around(&key_file, bus.as_deref(), options, around);
        let connection = py.detach(|| runtime.handle().block_on(opened)).map_err(error)?;
        let principal = connection.principal().to_string();
        let open = Open { connection: Arc::new(connection), carried: None, serving: None };
        Ok(Self {
            runtime,
            bridge,
            work: Arc::default(),
            open: Mutex::new(Some(open)),
            principal,
            key_file,
        })
    }

    /// Who this process is.
    #[getter]
    fn principal(&self) -> &str {
        &self.principal
    }

    /// Begins a call.
    #[pyo3(signature = (target, method, args, *, namespace=None, version="1.0".to_owned(), context=None, timeout=60.0, reply_queue=None, other=None))]
    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn call(
        &self,
        py: Python<'_>,
        target: &Target,
        method: String,
        args: &Bound<'_, PyAny>,
        namespace: Option<String>,
        version: String,
        context: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        reply_queue: Option<&str>,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        self.begin(
            py,
            call::Way::Call,
            target,
            method,
            args,
            namespace,
            version,
            context,
            timeout,
            reply_queue,
            other,
        )
    }

    /// Begins a cast, a fanout or a notification: what is not answered.
    #[pyo3(signature = (target, method, args, *, kind="cast", namespace=None, version="1.0".to_owned(), context=None, life=3600.0, other=None))]
    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn send(
        &self,
        py: Python<'_>,
        target: &Target,
        method: String,
        args: &Bound<'_, PyAny>,
        kind: &str,
        namespace: Option<String>,
        version: String,
        context: Option<&Bound<'_, PyAny>>,
        life: f64,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let way = match kind {
            "cast" => call::Way::Cast,
            "fanout" => call::Way::Fanout,
            "notification" => call::Way::Notify,
            _ => return Err(Usage::new_err("a message is a cast, a fanout or a notification")),
        };
        self.begin(py, way, target, method, args, namespace, version, context, life, None, other)
    }

    /// Takes requests from now on: what is sent to this principal natively, and what `listen` names.
    /// `claims` is where to remember what ran: a folder, `memory`, or the address of a shared store.
    /// `log`: in a folder, as a log that nobody waits for the disk for, where the bus is told before a
    /// method runs anyway.
    #[pyo3(signature = (*, open_to_agents=Vec::new(), open_to_components=Vec::new(), claims=None, log=false, only_host=false, concurrency=None))]
    #[expect(clippy::too_many_arguments, reason = "how a server is set")]
    fn serve(
        &self,
        py: Python<'_>,
        open_to_agents: Vec<String>,
        open_to_components: Vec<String>,
        claims: Option<String>,
        log: bool,
        only_host: bool,
        concurrency: Option<usize>,
    ) -> PyResult<()> {
        let connection = self.with(|open| match open.serving {
            Some(_) => Err(Usage::new_err("it serves already")),
            None => Ok(open.connection.clone()),
        })?;
        let mut options = ServeOptions::new();
        let kept = |folder: PathBuf| if log { Claims::Log(folder) } else { Claims::Folder(folder) };
        options = match claims.as_deref() {
            None => options.claims(kept(bulla::default_state(&self.key_file))),
            Some("memory") => options.claims(Claims::Memory),
            Some(url) if url.contains("://") => {
                options.claims(Claims::Shared(SharedClaims::new(url).map_err(error)?))
            }
            Some(folder) => options.claims(kept(folder.into())),
        };
        if only_host {
            options = options.only_host();
        }
        if let Some(concurrency) = concurrency {
            options = options.concurrency(concurrency.max(1));
        }
        let router = router(&self.bridge, self.work.clone(), open_to_agents, open_to_components);
        let serving =
            py.detach(|| self.runtime.handle().block_on(connection.serve(router, options)));
        let serving = Arc::new(serving.map_err(error)?);
        self.bridge.serve(&serving.shared());
        self.runtime.handle().spawn(self.bridge.parked.clone().watch());
        self.with(|open| {
            open.serving = Some(serving);
            Ok(())
        })
    }

    /// Takes requests from a place of the other carrier too, of which `deliver` brings them.
    fn listen(&self, py: Python<'_>, place: &Place) -> PyResult<()> {
        let serving = self.with(|open| {
            open.serving.clone().ok_or_else(|| Usage::new_err("it does not serve yet"))
        })?;
        let consumed =
            py.detach(|| self.runtime.handle().block_on(serving.server().consume(&place.0)));
        consumed.map_err(error)
    }

    /// Reads the body of a sealed request that came; nothing of it is believed yet.
    fn read(&self, py: Python<'_>, body: &[u8]) -> PyResult<Sealed> {
        let read = detached(py, body.len(), || bodies::request(body));
        let (frame, way) = read.map_err(|malformed| self.malformed(py, malformed))?;
        Ok(Sealed { frame, way })
    }

    /// The same; None if it is no sealed request, or not in the form that one has.
    #[staticmethod]
    fn read_if_sealed(py: Python<'_>, body: &Bound<'_, PyAny>) -> Option<Sealed> {
        let body = bodies::bytes_of(body)?;
        let (frame, way) = detached(py, body.len(), || bodies::request(body)).ok()?;
        Some(Sealed { frame, way })
    }

    /// Hands a request over that was taken from that place. It gives the request to run,
    /// if it may run at once; True if it is on its way; False if it has to wait because too many do.
    /// `listener` says on the job who took it.
    #[pyo3(signature = (place, sealed, listener=0))]
    fn deliver(
        &self,
        py: Python<'_>,
        place: &Place,
        sealed: &Sealed,
        listener: u32,
    ) -> PyResult<Py<PyAny>> {
        self.runtime.check()?;
        let runtime = self.runtime.handle();
        let (frame, known) = (sealed.frame.clone(), Known { way: sealed.way.clone(), listener });
        let handed =
            detached(py, frame.len(), || self.bridge.deliver(&place.0, frame, known, runtime));
        let flag = |flag: bool| Ok(PyBool::new(py, flag).to_owned().into_any().unbind());
        match handed {
            Ok(Handed::Work(work)) => {
                Ok(Py::new(py, Job::new(*work, &self.bridge, runtime))?.into_any())
            }
            Ok(Handed::On) => flag(true),
            Err(NotTaken::Full) => flag(false),
            Err(NotTaken::NoInbox) => Err(Usage::new_err("nobody listens there")),
        }
    }

    /// Hands over the body of a sealed reply that was taken from that reply queue.
    fn deliver_reply(&self, py: Python<'_>, reply_queue: &str, body: &[u8]) -> PyResult<()> {
        let read = detached(py, body.len(), || bodies::reply(body));
        let frame = read.map_err(|malformed| self.malformed(py, malformed))?;
        self.take(py, reply_queue, frame)
    }

    /// The same; False if it is no sealed reply, or not in the form that one has.
    fn deliver_if_sealed(
        &self,
        py: Python<'_>,
        reply_queue: &str,
        body: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let Some(body) = bodies::bytes_of(body) else { return Ok(false) };
        let Ok(frame) = detached(py, body.len(), || bodies::reply(body)) else { return Ok(false) };
        self.take(py, reply_queue, frame).map(|()| true)
    }

    /// The next request to run, or what was pushed, waited for; None after the timeout.
    #[pyo3(signature = (timeout=None))]
    fn next_job(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let next = match timeout {
            Some(0.0) => self.work.take(),
            timeout => self.work.wait(py, timeout)?,
        };
        match next {
            Some(Next::Sealed(work)) => {
                Ok(Py::new(py, Job::new(*work, &self.bridge, self.runtime.handle()))?.into_any())
            }
            Some(Next::Other(thing)) => Ok(thing),
            None => Ok(py.None()),
        }
    }

    /// Puts something in among the requests to run.
    fn push(&self, thing: Py<PyAny>) {
        self.work.push(Next::Other(thing));
    }

    /// Readable while there is a request to run.
    fn jobs_fileno(&self) -> PyResult<i32> {
        self.work.fileno()
    }

    /// How many requests were handed over and did not come out yet, as jobs or refused.
    fn pending(&self) -> usize {
        self.bridge.unjudged() + self.work.len()
    }

    /// The next message to be published that no thread waits to publish, waited for.
    #[pyo3(signature = (timeout=None))]
    fn next_errand(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<PyErrand>> {
        let errand = match timeout {
            Some(0.0) => self.bridge.errands.take(),
            timeout => self.bridge.errands.wait(py, timeout)?,
        };
        Ok(errand.map(|errand| PyErrand::new(errand, &self.bridge)))
    }

    /// Readable while there is such a message.
    fn errands_fileno(&self) -> PyResult<i32> {
        self.bridge.errands.fileno()
    }

    /// How often what was refused, by its stable name.
    fn refusals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let refused = self.with(|open| Ok(open.connection.endpoint().counters().refusals()))?;
        let counts = PyDict::new(py);
        for (name, count) in refused {
            counts.set_item(name, count)?;
        }
        Ok(counts)
    }

    /// How many requests came again and did not run again.
    fn duplicates(&self) -> PyResult<u64> {
        self.with(|open| Ok(open.connection.endpoint().counters().duplicates.get()))
    }

    /// How many requests were denied to their senders.
    fn denied(&self) -> PyResult<u64> {
        self.with(|open| Ok(open.connection.endpoint().counters().denied.get()))
    }

    /// Takes nothing new, lets what runs end within `grace` seconds, and leaves the bus.
    #[pyo3(signature = (grace=0.0))]
    fn close(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        if self.runtime.check().is_err() {
            return Ok(());
        }
        let Some(open) = self.open.lock().take() else { return Ok(()) };
        let grace = Duration::try_from_secs_f64(grace).unwrap_or_default();
        py.detach(|| {
            self.runtime.handle().block_on(async {
                if let Some(serving) = open.serving.and_then(Arc::into_inner) {
                    serving.drain(grace).await;
                }
                if let Some(client) = open.carried {
                    client.close();
                }
                open.connection.client().close();
                open.connection.transport().close().await;
            });
            self.work.close();
            self.bridge.close();
        });
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<bulla.Peer {}>", self.principal)
    }
}

/// Every method goes to Python, which knows what there is; what a component opens is said by name.
fn router(
    bridge: &Arc<Bridge>,
    work: Arc<Queue<Next>>,
    agents: Vec<String>,
    components: Vec<String>,
) -> Router {
    let bridge = bridge.clone();
    let open = |list: &[String], full: &str| list.iter().any(|open| open == "*" || open == full);
    Router::new().others(move |namespace, name, asked: Version| {
        let (work, own) = (work.clone(), (namespace.map(str::to_owned), name.to_owned()));
        let bridge = bridge.clone();
        let handler = move |context: Context, args: Item| {
            let request = context.message_id();
            let (done, ran) = oneshot::channel();
            let (namespace, method) = own.clone();
            let version = asked.to_string();
            let asked = Work { context, namespace, method, version, args, done, rest: None };
            if let Some(asked) = bridge::kept(asked) {
                work.push(Next::Sealed(Box::new(asked)));
            }
            bridge.judged(request);
            async move {
                let lost = |_| RemoteError::new(bulla::kinds::INTERNAL, "the method was given up");
                ran.await.unwrap_or_else(|gone| Err(lost(gone)))
            }
        };
        let mut method = Method::new(name, handler).version(asked.major, asked.minor);
        if let Some(namespace) = namespace {
            method = method.namespace(namespace);
        }
        let (to_agents, to_components) =
            (open(&agents, method.full_name()), open(&components, method.full_name()));
        method = if to_agents { method.open_to_agents() } else { method };
        Some(if to_components { method.open_to_components() } else { method })
    })
}
