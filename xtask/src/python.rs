//! Python environments: of the vector check, and of what tries the API.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::console::{root, step, target};
use crate::run::{Job, says_yes};

const REQUIREMENTS: &str = "tests/vectors/requirements.txt";
const CHECK: &str = "tests/vectors/check_vectors.py";

/// Opens the vectors of `docs/vectors` with a COSE library that is not ours.
pub(crate) fn check_vectors() -> Result<String, String> {
    let python = environment("vectors", REQUIREMENTS)?;
    Job::new(python).args([CHECK]).limit(Duration::from_secs(600)).run()?;
    Ok("docs/vectors opened by an independent COSE library".to_owned())
}

/// The environments of the Python package's tests: Debian's oslo.messaging and Trove, and the newest
/// oslo.messaging.
pub(crate) fn oslo() -> Result<String, String> {
    oslo_debian()?;
    environment("oslo-newest", "python/tests/requirements-newest.txt")?;
    Ok("two environments".to_owned())
}

/// The interpreter with Debian's oslo.messaging and Trove.
pub(crate) fn oslo_debian() -> Result<PathBuf, String> {
    let system = ["--system-site-packages"];
    made("oslo-debian", "python/tests/requirements-debian.txt", "/usr/bin/python3", &system)
}

/// The interpreter of an environment that has what a check needs.
pub(crate) fn environment(of: &str, requirements: &str) -> Result<PathBuf, String> {
    made(of, requirements, "python3", &[])
}

fn made(of: &str, requirements: &str, base: &str, more: &[&str]) -> Result<PathBuf, String> {
    let wanted = fs::read_to_string(root().join(requirements))
        .map_err(|error| format!("{requirements}: {error}"))?;
    let folder = target().join(format!("venv-{of}"));
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let fresh = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    if fresh && says_yes(&python.to_string_lossy(), &["--version"]) {
        return Ok(python);
    }
    step(&format!("Making a Python environment in {}", folder.display()));
    let limit = Duration::from_secs(900);
    let make = Job::new(base).args(["-m", "venv", "--clear"]).args(more).args([&folder]);
    make.limit(limit).run().map_err(|error| format!("{error}: is python3-venv installed?"))?;
    let pip = Job::new(&python).args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--disable-pip-version-check", "-r", requirements]).limit(limit).run()?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}
