//! Looks at the journals of a home folder.

use std::path::Path;

use bulla_api::Grade;
use bulla_journal::journals;
use bulla_journal::verify::verify_last;

use super::examine::Findings;
use crate::failure::{Failure, Result};
use crate::journal::{disk_free, public_key};
use crate::settings::{Home, Settings};

/// Bytes on the journals' disk below which it is spoken of, and below which something is wrong.
const LITTLE: u64 = 1 << 30;
const TOO_LITTLE: u64 = 64 << 20;

/// Whether the journals can be written, what their last checkpoints sign, and how much room is left.
pub(crate) fn examine(home: &Home, settings: &Settings, findings: &mut Findings) {
    const WHAT: &str = "journal";
    if settings.journal.off {
        return findings.add(WHAT, Grade::Note, "none is kept ([journal] off)");
    }
    let folder = settings.journal.folder(home);
    if !folder.exists() {
        let text = format!("none yet; {} is made at the first event", folder.display());
        return findings.add(WHAT, Grade::Good, text);
    }
    let written = write_probe(&folder);
    let Some(()) = findings.judge(WHAT, written, |()| {
        let free = disk_free(&folder)
            .map_or_else(String::new, |free| format!(", {} MiB are left on its disk", free >> 20));
        format!("{} can be written{free}", folder.display())
    }) else {
        return;
    };
    match disk_free(&folder) {
        Some(free) if free < TOO_LITTLE => {
            let text = format!("{} MiB are left on its disk; make room", free >> 20);
            findings.add(WHAT, Grade::Bad, text);
        }
        Some(free) if free < LITTLE => {
            findings.add(WHAT, Grade::Note, "less than 1 GiB is left on its disk");
        }
        _ => {}
    }
    let key = match public_key(home, None) {
        Ok(key) => key,
        Err(failure) => return findings.add(WHAT, Grade::Bad, failure.to_string()),
    };
    for dir in journals(&folder).unwrap_or_default() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = verify_last(&dir, &key);
        match &report.finding {
            None => {
                let (size, rest) = (report.first + report.records, report.unsigned());
                let text =
                    format!("{name}: {size} records, the last checkpoint signs all but {rest}");
                findings.add(WHAT, Grade::Good, text);
            }
            Some(finding) => {
                let text =
                    format!("{name} is not as it was written: {finding}; `bulla audit verify`");
                findings.add(WHAT, Grade::Bad, text);
            }
        }
    }
}

/// Writes a file there, to the disk, and takes it away again.
fn write_probe(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let written = std::fs::File::create(&path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, &[0; 4096])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written
        .and(removed)
        .map_err(|error| Failure::new(format!("{} can't be written: {error}", folder.display())))
}
