//! The threads behind a peer. They do not outlive a fork: a child opens a peer of its own.

use pyo3::prelude::*;
use tokio::runtime::Handle;

use crate::errors::{Error, error};

pub(crate) struct Runtime {
    inner: Option<tokio::runtime::Runtime>,
    handle: Handle,
    process: u32,
}

impl Runtime {
    pub(crate) fn new() -> PyResult<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let inner = builder.worker_threads(2).thread_name("bulla").enable_all().build();
        let inner = inner.map_err(error)?;
        Ok(Self { handle: inner.handle().clone(), inner: Some(inner), process: std::process::id() })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn check(&self) -> PyResult<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::new_err(
            "it was opened before this process was forked: open one in each process",
        ))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.process == std::process::id() {
            inner.shutdown_background();
        } else {
            // Its threads are the parent's.
            std::mem::forget(inner);
        }
    }
}
