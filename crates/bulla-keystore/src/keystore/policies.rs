//! Policies: every activation, which of them counts, and what one in the shadow would decide
//! otherwise. What is in a policy is not looked at here: it comes compiled, and goes out signed.

use std::fmt;

use bulla_seal::cbor::Writer;
use bulla_seal::{Digest, IssuerRight, PolicyDocument, Refusal, SignedPolicy, UnixTime};

use super::{Keystore, from_column, seconds, to_column};
use crate::db::Conn;
use crate::db::policies::{self, DifferenceRow, PolicyRow};
use crate::error::{KeystoreError, Result};

/// Most differences that are told apart; what comes after is not counted.
const MAX_DIFFERENCES: i64 = 10_000;
/// Longest rule id, and name of a peer or a method, of a difference, in bytes.
const MAX_TEXT: usize = 160;
const MAX_METHOD: usize = 320;

/// Why there is an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// `bulla policy activate`.
    Command,
    /// The file that the settings name.
    File,
    /// `bulla policy rollback`.
    RollBack,
}

impl PolicyOrigin {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::File => "file",
            Self::RollBack => "rollback",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Command, Self::File, Self::RollBack].into_iter().find(|of| of.as_str() == name)
    }
}

/// One activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Counts from 1.
    pub version: u32,
    /// Why.
    pub origin: PolicyOrigin,
    /// The version that a roll-back says again; 0 is the built-in rule.
    pub again_of: Option<u32>,
    /// As a person wrote it; `None` for the built-in rule.
    pub source: Option<String>,
    /// When.
    pub created: UnixTime,
}

/// A policy as a person wrote it, with its compiled form.
#[derive(Clone, Copy)]
pub struct PolicyText<'a> {
    /// The text.
    pub source: &'a str,
    /// What receivers judge by.
    pub compiled: &'a [u8],
}

impl fmt::Debug for PolicyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyText({} bytes)", self.source.len())
    }
}

/// What the policy in the shadow would decide otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDifference {
    /// Who judged.
    pub receiver: String,
    /// Whose requests; empty for those that were too many to tell apart.
    pub sender: String,
    /// What they asked for.
    pub method: String,
    /// Whether the active policy allows them.
    pub allowed: bool,
    /// The rule that decides now.
    pub rule: String,
    /// The rule of the policy in the shadow.
    pub shadow_rule: String,
    /// How often.
    pub count: u64,
    /// When the last was reported, in Unix seconds.
    pub last: u64,
}

impl Keystore {
    /// Makes a policy the one that counts, as a version of its own. One in the shadow ends.
    ///
    /// # Errors
    /// [`KeystoreError::PolicyTooLarge`]: it does not fit into the messages that carry it.
    pub async fn activate_policy(
        &self,
        policy: PolicyText<'_>,
        origin: PolicyOrigin,
    ) -> Result<SignedPolicy> {
        let mut tx = self.db.write().await?;
        let signed = self.activate(&mut tx, Some(policy), (origin, None)).await?;
        tx.commit().await?;
        Ok(signed)
    }

    /// The same, unless the newest activation from a file has that text already: who rolled back
    /// keeps what they rolled back to until the file changes.
    pub async fn activate_policy_file(
        &self,
        policy: PolicyText<'_>,
    ) -> Result<Option<SignedPolicy>> {
        let is_known = |row: Option<PolicyRow>| {
            row.is_some_and(|row| row.source.as_deref() == Some(policy.source))
        };
        if is_known(policies::newest_of_file(&mut self.db.read().await?).await?) {
            return Ok(None);
        }
        let mut tx = self.db.write().await?;
        // Another process may have been first.
        if is_known(policies::newest_of_file(&mut tx).await?) {
            return Ok(None);
        }
        let signed = self.activate(&mut tx, Some(policy), (PolicyOrigin::File, None)).await?;
        tx.commit().await?;
        Ok(Some(signed))
    }

