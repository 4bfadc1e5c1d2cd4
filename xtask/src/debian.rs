//! Debian packages that the tests need.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::console::step;
use crate::run::says_yes;

/// Something that must be on the machine.
struct Need {
    package: &'static str,
    there: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need { package: "rabbitmq-server", there: rabbitmq },
    Need { package: "redis-server", there: redis },
    Need { package: "postgresql", there: postgres },
    Need { package: "mariadb-server", there: mariadb },
    Need { package: "softhsm2", there: softhsm },
    Need { package: "python3-keystone", there: keystone },
    Need { package: "python3-oslo.messaging", there: oslo },
    Need { package: "python3-trove", there: trove },
    Need { package: "trove-common", there: trove_common },
    Need { package: "python3", there: || says_yes("python3", &["--version"]) },
    Need { package: "python3-venv", there: python },
];

/// Whether the broker that the tests start is installed.
pub(crate) fn rabbitmq() -> bool {
    Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists()
}

/// Whether the Redis that the tests start is installed.
pub(crate) fn redis() -> bool {
    Path::new("/usr/bin/redis-server").exists()
}

/// Whether the PostgreSQL that the tests start is installed.
pub(crate) fn postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    versions.filter_map(Result::ok).any(|version| version.path().join("bin/postgres").exists())
}

/// Whether the MariaDB that the tests start is installed.
pub(crate) fn mariadb() -> bool {
    Path::new("/usr/sbin/mariadbd").exists()
}

/// Whether the software token that the tests use is installed.
pub(crate) fn softhsm() -> bool {
    Path::new("/usr/bin/softhsm2-util").exists()
}

/// Whether the Keystone that the tests start is installed.
pub(crate) fn keystone() -> bool {
    Path::new("/usr/bin/keystone-manage").exists()
}

/// Debian's oslo.messaging, which the Python package's tests use beside the newest one.
fn oslo() -> bool {
    Path::new("/usr/lib/python3/dist-packages/oslo_messaging").exists()
}

/// Debian's Trove, whose parts are peers in those tests.
fn trove() -> bool {
    Path::new("/usr/lib/python3/dist-packages/trove").exists()
}

fn trove_common() -> bool {
    Path::new("/etc/trove").exists()
}

/// The servers that the tests start and that are not there.
pub(crate) fn missing_servers() -> Vec<&'static str> {
    let servers = [
        ("RabbitMQ", rabbitmq()),
        ("Redis", redis()),
        ("PostgreSQL", postgres()),
        ("MariaDB", mariadb()),
        ("SoftHSM", softhsm()),
        ("Keystone", keystone()),
    ];
    servers.into_iter().filter(|(_, there)| !there).map(|(server, _)| server).collect()
}

/// Whether a Python environment can be made.
pub(crate) fn python() -> bool {
    says_yes("python3", &["-c", "import ensurepip, venv"])
}

/// Installs what is missing.
///
/// # Errors
/// When something is missing and can't be installed; says what to type.
pub(crate) fn install() -> Result<String, String> {
    install_all(missing)
}

/// Installs one package that few chores need, unless it is there.
///
/// # Errors
/// When it can't be installed; says what to type.
pub(crate) fn install_one(package: &'static str, there: fn() -> bool) -> Result<String, String> {
    install_all(|| if there() { Vec::new() } else { vec![package] })
}

fn install_all(still_missing: impl Fn() -> Vec<&'static str>) -> Result<String, String> {
    let missing = still_missing();
    if missing.is_empty() {
        return Ok("nothing was missing".to_owned());
    }
    let list = missing.join(" ");
    let advice = format!("missing: {list}. To install: sudo apt-get install {list}");
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!("missing: {list}, and this is no Debian; install their like by hand"));
    }
    let Some(sudo) = privilege() else { return Err(advice) };
    step(&format!("Installing {list}"));
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    // The lists may be missing or old: fetch them only if it doesn't work without.
    let installed = apt(sudo, &install) || (apt(sudo, &["update"]) && apt(sudo, &install));
    if !installed {
        return Err(format!("apt-get failed; {advice}"));
    }
    match still_missing().join(" ") {
        still if still.is_empty() => Ok(format!("installed {list}")),
        still => Err(format!("installed, but still not usable: {still}")),
    }
}

fn missing() -> Vec<&'static str> {
    NEEDS.iter().filter(|need| !(need.there)()).map(|need| need.package).collect()
}

/// What goes before `apt-get`: nothing for root, `sudo` where it asks no password.
fn privilege() -> Option<&'static [&'static str]> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(&[]);
    }
    says_yes("sudo", &["-n", "true"]).then_some(&["sudo", "-n"])
}

/// Runs apt-get with `"$@"`. Packages of servers start one of their own when they are installed,
/// unless a policy forbids it: one does while this runs. The tests start theirs themselves.
const APT: &str = r##"
policy=/usr/sbin/policy-rc.d
mark="# for the time of an installation by cargo xtask"
if [ ! -e $policy ] || grep -qF "$mark" $policy; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >$policy && chmod 755 $policy
    trap 'rm -f $policy' EXIT
    trap 'exit 1' INT TERM HUP
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
"##;

/// Not under the watchdog: a half-installed package is worse than one that we wait for.
fn apt(sudo: &[&str], args: &[&str]) -> bool {
    let mut words = sudo.to_vec();
    words.extend(["sh", "-c", APT, "apt"]);
    words.extend(args);
    let Some((program, args)) = words.split_first() else { return false };
    let status = Command::new(program).args(args).stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
