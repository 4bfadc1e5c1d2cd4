//! `bulla package`: what a package ships beside the program.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::cli::Cli;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Where each shell's completions go.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

pub(crate) fn run(folder: &Path, out: Output) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("can't write to {}: {error}", folder.display()))
    };
    let mut written = Vec::new();
    for (shell, name) in SHELLS {
        let place = folder.join(name);
        fs::create_dir_all(&place).map_err(failed)?;
        written.push(generate_to(shell, &mut command(), "bulla", &place).map_err(failed)?);
    }
    let pages = folder.join("man");
    fs::create_dir_all(&pages).map_err(failed)?;
    clap_mangen::generate_to(command(), &pages).map_err(failed)?;
    for page in fs::read_dir(&pages).map_err(failed)? {
        written.push(page.map_err(failed)?.path());
    }
    let metrics = folder.join("metrics.md");
    fs::write(&metrics, crate::observe::markdown()).map_err(failed)?;
    written.push(metrics);
    out.result(&written, |out| out.say(format!("{} files", written.len())))
}

/// Without what this machine's environment says.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| arg.hide_env_values(true))
}
