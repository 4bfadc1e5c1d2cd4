//! A thread for each end, both with a runtime of their own: what one end costs is told from what the
//! other does, and neither wakes a third.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::BenchError;

/// Both ends' threads.
pub(super) struct Threads {
    pub(super) client: Thread,
    pub(super) server: Thread,
}

impl Threads {
    /// Both ends on the thread that drives `handle`.
    #[cfg(feature = "count-allocations")]
    pub(super) fn of_one(handle: Handle) -> Self {
        let thread = || Thread { handle: handle.clone(), _running: oneshot::channel().0 };
        Self { client: thread(), server: thread() }
    }

    pub(super) fn start() -> Result<Self, BenchError> {
        Ok(Self { client: Thread::start("bench-client")?, server: Thread::start("bench-server")? })
    }
}

/// One end's thread. Its tasks end with it.
pub(super) struct Thread {
    handle: Handle,
    _running: oneshot::Sender<()>,
}

impl Thread {
    fn start(name: &str) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Io { what: name.to_owned(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, (running, ended)) = (runtime.handle().clone(), oneshot::channel::<()>());
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // An error says that the other end was dropped, which is what is waited for.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self { handle, _running: running })
    }

    /// Where its tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `future` there, and what it spawns.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, BenchError>> + Send + 'static,
    ) -> Result<T, BenchError> {
        self.handle.spawn(future).await.map_err(|_| BenchError::Broken("a thread that ended"))?
    }

    /// The processor time that the thread has used.
    pub(super) async fn processor_time(&self) -> Result<Duration, BenchError> {
        self.run(async { Ok(since_start(ClockId::ThreadCPUTime)) }).await
    }
}

/// What a clock of processor time shows, to the nanosecond: a slice's share of the clock ticks that
/// `times` counts would not be.
pub(super) fn since_start(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    let seconds = Duration::from_secs(u64::try_from(tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_thread_has_its_own_time() {
        let threads = Threads::start().unwrap();
        let before = threads.client.processor_time().await.unwrap();
        let work = async {
            std::hint::black_box((0..3_000_000u64).map(std::hint::black_box).sum::<u64>());
            Ok(since_start(ClockId::ThreadCPUTime))
        };
        let spent = threads.server.run(work).await.unwrap();
        let client = threads.client.processor_time().await.unwrap() - before;
        assert!(spent > client, "{spent:?} {client:?}");
    }
}
