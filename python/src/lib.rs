//! The native half of the Python package `bulla`: sealing, opening, keys and refusals as Python's
//! objects, over the same pipeline as every other service (`bulla`). Nothing here decides anything.
//!
//! A `Peer` (`peer.rs`) is a connection of its own to the deployment's bus, for the directory, statements of
//! revocation, renewal and policies. What a service sends and takes through oslo.messaging's driver comes
//! and goes over `bridge.rs`, on the threads that bring it (`driven.rs`). The interpreter's lock is not held while
//! something is waited for, nor while more than a few kilobytes are sealed or opened.

mod bodies;
mod bridge;
mod call;
mod driven;
mod errand;
mod errors;
mod item;
mod job;
mod key_file;
mod peer;
mod place;
mod runtime;
mod target;
mod wait;

use pyo3::prelude::*;

/// The native half of the package.
#[pymodule]
fn _bulla(module: &Bound<'_, PyModule>) -> PyResult<()> {
    wait::this_is_main();
    errors::add_to(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<peer::Peer>()?;
    module.add_class::<place::Place>()?;
    module.add_class::<place::Sealed>()?;
    module.add_class::<errand::PyErrand>()?;
    module.add_class::<call::Call>()?;
    module.add_class::<job::Job>()?;
    module.add_class::<job::Answer>()?;
    module.add_class::<key_file::KeyFile>()?;
    module.add_class::<target::Target>()
}
