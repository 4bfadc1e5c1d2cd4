//! `bulla doctor`: what is wrong, and what to do about it.

use bulla_api::Grade;
use bulla_journal::journals;
use bulla_journal::verify::verify_last;

use super::api_client;
use crate::control::bus::Bus;
use crate::control::examine::{self, Findings};
use crate::control::{claims, open_keystore};
use crate::failure::{Failure, Result};
use crate::journal::{disk_free, public_key};
use crate::output::Output;
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, out: Output) -> Result<()> {
    let mut findings = Findings::default();
    let settings = findings.judge("settings", Settings::load(home.dir()), |_| {
        format!("{} can be read", home.settings().display())
    });
    examine::files(home, &mut findings);
    let opened = open_keystore(home).await;
    let opened = findings.judge("keystore", opened, |keystore| {
        format!("opens with its key; trust domain {}", keystore.trust_store().domain())
    });
    if let Some(keystore) = opened {
        examine::keystore(&keystore, settings.as_ref(), &mut findings).await;
        keystore.close().await;
    }
    if let Some(settings) = &settings {
        examine::backup(home, settings, &mut findings).await;
    }
    examine::certificates(home, &mut findings);
    if let Some(settings) = &settings {
        bus(settings, &mut findings).await;
        findings.judge("claims", claims::examine(home, &settings.claims).await, Clone::clone);
        journal(home, settings, &mut findings);
    }
    api(home, &mut findings).await;
    examine::clock(&mut findings);
    let bad = findings.bad();
    out.result(&findings.0, |out| {
        for finding in &findings.0 {
            let mark = match finding.grade {
                Grade::Good => out.good("ok  "),
                Grade::Note => out.secret("note"),
                Grade::Bad => out.bad("bad "),
            };
            out.say(format!("{mark} {:<12} {}", finding.what, finding.text));
        }
    })?;
    if bad > 0 {
        return Err(Failure::new(format!(
            "{bad} of {} checks found something wrong",
            findings.0.len()
        )));
    }
    Ok(())
}

async fn bus(settings: &Settings, findings: &mut Findings) {
    if settings.bus.url.is_none() {
        findings.add("bus", Grade::Good, "in memory (no broker is set)");
        return;
    }
    let connected = async {
        let bus = Bus::from_settings(&settings.bus, "doctor")?;
        bus.transport().await?.close().await;
        Ok(bus.address())
    };
    findings.judge("bus", connected.await, |address| format!("{address} takes our login"));
}

/// Bytes on the journals' disk below which it is spoken of, and below which something is wrong.
const LITTLE: u64 = 1 << 30;
const TOO_LITTLE: u64 = 64 << 20;

/// Whether the journals can be written, what their last checkpoints sign, and how much room is left.
fn journal(home: &Home, settings: &Settings, findings: &mut Findings) {
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

async fn api(home: &Home, findings: &mut Findings) {
    if !home.api_url().exists() {
        findings.add(
            "API",
            Grade::Note,
            "not running here (`bulla up` or `bulla serve` starts it)",
        );
        return;
    }
    let status = async {
        let client = api_client(home, None)?;
        Ok((client.url().to_owned(), client.status().await?))
    };
    let Some((_, status)) = findings.judge("API", status.await, |(url, status)| {
        format!("{url} answers, version {}", status.version)
    }) else {
        return;
    };
    if let Some(problem) = status.bus.problem {
        findings.add("bus of API", Grade::Bad, problem);
    }
}
