//! Fuzz targets, and a small engine for them that needs no special compiler.
//!
//! A target takes any bytes and panics when a property does not hold; it gives back what it *saw*
//! (accepted, or refused for which reason), which tells the [`engine`] what is worth keeping. The
//! same targets run under libFuzzer: `cargo xtask fuzz`.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a target that fails panics, and nothing else here runs in production"
)]

pub mod cbor;
pub mod corpus;
pub mod engine;
pub mod targets;

/// What a target saw: a name for the way that the input took.
pub type Saw = String;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]) -> Saw,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: targets::frame::run },
    Target { name: "tamper", run: targets::tamper::run },
    Target { name: "enrol", run: targets::enrol::run },
    Target { name: "offer", run: targets::offer::run },
    Target { name: "credential", run: targets::signed::credential },
    Target { name: "statement", run: targets::signed::statement },
    Target { name: "exemption", run: targets::signed::exemption },
    Target { name: "body", run: targets::body::run },
    Target { name: "reply", run: targets::reply::run },
    Target { name: "records", run: targets::records::run },
    Target { name: "names", run: targets::names::run },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
