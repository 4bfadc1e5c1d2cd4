//! Asking the control plane for the policy, and reporting what one in the shadow would change.

use std::time::Duration;

use bulla_seal::{Principal, Refusal, SignedPolicy};

use super::Client;
use crate::directory::wire::{
    self, DifferenceText, DifferencesAnswer, DifferencesArgs, PolicyAnswer, PolicyArgs,
};
use crate::error::{CallError, kinds};
use crate::pipeline::PolicyRule;
use crate::target::Target;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a report may wait for the control plane: it is counted once.
const REPORT_LIFE: Duration = Duration::from_secs(60);

impl Client {
    /// Asks the control plane for what it says of policies, if that is newer than `held`, and
    /// verifies it. A control plane that knows no policies has nothing to say.
    ///
    /// # Errors
    /// It does not answer, or what it answers the operator's issuer did not sign.
    pub async fn ask_policy(&self, held: u64) -> Result<Option<SignedPolicy>, CallError> {
        let target = control()?;
        let request = self.request(&target, wire::POLICY).namespace(wire::NAMESPACE);
        let request = request.timeout(PATIENCE).cancel_on_drop(false);
        let answer: PolicyAnswer = match request.call(&PolicyArgs { held }).await {
            Err(CallError::Remote(error)) if error.kind == kinds::NO_SUCH_METHOD => {
                return Ok(None);
            }
            answer => answer?,
        };
        let Some(text) = answer.policy else { return Ok(None) };
        self.verify_policy(&text).map(Some)
    }

    /// Verifies what came as the base64 of a signed document.
    ///
    /// # Errors
    /// The operator's issuer did not sign it.
    pub fn verify_policy(&self, text: &str) -> Result<SignedPolicy, CallError> {
        let unusable = |why: &str| CallError::UnknownTarget {
            target: "component/control".to_owned(),
            why: format!("its policy can't be used: {why}"),
        };
        let bytes = wire::statement_bytes(text).ok_or_else(|| unusable("it is not base64"))?;
        let verified = self.endpoint().identity().trust().verify_policy(&bytes);
        verified.map_err(|refusal| {
            self.refuse_policy(refusal);
            unusable(refusal.as_str())
        })
    }

    /// Counts that what was said of policies is refused.
    pub fn refuse_policy(&self, refusal: Refusal) {
        self.endpoint().refused(refusal, "a policy");
    }

    /// Reports to the control plane what the policy in the shadow of `rule` would have decided
    /// otherwise since the last report; gives how many differences that were.
    ///
    /// # Errors
    /// It does not answer; the differences are counted again, and reported the next time.
    pub async fn report_differences(&self, rule: &PolicyRule) -> Result<usize, CallError> {
        let (sequence, found) = rule.take_differences();
        if found.is_empty() {
            return Ok(0);
        }
        let text = |(what, count): &(crate::pipeline::Difference, u64)| DifferenceText {
            sender: what.sender.clone(),
            method: what.method.clone(),
            allowed: what.allowed,
            rule: what.rule.clone(),
            shadow_rule: what.shadow_rule.clone(),
            count: *count,
        };
        let args = DifferencesArgs { sequence, differences: found.iter().map(text).collect() };
        let target = control()?;
        let request = self.request(&target, wire::POLICY_DIFFERENCES).namespace(wire::NAMESPACE);
        let request = request.timeout(REPORT_LIFE).cancel_on_drop(false);
        let answer: Result<DifferencesAnswer, _> = request.call(&args).await;
        if let Err(error) = answer {
            rule.put_back(sequence, found);
            return Err(error);
        }
        Ok(found.len())
    }
}

fn control() -> Result<Target, CallError> {
    let control = Principal::component("control");
    control.map(Target::Principal).map_err(|error| CallError::Usage(error.to_string()))
}
