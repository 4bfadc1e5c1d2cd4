//! What other processes did that this one should act on at once.

use std::fmt;

use super::Keystore;
use crate::db::news;
use crate::error::Result;

/// Tells when revocations, group epochs or keys to receive with changed, by whichever process.
///
/// PostgreSQL pushes it (`LISTEN`, on a connection of its own). Other databases push nothing, and a
/// push may be lost with its connection: whoever listens looks now and then all the same.
pub struct News(news::News);

impl News {
    /// Waits for a change; for ever where nothing is pushed. The first comes at once, for what
    /// changed before anybody listened. A future that is dropped loses nothing.
    ///
    /// # Errors
    /// The connection was lost or there is none; the next call makes another.
    pub async fn changed(&mut self) -> Result<()> {
        self.0.next().await
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("News")
    }
}

impl Keystore {
    /// Listens for what other processes change.
    pub fn news(&self) -> News {
        News(news::News::of(&self.db))
    }
}
