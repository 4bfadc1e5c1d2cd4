//! The certificates of a listener, which may be renewed while it serves.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::certs::CertError;
use crate::tls::{self, ServerTls};

/// How often it is looked whether a file changed.
const LOOK: Duration = Duration::from_secs(2);

/// The certificates that connections are shaken hands with from now on. Connections that are open
/// keep those that they began with.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    files: ServerTls,
    now: RwLock<Now>,
}

struct Now {
    acceptor: TlsAcceptor,
    stamps: Vec<Stamp>,
}

/// What tells one state of a file from another; `None` while it is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Certificates {
    pub(crate) fn load(files: ServerTls) -> Result<Self, CertError> {
        let now = read(&files)?;
        Ok(Self(Arc::new(Inner { files, now: RwLock::new(now) })))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// One of them can't be used; what counted before counts on.
    pub fn reload(&self) -> Result<(), CertError> {
        let now = read(&self.0.files)?;
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        info!(certificate = %self.0.files.certificate.display(), "certificates were read again");
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }

    /// Reads the files again whenever they changed.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let mut tried = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let found = stamps(&self.0.files);
            let held = self.0.now.read().unwrap_or_else(PoisonError::into_inner).stamps.clone();
            // Certificate and key are written one after the other: what does not fit yet is told of
            // once, and tried again when more has changed.
            if found == held || tried.as_ref() == Some(&found) {
                continue;
            }
            if let Err(error) = self.reload() {
                error!(%error, "certificates changed and can't be used; the former ones count on");
            }
            tried = Some(found);
        }
    }
}

fn read(files: &ServerTls) -> Result<Now, CertError> {
    // Before the files: what changes meanwhile is seen the next time.
    let stamps = stamps(files);
    Ok(Now { acceptor: TlsAcceptor::from(tls::server_config(files)?), stamps })
}

fn stamps(files: &ServerTls) -> Vec<Stamp> {
    let of = |path: &PathBuf| stamp(path);
    [&files.certificate, &files.key, &files.client_ca].map(of).into()
}

fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}
