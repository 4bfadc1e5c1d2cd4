//! The Debian package, made of the program as it is tested here, unpacked, and used.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code, reason = "tests")]

mod common;
#[path = "../../../xtask/src/deb.rs"]
mod deb;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::text;

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    output
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_package_installs_and_runs() {
    if !is_there("dpkg-deb") {
        return eprintln!("dpkg-deb is not installed: no package was made");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let binary = Path::new(env!("CARGO_BIN_EXE_bulla"));
    let making = deb::Making { root: &root, binary, folder: folder.path(), compression: "none" };
    let package = making.run().unwrap();

    let fields = run(Command::new("dpkg-deb").arg("--field").arg(&package));
    let fields = text(&fields.stdout);
    assert!(fields.contains("Package: bulla\n") && fields.contains("libc6"), "{fields}");
    let installed = folder.path().join("installed");
    run(Command::new("dpkg-deb").arg("-x").args([&package, &installed]));
    run(Command::new("dpkg-deb").arg("-e").args([&package, &folder.path().join("control")]));
    let scripts = ["postinst", "prerm", "postrm"];
    for script in scripts {
        let path = folder.path().join("control").join(script);
        run(Command::new("sh").arg("-n").arg(&path));
        let words = fs::read_to_string(&path).unwrap();
        // What is not configured is not started, and what is off stays off.
        assert!(!words.contains("enable") || words.contains("Nothing is enabled"), "{script}");
        assert!(!words.contains("systemctl start") && !words.contains("invoke start"), "{script}");
    }
    let conf_files = fs::read_to_string(folder.path().join("control/conffiles")).unwrap();
    assert_eq!(conf_files, "/etc/bulla/bulla.toml\n");

    // Its program, with its own settings, makes a deployment and a first call.
    let bulla = installed.join("usr/bin/bulla");
    let version = run(Command::new(&bulla).arg("--version"));
    assert_eq!(text(&version.stdout), concat!("bulla ", env!("CARGO_PKG_VERSION"), "\n"));
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let settings = installed.join("etc/bulla/bulla.toml");
    std::os::unix::fs::symlink(&settings, home.join("bulla.toml")).unwrap();
    let mut up = Command::new(&bulla);
    for (name, value) in common::bulla(&home).get_envs() {
        match value {
            Some(value) => up.env(name, value),
            None => up.env_remove(name),
        };
    }
    let first = run(up.args(["up", "--once", "--listen", "127.0.0.1:0"]));
    assert!(text(&first.stdout).contains("host.facts"));

    // What comes with it.
    let shipped = |path: &str| fs::read(installed.join(path)).unwrap();
    let completions = text(&shipped("usr/share/bash-completion/completions/bulla"));
    run(Command::new("bash").args(["-n", "-c", &completions]));
    for word in ["doctor", "agent", "--metrics"] {
        assert!(completions.contains(word), "{word}");
    }
    assert!(!shipped("usr/share/zsh/vendor-completions/_bulla").is_empty());
    assert!(!shipped("usr/share/fish/vendor_completions.d/bulla.fish").is_empty());
    for page in ["bulla", "bulla-serve", "bulla-agent-run", "bulla-audit-verify"] {
        let page = installed.join(format!("usr/share/man/man1/{page}.1.gz"));
        let page = run(Command::new("gzip").arg("-dc").arg(page));
        assert!(text(&page.stdout).contains(".TH bulla"), "a man page");
    }
    assert_eq!(shipped("etc/bulla/bulla.toml"), include_bytes!("../src/bulla.toml"));
    units(&installed);
}

/// The units are taken by systemd, and are as closed as they are meant to be.
fn units(installed: &Path) {
    let folder = installed.join("usr/lib/systemd/system");
    for unit in ["bulla-serve.service", "bulla-agent@.service"] {
        let written = fs::read_to_string(folder.join(unit)).unwrap();
        for line in ["Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"] {
            assert!(written.lines().any(|own| own == line), "{unit}: {line}");
        }
    }
    if !is_there("systemd-analyze") {
        return eprintln!("systemd-analyze is not installed: the units were not verified");
    }
    let here = installed.join("verify");
    fs::create_dir(&here).unwrap();
    let program = installed.join("usr/bin/bulla").display().to_string();
    let both = [
        ("bulla-serve.service", "bulla-serve.service"),
        ("bulla-agent@.service", "bulla-agent@db-1.service"),
    ];
    for (from, to) in both {
        let unit = fs::read_to_string(folder.join(from)).unwrap();
        // The program stands elsewhere here.
        let to = here.join(to);
        fs::write(&to, unit.replace("/usr/bin/bulla", &program)).unwrap();
        let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&to));
        let said = text(&verified.stderr);
        assert!(!said.contains("bulla-"), "{said}");
        // The exposure, in tenths: it was 1.1 and 1.4.
        let judge = ["security", "--offline=yes", "--threshold=20", "--no-pager"];
        run(Command::new("systemd-analyze").args(judge).arg(&to));
    }
}
