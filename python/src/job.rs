//! A request that passed: its sender is proven, it may run here, and it has not run before.

use std::sync::Arc;

use bulla::{Context, MessageKind, RemoteError};
use bulla_oslo::wire;
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::bridge::{Bridge, Known};
use crate::driven::Driven;
use crate::errors::error;
use crate::item::Item;
use crate::wait::{Cell, detached};

/// What a method's run came to.
pub(crate) type Ran = Result<Item, RemoteError>;

/// A request to run.
pub(crate) struct Work {
    pub(crate) context: Context,
    pub(crate) namespace: Option<String>,
    pub(crate) method: String,
    pub(crate) version: String,
    pub(crate) args: Item,
    pub(crate) done: oneshot::Sender<Ran>,
    /// What follows the method, if the thread that ends it is to do it.
    pub(crate) rest: Option<Arc<Driven>>,
}

/// A request to run, once.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Job {
    context: Context,
    /// Who sent it: `agent/<id>` or `component/<type>`. Proven.
    #[pyo3(get)]
    sender: String,
    /// `call`, `cast`, `fanout` or `notification`.
    #[pyo3(get)]
    kind: &'static str,
    #[pyo3(get)]
    namespace: Option<String>,
    #[pyo3(get)]
    method: String,
    #[pyo3(get)]
    version: String,
    args: Mutex<Option<Item>>,
    done: Mutex<Option<oneshot::Sender<Ran>>>,
    rest: Option<Arc<Driven>>,
    way: Option<wire::Call>,
    /// Which listener of Python's took it; 0 if it came natively.
    #[pyo3(get)]
    listener: u32,
    bridge: Arc<Bridge>,
    runtime: Handle,
}

impl Job {
    pub(crate) fn new(work: Work, bridge: &Arc<Bridge>, runtime: &Handle) -> Self {
        let Work { context, namespace, method, version, args, done, rest } = work;
        let Known { way, listener } = bridge.known_of(context.message_id());
        Self {
            sender: context.sender().principal.to_string(),
            kind: context.kind().as_str(),
            namespace,
            method,
            version,
            args: Mutex::new(Some(args)),
            done: Mutex::new(Some(done)),
            rest,
            way,
            listener,
            bridge: bridge.clone(),
            runtime: runtime.clone(),
            context,
        }
    }

    fn end(&self, ran: Ran) -> Answer {
        let call = self.context.kind() == MessageKind::Call && self.way.is_some();
        let cell = call.then(|| self.bridge.await_reply(self.context.message_id()));
        let ended = self.done.lock().take().is_some_and(|done| done.send(ran).is_ok());
        if !ended {
            // Nobody waits for it: the caller gave up, or it ended before.
            if let Some(cell) = &cell {
                cell.set(None);
            }
        }
        // Sealing it, here and now; what has to wait for something goes on elsewhere.
        if let Some(rest) = &self.rest
            && !rest.poll()
        {
            rest.spawn();
        }
        Answer(cell.zip(self.way.as_ref().map(|way| way.id)), self.bridge.clone())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Nobody ends it any more: its caller is told so.
        if let (Some(done), Some(rest)) = (self.done.get_mut().take(), &self.rest) {
            drop(done);
            rest.spawn();
        }
    }
}

#[pymethods]
impl Job {
    /// Its arguments; once.
    fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.args.lock().take().unwrap_or(Item::Null).into_object(py)
    }

    /// The context that the sender gave along, or None.
    fn context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let context = self.context.context::<Item>().map_err(error)?;
        context.unwrap_or(Item::Null).into_object(py)
    }

    /// Its id, 32 hexadecimal digits.
    #[getter]
    fn message_id(&self) -> String {
        self.context.message_id().to_string()
    }

    /// End of its life, in seconds since 1970.
    #[getter]
    fn expires(&self) -> u64 {
        self.context.expires()
    }

    /// Reply queue, the driver's id of the message, and the caller's patience between two signs of
    /// life; None if it came natively or is not answered.
    #[getter]
    fn way(&self) -> Option<(String, String, Option<f64>)> {
        let way = self.way.as_ref()?;
        let monitor = way.monitor.map(wire::Monitor::secs);
        Some((way.reply_queue.to_string(), way.id.to_string(), monitor))
    }

    /// Whether the caller gave up.
    fn cancelled(&self) -> bool {
        self.context.cancelled().is_cancelled()
    }

    /// Ends it with a value.
    #[pyo3(signature = (value=None, other=None))]
    fn finish(
        &self,
        py: Python<'_>,
        value: Option<&Bound<'_, PyAny>>,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let item = value.map_or(Ok(Item::Null), |value| Item::of(value, other))?;
        Ok(detached(py, item.weight(), || self.end(Ok(item))))
    }

    /// Ends it with an error.
    #[pyo3(signature = (kind, message, details=None, trace=None, other=None))]
    fn fail(
        &self,
        py: Python<'_>,
        kind: &str,
        message: &str,
        details: Option<&Bound<'_, PyAny>>,
        trace: Option<String>,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let mut failure = RemoteError::new(if kind.is_empty() { "Error" } else { kind }, message);
        if let Some(details) = details {
            let item = Item::of(details, other)?;
            failure = failure.with_details(serde_json::to_value(item).map_err(error)?);
        }
        failure.trace = trace;
        Ok(detached(py, 0, || self.end(Err(failure))))
    }

    /// Tells the caller that it still runs.
    #[pyo3(signature = (value=None, other=None))]
    fn progress(
        &self,
        value: Option<&Bound<'_, PyAny>>,
        other: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let item = value.map_or(Ok(Item::Null), |value| Item::of(value, other))?;
        let context = self.context.clone();
        self.runtime.spawn(async move {
            // A sign of life that is lost is followed by the next.
            drop(context.progress(&item).await);
        });
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<bulla.Job {} from {}>", self.method, self.sender)
    }
}

/// The sealed answer to a request, on its way.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Answer(Option<(Arc<Cell<Option<Bytes>>>, wire::Id)>, Arc<Bridge>);

#[pymethods]
impl Answer {
    /// Whether it is there, or that there is none is known.
    fn done(&self) -> bool {
        self.0.as_ref().is_none_or(|(cell, _)| cell.is_set())
    }

    /// Waits for it.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.0.as_ref().map_or(Ok(true), |(cell, _)| cell.wait(py, timeout))
    }

    /// Readable once it is there.
    fn fileno(&self) -> PyResult<i32> {
        self.0.as_ref().map_or(Ok(-1), |(cell, _)| cell.fileno())
    }

    /// The body of the sealed reply, for another to carry; once. None if nothing is to be sent.
    fn body<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let (cell, call) = self.0.as_ref()?;
        let frame = cell.take().flatten()?;
        let id = self.1.ids.next();
        let body = detached(py, frame.len(), || wire::reply(&frame, true, *call, id));
        Some(PyBytes::new(py, &body))
    }
}
