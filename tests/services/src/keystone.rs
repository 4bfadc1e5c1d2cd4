//! Keystone, OpenStack's identity service.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::ServiceError;
use crate::instance::{Instance, directory, guard, run};
use crate::ports::free_port;
use crate::process::answers;

const MANAGE: &str = "/usr/bin/keystone-manage";
const ADMIN: &str = "test-only-admin";

/// Serves the application that Debian's package has, which is to be served by a web server.
const SERVER: &str = r#"
import os, sys
os.environ["OS_KEYSTONE_CONFIG_FILES"] = sys.argv[2]
port, sys.argv[1:] = int(sys.argv[1]), []
import sqlite3
# Its connections of one process do not wait for each other.
sqlite3.connect("keystone.db").execute("PRAGMA journal_mode = WAL")
from wsgiref.simple_server import make_server
from keystone.server.wsgi import initialize_public_application
make_server("127.0.0.1", port, initialize_public_application()).serve_forever()
"#;

/// A private Keystone on loopback: SQLite, Fernet tokens, the domain `Default`.
pub struct Keystone {
    instance: Instance,
    port: u16,
}

guard!(Keystone, "Keystone");

impl Keystone {
    /// Makes its database and starts it.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        if !Path::new(MANAGE).exists() {
            let package = "python3-keystone";
            return Err(ServiceError::NotInstalled { server: "Keystone", package });
        }
        let directory = directory("keystone")?;
        let dir = directory.path();
        let show = dir.display();
        let settings = format!(
            "[DEFAULT]\nlog_file = {show}/keystone.log\n\
             [database]\nconnection = sqlite:///{show}/keystone.db\n\
             [token]\nprovider = fernet\n\
             [fernet_tokens]\nkey_repository = {show}/fernet\n\
             [credential]\nkey_repository = {show}/credential\n\
             [identity]\npassword_hash_algorithm = pbkdf2_sha512\npassword_hash_rounds = 1000\n"
        );
        let (file, server) = (dir.join("keystone.conf"), dir.join("server.py"));
        fs::write(&file, settings).map_err(ServiceError::io("keystone.conf"))?;
        fs::write(&server, SERVER).map_err(ServiceError::io("server.py"))?;
        fs::create_dir(dir.join("fernet")).map_err(ServiceError::io("fernet"))?;
        let file = file.display().to_string();
        let manage = |more: &[&str]| {
            let words = [&[MANAGE, "--config-file", &file], more].concat();
            run(dir, &words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        manage(&["db_sync"])?;
        let root = rustix::process::geteuid().is_root();
        let owner = ["--keystone-user", "root", "--keystone-group", "root"];
        let owner = if root { &owner[..] } else { &[] };
        manage(&[&["fernet_setup"][..], owner].concat())?;
        manage(&["bootstrap", "--bootstrap-password", ADMIN])?;
        let port = free_port()?;
        let args = ["/usr/bin/python3", &server.display().to_string(), &port.to_string(), &file];
        let args = args.map(str::to_owned).to_vec();
        let ready = Box::new(move || answers(port, b"GET /v3 HTTP/1.0\r\n\r\n"));
        let instance = Instance::start("Keystone", directory, args, "TERM", ready)?;
        Ok(Self { instance, port })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.port)
    }

    /// Makes a project, a user and roles as far as there are none, and gives the user the roles on the
    /// project. The user's password is its name, twice.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn add(&self, user: &str, project: &str, roles: &[&str]) -> Result<(), ServiceError> {
        let admin = self.token("admin", "admin")?;
        let password = password(user);
        let user = self.thing(&admin, "user", &json!({ "name": user, "password": password }))?;
        let project = self.thing(&admin, "project", &json!({ "name": project }))?;
        for role in roles {
            let role = self.thing(&admin, "role", &json!({ "name": role }))?;
            let path = format!("/projects/{project}/users/{user}/roles/{role}");
            self.ask("PUT", &path, &[("X-Auth-Token", &admin)], None)?;
        }
        Ok(())
    }

    /// Says in the catalogue where a service is, in the region `RegionOne`.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn offer(&self, kind: &str, url: &str) -> Result<(), ServiceError> {
        let admin = self.token("admin", "admin")?;
        let region = json!({ "region": { "id": "RegionOne" } });
        // It may be there.
        let _ = self.ask("POST", "/regions", &[("X-Auth-Token", &admin)], Some(&region));
        let new = json!({ "name": kind, "type": kind });
        let service = self.thing(&admin, "service", &new)?;
        let endpoint = json!({ "endpoint": {
            "service_id": service, "interface": "public", "region_id": "RegionOne", "url": url,
        } });
        self.ask("POST", "/endpoints", &[("X-Auth-Token", &admin)], Some(&endpoint)).map(drop)
    }

    /// A token of a user's for a project.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn token(&self, user: &str, project: &str) -> Result<String, ServiceError> {
        let default = json!({ "id": "default" });
        let asked = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": user, "domain": default, "password": password(user),
            } } },
            "scope": { "project": { "name": project, "domain": default } },
        } });
        let answer = self.ask("POST", "/auth/tokens", &[], Some(&asked))?;
        let token = answer.head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-subject-token").then(|| value.trim().to_owned())
        });
        token.ok_or_else(|| failed("a login", "it gave no token"))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn revoke(&self, token: &str) -> Result<(), ServiceError> {
        let admin = self.token("admin", "admin")?;
        let tokens = [("X-Auth-Token", &*admin), ("X-Subject-Token", token)];
        self.ask("DELETE", "/auth/tokens", &tokens, None).map(drop)
    }

    /// Lets a user no longer in.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn disable(&self, user: &str) -> Result<(), ServiceError> {
        let admin = self.token("admin", "admin")?;
        let id = self.thing(&admin, "user", &json!({ "name": user }))?;
        let asked = json!({ "user": { "enabled": false } });
        let path = format!("/users/{id}");
        self.ask("PATCH", &path, &[("X-Auth-Token", &admin)], Some(&asked)).map(drop)
    }

    /// The id of a user, project or role of that name, which is made if there is none.
    fn thing(&self, admin: &str, kind: &str, new: &Value) -> Result<String, ServiceError> {
        let name = new.get("name").and_then(Value::as_str).unwrap_or_default();
        let admin = [("X-Auth-Token", admin)];
        let listed = self.ask("GET", &format!("/{kind}s?name={name}"), &admin, None)?.body;
        let found = listed.get(format!("{kind}s")).and_then(|all| all.get(0)).cloned();
        let found = match found {
            Some(found) => found,
            None => {
                let made =
                    self.ask("POST", &format!("/{kind}s"), &admin, Some(&json!({ kind: new })))?;
                made.body.get(kind).cloned().unwrap_or_default()
            }
        };
        let id = found.get("id").and_then(Value::as_str).map(str::to_owned);
        id.ok_or_else(|| failed(kind, "it has no id"))
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, ServiceError> {
        let io = || ServiceError::io("asking Keystone");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(io())?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(io())?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request =
            format!("{method} /v3{path} HTTP/1.0\r\nContent-Type: application/json\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).map_err(io())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(io())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Err(failed(&format!("{method} {path}"), &answer));
        }
        Ok(Answer { head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() })
    }
}

struct Answer {
    head: String,
    body: Value,
}

fn password(user: &str) -> String {
    if user == "admin" { ADMIN.to_owned() } else { format!("{user}{user}") }
}

fn failed(what: &str, why: &str) -> ServiceError {
    ServiceError::Command { command: format!("Keystone: {what}"), why: why.to_owned() }
}
