//! Policies as people write them: read, checked, activated, rehearsed.

use std::fs;
use std::path::Path;

use bulla_api::{PolicyMistake, PolicyReach};
use bulla_journal::events;
use bulla_keystore::{Keystore, PolicyOrigin, PolicyText};
use bulla_policy::{Mistake, Peer, Policy, Reach, Source, WhoKind};
use bulla_seal::SignedPolicy;

use super::desk::Desk;
use crate::failure::{Failure, Result};

/// Largest text of a policy, in bytes.
const MAX_TEXT: u64 = 4 * 1024 * 1024;

/// A policy that was read, validated and compiled.
pub(crate) struct Checked {
    pub(crate) source: String,
    pub(crate) policy: Policy,
    pub(crate) compiled: Vec<u8>,
}

impl Checked {
    /// Reads, validates and compiles a file; every mistake is told with its place.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let show = file.display();
        let size = fs::metadata(file)
            .map_err(|error| Failure::new(format!("can't read the policy {show}: {error}")))?;
        if size.len() > MAX_TEXT {
            return Err(Failure::new(format!("the policy {show} is larger than 4 MiB")));
        }
        let source = fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("can't read the policy {show}: {error}")))?;
        Self::compile(source, &show.to_string())
    }

    /// Validates and compiles a text that people know as `name`.
    pub(crate) fn compile(source: String, name: &str) -> Result<Self> {
        let policy = Source::parse(&source).and_then(|source| source.compile());
        let policy = policy.map_err(|mistakes| told(name, &mistakes))?;
        let compiled = policy.to_bytes();
        // What receivers would refuse is told here.
        Policy::from_bytes(&compiled).map_err(|_| {
            let message = format!("the policy {name} is too large or too deep");
            let mistake = PolicyMistake { line: None, column: None, message: message.clone() };
            Failure::mistakes(message, vec![mistake])
        })?;
        Ok(Self { source, policy, compiled })
    }

    pub(crate) fn text(&self) -> PolicyText<'_> {
        PolicyText { source: &self.source, compiled: &self.compiled }
    }
}

/// Every mistake as compilers tell them: a place that editors jump to, what is wrong, what to do.
fn told(name: &str, mistakes: &[Mistake]) -> Failure {
    let count = match mistakes.len() {
        1 => "a mistake".to_owned(),
        n => format!("{n} mistakes"),
    };
    let mut text = format!("the policy {name} has {count}:");
    for mistake in mistakes {
        let place = match (mistake.line, mistake.column) {
            (Some(line), Some(column)) => format!("{name}:{line}:{column}"),
            (Some(line), None) => format!("{name}:{line}"),
            (None, _) => name.to_owned(),
        };
        text += &format!("\n  {place}: {}", mistake.message);
    }
    let of = |mistake: &Mistake| PolicyMistake {
        line: mistake.line.map(|line| line as u64),
        column: mistake.column.map(|column| column as u64),
        message: mistake.message.clone(),
    };
    Failure::mistakes(text, mistakes.iter().map(of).collect())
}

/// The component types of a deployment, for the table of who reaches what.
pub(crate) async fn known(keystore: &Keystore) -> Vec<Peer> {
    let found = keystore.list_components().await.unwrap_or_default();
    let named = |name: &str| Peer::Named(WhoKind::Component, name.to_owned());
    found.iter().map(|component| named(component.party.principal.name())).collect()
}

/// A row of that table.
pub(crate) fn reach(row: &Reach<'_>) -> PolicyReach {
    PolicyReach {
        from: row.sender.to_string(),
        to: row.receiver.to_string(),
        effect: row.rule.effect().name().to_owned(),
        actions: row.actions.iter().map(|action| action.name().to_owned()).collect(),
        method: row.method.clone(),
        conditions: row.conditions.clone(),
        rule: row.rule.id().to_owned(),
    }
}

impl Desk {
    /// Makes a policy the one that counts.
    pub(crate) async fn activate_policy(&self, checked: &Checked) -> Result<SignedPolicy> {
        let signed = self.keystore.activate_policy(checked.text(), PolicyOrigin::Command).await?;
        self.changed("activated", &signed);
        Ok(signed)
    }

    /// Makes an earlier version count again; also says which that is.
    pub(crate) async fn roll_back(&self, version: Option<u32>) -> Result<(SignedPolicy, u32)> {
        let signed = self.keystore.roll_back_policy(version).await?;
        self.changed("rolled-back", &signed);
        let records = self.keystore.policies().await?.into_iter();
        let mut records = records.filter(|record| record.version == signed.version);
        let to = records.next().and_then(|record| record.again_of).unwrap_or_default();
        Ok((signed, to))
    }

    /// Lets a policy judge in the shadow.
    pub(crate) async fn begin_shadow(&self, checked: &Checked) -> Result<SignedPolicy> {
        let signed = self.keystore.shadow_policy(Some(checked.text())).await?;
        self.changed("shadowed", &signed);
        Ok(signed)
    }

    /// Lets none judge there any more.
    pub(crate) async fn end_shadow(&self) -> Result<SignedPolicy> {
        let held = self.keystore.policy_document().await?;
        if held.is_none_or(|held| held.shadow.is_none()) {
            return Err(no_shadow());
        }
        let signed = self.keystore.shadow_policy(None).await?;
        self.changed("shadow-ended", &signed);
        Ok(signed)
    }

    fn changed(&self, how: &'static str, signed: &SignedPolicy) {
        let (version, sequence) = (signed.version, signed.sequence);
        self.record(events::PolicyChanged { how, version, sequence });
    }
}

pub(crate) fn no_shadow() -> Failure {
    Failure::conflict(
        "no policy judges in the shadow; let one do so with `bulla policy shadow FILE`",
    )
}
