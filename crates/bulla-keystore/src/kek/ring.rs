//! The KEKs that a process holds. During a rotation there are two of them, and both are good.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_seal::{Principal, Secret};
use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use super::wrap::id_of;
use super::{Kek, KekError, Row, WrapKey};
use crate::error::{KeystoreError, Result};

/// How soon the provider is asked again for a key that it did not have.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Look = dyn Fn() -> Result<Vec<Kek>, KekError> + Send + Sync;

/// The KEKs that a process holds. Cheap to clone; all clones share their keys.
///
/// When it meets a value that was wrapped under a key that it does not know, it looks at its
/// provider again, so that a running process goes through a rotation without a restart. What it
/// held once it keeps until the process ends: a value may have been read just before it was
/// rewrapped.
#[derive(Clone)]
pub struct KekRing(Arc<Inner>);

struct Inner {
    keys: RwLock<Vec<Kek>>,
    look: Option<Box<Look>>,
    missed: Mutex<Missed>,
}

/// The last look that did not help.
#[derive(Default)]
struct Missed {
    at: Option<([u8; 8], Instant)>,
    why: Option<String>,
}

impl KekRing {
    /// The keys that `look` finds now, and what it finds when it is asked again. `look` may wait
    /// for a token.
    ///
    /// # Errors
    /// What `look` fails with now.
    pub fn watching(
        look: impl Fn() -> Result<Vec<Kek>, KekError> + Send + Sync + 'static,
    ) -> Result<Self, KekError> {
        let keys = look()?;
        Ok(Self::new(keys, Some(Box::new(look))))
    }

    fn new(keys: Vec<Kek>, look: Option<Box<Look>>) -> Self {
        Self(Arc::new(Inner { keys: RwLock::new(keys), look, missed: Mutex::default() }))
    }

    /// Adds a key to those that it holds.
    pub fn add(&self, kek: Kek) {
        let mut keys = self.0.keys.write();
        if !keys.iter().any(|held| held.id() == kek.id()) {
            keys.push(kek);
        }
    }

    /// The ids of the keys that it holds.
    pub fn ids(&self) -> Vec<[u8; 8]> {
        self.0.keys.read().iter().map(Kek::id).collect()
    }

    /// The first one: what a new keystore is wrapped under.
    pub(crate) fn first(&self) -> Option<Kek> {
        self.0.keys.read().first().cloned()
    }

    /// That it holds none.
    pub(crate) fn none(&self) -> KeystoreError {
        self.missing([0; 8])
    }

    /// The key with that id, if it holds it or its provider has it now.
    pub fn find(&self, id: [u8; 8]) -> Option<Kek> {
        self.search(id, |kek| (kek.id() == id).then(|| kek.clone()))
    }

    /// [`find`](Self::find), or what is missing.
    pub(crate) fn get(&self, id: &[u8]) -> Result<Kek> {
        let named = id.try_into().map_err(|_| KeystoreError::damaged("KEK id"))?;
        self.find(named).ok_or_else(|| self.missing(named))
    }

    /// Opens what one of its keys wrapped for `row`; `what` names the value in an error.
    pub(crate) fn open(
        &self,
        row: &Row<'_>,
        wrapped: &[u8],
        what: impl Into<String>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.open_with(row, wrapped, what, |kek| kek.wrap_key().clone())
    }

    /// [`open`](Self::open) for a value of exactly `N` bytes.
    pub(crate) fn open_fixed<const N: usize>(
        &self,
        row: &Row<'_>,
        wrapped: &[u8],
        what: impl Into<String>,
    ) -> Result<Secret<N>> {
        let what = what.into();
        let value = self.open(row, wrapped, &what)?;
        Secret::from_slice(&value).ok_or(KeystoreError::Damaged { what })
    }

    /// [`open`](Self::open) for what belongs to one component type alone.
    pub(crate) fn open_for(
        &self,
        component: &Principal,
        row: &Row<'_>,
        wrapped: &[u8],
        what: impl Into<String>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.open_with(row, wrapped, what, |kek| kek.for_component(component))
    }

    /// [`open_for`](Self::open_for) for a value of exactly `N` bytes.
    pub(crate) fn open_fixed_for<const N: usize>(
        &self,
        component: &Principal,
        row: &Row<'_>,
        wrapped: &[u8],
        what: impl Into<String>,
    ) -> Result<Secret<N>> {
        let what = what.into();
        let value = self.open_for(component, row, wrapped, &what)?;
        Secret::from_slice(&value).ok_or(KeystoreError::Damaged { what })
    }

