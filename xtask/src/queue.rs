//! The queue service with the clients of others: PyPI's python-zaqarclient, and the requests that a real
//! Zaqar was sent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::console::{root, target};
use crate::report::Report;
use crate::run::Job;
use crate::{debian, python};

/// The suite, with the program that was built.
pub(crate) fn suite(report: &mut Report) {
    if !debian::python() {
        return report.cannot_run("queue", "Python can't make environments here");
    }
    report.suite("queue", "Trying the queue service with Zaqar's clients", check);
}

/// A queue service that ends with the suite.
struct Served {
    child: Child,
    home: PathBuf,
    url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Served {
    fn start() -> Result<Self, String> {
        let home = std::env::temp_dir().join(format!("bulla-queue-{}", std::process::id()));
        let program = target().join("debug/bulla");
        let mut child = Command::new(&program)
            .args(["--json", "queue", "serve", "--noauth", "--listen", "127.0.0.1:0"])
            .env("BULLA_HOME", &home)
            .env("BULLA_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut line = String::new();
        // It says where it is once it listens, and nothing if it ends.
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let url = line.split("\"queue\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let url = url.unwrap_or_default().to_owned();
        let served = Self { child, home, url };
        if served.url.is_empty() {
            Err("the queue service did not begin".to_owned())
        } else {
            Ok(served)
        }
    }
}

fn check() -> Result<String, String> {
    let python = python::environment("queue", "tests/queue/requirements.txt")?;
    let folder = root().join("tests/queue");
    let served = Served::start()?;
    let limit = Duration::from_secs(300);
    Job::new(&python)
        .args([folder.join("requests_of_zaqar.py")])
        .args(["check", &served.url])
        .args([folder.join("answers.json")])
        .limit(limit)
        .run()?;
    Job::new(&python).args([folder.join("clients.py")]).args([&served.url]).limit(limit).run()?;
    Ok("answers as a real Zaqar's; python-zaqarclient's calls work".to_owned())
}
