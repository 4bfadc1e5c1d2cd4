//! PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::certs::Identity;
use crate::error::ServiceError;
use crate::instance::{Instance, as_user, client, directory, guard, hand_over, run};
use crate::ports::free_port;

const PROGRAMS: &str = "/usr/lib/postgresql";
const SYSTEM_USER: &str = "postgres";
const USER: &str = "bulla";
const PASSWORD: &str = "test-only";
const SERVER: &str = "PostgreSQL";

/// A private PostgreSQL on loopback.
pub struct Postgres {
    instance: Instance,
    port: u16,
}

guard!(Postgres, "Postgres");

impl Postgres {
    /// Makes a cluster and starts it: a few seconds.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        Self::start_with(None)
    }

    /// One that speaks TLS, too, with this certificate.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with_tls(server: &Identity) -> Result<Self, ServiceError> {
        Self::start_with(Some(server))
    }

    fn start_with(tls: Option<&Identity>) -> Result<Self, ServiceError> {
        let programs = programs()
            .ok_or(ServiceError::NotInstalled { server: SERVER, package: "postgresql" })?;
        let (directory, port) = (directory("postgres")?, free_port()?);
        let (data, password) = (directory.path().join("data"), directory.path().join("password"));
        fs::write(&password, PASSWORD).map_err(ServiceError::io("the password file"))?;
        let files = [directory.path().join("server.pem"), directory.path().join("server.key")];
        if let Some(server) = tls {
            for (file, text) in files.iter().zip([&server.certificate, &server.key]) {
                fs::write(file, text).map_err(ServiceError::io("a certificate"))?;
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(file, private).map_err(ServiceError::io("a certificate"))?;
            }
        }
        hand_over(directory.path(), SYSTEM_USER)?;
        let mut init = as_user(SYSTEM_USER, &programs.join("initdb"));
        init.extend(["-D".to_owned(), data.display().to_string()]);
        init.push(format!("--pwfile={}", password.display()));
        init.extend(
            ["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]
                .map(str::to_owned),
        );
        run(directory.path(), &init)?;
        let mut args = as_user(SYSTEM_USER, &programs.join("postgres"));
        args.extend(["-D".to_owned(), data.display().to_string()]);
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", directory.path().display()),
            "max_connections=100".to_owned(),
            "shared_buffers=32MB".to_owned(),
        ] {
            args.extend(["-c".to_owned(), setting]);
        }
        if tls.is_some() {
            let [certificate, key] = files.map(|file| file.display().to_string());
            for setting in [
                "ssl=on".to_owned(),
                format!("ssl_cert_file={certificate}"),
                format!("ssl_key_file={key}"),
            ] {
                args.extend(["-c".to_owned(), setting]);
            }
        }
        let probe = programs.join("pg_isready");
        let ready = Box::new(move || {
            let mut command = Command::new(&probe);
            command.args(["-q", "-h", "127.0.0.1", "-d", "postgres", "-p", &port.to_string()]);
            command.status().is_ok_and(|status| status.success())
        });
        // INT ends its sessions, TERM would wait for them.
        let instance = Instance::start(SERVER, directory, args, "INT", ready)?;
        Ok(Self { instance, port })
    }

    /// A dump of its database, as `pg_dump` writes it.
    ///
    /// # Errors
    /// When it fails.
    pub fn dump(&self) -> Result<Vec<u8>, ServiceError> {
        self.client("pg_dump", &["-d", "postgres"], &[])
    }

    /// Loads a dump into a new database; its address.
    ///
    /// # Errors
    /// When it does not go in.
    pub fn load(&self, database: &str, dump: &[u8]) -> Result<String, ServiceError> {
        self.client("createdb", &[database], &[])?;
        self.client("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-d", database], dump)?;
        Ok(format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port))
    }

    fn client(&self, name: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let programs = programs()
            .ok_or(ServiceError::NotInstalled { server: SERVER, package: "postgresql" })?;
        let port = self.port.to_string();
        let args = [&["-h", "127.0.0.1", "-p", &port, "-U", USER], args].concat();
        client(&programs.join(name), &args, ("PGPASSWORD", PASSWORD), input)
    }

    /// The address of its database, with a user who may do everything.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres")
    }
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(Path::new(PROGRAMS)).ok()?.filter_map(Result::ok);
    let newest = versions.max_by_key(|version| {
        version.file_name().to_string_lossy().parse::<u32>().unwrap_or_default()
    })?;
    let programs = newest.path().join("bin");
    programs.join("postgres").exists().then_some(programs)
}
