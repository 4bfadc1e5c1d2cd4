//! A bounded cache of lookups: what was found, for a while; what was not found, for a shorter
//! while; and one question at a time for one key, however many wait for it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::DirectoryError;

type Answer<V> = Result<Option<V>, DirectoryError>;
type Waiting<V> = Shared<Pin<Box<dyn Future<Output = Answer<V>> + Send>>>;

/// How long answers hold, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct LookupLimits {
    /// How long what was found is not asked for again.
    pub found_for: Duration,
    /// How long what was not found is not asked for again (protocol section 9: at most 5 s).
    pub missing_for: Duration,
    /// Answers kept at the most, of each sort.
    pub entries: usize,
    /// Questions under way at the most; more are an error.
    pub asking: usize,
}

/// A bounded cache of lookups by key. Cheap to clone; all clones share it.
pub struct Lookups<K, V>(Arc<Inner<K, V>>);

struct Inner<K, V> {
    limits: LookupLimits,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    found: HashMap<K, (V, Instant)>,
    missing: HashMap<K, Instant>,
    asking: HashMap<K, Waiting<V>>,
}

impl<K, V> Lookups<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Empty.
    pub fn new(limits: LookupLimits) -> Self {
        let state =
            State { found: HashMap::new(), missing: HashMap::new(), asking: HashMap::new() };
        Self(Arc::new(Inner { limits, state: Mutex::new(state) }))
    }

    /// What is known of `key` without asking: `None` if nothing is, or it is too old.
    pub fn known(&self, key: &K) -> Option<Option<V>> {
        self.0.state.lock().known(key, &self.0.limits)
    }

    /// What was found last, however long ago.
    pub fn last(&self, key: &K) -> Option<V> {
        self.0.state.lock().found.get(key).map(|(value, _)| value.clone())
    }

    /// Puts in an answer as if it had been asked for now.
    pub fn insert(&self, key: K, value: V) {
        self.0.state.lock().settle(&key, Some(value), &self.0.limits);
    }

    /// Forgets an answer, so that it is asked for again.
    pub fn forget(&self, key: &K) {
        let mut state = self.0.state.lock();
        state.found.remove(key);
        state.missing.remove(key);
    }

    /// Forgets every answer.
    pub fn clear(&self) {
        let mut state = self.0.state.lock();
        state.found.clear();
        state.missing.clear();
    }

    /// What is known of `key`, or what `ask` finds out. All who want the same key at the same
    /// time wait for one question; it is asked to its end even if all of them go away.
    ///
    /// # Errors
    /// That of `ask`, which is not remembered; too many questions under way.
    pub async fn get<F>(&self, key: K, ask: impl FnOnce() -> F) -> Answer<V>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let waiting = {
            let mut state = self.0.state.lock();
            if let Some(known) = state.known(&key, &self.0.limits) {
                return Ok(known);
            }
            match state.asking.get(&key) {
                Some(waiting) => waiting.clone(),
                None if state.asking.len() >= self.0.limits.asking => {
                    return Err(DirectoryError("too many lookups are under way".into()));
                }
                None => {
                    let waiting = self.start(key.clone(), ask());
                    state.asking.insert(key, waiting.clone());
                    waiting
                }
            }
        };
        waiting.await
    }

    fn start<F>(&self, key: K, asked: F) -> Waiting<V>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let question = Question { lookups: Self(self.0.clone()), key };
        tokio::spawn(async move {
            let answer = asked.await;
            if let Ok(found) = &answer {
                let Inner { limits, state } = &*question.lookups.0;
                state.lock().settle(&question.key, found.clone(), limits);
            }
            drop(question);
            // Nobody may be waiting any more; the answer is kept all the same.
            done.send(answer).ok();
        });
        let lost = |_| Err(DirectoryError("the lookup was given up".into()));
        let waiting: Pin<Box<dyn Future<Output = Answer<V>> + Send>> =
            Box::pin(answer.map(move |answer| answer.unwrap_or_else(lost)));
        waiting.shared()
    }
}

