//! `bulla agent show`: everything about one agent's keys, and no secret.

use bulla_guard::floor::PeerRecord;
use bulla_keystore::{CredentialRecord, JoinState, KeyType};
use bulla_seal::DEFAULT_SKEW;
use serde_json::{Value, json};

use crate::control::agent_state::{AgentState, Use, join_word};
use crate::control::open_keystore;
use crate::failure::Result;
use crate::output::{Output, date};
use crate::settings::Home;
use crate::when::while_text;

/// An agent, to be shown.
struct Shown(AgentState);

impl std::ops::Deref for Shown {
    type Target = AgentState;

    fn deref(&self) -> &AgentState {
        &self.0
    }
}

pub(super) async fn run(home: &Home, id: &str, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let state = AgentState::read(&keystore, id).await;
    keystore.close().await;
    let shown = Shown(state?);
    out.result(&shown.json(id), |out| shown.say(out))
}

impl Shown {
    fn json(&self, id: &str) -> Value {
        let AgentState { details, domain, .. } = &self.0;
        let record = &details.record;
        let credentials: Vec<_> = details
            .credentials
            .iter()
            .map(|own| {
                json!({
                    "kid": own.credential.kid.to_string(),
                    "epoch": own.credential.epoch,
                    "use": self.use_of(own).word(),
                    "issued": own.issued.secs(),
                    "age": self.now.saturating_sub(own.issued.secs()),
                    "not_after": own.credential.validity.not_after,
                    "key_destroyed": own.credential.retire_at(DEFAULT_SKEW),
                })
            })
            .collect();
        let pairs: Vec<_> = details
            .pairs
            .iter()
            .map(|p| {
                let component = p.component.to_string();
                json!({ "component": component, "kid": p.kid.to_string(), "epoch": p.epoch })
            })
            .collect();
        let alarms = match self.joining {
            Some(JoinState::Quarantined { alarms }) => alarms,
            _ => 0,
        };
        json!({
            "id": id,
            "principal": record.party.principal.spiffe_id(domain),
            "incarnation": record.party.incarnation,
            "key_type": record.key_type.as_str(),
            "suite": record.suite.as_str(),
            "created": record.created.secs(),
            "groups": self.groups(),
            "join": self.joining.map(join_word),
            "alarms": alarms,
            "credential": details.credential.as_ref().map(|c| json!({
                "kid": c.kid.to_string(),
                "epoch": c.epoch,
                "not_before": c.validity.not_before,
                "not_after": c.validity.not_after,
            })),
            "credentials": credentials,
            "counter": details.counter,
            "renewed": details.renewed.map(|at| at.secs()),
            "next_renewal": self.due(),
            "shared_key": details.shared.map(|(epoch, since)| json!({
                "epoch": epoch,
                "since": since.secs(),
            })),
            "pairs": pairs,
            "floor": self.floor.map(|floor| json!({
                "accepts": floor.accepts.to_string(),
                "sends": floor.sends.to_string(),
                "target": floor.target.map(|target| target.to_string()),
            })),
            "last_seen": self.seen.as_ref().map(|seen| json!({
                "at": seen.at,
                "method": seen.method,
                "level": seen.level.to_string(),
            })),
        })
    }

    fn groups(&self) -> Vec<String> {
        self.details.groups.iter().map(ToString::to_string).collect()
    }

    fn say(&self, out: Output) {
        let record = &self.details.record;
        out.say(out.bold(&record.party.principal.to_string()));
        for (name, value) in self.lines(out) {
            out.say(format!("  {} {value}", out.dim(&format!("{name:<13}"))));
        }
        if !self.details.credentials.is_empty() {
            out.say("");
            let rows = self.details.credentials.iter().map(|own| self.credential_row(own, out));
            out.table(&["  KEY ID", "EPOCH", "AGE", "ENDS", "USE"], rows.collect());
        }
        if !self.details.pairs.is_empty() {
            out.say("");
            let row = |p: &bulla_keystore::PairKeyId| {
                vec![format!("  {}", p.kid), p.epoch.to_string(), p.component.to_string()]
            };
            let rows = self.details.pairs.iter().map(row).collect();
            out.table(&["  PAIR KEY", "EPOCH", "HELD BY"], rows);
        }
    }

