//! What is wrong with a deployment, and what to do about it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bulla_api::{Finding, Grade};
use bulla_http::certs;
use bulla_keystore::Keystore;
use bulla_rpc::{Clock, SystemClock};

use super::CONTROL;
use super::logins::Logins;
use crate::commands::broker::{Compared, advice};
use crate::failure::{Failure, Result};
use crate::settings::{Home, Settings};

/// Certificates that end sooner are spoken of.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// What was looked at.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, what: &str, grade: Grade, text: impl Into<String>) {
        self.0.push(Finding { what: what.to_owned(), grade, text: text.into() });
    }

    pub(crate) fn judge<T>(
        &mut self,
        what: &str,
        result: Result<T>,
        good: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(what, Grade::Good, good(&value));
                Some(value)
            }
            Err(failure) => {
                self.add(what, Grade::Bad, failure.to_string());
                None
            }
        }
    }

    /// How many are bad.
    pub(crate) fn bad(&self) -> usize {
        self.0.iter().filter(|finding| finding.grade == Grade::Bad).count()
    }
}

/// Looks at what lies in the home folder.
pub(crate) fn files(home: &Home, findings: &mut Findings) {
    if home.root_key().exists() {
        findings.add(
            "root key",
            Grade::Note,
            format!("{} is on this machine; take it offline", home.root_key().display()),
        );
    } else {
        findings.add("root key", Grade::Good, "not on this machine");
    }
    if let Some(mode) = exposed(home.dir()) {
        let text = format!(
            "{} can be entered by other users (mode {mode:04o}); run: chmod 700 {}",
            home.dir().display(),
            home.dir().display()
        );
        findings.add("home", Grade::Bad, text);
    }
}