/// A question under way; however it ends, the next one may be asked then.
struct Question<K: Eq + Hash, V> {
    lookups: Lookups<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Question<K, V> {
    fn drop(&mut self) {
        let waiting = self.lookups.0.state.lock().asking.remove(&self.key);
        // Dropped outside the lock.
        drop(waiting);
    }
}

impl<K: Clone + Eq + Hash, V: Clone> State<K, V> {
    fn known(&self, key: &K, limits: &LookupLimits) -> Option<Option<V>> {
        if let Some((value, at)) = self.found.get(key) {
            return (at.elapsed() < limits.found_for).then(|| Some(value.clone()));
        }
        let at = self.missing.get(key)?;
        (at.elapsed() < limits.missing_for).then_some(None)
    }

    fn settle(&mut self, key: &K, found: Option<V>, limits: &LookupLimits) {
        match found {
            Some(value) => {
                self.missing.remove(key);
                make_room(&mut self.found, key, limits.entries, |(_, at)| {
                    at.elapsed() < limits.found_for
                });
                self.found.insert(key.clone(), (value, Instant::now()));
            }
            // What was once seen valid is asked for again at once (protocol section 9).
            None if self.found.remove(key).is_some() => {}
            None => {
                make_room(&mut self.missing, key, limits.entries, |at| {
                    at.elapsed() < limits.missing_for
                });
                self.missing.insert(key.clone(), Instant::now());
            }
        }
    }
}

/// Room for one more: first what is too old goes, then everything.
fn make_room<K: Eq + Hash, T>(
    map: &mut HashMap<K, T>,
    key: &K,
    limit: usize,
    fresh: impl Fn(&T) -> bool,
) {
    if map.len() < limit || map.contains_key(key) {
        return;
    }
    map.retain(|_, entry| fresh(entry));
    if map.len() >= limit {
        map.clear();
    }
}

impl<K, V> Clone for Lookups<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> fmt::Debug for Lookups<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        write!(f, "Lookups({} found, {} missing)", state.found.len(), state.missing.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn lookups(entries: usize) -> Lookups<u32, u32> {
        let hour = Duration::from_secs(3600);
        Lookups::new(LookupLimits { found_for: hour, missing_for: hour, entries, asking: 4 })
    }

    #[tokio::test]
    async fn one_question_for_all_who_wait() {
        let lookups = lookups(10);
        let asked = Arc::new(AtomicU32::new(0));
        let (go, wait) = tokio::sync::watch::channel(false);
        let one = || {
            let (lookups, asked, mut wait) = (lookups.clone(), asked.clone(), wait.clone());
            async move {
                let ask = || async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    wait.wait_for(|go| *go).await.unwrap();
                    Ok(Some(7))
                };
                lookups.get(1, ask).await.unwrap()
            }
        };
        let first = tokio::spawn(one());
        let second = tokio::spawn(one());
        // One who goes away stops nobody's question.
        let third = tokio::spawn(one());
        tokio::task::yield_now().await;
        third.abort();
        go.send(true).unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Some(7), Some(7)));
        assert_eq!(lookups.known(&1), Some(Some(7)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn remembers_what_is_missing_but_no_failure() {
        let lookups = lookups(10);
        assert_eq!(lookups.get(1, || async { Ok(None) }).await.unwrap(), None);
        assert_eq!(lookups.get(1, || async { Ok(Some(1)) }).await.unwrap(), None);
        let failed = lookups.get(2, || async { Err(DirectoryError("away".into())) }).await;
        assert!(failed.is_err());
        assert_eq!(lookups.get(2, || async { Ok(Some(2)) }).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn a_question_that_breaks_does_not_block_the_next() {
        let lookups = lookups(10);
        let broken = lookups.get(1, || async { panic!("a bug") }).await;
        assert!(broken.is_err());
        assert_eq!(lookups.get(1, || async { Ok(Some(2)) }).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn is_bounded() {
        let lookups = lookups(3);
        for key in 0..100 {
            lookups.get(key, || async move { Ok((key % 2 == 0).then_some(key)) }).await.unwrap();
        }
        let state = lookups.0.state.lock();
        assert!(state.found.len() <= 3 && state.missing.len() <= 3 && state.asking.is_empty());
    }
}
