//! Why a server could not be started, and what a test does then.

use thiserror::Error;

/// A server could not be started or driven.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The server's program is not on this machine.
    #[error("{server} is not installed: apt-get install {package}")]
    NotInstalled {
        /// The server.
        server: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The server ended or did not answer in time; holds the end of its log.
    #[error("{server} did not start: {why}")]
    NotStarted {
        /// The server.
        server: &'static str,
        /// The cause and the last lines of the log.
        why: String,
    },
    /// A command of the server's own tools failed.
    #[error("{command} failed: {why}")]
    Command {
        /// The command.
        command: String,
        /// What it wrote.
        why: String,
    },
    /// A file or a process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("can't make the test certificates: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl ServiceError {
    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The server, or `None` after a loud note on stderr when it is not installed here. In CI
/// (`CI=true`) and with `BULLA_TEST_REQUIRE=1` a missing server fails the test, and a server
/// that is installed but does not start fails it everywhere.
///
/// # Panics
/// As described; it is meant for tests.
#[expect(clippy::panic, reason = "this is how a test fails; the crate is for tests only")]
pub fn require<T>(started: Result<T, ServiceError>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(error @ ServiceError::NotInstalled { .. }) if !required() => {
            eprintln!("\n*** SKIPPED, NOT TESTED: {error} ***\n");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn required() -> bool {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    is("CI", "true") || is("BULLA_TEST_REQUIRE", "1")
}
