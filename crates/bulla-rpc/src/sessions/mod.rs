//! Sessions that this process opened and sessions that were opened to it.

mod incoming;
mod outgoing;

#[cfg(bulla_mutants)]
use std::sync::Arc;

#[cfg(bulla_mutants)]
use bulla_seal::Handle;
use bulla_seal::mutants::{Check, off};
use bulla_seal::{MAX_LIFE, Party, Principal};

use crate::endpoint::Endpoint;
use crate::standing::Standing;

pub(crate) use incoming::{Found, InSession, Incoming};
pub(crate) use outgoing::{OutSession, Outgoing, Path};

impl Endpoint {
    /// Drops what a new statement of revocation refuses: sessions in both directions, and
    /// credentials that were verified.
    pub(crate) fn drop_refused(&self) {
        let stands = |standing: &Standing| self.check_standing(standing).is_ok();
        self.outgoing.retain(stands);
        let mut state = self.incoming.state.lock();
        let state = &mut *state;
        state.sessions.retain(|_, session| stands(&session.standing));
        let sessions = &state.sessions;
        state.by_sender.retain(|_, handles| {
            handles.retain(|handle| sessions.contains_key(handle));
            !handles.is_empty()
        });
        state.credentials.retain(|_, credential| self.check_credential(credential).is_ok());
    }

    /// Opens new sessions from now on: after this process's own credential was renewed.
    pub fn forget_sessions(&self) {
        self.outgoing.forget_all();
    }

    /// Opens a new session to `peer` next time: one that shows this process's present credential.
    pub fn forget_session_to(&self, peer: &Principal) {
        self.outgoing.forget(peer);
    }

    /// Drops sessions that peers opened and in which nothing can be alive any more: with the key
    /// that they were opened to, their own are gone too.
    pub fn forget_ended_sessions(&self) {
        let (now, skew) = (self.now().secs(), self.options.skew);
        let over = |end: u64| end.saturating_add(MAX_LIFE).saturating_add(skew) < now;
        let mut state = self.incoming.state.lock();
        let alive = |session: &InSession| session.session.window().is_none_or(|w| !over(w.exp));
        state.sessions.retain(|_, session| alive(session));
    }

    /// Drops what is held of a peer in both directions, so that it is looked up again.
    pub fn forget_peer(&self, peer: &Principal) {
        self.outgoing.forget(peer);
        let mut state = self.incoming.state.lock();
        state.drop_sessions(|(principal, _)| principal == peer);
    }

    /// Drops every session in both directions: what was opened before a jump of the clock, or in
    /// another life of this machine, counts for nothing (protocol section 7).
    pub fn drop_sessions(&self) {
        self.forget_sessions();
        self.incoming.state.lock().drop_sessions(|_| true);
    }

    /// Forgets which credentials were verified: each is verified anew when it comes again.
    pub(crate) fn forget_verified(&self) {
        self.incoming.state.lock().credentials.clear();
    }

    pub(crate) fn is_me(&self, party: &Party) -> bool {
        party == self.identity.party() || off(Check::Audience)
    }

    /// The session with this name to whomever, where replies of anybody are taken.
    #[cfg(bulla_mutants)]
    pub(crate) fn any_outgoing(&self, handle: Handle) -> Option<Arc<OutSession>> {
        let named = self.outgoing.find(|open| open.session.handle() == handle);
        named.filter(|_| off(Check::ReplyParty))
    }
}
