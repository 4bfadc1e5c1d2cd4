//! `cargo xtask bench`: the benchmarks, small. Numbers for a decision take longer runs on a quiet
//! machine: `cargo bench -p CRATE --bench NAME`, and `bulla bench --help`.

use std::fs;
use std::path::Path;

use crate::console::root;
use crate::report::Report;
use crate::run::Job;

pub(crate) fn run(report: &mut Report) {
    let benches = match benches() {
        Ok(benches) => benches,
        Err(error) => return report.cannot_run("benches", &error),
    };
    for (package, bench) in benches {
        let name = format!("{package} {bench}");
        report.suite(&name, &format!("{name} (release build)"), || {
            let args = ["bench", "--package", &package, "--bench", &bench];
            Job::cargo().args(args).run().map(|()| String::new())
        });
    }
    report.suite("bulla bench", "bulla bench on the bus in memory (release build)", || {
        let program = ["run", "--release", "--quiet", "--package", "bulla-cli", "--", "bench"];
        let small = ["--rounds", "4", "--slice", "100", "--sizes", "1KiB", "--concurrency", "1,64"];
        Job::cargo().args(program).args(small).run().map(|()| String::new())
    });
}

/// The crates with a folder of benchmarks, and the benchmarks in it.
fn benches() -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for package in names(&root().join("crates"))? {
        let folder = root().join("crates").join(&package).join("benches");
        if !folder.is_dir() {
            continue;
        }
        for file in names(&folder)? {
            if let Some(bench) = file.strip_suffix(".rs") {
                found.push((package.clone(), bench.to_owned()));
            }
        }
    }
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