/// The mode of a file or folder that others may use.
fn exposed(path: &Path) -> Option<u32> {
    let mode = path.metadata().ok()?.mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Looks at what the keystore says.
pub(crate) async fn keystore(
    keystore: &Keystore,
    settings: Option<&Settings>,
    findings: &mut Findings,
) {
    let keys = keystore.component_keys(CONTROL).await.map_err(Failure::from);
    findings.judge("control keys", keys, |(_, credential)| {
        format!("good until {}", crate::output::date(credential.validity.not_after))
    });
    if let Ok(Some(when)) = keystore.recalled().await {
        let text = format!(
            "was found older than what was told of it at {}, as from a backup; what was revoked \
             since is revoked again",
            crate::output::date(when.secs())
        );
        findings.add("recall", Grade::Note, text);
    }
    match keystore.kek_state().await {
        Ok(state) if state.left() > 0 => {
            let left = state.left();
            let text = format!("{left} values to go; `bulla kek rotate` goes on with it");
            findings.add("KEK rotation", Grade::Note, text);
        }
        Ok(_) => {}
        Err(error) => findings.add("KEK rotation", Grade::Bad, Failure::from(error).to_string()),
    }
    database_login(keystore, findings).await;
    let agents = keystore.count_agents().await.map_err(Failure::from);
    findings.judge("agents", agents, |count| format!("{count} added"));
    if let Some(settings) = settings {
        broker_users(keystore, settings, findings).await;
    }
}

/// Whether the control plane has more rights in its database than it needs.
async fn database_login(keystore: &Keystore, findings: &mut Findings) {
    const WHAT: &str = "database login";
    let login = match keystore.database_login().await {
        Ok(Some(login)) => login,
        Ok(None) => return,
        Err(error) => return findings.add(WHAT, Grade::Bad, Failure::from(error).to_string()),
    };
    let user = &login.user;
    let what = match (login.superuser, login.owner) {
        (true, _) => "may do everything on the database server",
        (false, true) => "owns the keystore's tables",
        (false, false) => {
            return findings.add(WHAT, Grade::Good, format!("{user}, with a role's rights"));
        }
    };
    let text = format!(
        "the control plane is {user}, who {what}. `bulla db grants --apply` makes a role with the \
         rights that it needs: put that into [keystore] url, and {user} into owner-url"
    );
    findings.add(WHAT, Grade::Note, text);
}

/// Whether each agent has its broker user and each user its agent.
async fn broker_users(keystore: &Keystore, settings: &Settings, findings: &mut Findings) {
    const WHAT: &str = "broker users";
    let logins = match Logins::new(settings, keystore) {
        Ok(logins) => logins,
        Err(failure) => return findings.add(WHAT, Grade::Bad, failure.to_string()),
    };
    let Some(users) = logins.users() else {
        if settings.bus.url.is_some() {
            let text = "agents have none of their own ([broker-users]): each can take others' \
                        messages away, though not read them";
            findings.add(WHAT, Grade::Note, text);
        }
        return;
    };
    let compared = Compared::new(users, keystore).await;
    let good = |compared: &Compared| {
        format!("{} takes our login; {} agents have theirs", users.address(), compared.paired.len())
    };
    let Some(compared) = findings.judge(WHAT, compared, good) else { return };
    if !compared.users.is_empty() {
        let text = format!(
            "without an agent: {}; `bulla broker sync` removes them",
            compared.users_text()
        );
        findings.add(WHAT, Grade::Bad, text);
    }
    if !compared.agents.is_empty() {
        let (agents, advice) = (compared.agents_text(), advice(users.login()));
        findings.add(WHAT, Grade::Note, format!("agents without one: {agents}. {advice}"));
    }
}

/// A backup of the key-encryption key that does not open the keystore is found out now, and not when
/// it is needed.
pub(crate) async fn backup(home: &Home, settings: &Settings, findings: &mut Findings) {
    let Some(path) = &settings.kek.backup else {
        let text = "not named ([kek] backup), so not tried; without its key the keystore is lost";
        return findings.add("KEK backup", Grade::Note, text);
    };
    let fitting = async {
        let kek = bulla_keystore::Kek::from_file(path)?;
        match crate::commands::kek::fit(home, &kek).await? {
            Some(state) if state.left() == 0 => Ok(hex::encode(kek.id())),
            Some(state) => Err(Failure::new(format!(
                "{} opens all but {} values: `bulla kek rotate` goes on with the rotation",
                path.display(),
                state.left()
            ))),
            None => Err(Failure::new(format!(
                "{} does not open this keystore: copy the present key there",
                path.display()
            ))),
        }
    };
    findings.judge("KEK backup", fitting.await, |id| {
        format!("{} ({id}) opens the keystore", path.display())
    });
}

/// How long the API's certificates are good.
pub(crate) fn certificates(home: &Home, settings: Option<&Settings>, findings: &mut Findings) {
    let tls = settings.map(|settings| settings.api.tls.clone()).unwrap_or_default();
    let server = tls.server(home).map(|files| files.certificate);
    let operator = tls.operator(home, None).map(|files| files.certificate);
    for (what, path) in [("API cert", server), ("operator cert", operator)] {
        let path = match path {
            Ok(path) => path,
            Err(failure) => {
                findings.add(what, Grade::Bad, failure.to_string());
                continue;
            }
        };
        let end = certs::not_after(&path).map_err(Failure::from);
        let Some(end) = findings.judge(what, end, |end| {
            let secs = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            format!("good until {}", crate::output::date(secs))
        }) else {
            continue;
        };
        if end.duration_since(SystemTime::now()).is_ok_and(|left| left < SOON) {
            findings.add(what, Grade::Note, "ends within 30 days");
        }
    }
}

/// A clock before this program was written is wrong; one far off makes every message too old or
/// too new.
pub(crate) fn clock(findings: &mut Findings) {
    const WRITTEN: u64 = 1_795_305_600;
    let now = SystemClock.now().secs();
    let text = format!("{}; clocks may differ by 120 s", crate::output::date(now));
    if now < WRITTEN {
        let text = format!(
            "{} can't be right; set the clock (chrony, systemd-timesyncd)",
            crate::output::date(now)
        );
        findings.add("clock", Grade::Bad, text);
    } else {
        findings.add("clock", Grade::Good, text);
    }
}
