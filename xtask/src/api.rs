//! `cargo xtask api`: tries the HTTPS API of a real control plane by its own description.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::console::{root, target};
use crate::report::Report;
use crate::run::Job;
use crate::{debian, python};

/// What is tried of each operation: few, as each suite has its minute.
const EXAMPLES: &str = "10";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// How long the control plane may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(report: &mut Report) {
    let built = report.suite("build", "Building the program", || {
        Job::cargo().args(["build", "--package", "bulla-cli"]).run()?;
        Ok("target/debug/bulla".to_owned())
    });
    if !built {
        return;
    }
    if let Err(why) = debian::install() {
        report.cannot_run("Debian packages", &why);
    }
    suite(report);
}

/// The suite, with the program that was built.
pub(crate) fn suite(report: &mut Report) {
    if !debian::python() {
        return report.cannot_run("api", "Python can't make environments here");
    }
    report.suite("api", "Trying the HTTPS API by its description (schemathesis)", check);
}

/// A control plane that ends with the suite.
struct Up {
    child: Child,
    home: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Up {
    fn start() -> Result<Self, String> {
        let home = std::env::temp_dir().join(format!("bulla-api-{}", std::process::id()));
        let program = target().join("debug/bulla");
        let child = Command::new(&program)
            .args(["up", "--plain", "--listen", "127.0.0.1:0"])
            .env("BULLA_HOME", &home)
            .env("BULLA_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { child, home })
    }

    /// Its URL and its token, once it has both and its agent answers.
    fn wait(&mut self) -> Result<(String, String), String> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("the control plane ended: {status}"));
            }
            let read = |name: &str| fs::read_to_string(self.home.join(name)).ok();
            if let (Some(url), Some(token)) = (read("api.url"), read("api.token")) {
                return Ok((url.trim().to_owned(), token.trim().to_owned()));
            }
            if begun.elapsed() > PATIENCE {
                return Err("the control plane never came up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn check() -> Result<String, String> {
    let python = python::environment("api", "tests/api/requirements.txt")?;
    let mut up = Up::start()?;
    let (url, token) = up.wait()?;
    let program = python.with_file_name("schemathesis");
    let settings = root().join("tests/api/schemathesis.toml");
    Job::new(program)
        .args(["--config-file".as_ref(), settings.as_os_str()])
        .args(["run", &format!("{url}/v1/openapi.json"), "--max-examples", EXAMPLES])
        .args(["--checks", CHECKS, "--exclude-path-regex", "/stream$|/tap$"])
        // Not in the list of arguments, which other users can see.
        .env("BULLA_API_TOKEN", token)
        .within(&std::env::temp_dir())
        .limit(Duration::from_secs(600))
        .run()?;
    Ok("no 5xx and no answer off the description".to_owned())
}