    /// Makes an earlier version the one that counts again, as a version of its own: 0 is the
    /// built-in rule, and none the one before that which counts now.
    ///
    /// # Errors
    /// [`KeystoreError::UnknownPolicy`], [`KeystoreError::NoEarlierPolicy`].
    pub async fn roll_back_policy(&self, to: Option<u32>) -> Result<SignedPolicy> {
        let mut tx = self.db.write().await?;
        let to = match to {
            Some(to) => to,
            None => before(&mut tx).await?,
        };
        // What is said again is what was said first.
        let mut wanted = to;
        let row = loop {
            if wanted == 0 {
                break None;
            }
            let row = policies::find(&mut tx, wanted).await?;
            let row = row.ok_or(KeystoreError::UnknownPolicy { version: to })?;
            match row.again_of {
                // Versions that are said again are earlier ones.
                Some(again) if again < wanted => wanted = again,
                Some(_) => return Err(KeystoreError::damaged("version of a policy")),
                None => break Some(row),
            }
        };
        let content = row.as_ref().map(|row| self.content(row)).transpose()?;
        let text = content.as_ref().map(|(source, compiled)| PolicyText { source, compiled });
        let signed = self.activate(&mut tx, text, (PolicyOrigin::RollBack, Some(wanted))).await?;
        tx.commit().await?;
        Ok(signed)
    }

    /// What a version says, by its signature alone: whoever writes into the database makes no policy.
    fn content(&self, row: &PolicyRow) -> Result<(String, Vec<u8>)> {
        let damaged = || KeystoreError::damaged(format!("version {} of the policy", row.version));
        let signed = self.trust().verify_policy(&row.signed).map_err(|_| damaged())?;
        let compiled = signed.active.clone().ok_or_else(damaged)?;
        Ok((row.source.clone().ok_or_else(damaged)?, compiled))
    }

    async fn activate(
        &self,
        tx: &mut Conn,
        policy: Option<PolicyText<'_>>,
        (origin, again_of): (PolicyOrigin, Option<u32>),
    ) -> Result<SignedPolicy> {
        let version = policies::newest_version(tx).await?.saturating_add(1);
        let active = policy.map(|policy| policy.compiled.to_vec());
        let signed = self.sign_policy(tx, version, active, None).await?;
        let row = PolicyRow {
            version,
            origin: origin.as_str().to_owned(),
            again_of,
            source: policy.map(|policy| policy.source.to_owned()),
            signed: signed.as_bytes().to_vec(),
            created: to_column(signed.issued_at),
        };
        policies::insert(tx, &row).await?;
        policies::set_document(tx, to_column(signed.sequence), signed.as_bytes(), None).await?;
        Ok(signed)
    }

    async fn sign_policy(
        &self,
        tx: &mut Conn,
        version: u32,
        active: Option<Vec<u8>>,
        shadow: Option<Vec<u8>>,
    ) -> Result<SignedPolicy> {
        let issued_at = self.now().secs();
        // Never below the time: a keystore that was brought back from a backup goes on above what
        // receivers have seen.
        let sequence = policies::sequence(tx).await?.saturating_add(1).max(issued_at);
        let issuer = self.issuer(tx, IssuerRight::Exemptions).await?;
        let document = PolicyDocument { sequence, version, issued_at, active, shadow };
        issuer.hand_out(&document).map_err(|refusal| match refusal {
            Refusal::TooLarge => {
                KeystoreError::PolicyTooLarge { limit: bulla_seal::policy::MAX_POLICY }
            }
            other => other.into(),
        })
    }

    /// Lets a policy judge in the shadow of the one that counts, or none any more. What was
    /// reported of an earlier one is forgotten.
    pub async fn shadow_policy(&self, policy: Option<PolicyText<'_>>) -> Result<SignedPolicy> {
        let mut tx = self.db.write().await?;
        let held = self.document(&mut tx).await?;
        let (version, active) =
            held.map_or((0, None), |(held, _)| (held.version, held.active.clone()));
        let shadow = policy.map(|policy| policy.compiled.to_vec());
        let signed = self.sign_policy(&mut tx, version, active, shadow).await?;
        let text = policy.map(|policy| policy.source);
        policies::set_document(&mut tx, to_column(signed.sequence), signed.as_bytes(), text)
            .await?;
        tx.commit().await?;
        Ok(signed)
    }

    /// What receivers go by; `None` before the first activation.
    pub async fn policy_document(&self) -> Result<Option<SignedPolicy>> {
        let found = self.document(&mut self.db.read().await?).await?;
        Ok(found.map(|(signed, _)| signed))
    }

    /// The same if it is newer than `sequence`, at the cost of a look if it is not.
    pub async fn policy_document_after(&self, sequence: u64) -> Result<Option<SignedPolicy>> {
        let mut conn = self.db.read().await?;
        if policies::sequence(&mut conn).await? <= sequence {
            return Ok(None);
        }
        Ok(self.document(&mut conn).await?.map(|(signed, _)| signed))
    }

