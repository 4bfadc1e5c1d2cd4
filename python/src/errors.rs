//! What goes wrong, as Python's exceptions.

use bulla::{CallError, RemoteError};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::item::Item;

create_exception!(_bulla, Error, PyException, "Something that Bulla could not do, or would not.");
create_exception!(
    _bulla,
    Timeout,
    Error,
    "No answer in time. It says nothing about what the peer did."
);
create_exception!(
    _bulla,
    Unreachable,
    Error,
    "The bus, or who was to be reached over it, can't be reached."
);
create_exception!(
    _bulla,
    Refused,
    Error,
    "A message, a key or a peer does not count. `name` is the refusal's stable name."
);
create_exception!(_bulla, Usage, Error, "This call or setting makes no sense.");
create_exception!(
    _bulla,
    Remote,
    Error,
    "The peer answered with an error under seal. `kind`, `details`, `trace`."
);

/// Something that went wrong here.
pub(crate) fn error(error: impl std::fmt::Display) -> PyErr {
    Error::new_err(error.to_string())
}

/// Why a call, cast or fanout did not succeed.
pub(crate) fn call_error(py: Python<'_>, error: CallError) -> PyErr {
    let text = error.to_string();
    match error {
        CallError::Remote(error) => remote(py, error).unwrap_or_else(|failure| failure),
        CallError::Timeout { .. } => Timeout::new_err(text),
        CallError::Unroutable { .. }
        | CallError::Publish(_)
        | CallError::Transport(_)
        | CallError::Closed => Unreachable::new_err(text),
        CallError::Usage(_) | CallError::Value(_) | CallError::TooLarge { .. } => {
            Usage::new_err(text)
        }
        CallError::Revoked { refusal, .. } => refused(py, refusal.as_str(), &text),
        CallError::UnknownTarget { .. } => refused(py, "unknown-target", &text),
        _ => Error::new_err(text),
    }
}

pub(crate) fn refused(py: Python<'_>, name: &str, text: &str) -> PyErr {
    let refused = Refused::new_err(text.to_owned());
    match refused.value(py).setattr("name", name) {
        Ok(()) => refused,
        Err(failure) => failure,
    }
}

fn remote(py: Python<'_>, error: RemoteError) -> PyResult<PyErr> {
    let made = Remote::new_err(error.to_string());
    let value = made.value(py);
    value.setattr("kind", &error.kind)?;
    value.setattr("message", &error.message)?;
    let details = match error.details {
        Some(details) => {
            let item: Item = serde_json::from_value(*details).map_err(self::error)?;
            item.into_object(py)?
        }
        None => py.None().into_bound(py),
    };
    value.setattr("details", details)?;
    value.setattr("trace", error.trace)?;
    Ok(made)
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("Error", py.get_type::<Error>())?;
    module.add("Timeout", py.get_type::<Timeout>())?;
    module.add("Unreachable", py.get_type::<Unreachable>())?;
    module.add("Refused", py.get_type::<Refused>())?;
    module.add("Usage", py.get_type::<Usage>())?;
    module.add("Remote", py.get_type::<Remote>())
}
