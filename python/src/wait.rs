//! Waiting for what happens on the runtime's threads: a thread sleeps without the interpreter's lock,
//! a green thread or an event loop watches a file descriptor.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;

/// Work on less is done with the interpreter's lock held: whoever gives it away waits until others want
/// to give it back, up to 5 ms by Python's own clock, and sealing some kilobytes takes a few µs.
const WORTH_IT: usize = 16 << 10;

/// Does something with `bytes` of content, without the interpreter's lock if that is long.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    bytes: usize,
    what: impl FnOnce() -> T + Send,
) -> T {
    if bytes < WORTH_IT { what() } else { py.detach(what) }
}

/// Between two looks whether the interpreter was interrupted.
const LOOK: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_secs(3600);

/// The thread that Python's signals are handled in: the one that loaded this module, nearly always.
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// This is the thread that signals are handled in.
pub(crate) fn this_is_main() {
    // Set once, by the first import.
    let _ = MAIN.set(std::thread::current().id());
}

/// Tells a descriptor's reader that something came.
#[derive(Debug)]
struct Bell {
    ring: UnixStream,
    heard: UnixStream,
}

impl Bell {
    fn new() -> std::io::Result<Self> {
        let (ring, heard) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self { ring, heard })
    }

    fn ring(&self) {
        // Full means that nobody has looked yet at what it says already.
        let _ = (&self.ring).write(&[1]);
    }

    fn silence(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.heard).read(&mut bytes), Ok(n) if n == bytes.len()) {}
    }
}

/// Things in the order in which they came.
#[derive(Debug)]
pub(crate) struct Queue<T>(Mutex<Inner<T>>, Condvar);

#[derive(Debug)]
struct Inner<T> {
    things: VecDeque<T>,
    bell: Option<Arc<Bell>>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner = Inner { things: VecDeque::new(), bell: None, closed: false };
        Self(Mutex::new(inner), Condvar::new())
    }
}

impl<T: Send> Queue<T> {
    pub(crate) fn push(&self, thing: T) {
        let mut inner = self.0.lock();
        inner.things.push_back(thing);
        if let Some(bell) = &inner.bell {
            bell.ring();
        }
        self.1.notify_one();
    }

    /// Wakes everybody who waits, for good.
    pub(crate) fn close(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        if let Some(bell) = &inner.bell {
            bell.ring();
        }
        self.1.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().things.len()
    }

    /// The next thing, if one is there.
    pub(crate) fn take(&self) -> Option<T> {
        let mut inner = self.0.lock();
        let thing = inner.things.pop_front();
        if let Some(bell) = inner.bell.as_ref().filter(|_| inner.things.is_empty()) {
            bell.silence();
        }
        thing
    }

    /// The next thing, waited for.
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<T>> {
        let until = deadline(timeout);
        loop {
            let (thing, closed) = py.detach(|| {
                let mut inner = self.0.lock();
                if inner.things.is_empty() && !inner.closed {
                    self.1.wait_for(&mut inner, next_look(until));
                }
                (inner.things.pop_front(), inner.closed)
            });
            if thing.is_some() || closed || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(thing);
            }
            py.check_signals()?;
        }
    }

    /// A descriptor that can be read from while something is there, or nothing will come again.
    pub(crate) fn fileno(&self) -> PyResult<i32> {
        let mut inner = self.0.lock();
        let bell = match &inner.bell {
            Some(bell) => bell.clone(),
            None => Arc::new(Bell::new()?),
        };
        if inner.bell.is_none() && (inner.closed || !inner.things.is_empty()) {
            bell.ring();
        }
        inner.bell = Some(bell.clone());
        Ok(bell.heard.as_raw_fd())
    }
}

/// A value that comes once.
#[derive(Debug)]
pub(crate) struct Cell<T>(Mutex<CellInner<T>>, Condvar);

#[derive(Debug)]
struct CellInner<T> {
    value: Option<T>,
    set: bool,
    bell: Option<Bell>,
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self(Mutex::new(CellInner { value: None, set: false, bell: None }), Condvar::new())
    }
}

impl<T: Send> Cell<T> {
    /// Sets it, unless it is set.
    pub(crate) fn set(&self, value: T) {
        let mut inner = self.0.lock();
        if std::mem::replace(&mut inner.set, true) {
            return;
        }
        inner.value = Some(value);
        if let Some(bell) = &inner.bell {
            bell.ring();
        }
        self.1.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.lock().set
    }

    /// Looks at the value.
    pub(crate) fn look<R>(&self, at: impl FnOnce(Option<&T>) -> R) -> R {
        at(self.0.lock().value.as_ref())
    }

    /// Takes the value out, once.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().value.take()
    }

    /// Whether it is set, waited for.
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let until = deadline(timeout);
        loop {
            let set = py.detach(|| {
                let mut inner = self.0.lock();
                if !inner.set {
                    self.1.wait_for(&mut inner, next_look(until));
                }
                inner.set
            });
            if set || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(set);
            }
            py.check_signals()?;
        }
    }

    /// A descriptor that can be read from once it is set.
    pub(crate) fn fileno(&self) -> PyResult<i32> {
        let mut inner = self.0.lock();
        if inner.bell.is_none() {
            let bell = Bell::new()?;
            if inner.set {
                bell.ring();
            }
            inner.bell = Some(bell);
        }
        Ok(inner.bell.as_ref().map_or(-1, |bell| bell.heard.as_raw_fd()))
    }
}

pub(crate) fn deadline(timeout: Option<f64>) -> Option<Instant> {
    let seconds = timeout.filter(|seconds| seconds.is_finite())?;
    Instant::now().checked_add(Duration::try_from_secs_f64(seconds.max(0.0)).ok()?)
}

pub(crate) fn next_look(until: Option<Instant>) -> Duration {
    let is_main = MAIN.get().is_none_or(|main| *main == std::thread::current().id());
    let look = if is_main { LOOK } else { HOUR };
    until.map_or(look, |until| until.saturating_duration_since(Instant::now()).min(look))
}