    /// The text of the policy in the shadow.
    pub async fn shadow_text(&self) -> Result<Option<String>> {
        let found = self.document(&mut self.db.read().await?).await?;
        Ok(found.and_then(|(_, shadow)| shadow))
    }

    async fn document(&self, conn: &mut Conn) -> Result<Option<(SignedPolicy, Option<String>)>> {
        let Some((bytes, shadow)) = policies::document(conn).await? else { return Ok(None) };
        let signed = self.trust().verify_policy(&bytes);
        let signed = signed.map_err(|_| KeystoreError::damaged("policy that counts"))?;
        Ok(Some((signed, shadow)))
    }

    /// Every activation, the newest first.
    pub async fn policies(&self) -> Result<Vec<PolicyRecord>> {
        let rows = policies::all(&mut self.db.read().await?).await?;
        rows.into_iter().map(record).collect()
    }

    /// Adds to what the policy in the shadow would have decided otherwise. What was counted of an
    /// earlier document is no news any more, and what is too much to tell apart is left out; gives
    /// how many were counted.
    pub async fn note_differences(
        &self,
        sequence: u64,
        found: &[PolicyDifference],
    ) -> Result<usize> {
        let mut tx = self.db.write().await?;
        if policies::sequence(&mut tx).await? != sequence {
            return Ok(0);
        }
        let (mut there, mut noted) = (policies::count_differences(&mut tx).await?, 0);
        for difference in found.iter().filter(|difference| fits(difference)) {
            let id = id(sequence, difference);
            let known = policies::has_difference(&mut tx, id.as_bytes()).await?;
            if !known && there >= MAX_DIFFERENCES {
                continue;
            }
            let row = row(difference, seconds(self.now()));
            policies::add_difference(&mut tx, id.as_bytes(), to_column(sequence), &row).await?;
            there += i64::from(!known);
            noted += 1;
        }
        tx.commit().await?;
        Ok(noted)
    }

    /// What the policy in the shadow would have decided otherwise, the most frequent first.
    pub async fn policy_differences(&self) -> Result<Vec<PolicyDifference>> {
        let rows = policies::differences(&mut self.db.read().await?).await?;
        Ok(rows.into_iter().map(difference).collect())
    }
}

/// The version before the one that counts.
async fn before(conn: &mut Conn) -> Result<u32> {
    let newest = policies::newest_version(conn).await?;
    let row = policies::find(conn, newest).await?;
    let counts = row.map_or(0, |row| row.again_of.unwrap_or(row.version));
    counts.checked_sub(1).ok_or(KeystoreError::NoEarlierPolicy)
}

fn record(row: PolicyRow) -> Result<PolicyRecord> {
    let origin = PolicyOrigin::from_name(&row.origin);
    Ok(PolicyRecord {
        version: row.version,
        origin: origin.ok_or_else(|| KeystoreError::damaged("origin of a policy"))?,
        again_of: row.again_of,
        source: row.source,
        created: from_column(row.created),
    })
}

fn fits(difference: &PolicyDifference) -> bool {
    let PolicyDifference { receiver, sender, method, rule, shadow_rule, .. } = difference;
    [receiver, sender, rule, shadow_rule].iter().all(|text| text.len() <= MAX_TEXT)
        && method.len() <= MAX_METHOD
}

fn id(sequence: u64, difference: &PolicyDifference) -> Digest {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.array(8);
    w.text("bulla/1 policy difference");
    w.uint(sequence);
    w.uint(difference.allowed.into());
    for text in [
        &difference.receiver,
        &difference.sender,
        &difference.method,
        &difference.rule,
        &difference.shadow_rule,
    ] {
        w.text(text);
    }
    Digest::of(&out)
}

fn row(difference: &PolicyDifference, now: i64) -> DifferenceRow {
    DifferenceRow {
        receiver: difference.receiver.clone(),
        sender: difference.sender.clone(),
        method: difference.method.clone(),
        allowed: difference.allowed,
        rule: difference.rule.clone(),
        shadow_rule: difference.shadow_rule.clone(),
        // Whoever reports can't make the sum run over.
        count: to_column(difference.count).min(1 << 40),
        last: now,
    }
}

fn difference(row: DifferenceRow) -> PolicyDifference {
    PolicyDifference {
        receiver: row.receiver,
        sender: row.sender,
        method: row.method,
        allowed: row.allowed,
        rule: row.rule,
        shadow_rule: row.shadow_rule,
        count: row.count.unsigned_abs(),
        last: row.last.unsigned_abs(),
    }
}
