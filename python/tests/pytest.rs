//! Runs the Python tests of the package against a real RabbitMQ, with Debian's oslo.messaging and with the
//! newest one. `cargo xtask test` makes the environments of both.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_services::{RabbitMq, Redis, ServiceError, require};

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

fn pytest(name: &str, tests: &[&str]) -> Outcome {
    let Some(python) = require(environment(name)) else { return Ok(()) };
    let Some(broker) = require(RabbitMq::start()) else { return Ok(()) };
    let Some(redis) = require(Redis::start()) else { return Ok(()) };
    let (built, source) = (built()?, Path::new(env!("CARGO_MANIFEST_DIR")));
    let (library, program) = (built.join("deps/lib_bulla.so"), built.join("bulla"));
    for needed in [&library, &program] {
        if !needed.exists() {
            let path = needed.display();
            return Err(format!("{path} is not there: cargo build -p bulla-cli").into());
        }
    }
    let stage = tempfile::tempdir()?;
    let staged = Command::new("python3")
        .arg(source.join("tests/stage.py"))
        .args([&library, stage.path()])
        .status()?;
    assert!(staged.success(), "the package could not be laid out");
    let ran = Command::new(python)
        .current_dir(source.join("tests"))
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"])
        .args(tests)
        .env("PYTHONPATH", stage.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BULLA_TEST_AMQP", broker.url())
        .env("BULLA_TEST_REDIS", redis.url())
        .env("BULLA_TEST_PROGRAM", program)
        .status()?;
    assert!(ran.success(), "pytest with {name}: {ran}");
    Ok(())
}

/// What Trove's people run: its own parts, eventlet, and everything about the driver.
#[test]
fn with_debians_oslo_messaging() -> Outcome {
    pytest(
        "oslo-debian",
        &["test_oslo.py", "test_eventlet.py", "test_trove.py", "test_migration.py"],
    )
}

#[test]
fn with_the_newest_oslo_messaging() -> Outcome {
    let tests = [
        "test_settings.py",
        "test_aio.py",
        "test_oslo.py",
        "test_eventlet.py",
        "test_attacks.py",
        "test_migration.py",
    ];
    pytest("oslo-newest", &tests)
}
