//! The Debian package, made by `dpkg-deb` of what `crates/bulla-cli/Cargo.toml` says under
//! `[package.metadata.deb]`, in the terms of cargo-deb: who has that may use it as well. Installing it
//! would take longer than everything else here.
//!
//! The standard library alone, and nothing of the rest of this crate: the program's tests use it, too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the metadata is.
const MANIFEST: &str = "crates/bulla-cli/Cargo.toml";
const SECTION: &str = "[package.metadata.deb]";
/// Debian's revision of a version.
const REVISION: &str = "1";
/// Scripts that a package may have.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// What a package is made of.
pub(crate) struct Making<'a> {
    /// The workspace.
    pub(crate) root: &'a Path,
    /// The program.
    pub(crate) binary: &'a Path,
    /// Where everything is put together, and the package is left.
    pub(crate) folder: &'a Path,
    /// dpkg-deb's `-Z`: `xz`, or `none` where it need not be small.
    pub(crate) compression: &'a str,
}

impl Making<'_> {
    /// Makes the package; its path.
    ///
    /// # Errors
    /// What could not be read, run or written.
    pub(crate) fn run(&self) -> Result<PathBuf, String> {
        let metadata = Metadata::read(&self.root.join(MANIFEST))?;
        let version = format!("{}-{REVISION}", workspace_version(self.root)?);
        let (made, stage) = (self.folder.join("made"), self.folder.join("root"));
        for folder in [&made, &stage] {
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(at(folder))?;
            }
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        run(Command::new(self.binary).arg("package").arg(&made))?;
        let files = self.stage(&metadata, &made, &stage)?;
        self.change_log(&metadata, &version, &stage)?;
        compress(&stage)?;
        open_folders(&stage)?;
        let control = stage.join("DEBIAN");
        fs::create_dir(&control).map_err(at(&control))?;
        for script in SCRIPTS {
            let from =
                self.manifest_folder().join(metadata.text("maintainer-scripts")?).join(script);
            if from.exists() {
                copy(&from, &control.join(script), 0o755)?;
            }
        }
        let conf_files = metadata.list("conf-files")?;
        write(&control.join("conffiles"), &format!("{}\n", conf_files.join("\n")))?;
        write(&control.join("md5sums"), &sums(&stage)?)?;
        let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
        let text = self.control(&metadata, &version, architecture.trim(), &stage)?;
        write(&control.join("control"), &text)?;
        let name = metadata.text("name")?;
        let package = self.folder.join(format!("{name}_{version}_{}.deb", architecture.trim()));
        run(Command::new("dpkg-deb")
            .arg(format!("-Z{}", self.compression))
            .args(["--root-owner-group", "--build"])
            .args([&stage, &package]))?;
        println!("{files} files in {}", package.display());
        Ok(package)
    }

    fn manifest_folder(&self) -> PathBuf {
        self.root.join(MANIFEST).parent().unwrap_or(Path::new(".")).to_owned()
    }

    /// Puts every asset into its place; how many.
    fn stage(&self, metadata: &Metadata, made: &Path, stage: &Path) -> Result<usize, String> {
        let mut count = 0;
        for asset in metadata.assets()? {
            for from in self.sources(&asset.from, made)? {
                let mut to = stage.join(&asset.to);
                if asset.to.ends_with('/') {
                    to.push(from.file_name().unwrap_or_default());
                }
                copy(&from, &to, asset.mode)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// What an asset's source stands for: the program, what it wrote, or a file of the sources.
    fn sources(&self, from: &str, made: &Path) -> Result<Vec<PathBuf>, String> {
        if from == "target/release/bulla" {
            return Ok(vec![self.binary.to_owned()]);
        }
        let path = match from.strip_prefix("target/package/") {
            Some(own) => made.join(own),
            None => self.manifest_folder().join(from),
        };
        let Some((folder, end)) =
            path.to_str().and_then(|path| path.split_once("/*")).map(|(f, e)| (f.to_owned(), e))
        else {
            return Ok(vec![path]);
        };
        let folder = PathBuf::from(folder);
        let entries = fs::read_dir(&folder).map_err(at(&folder))?;
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.to_string_lossy().ends_with(end));
        found.sort();
        if found.is_empty() { Err(format!("nothing is {from}")) } else { Ok(found) }
    }

    fn change_log(&self, metadata: &Metadata, version: &str, stage: &Path) -> Result<(), String> {
        let (name, maintainer) = (metadata.text("name")?, metadata.text("maintainer")?);
        let date = said(Command::new("date").args(["-u", "-R", "-d", &format!("@{}", epoch())]))?;
        let text = format!(
            "{name} ({version}) unstable; urgency=medium\n\n  * See changelog.gz beside this \
             file.\n\n -- {maintainer}  {date}"
        );
        write(&stage.join(format!("usr/share/doc/{name}/changelog.Debian")), &text)
    }

    fn control(
        &self,
        metadata: &Metadata,
        version: &str,
        architecture: &str,
        stage: &Path,
    ) -> Result<String, String> {
        let name = metadata.text("name")?;
        let libraries = self.libraries(name, &stage.join("usr/bin/bulla"));
        let depends = metadata.text("depends")?.replace("$auto", &libraries);
        let size: u64 =
            walk(stage)?.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum();
        let mut lines = metadata.text("extended-description")?.trim().lines();
        let mut long = String::new();
        for line in lines.by_ref() {
            long += &format!(" {}\n", if line.is_empty() { "." } else { line });
        }
        Ok(format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {}\n\
             Installed-Size: {}\nDepends: {depends}\nSection: {}\nPriority: {}\n\
             Description: sealed RPC over a message broker that nobody has to trust\n{long}",
            metadata.text("maintainer")?,
            size.div_ceil(1024),
            metadata.text("section")?,
            metadata.text("priority")?,
        ))
    }

    /// The packages that the program's libraries are in, by dpkg-shlibdeps where it is installed.
    fn libraries(&self, name: &str, binary: &Path) -> String {
        let folder = self.folder.join("shlibdeps");
        let asked = fs::create_dir_all(folder.join("debian"))
            .map_err(|error| error.to_string())
            .and_then(|()| {
                write(
                    &folder.join("debian/control"),
                    &format!("Source: {name}\n\nPackage: {name}\nArchitecture: any\n"),
                )
            })
            .and_then(|()| {
                said(Command::new("dpkg-shlibdeps").arg("-O").arg(binary).current_dir(&folder))
            });
        let found = asked.ok().and_then(|text| {
            Some(text.lines().find_map(|line| line.strip_prefix("shlibs:Depends="))?.to_owned())
        });
        found.unwrap_or_else(|| "libc6, libgcc-s1".to_owned())
    }
}

