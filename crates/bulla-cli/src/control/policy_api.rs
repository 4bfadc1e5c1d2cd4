//! Policies as the API shows and changes them.

use bulla_api::{
    CallFailure, Difference, ExplainRequest, Explanation, Page, PageRequest, PolicyChange,
    PolicyCheck, PolicyOrigin, PolicySource, PolicyStanding, PolicyVersion, RollBackRequest,
    ShadowStanding,
};
use bulla_keystore::PolicyRecord;
use bulla_seal::SignedPolicy;

use super::explain::explain;
use super::plane::{Plane, internal, millis};
use super::policy_text::{Checked, known, no_shadow, reach};
use crate::failure::Result as Outcome;

type Answer<T> = Result<T, CallFailure>;

impl Plane {
    pub(super) async fn policy_standing(&self) -> Answer<PolicyStanding> {
        let held = self.document().await?;
        Ok(PolicyStanding {
            active: held.as_ref().map_or(0, |held| held.version),
            sequence: held.as_ref().map_or(0, |held| held.sequence),
            shadow: held.is_some_and(|held| held.shadow.is_some()),
        })
    }

    pub(super) async fn policy_versions(&self, page: PageRequest) -> Answer<Page<PolicyVersion>> {
        let active = self.policy_standing().await?.active;
        let records = self.0.keystore.policies().await.map_err(internal)?;
        let all = records.iter().map(|record| version(record, active)).collect();
        Ok(Page::of(all, &page, |version: &PolicyVersion| format!("{:010}", version.version)))
    }

    pub(super) async fn policy_of_version(&self, wanted: u32) -> Answer<PolicyVersion> {
        let active = self.policy_standing().await?.active;
        let records = self.0.keystore.policies().await.map_err(internal)?;
        // What is said again is what was said first.
        let text = |mut of: u32| loop {
            let record = records.iter().find(|record| record.version == of)?;
            match record.again_of {
                Some(again) if again < of => of = again,
                _ => return record.source.clone(),
            }
        };
        let record = records.iter().find(|record| record.version == wanted);
        let unknown =
            || CallFailure::NotFound { why: format!("there is no version {wanted} of the policy") };
        let record = record.ok_or_else(unknown)?;
        Ok(PolicyVersion { source: text(wanted), ..version(record, active) })
    }

    pub(super) async fn checked(&self, source: PolicySource) -> Answer<PolicyCheck> {
        let checked = match compile(source.source).await {
            Ok(checked) => checked,
            Err(CallFailure::PolicyRefused { mistakes }) => {
                let (rules, bytes, reach) = (0, 0, Vec::new());
                return Ok(PolicyCheck { good: false, mistakes, rules, bytes, reach });
            }
            Err(failure) => return Err(failure),
        };
        let peers = known(&self.0.keystore).await;
        Ok(PolicyCheck {
            good: true,
            mistakes: Vec::new(),
            rules: checked.policy.rules().len() as u64,
            bytes: checked.compiled.len() as u64,
            reach: checked.policy.reach(&peers).iter().map(reach).collect(),
        })
    }

    pub(super) async fn explained(&self, request: ExplainRequest) -> Answer<Explanation> {
        let exchange = &self.0.client.endpoint().options().exchange;
        Ok(explain(Some(&self.0.keystore), exchange, request).await?)
    }

    pub(super) async fn activated(&self, source: PolicySource) -> Answer<PolicyChange> {
        let checked = compile(source.source).await?;
        let signed = self.0.desk.activate_policy(&checked).await?;
        Ok(PolicyChange { version: signed.version, sequence: signed.sequence, again_of: None })
    }

    pub(super) async fn rolled_back(&self, request: RollBackRequest) -> Answer<PolicyChange> {
        let (signed, to) = self.0.desk.roll_back(request.version).await?;
        let again_of = Some(to);
        Ok(PolicyChange { version: signed.version, sequence: signed.sequence, again_of })
    }

    pub(super) async fn shadow_standing(&self) -> Answer<ShadowStanding> {
        let standing = self.policy_standing().await?;
        let source = match standing.shadow {
            true => self.0.keystore.shadow_text().await.map_err(internal)?,
            false => None,
        };
        Ok(ShadowStanding { shadow: standing.shadow, sequence: standing.sequence, source })
    }

    pub(super) async fn shadowed(&self, source: PolicySource) -> Answer<ShadowStanding> {
        let checked = compile(source.source).await?;
        let signed = self.0.desk.begin_shadow(&checked).await?;
        let source = Some(checked.source);
        Ok(ShadowStanding { shadow: true, sequence: signed.sequence, source })
    }

    pub(super) async fn shadow_ended(&self) -> Answer<ShadowStanding> {
        let signed = self.0.desk.end_shadow().await?;
        Ok(ShadowStanding { shadow: false, sequence: signed.sequence, source: None })
    }

    pub(super) async fn policy_differences(&self, page: PageRequest) -> Answer<Page<Difference>> {
        if !self.policy_standing().await?.shadow {
            return Err(no_shadow().into());
        }
        let found = self.0.keystore.policy_differences().await.map_err(internal)?;
        let all = found.into_iter().map(|found| Difference {
            sender: found.sender,
            method: found.method,
            receiver: found.receiver,
            allowed: found.allowed,
            rule: found.rule,
            candidate_rule: found.shadow_rule,
            count: found.count,
            last_ms: millis(found.last),
        });
        let key = |found: &Difference| {
            let Difference { sender, method, receiver, rule, candidate_rule, .. } = found;
            format!("{sender}\0{method}\0{receiver}\0{rule}\0{candidate_rule}\0{}", found.allowed)
        };
        Ok(Page::of(all.collect(), &page, key))
    }

    async fn document(&self) -> Answer<Option<SignedPolicy>> {
        self.0.keystore.policy_document().await.map_err(internal)
    }
}

/// Off the threads that messages need: a large policy takes a while.
async fn compile(source: String) -> Answer<Checked> {
    let compiled: Result<Outcome<Checked>, _> =
        tokio::task::spawn_blocking(move || Checked::compile(source, "given")).await;
    Ok(compiled.map_err(|error| CallFailure::Internal { why: error.to_string() })??)
}

fn version(record: &PolicyRecord, active: u32) -> PolicyVersion {
    PolicyVersion {
        version: record.version,
        active: record.version == active,
        origin: match record.origin {
            bulla_keystore::PolicyOrigin::Command => PolicyOrigin::Command,
            bulla_keystore::PolicyOrigin::File => PolicyOrigin::File,
            bulla_keystore::PolicyOrigin::RollBack => PolicyOrigin::RollBack,
        },
        again_of: record.again_of,
        created_ms: millis(record.created.secs()),
        source: None,
    }
}
