//! `bulla doctor`: what is wrong, and what to do about it.

use bulla_api::Grade;

use super::api_client;
use crate::cli::ApiArgs;
use crate::control::bus::Bus;
use crate::control::examine::{self, Findings};
use crate::control::{claims, journals, open_keystore};
use crate::failure::{Failure, Result};
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
    examine::certificates(home, settings.as_ref(), &mut findings);
    if let Some(settings) = &settings {
        bus(settings, &mut findings).await;
        findings.judge("claims", claims::examine(home, &settings.claims).await, Clone::clone);
        journals::examine(home, settings, &mut findings);
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
        Ok(bus)
    };
    findings.judge("bus", connected.await, |bus| {
        let carrier = if bus.is_oslo() { "; carrier: oslo" } else { "" };
        format!("{} takes our login{carrier}", bus.address())
    });
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
        let client = api_client(home, &ApiArgs::default())?;
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
