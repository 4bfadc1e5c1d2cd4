//! Something to publish that no thread of Python's waits to publish.

use bulla_oslo::wire;
use bulla_transport::Address;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::oneshot;

use crate::bridge::{Bridge, Errand};

/// Something to publish that no thread waits to publish.
#[pyclass(frozen, module = "bulla", name = "Errand")]
pub(crate) struct PyErrand {
    /// `reply` or `request`.
    #[pyo3(get)]
    kind: &'static str,
    body: Vec<u8>,
    /// Of a reply: where it goes; of a call: where replies go.
    #[pyo3(get)]
    reply_queue: Option<String>,
    /// Of a request.
    #[pyo3(get)]
    exchange: Option<String>,
    #[pyo3(get)]
    topic: Option<String>,
    #[pyo3(get)]
    server: Option<String>,
    #[pyo3(get)]
    fanout: bool,
    sent: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
}

impl PyErrand {
    pub(crate) fn new(errand: Errand, bridge: &Bridge) -> Self {
        let id = bridge.ids.next();
        match errand {
            Errand::Reply { way, frame, ending } => Self {
                kind: "reply",
                body: wire::reply(&frame, ending, way.id, id),
                reply_queue: Some(way.reply_queue.to_string()),
                exchange: None,
                topic: None,
                server: None,
                fanout: false,
                sent: Mutex::default(),
            },
            Errand::Request { to, frame, reply_queue, sent } => {
                let fanout = matches!(to, Address::Fanout { .. });
                let (exchange, topic, server) = match to {
                    Address::Topic { exchange, topic } | Address::Fanout { exchange, topic } => {
                        (exchange, topic, None)
                    }
                    Address::Server { exchange, topic, server } => (exchange, topic, Some(server)),
                    Address::Reply { exchange, to, .. } => (exchange, to.as_str().to_owned(), None),
                    Address::Foreign { exchange, key } => {
                        (exchange.map(|it| it.name.clone()).unwrap_or_default(), key, None)
                    }
                };
                let call = reply_queue.as_ref().and_then(|queue| bridge.call(queue, None).ok());
                Self {
                    kind: "request",
                    body: wire::request(&frame, call.as_ref(), id),
                    reply_queue,
                    exchange: Some(exchange),
                    topic: Some(topic),
                    server,
                    fanout,
                    sent: Mutex::new(Some(sent)),
                }
            }
        }
    }
}

#[pymethods]
impl PyErrand {
    /// The body of the sealed message.
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body)
    }

    /// It was published, or why not.
    #[pyo3(signature = (error=None))]
    fn done(&self, error: Option<String>) {
        if let Some(sent) = self.sent.lock().take() {
            // Who waited for it may have given up.
            drop(sent.send(error.map_or(Ok(()), Err)));
        }
    }
}
