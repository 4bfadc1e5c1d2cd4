//! Ports for servers that start some time after they were chosen, and start again on the same one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::error::ServiceError;

/// Where we look. A port that the kernel gives out (to a listener on port 0, or as the near end of
/// any connection) may be somebody's by the time that the server starts, or starts again.
const PORTS: Range<u16> = 11_000..32_000;

/// Below the kernel's own, if its range begins earlier than it does by default.
const RANGE_OF_THE_KERNEL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// What this process holds, until it ends: a locked file for each.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A TCP port that nobody listens on, and that no other test is given while this process lives.
pub(crate) fn free_port() -> Result<u16, ServiceError> {
    // Processes that start together do not all try the same ones.
    free_port_in(ports(), (std::process::id() as usize).wrapping_mul(61))
}

fn free_port_in(ports: Range<u16>, begin: usize) -> Result<u16, ServiceError> {
    let directory = directory()?;
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = begin.wrapping_add(held.len());
    for at in 0..ports.len() {
        let Some(port) = ports.clone().nth(begin.wrapping_add(at) % ports.len()) else { continue };
        let path = directory.join(port.to_string());
        let file = File::create(&path).map_err(ServiceError::io(path.display().to_string()))?;
        let ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if ours && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            held.push(file);
            return Ok(port);
        }
    }
    let none = std::io::Error::other(format!("every port of {ports:?} is taken"));
    Err(ServiceError::io("looking for a free port")(none))
}

fn ports() -> Range<u16> {
    let first = fs::read_to_string(RANGE_OF_THE_KERNEL)
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u16>().ok());
    match first {
        Some(first) if first > PORTS.start + 1000 => PORTS.start..PORTS.end.min(first),
        _ => PORTS,
    }
}

/// A folder of this user's: others can't write to it, and need not.
fn directory() -> Result<PathBuf, ServiceError> {
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("bulla-ports-{user}"));
    fs::create_dir_all(&path).map_err(ServiceError::io(path.display().to_string()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_or_by_the_kernel() {
        let given: HashSet<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.len(), 200);
        assert!(given.iter().all(|port| ports().contains(port)));
        // What this process holds, another can't have.
        let port = given.iter().next().unwrap();
        let file = File::create(directory().unwrap().join(port.to_string())).unwrap();
        assert!(flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
    }

    #[test]
    fn a_port_that_is_listened_on_is_passed_over() {
        let taken = PORTS
            .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
            .next()
            .unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port_in(port..port + 1, 0).is_err());
        drop(taken);
        assert_eq!(free_port_in(port..port + 1, 0).unwrap(), port);
    }
}
