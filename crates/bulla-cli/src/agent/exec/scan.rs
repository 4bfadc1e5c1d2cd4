//! Which executables there are, and whether somebody else could have put them there.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulla_rpc::{Effect, Version};
use bulla_seal::principal::check_name;
use serde::Deserialize;

use super::{ExecError, Executable};

/// Something in the folder that is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What.
    pub(crate) path: PathBuf,
    /// Why, and what to do about it.
    pub(crate) why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not offered: {}", self.path.display(), self.why)
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) executables: Vec<Executable>,
    pub(super) refused: Vec<Refused>,
}

/// What `<method>.toml` may say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Declared {
    effect: Option<DeclaredEffect>,
    version: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeclaredEffect {
    ReadOnly,
    Idempotent,
}

/// Looks through `dir`; names in `taken` are not offered.
pub(super) fn scan(dir: &Path, taken: &[String]) -> Result<Found, ExecError> {
    let read = |source| ExecError::Read { path: dir.to_owned(), source };
    let root = fs::canonicalize(dir).map_err(read)?;
    let mut scan = Scan { taken, checked: HashMap::new(), found: Found::default() };
    scan.check_folder(&root).map_err(|refused| {
        ExecError::Unsafe(Refused { path: dir.to_owned(), why: refused.to_string() })
    })?;
    for (name, path) in entries(&root).map_err(read)? {
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => scan.namespace(&name, &path),
            _ => scan.file(None, &name, &path),
        }
    }
    scan.found.executables.sort_by_key(Executable::full_name);
    Ok(scan.found)
}

/// A folder's entries in order of name, hidden ones left out.
fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

struct Scan<'a> {
    taken: &'a [String],
    /// Folders that were looked at already.
    checked: HashMap<PathBuf, Result<(), String>>,
    found: Found,
}

impl Scan<'_> {
    fn refuse(&mut self, path: &Path, why: impl Into<String>) {
        self.found.refused.push(Refused { path: path.to_owned(), why: why.into() });
    }

    fn namespace(&mut self, name: &str, path: &Path) {
        if let Err(why) = usable_name("namespace", name) {
            return self.refuse(path, why);
        }
        if name == bulla_rpc::builtin::NAMESPACE {
            return self.refuse(path, "the namespace `bulla` is Bulla's own; choose another name");
        }
        let listed = fs::canonicalize(path)
            .map_err(|error| error.to_string())
            .and_then(|real| self.check_folder(&real))
            .and_then(|()| entries(path).map_err(|error| error.to_string()));
        match listed {
            Ok(entries) => {
                entries.iter().for_each(|(file, path)| self.file(Some(name), file, path));
            }
            Err(why) => self.refuse(path, why),
        }
    }

    fn file(&mut self, namespace: Option<&str>, name: &str, path: &Path) {
        if name.ends_with(".toml") {
            return;
        }
        match self.executable(namespace, name, path) {
            Ok(executable) if self.taken.contains(&executable.full_name()) => {
                self.refuse(path, "a built-in method has that name; choose another");
            }
            Ok(executable) => self.found.executables.push(executable),
            Err(why) => self.refuse(path, why),
        }
    }

    fn executable(
        &mut self,
        namespace: Option<&str>,
        name: &str,
        path: &Path,
    ) -> Result<Executable, String> {
        usable_name("method", name)?;
        let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
        let meta = fs::metadata(&real).map_err(|error| error.to_string())?;
        if !meta.is_file() {
            return Err("it is no file; methods lie in DIR or in DIR/<namespace>".into());
        }
        if meta.mode() & 0o111 == 0 {
            return Err(format!("it is not executable; run: chmod 755 {}", path.display()));
        }
        if meta.mode() & 0o6000 != 0 {
            return Err("it runs as another user (setuid or setgid); use a program without".into());
        }
        self.check_file(&real, &meta)?;
        let declared = self.declared(&path.with_file_name(format!("{name}.toml")))?;
        let version = match &declared.version {
            Some(text) => Version::parse(text)
                .ok_or_else(|| format!("its version `{text}` is not `major.minor`"))?,
            None => Version::new(1, 0),
        };
        let effect = match declared.effect {
            None => Effect::Once,
            Some(DeclaredEffect::Idempotent) => Effect::Idempotent,
            Some(DeclaredEffect::ReadOnly) => Effect::ReadOnly,
        };
        let namespace = namespace.map(str::to_owned);
        Ok(Executable { path: real, namespace, name: name.to_owned(), version, effect })
    }

    fn declared(&mut self, path: &Path) -> Result<Declared, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Declared::default()),
            Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
        };
        let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
        let meta = fs::metadata(&real).map_err(|error| error.to_string())?;
        self.check_file(&real, &meta)?;
        toml::from_str(&text).map_err(|error| {
            format!(
                "{} can't be used: {}; it takes `effect = \"idempotent\"` or `\"read-only\"`, and \
                 `version = \"major.minor\"`",
                path.display(),
                error.message()
            )
        })
    }

    /// Nobody but root and this user can change the file or put another in its place.
    fn check_file(&mut self, real: &Path, meta: &Metadata) -> Result<(), String> {
        ours(real, meta)?;
        match real.parent() {
            Some(folder) => self.check_folder(folder),
            None => Ok(()),
        }
    }

    /// The folder and all above it. In one with the sticky bit (`/tmp`), others can't touch what
    /// is not theirs.
    fn check_folder(&mut self, real: &Path) -> Result<(), String> {
        if let Some(known) = self.checked.get(real) {
            return known.clone();
        }
        let own = fs::metadata(real)
            .map_err(|error| format!("{}: {error}", real.display()))
            .and_then(|meta| ours(real, &meta));
        let result = match (own, real.parent()) {
            (Ok(()), Some(above)) => self.check_folder(above),
            (own, _) => own,
        };
        self.checked.insert(real.to_owned(), result.clone());
        result
    }
}

/// Whether only root and this user can write to it.
pub(super) fn ours(path: &Path, meta: &Metadata) -> Result<(), String> {
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != me {
        return Err(format!(
            "{} belongs to another user (uid {}), who could change what runs; give it to this user \
             or to root",
            path.display(),
            meta.uid()
        ));
    }
    let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
    if meta.mode() & 0o022 != 0 && !sticky {
        return Err(format!(
            "{path} can be written by other users (mode {mode:04o}), who could change what runs; \
             run: chmod go-w {path}",
            path = path.display(),
            mode = meta.mode() & 0o7777,
        ));
    }
    Ok(())
}

/// Names of methods have no dot: it stands between namespace and method.
fn usable_name(what: &'static str, name: &str) -> Result<(), String> {
    check_name(what, name).map_err(|error| error.to_string())?;
    if name.contains('.') {
        return Err(format!("a {what}'s name has no dot; rename it"));
    }
    Ok(())
}
