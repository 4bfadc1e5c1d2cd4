//! Processor time of a process and all that it started.

use std::fs;
use std::time::Duration;

/// User and system time so far of `pid` and its descendants.
pub(crate) fn of_tree(pid: u32) -> Duration {
    let mut total = Duration::ZERO;
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        // One that ended meanwhile counts for nothing.
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let ns = read("schedstat").split(' ').next().and_then(|ns| ns.parse().ok());
            total += Duration::from_nanos(ns.unwrap_or_default());
            let children = read("children");
            left.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    total
}