    fn open_with(
        &self,
        row: &Row<'_>,
        wrapped: &[u8],
        what: impl Into<String>,
        key: impl Fn(&Kek) -> WrapKey,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let what = what.into();
        let Some(id) = id_of(wrapped) else { return Err(KeystoreError::Damaged { what }) };
        let found = self.search(id, |kek| Some(key(kek)).filter(|key| key.id() == id));
        let key = found.ok_or_else(|| self.missing(id))?;
        key.unwrap(row, wrapped).map_err(|_| KeystoreError::Damaged { what })
    }

    fn search<T>(&self, id: [u8; 8], pick: impl Fn(&Kek) -> Option<T>) -> Option<T> {
        let held = || self.0.keys.read().iter().find_map(&pick);
        held().or_else(|| {
            self.look_again(id);
            held()
        })
    }

    /// Asks the provider, unless it was asked for this very key a moment ago.
    fn look_again(&self, id: [u8; 8]) {
        let Some(look) = &self.0.look else { return };
        // Held while the provider is asked: others that miss the same key wait for its answer.
        let mut missed = self.0.missed.lock();
        if missed.at.is_some_and(|(missing, at)| missing == id && at.elapsed() < LOOK_AGAIN) {
            return;
        }
        *missed = Missed { at: Some((id, Instant::now())), why: None };
        match look() {
            Ok(found) => found.into_iter().for_each(|kek| self.add(kek)),
            Err(error) => missed.why = Some(error.to_string()),
        }
    }

    fn missing(&self, id: [u8; 8]) -> KeystoreError {
        let held: Vec<String> = self.ids().iter().map(hex::encode).collect();
        let why = self.0.missed.lock().why.clone();
        KeystoreError::WrongKek {
            needed: hex::encode(id),
            held: if held.is_empty() { "none".to_owned() } else { held.join(", ") },
            why: why.map(|why| format!(" ({why})")).unwrap_or_default(),
        }
    }
}

impl From<Kek> for KekRing {
    fn from(kek: Kek) -> Self {
        Self::new(vec![kek], None)
    }
}

impl From<&Kek> for KekRing {
    fn from(kek: &Kek) -> Self {
        kek.clone().into()
    }
}

impl From<&Self> for KekRing {
    fn from(ring: &Self) -> Self {
        ring.clone()
    }
}

impl fmt::Debug for KekRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys.read().iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bulla_seal::OsRandom;

    use super::*;

    const ROW: Row<'_> = Row { table: "t", column: "c", name: "agent/a", incarnation: 1, epoch: 2 };

    fn kek(byte: u8) -> Kek {
        Kek::derive(Secret::new([byte; 32]))
    }

    fn wrapped(kek: &Kek) -> Vec<u8> {
        kek.wrap_key().wrap(&mut OsRandom::default(), &ROW, b"value").unwrap()
    }

    #[test]
    fn every_key_that_it_holds_opens() {
        let ring = KekRing::from(kek(1));
        ring.add(kek(2));
        ring.add(kek(2));
        assert_eq!(ring.ids().len(), 2);
        for key in [kek(1), kek(2)] {
            assert_eq!(&**ring.open(&ROW, &wrapped(&key), "it").unwrap(), b"value");
        }
        let error = ring.open(&ROW, &wrapped(&kek(3)), "it").unwrap_err();
        assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
        assert!(error.to_string().contains(&hex::encode(kek(3).id())), "{error}");
        let elsewhere = Row { epoch: 3, ..ROW };
        let error = ring.open(&elsewhere, &wrapped(&kek(1)), "it").unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn it_looks_again_when_it_meets_an_unknown_key() {
        let looks = Arc::new(AtomicUsize::new(0));
        let seen = looks.clone();
        let ring = KekRing::watching(move || match seen.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![kek(1)]),
            _ => Ok(vec![kek(2)]),
        })
        .unwrap();
        ring.open(&ROW, &wrapped(&kek(1)), "it").unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        ring.open(&ROW, &wrapped(&kek(2)), "it").unwrap();
        // What it held it keeps.
        ring.open(&ROW, &wrapped(&kek(1)), "it").unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        // A value under a key that is nowhere does not have the provider asked each time.
        for _ in 0..10 {
            assert!(ring.open(&ROW, &wrapped(&kek(3)), "it").is_err());
        }
        assert!(looks.load(Ordering::Relaxed) < 8);
    }

    #[test]
    fn what_the_provider_said_is_in_the_error() {
        let looks = AtomicUsize::new(0);
        let ring = KekRing::watching(move || match looks.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![kek(1)]),
            _ => Err(KekError::NoCredentials),
        })
        .unwrap();
        let error = ring.open(&ROW, &wrapped(&kek(2)), "it").unwrap_err();
        assert!(error.to_string().contains("CREDENTIALS_DIRECTORY"), "{error}");
    }
}