    fn lines(&self, out: Output) -> Vec<(&'static str, String)> {
        let record = &self.details.record;
        let mut lines = vec![
            ("principal", record.party.principal.spiffe_id(&self.domain)),
            ("incarnation", record.party.incarnation.to_string()),
            ("key", self.key_text()),
            ("added", self.since(record.created.secs())),
            ("groups", self.groups().join(" ")),
        ];
        if let Some(state) = self.joining {
            let text = join_text(state);
            let bad = matches!(state, JoinState::Quarantined { .. });
            lines.push(("join", if bad { out.bad(&text) } else { text }));
        }
        lines.push(("last seen", self.seen_text()));
        lines.push(("floor", floor_text(self.floor.as_ref())));
        if let Some((epoch, since)) = self.details.shared {
            lines.push(("shared key", format!("epoch {epoch}, {}", self.since(since.secs()))));
            lines
                .push(("renewal", "none: a shared key stays until the agent is added anew".into()));
            return lines;
        }
        let renewed = match self.details.renewed {
            Some(at) => {
                let ago = while_text(self.now.saturating_sub(at.secs()));
                format!("{}, the last {ago} ago", self.details.counter)
            }
            None => "none yet".to_owned(),
        };
        lines.push(("renewals", renewed));
        match self.due() {
            Some(due) if due <= self.now => lines.push((
                "next renewal",
                out.secret(&format!("due since {}: the agent is away", date(due))),
            )),
            Some(due) => {
                let left = while_text(due - self.now);
                lines.push(("next renewal", format!("{} (in {left})", date(due))));
            }
            None if self.details.record.party.incarnation > 0 && self.is_over() => lines.push((
                "next renewal",
                out.bad("none: its credentials are over; `bulla agent add ID --again`"),
            )),
            None => {}
        }
        lines
    }

    /// Whether it had credentials, and none is good.
    fn is_over(&self) -> bool {
        let invited = matches!(
            self.joining,
            Some(JoinState::Invited { .. } | JoinState::Expired | JoinState::Quarantined { .. })
        );
        self.details.credentials.is_empty() && !invited
    }

    fn key_text(&self) -> String {
        let record = &self.details.record;
        match record.key_type {
            KeyType::Pair => format!("pair, {}", record.suite),
            KeyType::Shared => "shared: the keystore has it too".to_owned(),
        }
    }

    fn since(&self, at: u64) -> String {
        format!("{} ({} ago)", date(at), while_text(self.now.saturating_sub(at)))
    }

    fn seen_text(&self) -> String {
        match &self.seen {
            Some(seen) => {
                let ago = while_text(self.now.saturating_sub(seen.at));
                format!("{ago} ago: {}, {}", seen.method, seen.level)
            }
            None => "no message from it yet".to_owned(),
        }
    }

    fn credential_row(&self, own: &CredentialRecord, out: Output) -> Vec<String> {
        let credential = &own.credential;
        let used = match self.use_of(own) {
            Use::Revoked => out.bad("revoked"),
            Use::Announced => "announced: the agent has not confirmed it".to_owned(),
            Use::Present => out.good("in use"),
            Use::Former => {
                format!("former; its key is destroyed {}", date(credential.retire_at(DEFAULT_SKEW)))
            }
        };
        vec![
            format!("  {}", credential.kid),
            credential.epoch.to_string(),
            while_text(self.now.saturating_sub(own.issued.secs())),
            date(credential.validity.not_after),
            used,
        ]
    }
}

fn floor_text(floor: Option<&PeerRecord>) -> String {
    let Some(floor) = floor else { return "none yet: rises with its first message".to_owned() };
    let target = floor.target.map(|target| format!("; {target} is rehearsed"));
    format!("accepts {}, sends {}{}", floor.accepts, floor.sends, target.unwrap_or_default())
}

fn join_text(state: JoinState) -> String {
    match state {
        JoinState::Invited { until } => format!("invited, until {}", date(until)),
        JoinState::Expired => "its token was not used in time; `agent add --again`".to_owned(),
        JoinState::Joined => "joined".to_owned(),
        JoinState::Quarantined { alarms } => format!(
            "QUARANTINED: there are two copies of it, or of its join file ({alarms} alarms); its \
             credentials are revoked"
        ),
    }
}
