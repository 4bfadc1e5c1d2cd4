//! Queue services as the bus: requests are signed with the key of a key file, so that it holds no
//! credential of a broker.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bulla_rpc::{Clock, HttpKey, KeyFile, SystemClock};
use bulla_transport::{QueueOptions, RequestKey};

use crate::error::ConnectError;

/// What the address of a queue service begins with.
pub const QUEUE_SCHEME: &str = "queue+";

/// How to reach the queue service at `url` as the principal of a key file, whose place is `path`.
///
/// # Errors
/// The address or the key file can't be used.
pub fn queue_options(file: &KeyFile, path: &Path, url: &str) -> Result<QueueOptions, ConnectError> {
    let mut options = QueueOptions::new(url)?;
    if let Some(bus) = &file.bus {
        let folder = path.parent().unwrap_or(Path::new(""));
        options = match (&bus.ca_pem, &bus.ca) {
            (Some(pem), _) => options.ca(pem.as_bytes()),
            (None, Some(ca)) => options.ca_file(&folder.join(ca))?,
            (None, None) => options,
        };
    }
    Ok(match FileKey::new(file, path)? {
        Some(key) => options.key(std::sync::Arc::new(key)),
        None => options,
    })
}

/// The key of a key file. It is read again when the service does not take it: it may have been renewed.
struct FileKey {
    path: PathBuf,
    held: Mutex<HttpKey>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileKey {
    fn new(file: &KeyFile, path: &Path) -> Result<Option<Self>, ConnectError> {
        let held = read(file, path)?;
        Ok(held.map(|held| Self { path: path.to_owned(), held: Mutex::new(held) }))
    }
}

fn read(file: &KeyFile, path: &Path) -> Result<Option<HttpKey>, ConnectError> {
    Ok(file.http_key(path, SystemClock.now())?)
}

impl RequestKey for FileKey {
    fn id(&self) -> String {
        self.held.lock().map(|held| held.id().to_owned()).unwrap_or_default()
    }

    fn algorithm(&self) -> &'static str {
        // Nobody panics while it is held.
        self.held.lock().map_or("ed25519", |held| held.algorithm())
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
        self.held.lock().ok().and_then(|held| held.sign(text)).unwrap_or_default()
    }

    fn refused(&self) {
        let newer = KeyFile::read(&self.path).ok().and_then(|file| read(&file, &self.path).ok());
        if let (Some(Some(newer)), Ok(mut held)) = (newer, self.held.lock()) {
            *held = newer;
        }
    }
}
