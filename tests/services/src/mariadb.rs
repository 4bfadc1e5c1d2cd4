//! MariaDB.

use std::fs;
use std::path::Path;

use crate::error::ServiceError;
use crate::instance::{Instance, as_user, client, directory, guard, hand_over, run};
use crate::ports::free_port;
use crate::process::greets;

const PROGRAM: &str = "/usr/sbin/mariadbd";
const INSTALL: &str = "/usr/bin/mariadb-install-db";
const SYSTEM_USER: &str = "mysql";
const USER: &str = "bulla";
const PASSWORD: &str = "test-only";
const SERVER: &str = "MariaDB";

/// A private MariaDB on loopback.
pub struct MariaDb {
    instance: Instance,
    port: u16,
}

guard!(MariaDb, "MariaDb");

impl MariaDb {
    /// Makes its tables and starts it: a few seconds.
    ///
    /// # Errors
    /// When MariaDB is not installed or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        if !Path::new(PROGRAM).exists() {
            return Err(ServiceError::NotInstalled { server: SERVER, package: "mariadb-server" });
        }
        let (directory, port) = (directory("mariadb")?, free_port()?);
        let here = directory.path();
        let data = format!("--datadir={}", here.join("data").display());
        let users = format!(
            "CREATE DATABASE IF NOT EXISTS {USER};\n\
             CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION;\n"
        );
        fs::write(here.join("users.sql"), users).map_err(ServiceError::io("users.sql"))?;
        // A starting server clears away what it takes for its own leftovers, in the shared folder
        // those of others that start at the same time.
        let temporary = format!("--tmpdir={}", here.join("tmp").display());
        fs::create_dir(here.join("tmp")).map_err(ServiceError::io("making a directory"))?;
        hand_over(here, SYSTEM_USER)?;
        let mut install = as_user(SYSTEM_USER, Path::new(INSTALL));
        install.extend(["--no-defaults".to_owned(), data.clone(), temporary.clone()]);
        install.extend(["--skip-test-db", "--skip-name-resolve"].map(str::to_owned));
        install.push("--auth-root-authentication-method=normal".to_owned());
        run(here, &install)?;
        let mut args = as_user(SYSTEM_USER, Path::new(PROGRAM));
        args.extend(["--no-defaults".to_owned(), data, temporary]);
        args.extend([
            format!("--port={port}"),
            format!("--socket={}", here.join("socket").display()),
            format!("--pid-file={}", here.join("pid").display()),
            format!("--init-file={}", here.join("users.sql").display()),
        ]);
        args.extend(
            ["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=32M"]
                .map(str::to_owned),
        );
        let ready = Box::new(move || greets(port));
        let instance = Instance::start(SERVER, directory, args, "TERM", ready)?;
        Ok(Self { instance, port })
    }

    /// A dump of its database, as `mariadb-dump` writes it, with binary values as they are or in
    /// hexadecimal.
    ///
    /// # Errors
    /// When it fails.
    pub fn dump(&self, hex: bool) -> Result<Vec<u8>, ServiceError> {
        let blobs: &[&str] = if hex { &["--hex-blob"] } else { &[] };
        self.client("mariadb-dump", &[blobs, &["--skip-lock-tables", USER]].concat(), &[])
    }

    /// Loads a dump into a new database; its address.
    ///
    /// # Errors
    /// When it does not go in.
    pub fn load(&self, database: &str, dump: &[u8]) -> Result<String, ServiceError> {
        self.client("mariadb", &["-e", &format!("CREATE DATABASE {database}")], &[])?;
        self.client("mariadb", &[database], dump)?;
        Ok(format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port))
    }

    fn client(&self, name: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let port = self.port.to_string();
        let here = ["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", USER];
        let program = Path::new("/usr/bin").join(name);
        client(&program, &[&here[..], args].concat(), ("MYSQL_PWD", PASSWORD), input)
    }

    /// The address of its database, with a user who may do everything.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/{USER}")
    }
}
