//! What a key file says that is no secret.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::error;

/// A key file: who its holder is. Secrets stay in it.
#[pyclass(frozen, module = "bulla")]
pub(crate) struct KeyFile {
    #[pyo3(get)]
    principal: String,
    #[pyo3(get)]
    incarnation: u32,
    #[pyo3(get)]
    trust_domain: String,
    /// The exchange of the deployment itself, if the file names a bus.
    #[pyo3(get)]
    exchange: Option<String>,
}

#[pymethods]
impl KeyFile {
    /// Reads and checks a key file.
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        use bulla_rpc::Clock;
        let file = bulla::KeyFile::read(&path).map_err(error)?;
        file.open(&path, bulla_rpc::SystemClock.now()).map_err(error)?;
        Ok(Self {
            principal: file.principal.clone(),
            incarnation: file.incarnation,
            trust_domain: file.trust_domain.clone(),
            exchange: file.bus.as_ref().map(|bus| bus.exchange.clone()),
        })
    }

    fn __repr__(&self) -> String {
        format!("<bulla.KeyFile {} #{}>", self.principal, self.incarnation)
    }
}
