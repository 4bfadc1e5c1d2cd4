//! `cargo xtask deb`: builds the program as it is shipped, and its Debian package.

use std::path::PathBuf;
use std::time::Duration;

use crate::console::{root, target};
use crate::deb::Making;
use crate::report::Report;
use crate::run::{Job, says_yes};

/// The features that the package's program has: all that it can have.
const FEATURES: &str = "redis,postgres,mariadb,pkcs11,otel";
/// A shipped program is slow to build.
const LIMIT: Duration = Duration::from_secs(5400);

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    /// Build it in this profile.
    Profile(String),
    /// Take this program.
    Binary(PathBuf),
}

impl Wish {
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        match args {
            [] => Ok(Self::Profile("dist".to_owned())),
            [flag, profile] if flag == "--profile" => Ok(Self::Profile(profile.clone())),
            [flag, binary] if flag == "--no-build" => Ok(Self::Binary(binary.into())),
            _ => Err("cargo xtask deb takes --profile NAME or --no-build BINARY".to_owned()),
        }
    }
}

pub(crate) fn run(report: &mut Report, wish: &Wish) {
    let mut binary = None;
    match wish {
        Wish::Binary(path) => binary = Some(path.clone()),
        Wish::Profile(profile) => {
            report.suite("the program", "Building the program", || {
                let build = Job::cargo().args(["build", "-p", "bulla-cli", "--profile", profile]);
                build.args(["--features", FEATURES]).limit(LIMIT).run()?;
                binary = Some(target().join(profile).join("bulla"));
                Ok(format!("profile {profile}"))
            });
        }
    }
    let Some(binary) = binary else { return };
    let folder = target().join("deb");
    let mut package = None;
    report.suite("the package", "Making the Debian package", || {
        let (root, compression) = (root(), "xz");
        let making = Making { root: &root, binary: &binary, folder: &folder, compression };
        let made = making.run()?;
        let size = made.metadata().map_or(0, |meta| meta.len());
        let text = format!("{} ({} KiB)", made.display(), size / 1024);
        package = Some(made);
        Ok(text)
    });
    let Some(package) = package else { return };
    if says_yes("lintian", &["--version"]) {
        report.suite("lintian", "Looking at the package with lintian", || {
            Job::new("lintian").args(["--fail-on", "error"]).args([&package]).run()?;
            Ok("no errors".to_owned())
        });
    } else {
        report.skip("lintian", "it is not installed");
    }
}
