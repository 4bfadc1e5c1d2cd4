//! Notices what makes a claim store worthless without its knowing: a wall clock that jumps, and a
//! virtual machine that was set back to a snapshot (protocol section 7).

use bulla_guard::{ClaimStore, ClockWatch};
use bulla_journal::{Text, events};
use bulla_seal::Digest;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

use crate::clock::millis;
use crate::endpoint::Endpoint;

/// Where QEMU shows its guest the id of this life of the machine (the kernel's `qemu_fw_cfg`).
/// Other hypervisors give it to the kernel alone: there a rollback shows when the wall clock is
/// set right.
const GENERATION: &str = "/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw";

/// Looks after clock and machine.
pub(super) struct Watch {
    clock: ClockWatch,
    start: Instant,
    generation: Generation,
}

impl Watch {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let clock = ClockWatch::new(endpoint.options.skew, millis(endpoint.clock.now()), 0);
        Self { clock, start: Instant::now(), generation: Generation::at(GENERATION) }
    }

    pub(super) async fn look(&mut self, endpoint: &Endpoint, store: &dyn ClaimStore, now_ms: u64) {
        let monotonic = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let jump_ms = self.clock.observe(now_ms, monotonic);
        let resumed = self.generation.changed();
        if jump_ms.is_none() && !resumed {
            return;
        }
        let why = match jump_ms {
            Some(jump) => format!("the wall clock jumped by {jump} ms"),
            None => "the machine was set back to a snapshot".to_owned(),
        };
        endpoint.events().emit(events::ClaimsLost { why: Text::new(&why) });
        endpoint.drop_sessions();
        if let Err(error) = store.declare_lost(now_ms).await {
            tracing::error!(%error, "the claim store could not be counted as lost");
        }
    }
}

/// The machine's generation id, where it can be read.
struct Generation {
    path: PathBuf,
    seen: Option<Digest>,
}

impl Generation {
    fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let seen = read(&path);
        Self { path, seen }
    }

    /// Whether it is another than at the last look. One that can't be read any more is no other.
    fn changed(&mut self) -> bool {
        let Some(now) = read(&self.path).filter(|now| self.seen.as_ref() != Some(now)) else {
            return false;
        };
        self.seen.replace(now).is_some()
    }
}

fn read(path: &Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_is_noticed_once() {
        let path = std::env::temp_dir().join(format!("bulla-generation-{}", std::process::id()));
        let mut none = Generation::at(&path);
        assert!(!none.changed(), "there is none");
        std::fs::write(&path, b"one").unwrap();
        assert!(!none.changed(), "the first that is seen");
        let mut watch = Generation::at(&path);
        assert!(!watch.changed());
        std::fs::write(&path, b"two").unwrap();
        assert!(watch.changed() && !watch.changed());
        assert!(none.changed());
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.changed(), "unreadable");
    }
}
