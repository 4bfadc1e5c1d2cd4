//! Whom a message is for.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::errors::error;

/// Whom a message is for: `agent/<id>`, `component/<type>`, `component/<type>@<server>` or `group/<name>`.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct Target(pub(crate) Arc<bulla::Target>);

#[pymethods]
impl Target {
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        Ok(Self(Arc::new(text.parse().map_err(error)?)))
    }

    /// A principal or group behind a topic of another name, on the other carrier.
    #[staticmethod]
    #[pyo3(signature = (who, exchange, topic, server=None))]
    fn named(who: &str, exchange: String, topic: String, server: Option<String>) -> PyResult<Self> {
        let target = match who.strip_prefix("group/") {
            Some(group) => {
                let group = bulla::GroupName::new(group).map_err(error)?;
                bulla::Target::NamedGroup { group, exchange, topic }
            }
            None => {
                let principal = who.parse().map_err(error)?;
                bulla::Target::Named { principal, exchange, topic, server }
            }
        };
        Ok(Self(Arc::new(target)))
    }

    fn __repr__(&self) -> String {
        format!("<bulla.Target {}>", self.0)
    }
}
