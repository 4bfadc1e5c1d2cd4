//! Methods that run now, so that their callers can stop them.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bulla_seal::mutants::{Check, off};
use bulla_seal::{MessageId, Party};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Hashed by the id alone, which is cheap and nearly always enough; compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    id: MessageId,
    sender: Party,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// What runs, by its sender and message id: nobody can name another's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    tokens: Arc<Mutex<HashMap<Key, CancellationToken>>>,
}

/// Takes its entry out when it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    running: Running,
    key: Key,
}

impl Running {
    pub(crate) fn enter(&self, id: MessageId, sender: &Party, token: CancellationToken) -> Entry {
        let key = Key { id, sender: sender.clone() };
        self.tokens.lock().insert(key.clone(), token);
        Entry { running: self.clone(), key }
    }

    pub(crate) fn cancel(&self, id: MessageId, sender: &Party) -> bool {
        let mut token = self.tokens.lock().get(&Key { id, sender: sender.clone() }).cloned();
        if off(Check::CancelOwn) {
            token = self.tokens.lock().iter().find(|(key, _)| key.id == id).map(|(_, t)| t.clone());
        }
        token.is_some_and(|token| {
            token.cancel();
            true
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.tokens.lock().remove(&self.key);
    }
}
