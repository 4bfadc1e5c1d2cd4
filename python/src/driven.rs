//! A future that the thread drives that waits for it: most of what a message needs is done where it
//! arrived, and no other thread is woken for it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::wait::{deadline, next_look};

/// What nobody drives for longer goes to the runtime: its clocks must be heard.
const ALONE: Duration = Duration::from_secs(1);

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future, and who drives it.
pub(crate) struct Driven {
    run: Mutex<State>,
    woken: Arc<Woken>,
    runtime: Handle,
}

enum State {
    /// Whoever waits for it.
    Here(Run),
    /// A task of the runtime.
    There(AbortHandle),
    Ended,
}

/// Wakes the thread that drives it.
#[derive(Default)]
struct Woken(Mutex<bool>, Condvar);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}

impl Driven {
    pub(crate) fn new(run: Run, runtime: &Handle) -> Arc<Self> {
        let run = Mutex::new(State::Here(run));
        Arc::new(Self { run, woken: Arc::default(), runtime: runtime.clone() })
    }

    /// Drives it as far as it goes without waiting. Says whether it ended.
    pub(crate) fn poll(&self) -> bool {
        let mut state = self.run.lock();
        let State::Here(run) = &mut *state else { return matches!(*state, State::Ended) };
        let _inside = self.runtime.enter();
        *self.woken.0.lock() = false;
        let waker = Waker::from(self.woken.clone());
        let ended = run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if ended {
            *state = State::Ended;
        }
        ended
    }

    /// Gives it to the runtime, which drives it to its end.
    pub(crate) fn spawn(&self) {
        let mut state = self.run.lock();
        if let State::Here(_) = &*state
            && let State::Here(run) = std::mem::replace(&mut *state, State::Ended)
        {
            *state = State::There(self.runtime.spawn(run).abort_handle());
        }
    }

    /// Gives it up.
    pub(crate) fn abort(&self) {
        let _inside = self.runtime.enter();
        match std::mem::replace(&mut *self.run.lock(), State::Ended) {
            State::There(task) => task.abort(),
            State::Here(_) | State::Ended => {}
        }
    }

    /// Drives it until `until` holds or the time is over; `None` if another drives it.
    pub(crate) fn wait(
        &self,
        py: Python<'_>,
        until: impl Fn() -> bool + Sync,
        timeout: Option<f64>,
    ) -> PyResult<Option<bool>> {
        let end = deadline(timeout);
        if until() {
            return Ok(Some(true));
        }
        loop {
            let here = py.detach(|| {
                loop {
                    if until() {
                        return Some(true);
                    }
                    self.poll();
                    if until() {
                        return Some(true);
                    }
                    if !matches!(*self.run.lock(), State::Here(_)) {
                        return None;
                    }
                    let mut woken = self.woken.0.lock();
                    if !*woken {
                        let late = self.woken.1.wait_for(&mut woken, next_look(end)).timed_out();
                        if late {
                            return Some(false);
                        }
                    }
                }
            });
            match here {
                Some(false) if end.is_none_or(|end| Instant::now() < end) => py.check_signals()?,
                known => return Ok(known),
            }
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // What it holds may have last words to say.
        let _inside = self.runtime.enter();
        *self.run.get_mut() = State::Ended;
    }
}

/// Futures that wait for Python, the oldest first.
#[derive(Clone, Default)]
pub(crate) struct Parked(Arc<Mutex<VecDeque<Since>>>);

type Since = (Instant, Weak<Driven>);

impl Parked {
    pub(crate) fn push(&self, driven: &Arc<Driven>) {
        self.0.lock().push_back((Instant::now(), Arc::downgrade(driven)));
    }

    /// Gives those to the runtime that waited long, now and then.
    pub(crate) async fn watch(self) {
        let mut look = tokio::time::interval(ALONE / 2);
        loop {
            look.tick().await;
            while let Some(old) = self.next_old() {
                if let Some(driven) = old.upgrade() {
                    driven.spawn();
                }
            }
        }
    }

    fn next_old(&self) -> Option<Weak<Driven>> {
        let mut parked = self.0.lock();
        let old = parked.front().is_some_and(|(since, _)| since.elapsed() > ALONE);
        if old { parked.pop_front().map(|(_, driven)| driven) } else { None }
    }
}
