//! Runs the Python tests of the package against a real RabbitMQ, with Debian's oslo.messaging and with the
//! newest one. `cargo xtask test` makes the environments of both.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bulla_services::{Redis, ServiceError, VirtualHost, require};
use parking_lot::Mutex;

type Outcome = Result<(), Box<dyn Error>>;

/// The folder that cargo builds into.
fn built() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent).ok_or("no folder")?;
    Ok(folder.to_owned())
}

fn environment(name: &str) -> Result<PathBuf, ServiceError> {
    let missing = ServiceError::NotInstalled {
        server: "the tests' Python environment",
        package: "python3-venv (then: cargo xtask test)",
    };
    let folder = built().ok().and_then(|built| built.parent().map(Path::to_owned));
    let python = folder.map(|folder| folder.join(format!("venv-{name}/bin/python")));
    python.filter(|python| python.exists()).ok_or(missing)
}

/// What the tests of one environment need.
struct Stage {
    python: PathBuf,
    program: PathBuf,
    redis: String,
    package: tempfile::TempDir,
}

impl Stage {
    fn set(name: &str, redis: &Redis) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(python) = require(environment(name)) else { return Ok(None) };
        let (built, source) = (built()?, Path::new(env!("CARGO_MANIFEST_DIR")));
        let (library, program) = (built.join("deps/lib_bulla.so"), built.join("bulla"));
        for needed in [&library, &program] {
            if !needed.exists() {
                let path = needed.display();
                return Err(format!("{path} is not there: cargo build -p bulla-cli").into());
            }
        }
        let package = tempfile::tempdir()?;
        let staged = Command::new("python3")
            .arg(source.join("tests/stage.py"))
            .args([&library, package.path()])
            .status()?;
        assert!(staged.success(), "the package could not be laid out");
        Ok(Some(Self { python, program, redis: redis.url(), package }))
    }

    /// Runs some files, on a virtual host of their own. What went wrong, if anything did.
    fn run(&self, tests: &[&str]) -> Result<(), String> {
        let host = VirtualHost::new().map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let ran = Command::new(&self.python)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"))
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"])
            .args(["--durations=5"])
            .args(tests)
            .env("PYTHONPATH", self.package.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BULLA_TEST_AMQP", host.url())
            .env("BULLA_TEST_REDIS", &self.redis)
            .env("BULLA_TEST_PROGRAM", &self.program)
            .output()
            .map_err(|error| error.to_string())?;
        let took = begun.elapsed().as_secs();
        println!("{tests:?}, {took} s\n{}", String::from_utf8_lossy(&ran.stdout));
        match ran.status.success() {
            true => Ok(()),
            false => Err(format!("{tests:?}: {}", String::from_utf8_lossy(&ran.stderr))),
        }
    }
}

/// Runs files of tests with an environment, two lots at a time: most of it waits.
fn pytest(name: &str, lots: &[&[&str]]) -> Outcome {
    // Whether there is a broker at all.
    if require(VirtualHost::new()).is_none() {
        return Ok(());
    }
    let Some(redis) = require(Redis::start()) else { return Ok(()) };
    let Some(stage) = Stage::set(name, &redis)? else { return Ok(()) };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(lot) = lots.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = stage.run(lot) {
                        failures.lock().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "with {name}: {}", failures.join("\n"));
    Ok(())
}

/// What Trove's people run: its own parts, eventlet, and everything about the driver.
#[test]
fn with_debians_oslo_messaging() -> Outcome {
    let lots: &[&[&str]] = &[
        &["test_migration.py"],
        &["test_attacks.py", "test_trove.py"],
        &["test_oslo.py", "test_eventlet.py", "test_fanout.py", "test_notifications.py"],
        &["test_connection.py"],
    ];
    pytest("oslo-debian", lots)
}

#[test]
fn with_the_newest_oslo_messaging() -> Outcome {
    let lots: &[&[&str]] = &[
        &["test_migration.py"],
        &["test_attacks.py"],
        &["test_oslo.py", "test_eventlet.py", "test_settings.py", "test_stubs.py", "test_aio.py"],
        &["test_fanout.py", "test_notifications.py", "test_connection.py"],
    ];
    pytest("oslo-newest", lots)
}
