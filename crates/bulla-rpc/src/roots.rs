//! A new root: what this process trusts follows what the old and the new root announced together
//! (protocol section 17).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_journal::events;
use bulla_seal::{Refusal, TrustStore};

use crate::client::Client;
use crate::directory::wire::{self, TrustAnswer, TrustArgs};
use crate::endpoint::Endpoint;
use crate::error::CallError;
use crate::target::Target;

/// How long the question may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
/// Most announcements, and most issuers, that are looked at in one answer.
const AT_ONCE: usize = 16;

impl Endpoint {
    /// Judges what somebody says of roots and issuers, by what is trusted now: gives what to trust
    /// from now on, or `None` if that is no other. Store it before it is
    /// [trusted](Self::trust_from_now_on).
    ///
    /// # Errors
    /// As [`TrustStore::take_root`], each counted. [`Refusal::RootEnded`] is proof that nothing of
    /// what this process trusts counts any more: from then on it trusts nobody.
    pub fn judge_roots(&self, answer: &TrustAnswer) -> Result<Option<TrustStore>, Refusal> {
        let held = self.identity.trust();
        let mut trust = TrustStore::clone(&held);
        for text in answer.announcements.iter().take(AT_ONCE) {
            let bytes = BASE64.decode(text).unwrap_or_default();
            if let Err(refusal) = trust.take_root(&bytes, self.now()) {
                self.counters.refuse(refusal.as_str());
                tracing::error!(
                    %refusal,
                    sequence = trust.root_sequence(),
                    "an announcement of a new root is refused"
                );
                if refusal == Refusal::RootEnded {
                    self.trust_from_now_on(trust.distrusting());
                }
                return Err(refusal);
            }
        }
        for text in answer.issuers.iter().take(AT_ONCE) {
            let bytes = BASE64.decode(text).unwrap_or_default();
            // Signed by a root that is not known yet, or not any more: left out.
            let _ = trust.add_issuer(&bytes);
        }
        let same = trust.root_sequence() == held.root_sequence()
            && trust.issuers().map(|(_, bytes)| bytes).eq(held.issuers().map(|(_, bytes)| bytes));
        Ok((!same).then_some(trust))
    }

    /// Trusts this from now on. Where issuers are gone, sessions and verified credentials are
    /// dropped: they may be theirs.
    pub fn trust_from_now_on(&self, trust: TrustStore) {
        let held = self.identity.trust();
        let stays = |kid| trust.issuers().any(|(issuer, _)| issuer.kid == kid);
        let gone = held.issuers().any(|(issuer, _)| !stays(issuer.kid));
        if trust.root_sequence() > held.root_sequence() {
            self.events().emit(events::RootFollowed { sequence: trust.root_sequence() });
        }
        self.identity.set_trust(trust);
        if gone {
            self.forget_verified();
            self.drop_sessions();
        }
    }

    /// Ends a former root at its time. Whether there was one to end.
    pub fn retire_root(&self) -> bool {
        let held = self.identity.trust();
        if held.former_root().is_none() {
            return false;
        }
        let mut trust = TrustStore::clone(&held);
        let ended = trust.retire_root(self.now());
        if ended {
            self.events().emit(events::RootEnded { sequence: trust.root_sequence() });
            self.trust_from_now_on(trust);
        }
        ended
    }
}

impl Client {
    /// Asks the control plane which roots followed the one that is trusted here, and for the issuers
    /// and its own credential. What it says is [judged](Endpoint::judge_roots) by its signatures.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ask_roots(&self) -> Result<TrustAnswer, CallError> {
        let control = bulla_seal::Principal::component("control");
        let control = control.map_err(|error| CallError::Usage(error.to_string()))?;
        let root = self.endpoint().identity().trust().root_sequence();
        let target = Target::Principal(control);
        let request = self.request(&target, wire::TRUST).namespace(wire::NAMESPACE);
        request.timeout(PATIENCE).cancel_on_drop(false).call(&TrustArgs { root }).await
    }
}
