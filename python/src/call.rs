//! A call, cast or fanout that was begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bulla::{CallError, Step};
use bulla_oslo::wire;
use bulla_rpc::Request;
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::Handle;

use crate::bridge::{Bridge, SEALED};
use crate::driven::Driven;
use crate::errors::{Error, call_error};
use crate::item::Item;
use crate::wait::{Cell, detached};

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Call,
    Cast,
    Notify,
    Fanout,
}

/// A call, cast or fanout on its way.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Call {
    state: Arc<State>,
    run: Arc<Driven>,
    bridge: Arc<Bridge>,
}

struct State {
    sealed: Arc<Cell<Option<Bytes>>>,
    done: Cell<Result<Item, CallError>>,
    callbacks: Mutex<Vec<Py<PyAny>>>,
    begun: Instant,
    heard: AtomicU64,
}

impl State {
    fn end(&self, outcome: Result<Item, CallError>) {
        self.done.set(outcome);
        self.sealed.set(None);
        let callbacks = std::mem::take(&mut *self.callbacks.lock());
        if !callbacks.is_empty() {
            Python::attach(|py| {
                for callback in callbacks {
                    if let Err(error) = callback.call0(py) {
                        error.write_unraisable(py, None);
                    }
                }
            });
        }
    }
}

/// Everything that a request is made of.
pub(crate) struct Asked {
    pub(crate) client: bulla::Client,
    pub(crate) target: Arc<bulla::Target>,
    pub(crate) namespace: Option<String>,
    pub(crate) method: String,
    pub(crate) version: String,
    pub(crate) args: Item,
    pub(crate) context: Option<Item>,
    pub(crate) life: std::time::Duration,
    pub(crate) way: Way,
}

impl Asked {
    fn request(&self) -> Result<Request<'_>, CallError> {
        let mut request = self.client.request(&self.target, &self.method).version(&self.version);
        request = request.timeout(self.life).ttl(self.life);
        if let Some(namespace) = &self.namespace {
            request = request.namespace(namespace);
        }
        match &self.context {
            Some(context) => request.context(context),
            None => Ok(request),
        }
    }

    async fn run(&self, heard: impl Fn()) -> Result<Item, CallError> {
        let request = self.request()?;
        match self.way {
            Way::Cast => request.cast(&self.args).await.map(|id| Item::Text(id.to_string())),
            Way::Notify => request.notify(&self.args).await.map(|id| Item::Text(id.to_string())),
            Way::Fanout => request.fanout(&self.args).await.map(|id| Item::Text(id.to_string())),
            Way::Call => {
                let mut steps = request.stream(&self.args).await?;
                loop {
                    match steps.next::<Item, Item>().await {
                        Some(Ok(Step::Progress(_))) => heard(),
                        Some(Ok(Step::Done(value))) => return Ok(value),
                        Some(Err(error)) => return Err(error),
                        None => return Err(CallError::Closed),
                    }
                }
            }
        }
    }

    /// Begins it on this thread as far as it goes without waiting, which for a peer that is known is
    /// until it is sealed. A call is driven on by whoever waits for it, the rest by the runtime.
    pub(crate) fn begin(self, bridge: Arc<Bridge>, runtime: &Handle) -> Call {
        let state = Arc::new(State {
            sealed: Arc::default(),
            done: Cell::default(),
            callbacks: Mutex::default(),
            begun: Instant::now(),
            heard: AtomicU64::new(0),
        });
        let (own, cell, is_call) = (state.clone(), state.sealed.clone(), self.way == Way::Call);
        let run = SEALED.scope(cell, async move {
            let outcome = self.run(|| own.note_progress()).await;
            own.end(outcome);
        });
        let run = Driven::new(Box::pin(run), runtime);
        if !run.poll() && !is_call {
            run.spawn();
        }
        Call { state, run, bridge }
    }
}

impl State {
    fn note_progress(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(since, Ordering::Relaxed);
    }
}

#[pymethods]
impl Call {
    /// Waits until it is sealed, or can't be; whether it is.
    #[pyo3(signature = (timeout=None))]
    fn wait_sealed(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        match self.run.wait(py, || self.state.sealed.is_set(), timeout)? {
            Some(sealed) => Ok(sealed),
            None => self.state.sealed.wait(py, timeout),
        }
    }

    /// Readable once it is sealed, or can't be.
    fn sealed_fileno(&self) -> PyResult<i32> {
        self.run.spawn();
        self.state.sealed.fileno()
    }

    /// Whether it is sealed, or can't be.
    fn is_sealed(&self) -> bool {
        self.state.sealed.is_set()
    }

    /// Whether there is a sealed message to carry.
    fn has_frame(&self) -> bool {
        self.state.sealed.look(|frame| matches!(frame, Some(Some(_))))
    }

    /// The body of the sealed message, for another to carry; once. None if there is none. Of a call with
    /// the queue that replies come to, and the longest time between two signs of life, in seconds.
    #[pyo3(signature = (reply_queue=None, monitor=None))]
    fn body<'py>(
        &self,
        py: Python<'py>,
        reply_queue: Option<&str>,
        monitor: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let call = reply_queue.map(|queue| self.bridge.call(queue, monitor)).transpose()?;
        let Some(frame) = self.state.sealed.take().flatten() else { return Ok(None) };
        let id = self.bridge.ids.next();
        let body = detached(py, frame.len(), || wire::request(&frame, call.as_ref(), id));
        Ok(Some(PyBytes::new(py, &body)))
    }

    /// Waits for its end; whether it ended.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        match self.run.wait(py, || self.state.done.is_set(), timeout)? {
            Some(done) => Ok(done),
            None => self.state.done.wait(py, timeout),
        }
    }

    /// Readable once it ended.
    fn fileno(&self) -> PyResult<i32> {
        self.run.spawn();
        self.state.done.fileno()
    }

    /// Whether it ended.
    fn done(&self) -> bool {
        self.state.done.is_set()
    }

    /// How long ago the peer was last heard, or it was begun, in seconds.
    fn silent_for(&self) -> f64 {
        let heard = self.state.heard.load(Ordering::Relaxed);
        (self.state.begun.elapsed().as_secs_f64() - heard as f64 / 1000.0).max(0.0)
    }

    /// Calls `callback` without arguments when it ended, on a thread of the runtime.
    fn on_done(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        self.run.spawn();
        let mut callbacks = self.state.callbacks.lock();
        if self.state.done.is_set() {
            drop(callbacks);
            return callback.call0(py).map(drop);
        }
        callbacks.push(callback);
        Ok(())
    }

    /// Its result, or why there is none; once.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.state.done.take() {
            Some(Ok(item)) => item.into_object(py),
            Some(Err(error)) => Err(call_error(py, error)),
            None => Err(Error::new_err("it has not ended, or its result was taken")),
        }
    }

    /// Gives it up, and tells the peer to stop.
    fn cancel(&self) {
        self.run.abort();
    }
}
