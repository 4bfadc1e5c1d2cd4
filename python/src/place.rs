//! Where messages are taken from, and what was taken there.

use bulla_oslo::wire::Call;
use bulla_transport::Inbox;
use bytes::Bytes;
use pyo3::prelude::*;

/// Where messages are taken from.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Place(pub(crate) Inbox);

#[pymethods]
impl Place {
    /// The queue of a topic, that of one of its servers, or that of one member behind its fanout.
    #[new]
    #[pyo3(signature = (exchange, topic, *, server=None, member=None))]
    fn new(
        exchange: String,
        topic: String,
        server: Option<String>,
        member: Option<String>,
    ) -> Self {
        Self(match (server, member) {
            (Some(server), _) => Inbox::Server { exchange, topic, server },
            (None, Some(member)) => Inbox::Fanout { exchange, topic, member },
            (None, None) => Inbox::Topic { exchange, topic },
        })
    }
}

/// A sealed message that was read and not opened yet: nothing of it is believed.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Sealed {
    pub(crate) frame: Bytes,
    pub(crate) way: Option<Call>,
}