/// The section of the manifest.
struct Metadata(BTreeMap<String, String>);

struct Asset {
    from: String,
    to: String,
    mode: u32,
}

impl Metadata {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(at(path))?;
        let section = text.split(SECTION).nth(1).ok_or(format!("no {SECTION}"))?;
        Self::parse(section).ok_or_else(|| format!("{SECTION} is not as expected"))
    }

    /// As much of TOML as the section has: texts, lists, and texts over several lines.
    fn parse(section: &str) -> Option<Self> {
        let (mut values, mut lines) = (BTreeMap::new(), section.lines());
        while let Some(line) = lines.next().filter(|line| !line.starts_with("[lints")) {
            let Some((name, value)) = line.split_once(" = ") else { continue };
            let mut value = value.to_owned();
            let end = match value.as_str() {
                "\"\"\"\\" => "\"\"\"",
                "[" => "]",
                _ => "",
            };
            if !end.is_empty() {
                value.clear();
                for line in lines.by_ref() {
                    value += line;
                    value.push('\n');
                    if line.ends_with(end) {
                        break;
                    }
                }
                value = value.trim_end().strip_suffix(end)?.to_owned();
            }
            values.insert(name.to_owned(), value);
        }
        Some(Self(values))
    }

    fn value(&self, name: &str) -> Result<&str, String> {
        Ok(self.0.get(name).ok_or_else(|| format!("{SECTION} has no {name}"))?)
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        Ok(self.value(name)?.trim_matches('"'))
    }

    fn list(&self, name: &str) -> Result<Vec<String>, String> {
        Ok(texts(self.value(name)?))
    }

    fn assets(&self) -> Result<Vec<Asset>, String> {
        let asset = |line: &str| {
            let [from, to, mode] = <[String; 3]>::try_from(texts(line)).ok()?;
            Some(Asset { from, to, mode: u32::from_str_radix(&mode, 8).ok()? })
        };
        let lines = self.value("assets")?.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| asset(line).ok_or_else(|| format!("no asset: {line}"))).collect()
    }
}

/// The quoted texts of a line.
fn texts(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn workspace_version(root: &Path) -> Result<String, String> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let found = text.lines().find_map(|line| line.strip_prefix("version = \""));
    Ok(found.ok_or("no version in Cargo.toml")?.trim_end_matches('"').to_owned())
}

/// What is told as the time of everything: of the last commit, unless said otherwise.
fn epoch() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let commit = || said(Command::new("git").args(["log", "-1", "--format=%ct"])).ok();
    given.or_else(commit).map_or_else(|| "0".to_owned(), |text| text.trim().to_owned())
}

/// Man pages and change logs are compressed, without the time of it.
fn compress(stage: &Path) -> Result<(), String> {
    let wanted = |path: &Path| {
        let text = path.to_string_lossy();
        text.contains("/share/man/")
            || (text.contains("/share/doc/")
                && (text.contains("/changelog") || text.ends_with(".md")))
    };
    let files: Vec<_> = walk(stage)?.into_iter().filter(|path| wanted(path)).collect();
    run(Command::new("gzip").args(["-9", "-n"]).args(files))
}

fn sums(stage: &Path) -> Result<String, String> {
    let files: Vec<_> = walk(stage)?
        .iter()
        .filter_map(|path| Some(path.strip_prefix(stage).ok()?.to_owned()))
        .filter(|path| !path.starts_with("DEBIAN") && !path.starts_with("etc"))
        .collect();
    said(Command::new("md5sum").args(files).current_dir(stage))
}

/// Whatever this user's mask is.
fn open_folders(folder: &Path) -> Result<(), String> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(at(folder))?;
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        if entry.path().is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

/// Every file, in order.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() { out.extend(walk(&path)?) } else { out.push(path) }
    }
    out.sort();
    Ok(out)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(at(folder))?;
    fs::copy(from, to).map_err(at(from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(at(to))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> String + use<> {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}

fn run(command: &mut Command) -> Result<(), String> {
    said(command).map(drop)
}

fn said(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ended = command
        .env("SOURCE_DATE_EPOCH", epoch_of(&program))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&ended.stderr).trim()))
}

/// For what writes times into what it makes.
fn epoch_of(program: &str) -> String {
    if program == "dpkg-deb" { epoch() } else { "0".to_owned() }
}
