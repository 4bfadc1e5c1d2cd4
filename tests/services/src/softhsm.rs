//! SoftHSM 2: a PKCS#11 token in software.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::ServiceError;
use crate::instance::directory;

const PROGRAM: &str = "/usr/bin/softhsm2-util";
const MODULES: [&str; 2] =
    ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
const SO_PIN: &str = "so-test-only";

/// A private token in a directory of its own. Processes find it by `SOFTHSM2_CONF`, which has to
/// be in their environment before they load the library.
pub struct SoftHsm {
    directory: TempDir,
    module: PathBuf,
}

impl SoftHsm {
    /// The user's PIN.
    pub const PIN: &str = "user-test-only";

    /// A directory with one token of that label.
    ///
    /// # Errors
    /// When SoftHSM is not installed or can't make a token.
    pub fn with_token(label: &str) -> Result<Self, ServiceError> {
        let module = MODULES.iter().map(Path::new).find(|path| path.exists());
        let Some(module) = module.filter(|_| Path::new(PROGRAM).exists()) else {
            return Err(ServiceError::NotInstalled { server: "SoftHSM", package: "softhsm2" });
        };
        let directory = directory("softhsm")?;
        let tokens = directory.path().join("tokens");
        fs::create_dir(&tokens).map_err(ServiceError::io("the tokens' directory"))?;
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        let made = Self { directory, module: module.to_owned() };
        fs::write(made.settings(), text).map_err(ServiceError::io("softhsm2.conf"))?;
        made.util(&["--init-token", "--free", "--label", label, "--so-pin", SO_PIN])?;
        Ok(made)
    }

    /// The library.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What `SOFTHSM2_CONF` has to be.
    pub fn settings(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    /// Runs `softhsm2-util` on this directory, with the user's PIN.
    ///
    /// # Errors
    /// When it fails.
    pub fn util(&self, args: &[&str]) -> Result<(), ServiceError> {
        let output = Command::new(PROGRAM)
            .args(args)
            .args(["--pin", Self::PIN])
            .env("SOFTHSM2_CONF", self.settings())
            .output()
            .map_err(ServiceError::io(PROGRAM))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
        Err(ServiceError::Command { command: PROGRAM.to_owned(), why })
    }
}

impl std::fmt::Debug for SoftHsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftHsm({})", self.directory.path().display())
    }
}
