//! Why a process can't be on the bus.

use std::io;
use std::path::PathBuf;

use bulla_guard::StoreError;
use bulla_rpc::{KeyFileError, ServeError};
use bulla_seal::{NameError, RandomFailed};
use bulla_transport::TransportError;
use thiserror::Error;

use crate::shared::AddressError;

/// A connection could not be opened, or nothing can be served over it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The key file can't be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Nobody said where the bus is.
    #[error(
        "{path} names no bus, and no other was given: give its URL, or make the key file on a \
         deployment that has one",
        path = path.display()
    )]
    NoBus {
        /// The key file.
        path: PathBuf,
    },
    /// A client certificate without its key, or the other way round.
    #[error(
        "{path} has only one of `client-cert` and `client-key`; give both or none",
        path = path.display()
    )]
    HalfCertificate {
        /// The key file.
        path: PathBuf,
    },
    /// The bus can't be reached or used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The folder for the claims can't be used.
    #[error(
        "can't use the folder {path} to remember which messages ran: {source}; give one that this \
         user can write to",
        path = path.display()
    )]
    State {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The claims can't be kept.
    #[error(transparent)]
    Claims(#[from] StoreError),
    /// The address of the claims can't be used.
    #[error(transparent)]
    ClaimsAddress(#[from] AddressError),
    /// The server could not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A name can't be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}
