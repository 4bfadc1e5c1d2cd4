//! Executables as methods: `DIR/<namespace>/<method>`, or `DIR/<method>` without a namespace.
//!
//! Arguments come as JSON on standard input, the result goes as JSON on standard output (nothing
//! at all is `null`), an exit code other than zero is a sealed error. A line on standard error
//! that begins with `progress: ` is progress, its rest JSON. There is no shell in between, and
//! the environment holds no more than `run::environment` says. `<method>.toml` beside an
//! executable declares its `effect` (`read-only` or `idempotent`) and `version`.

mod run;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_rpc::{Context, Effect, Method, Router, Version};
use serde_json::Value;
use thiserror::Error;

use scan::Refused;

/// The kind of error that a caller gets when an executable fails.
pub(crate) const EXEC_FAILED: &str = "ExecFailed";

/// The folder of executables can't be used at all.
#[derive(Debug, Error)]
pub(crate) enum ExecError {
    /// It can't be read.
    #[error("can't read the folder of executables {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Somebody else could put a program there.
    #[error("{0}")]
    Unsafe(Refused),
}

/// One executable as a method.
#[derive(Debug, Clone)]
struct Executable {
    /// Where it is, with every symbolic link followed.
    path: PathBuf,
    namespace: Option<String>,
    name: String,
    version: Version,
    effect: Effect,
}

impl Executable {
    fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}.{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Adds the executables of a folder to the methods of `router`, none of which is replaced.
/// `limit` is how many bytes of output each may give.
pub(super) fn offer(router: Router, dir: &Path, limit: usize) -> Result<Router, ExecError> {
    let taken: Vec<String> = router.methods().map(|method| method.full_name().to_owned()).collect();
    let found = scan::scan(dir, &taken)?;
    for refused in &found.refused {
        tracing::warn!("{refused}");
    }
    Ok(found.executables.into_iter().fold(router, |router, executable| {
        let (name, path) = (executable.full_name(), executable.path.display());
        tracing::info!(method = name, %path, "offered");
        router.with(method(executable, limit))
    }))
}

fn method(executable: Executable, limit: usize) -> Method {
    let (name, namespace) = (executable.name.clone(), executable.namespace.clone());
    let (version, effect) = (executable.version, executable.effect);
    let executable = Arc::new(executable);
    let method = Method::new(&name, move |context: Context, args: Value| {
        let executable = executable.clone();
        async move { run::run(&executable, limit, &context, &args).await }
    });
    let method = method.version(version.major, version.minor);
    let method = match namespace {
        Some(namespace) => method.namespace(&namespace),
        None => method,
    };
    match effect {
        Effect::Once => method,
        Effect::Idempotent => method.idempotent(),
        Effect::ReadOnly => method.read_only(),
    }
}

#[cfg(test)]
#[path = "exec/tests.rs"]
mod tests;
