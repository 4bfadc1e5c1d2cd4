//! Figures of this process, as the kernel has them.

use std::fs;
use std::time::Duration;

use super::page::Page;
use super::table::{
    CPU, MAX_FDS, OPEN_FDS, RESIDENT, START_TIME, TASKS, THREADS, VIRTUAL, WORKERS,
};

/// Adds them, as far as they can be read.
pub(crate) fn add(page: &mut Page) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let metrics = runtime.metrics();
        page.count(TASKS, metrics.num_alive_tasks());
        page.count(WORKERS, metrics.num_workers());
    }
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) {
        page.number(CPU, &[], stat.cpu.as_secs_f64());
        page.whole(THREADS, &[], stat.threads);
        page.whole(VIRTUAL, &[], stat.virtual_bytes);
        page.whole(RESIDENT, &[], stat.resident_pages * page_size());
        if let Some(booted) = booted() {
            page.number(START_TIME, &[], booted + stat.since_boot.as_secs_f64());
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The folder itself is open while it is read.
        page.count(OPEN_FDS, open.count().saturating_sub(1));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        page.whole(MAX_FDS, &[], most);
    }
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// A part of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: Duration,
    threads: u64,
    since_boot: Duration,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name in brackets may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let field = |at: usize| rest.split_ascii_whitespace().nth(at - 3)?.parse::<u64>().ok();
        let ticks = |ticks: u64| {
            let per_second = rustix::param::clock_ticks_per_second().max(1);
            Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second))
        };
        Some(Self {
            cpu: ticks(field(14)? + field(15)?),
            threads: field(20)?,
            since_boot: ticks(field(22)?),
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine started, in Unix seconds.
fn booted() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 1000 4096 12 0";
        let stat = Stat::read(text).unwrap();
        assert_eq!((stat.threads, stat.virtual_bytes, stat.resident_pages), (3, 4096, 12));
        assert_eq!(stat.cpu, Duration::from_secs(2));
        assert_eq!(Stat::read("7 (a"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(Stat::read(&own).unwrap().resident_pages > 0);
    }
}
