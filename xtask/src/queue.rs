//! The queue service with the clients of others: PyPI's python-zaqarclient, the `openstack` commands with
//! and without a Keystone, the requests that a real Zaqar was sent, and schemathesis.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::console::{root, target};
use crate::report::Report;
use crate::run::Job;
use crate::{debian, python};

/// What is tried of each operation: few, as each suite has its minute.
const EXAMPLES: &str = "10";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

pub(crate) fn run(report: &mut Report) {
    let built = report.suite("build", "Building the program", || {
        Job::cargo().args(["build", "--package", "bulla-cli"]).run()?;
        // Where all tests are built, this is, too.
        Job::cargo()
            .args(["build", "--package", "bulla-services", "--example", "keystone"])
            .run()?;
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
        return report.cannot_run("queue", "Python can't make environments here");
    }
    report.suite("queue", "Trying the queue service with Zaqar's clients", check);
    report.suite("queue's description", "Trying the queue service by its description", fuzz);
    if !debian::keystone() {
        return report.cannot_run("queue behind Keystone", "Keystone is not installed");
    }
    let doing = "Trying the queue service with OpenStack's commands, behind a Keystone";
    report.suite("queue behind Keystone", doing, behind_keystone);
}

/// A program that ends with the suite.
struct Started {
    child: Child,
    out: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    fn new(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let out = child.stdout.take().ok_or("it says nothing")?;
        let input = child.stdin.take();
        Ok(Self { child, out: BufReader::new(out), input })
    }

    /// The next line that it says; nothing if it ends.
    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.out.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line.trim().to_owned())
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("it takes nothing")?;
        writeln!(input, "{line}").map_err(|error| error.to_string())
    }
}

/// A folder that goes with the suite.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Home {
    fn new(of: &str) -> Self {
        Self(std::env::temp_dir().join(format!("bulla-{of}-{}", std::process::id())))
    }

    fn init(&self) -> Result<(), String> {
        let init = self.command(&["init"]).stdout(Stdio::null()).status();
        let done = init.is_ok_and(|status| status.success());
        done.then_some(()).ok_or_else(|| "bulla init failed".to_owned())
    }

    /// Has the settings say something else.
    fn set(&self, from: &str, to: &str) -> Result<(), String> {
        let path = self.0.join("bulla.toml");
        let settings = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if !settings.contains(from) {
            return Err(format!("the settings have no {from}"));
        }
        fs::write(&path, settings.replace(from, to)).map_err(|error| error.to_string())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(target().join("debug/bulla"));
        command.args(args).env("BULLA_HOME", &self.0).env("BULLA_LOG", "error");
        command
    }
}

/// A queue service, and its address.
fn serve(home: &Home, more: &[&str]) -> Result<(Started, String), String> {
    let args = [&["--json", "queue", "serve", "--listen", "127.0.0.1:0"], more].concat();
    let mut served = Started::new(&mut home.command(&args))?;
    let line = served.line()?;
    let url = line.split("\"queue\":\"").nth(1).and_then(|rest| rest.split('"').next());
    match url {
        Some(url) => Ok((served, url.to_owned())),
        None => Err("the queue service did not begin".to_owned()),
    }
}

fn script(python: &Path, name: &str) -> Job {
    let limit = Duration::from_secs(300);
    Job::new(python).args([root().join("tests/queue").join(name)]).limit(limit)
}

fn check() -> Result<String, String> {
    let python = python::environment("queue", "tests/queue/requirements.txt")?;
    let home = Home::new("queue");
    let (_served, url) = serve(&home, &["--noauth"])?;
    let answers = root().join("tests/queue/answers.json");
    script(&python, "requests_of_zaqar.py").args(["check", &url]).args([&answers]).run()?;
    script(&python, "clients.py").args([&url]).run()?;
    script(&python, "commands.py").args(["open", &url]).run()?;
    // The same once more where messages lie encrypted.
    let home = Home::new("queue-encrypted");
    home.init()?;
    home.set("#: encrypt = false", "encrypt = true")?;
    let (_served, url) = serve(&home, &["--noauth"])?;
    script(&python, "requests_of_zaqar.py").args(["check", &url]).args([answers]).run()?;
    script(&python, "clients.py").args([&url]).run()?;
    Ok("answers as a real Zaqar's; python-zaqarclient's calls and all commands work".to_owned())
}

fn fuzz() -> Result<String, String> {
    let python = python::environment("api", "tests/api/requirements.txt")?;
    let home = Home::new("queue-fuzz");
    let (_served, url) = serve(&home, &["--noauth"])?;
    let settings = root().join("tests/queue/schemathesis.toml");
    Job::new(python.with_file_name("schemathesis"))
        .args(["--config-file".as_ref(), settings.as_os_str()])
        .args(["run", &format!("{url}/v2/openapi.json"), "--max-examples", EXAMPLES])
        .args(["--checks", CHECKS])
        .env("SCHEMATHESIS_HOOKS", root().join("tests/queue/hooks.py"))
        .within(&std::env::temp_dir())
        .limit(Duration::from_secs(600))
        .run()?;
    Ok("no 5xx and no answer off the description".to_owned())
}

fn behind_keystone() -> Result<String, String> {
    let python = python::environment("queue", "tests/queue/requirements.txt")?;
    let mut keystone = Started::new(&mut Command::new(target().join("debug/examples/keystone")))?;
    let identity = keystone.line()?;
    if identity.is_empty() {
        return Err("Keystone did not begin".to_owned());
    }
    let home = Home::new("queue-keystone");
    home.init()?;
    let io = |error: std::io::Error| error.to_string();
    let (secret, toml) = (home.0.join("keystone.password"), home.0.join("bulla.toml"));
    private(&secret, "bullabulla").map_err(io)?;
    let settings = fs::read_to_string(&toml).map_err(io)?;
    let more = format!(
        "\n[api.keystone]\nurl = {identity:?}\nuser = \"bulla\"\nsecret-file = {secret:?}\n\
         [api.keystone.roles]\nmessaging = \"queue-admin\"\n"
    );
    fs::write(&toml, settings + &more).map_err(io)?;
    let (_served, url) = serve(&home, &[])?;
    keystone.say(&url)?;
    if keystone.line()? != "ready" {
        return Err("Keystone did not take the address of the queue service".to_owned());
    }
    let ca = home.0.join("tls/ca.crt");
    let job = script(&python, "commands.py").args(["keystone", &url]);
    let set = [
        ("OS_AUTH_TYPE", "password"),
        ("OS_AUTH_URL", &identity),
        ("OS_IDENTITY_API_VERSION", "3"),
        ("OS_REGION_NAME", "RegionOne"),
        ("OS_USERNAME", "ada"),
        ("OS_PASSWORD", "adaada"),
        ("OS_PROJECT_NAME", "analytics"),
        ("OS_USER_DOMAIN_ID", "default"),
        ("OS_PROJECT_DOMAIN_ID", "default"),
        ("OS_OTHER", "bob@builds"),
        ("OS_CACERT", &*ca.to_string_lossy()),
        ("REQUESTS_CA_BUNDLE", &*ca.to_string_lossy()),
    ];
    let job = set.iter().fold(job, |job, (name, value)| job.env(name, value));
    job.run()?;
    Ok("all commands work, and each project has its own".to_owned())
}

/// Writes a file that its owner alone reads.
fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}
