//! Sessions that this process opened and sessions that were opened to it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulla_seal::{
    Digest, Handle, Kid, Offer, OsRandom, Party, Principal, Refusal, Session, SessionId,
    SignedCredential, UnixTime, shared,
};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::directory::PeerKeys;
use crate::endpoint::Endpoint;
use crate::error::CallError;

/// Sessions that one sender may have open here (protocol section 9).
const MAX_PER_SENDER: usize = 8;
/// Sessions, credentials and unknown names held at the most.
const MAX_SESSIONS: usize = 200_000;
const MAX_CREDENTIALS: usize = 100_000;
const MAX_UNKNOWN: usize = 10_000;
/// How long a kid stays unknown before the directory is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Offers judged per second at the most, and the part kept for senders that are known already.
const OFFERS_PER_SECOND: f64 = 2_000.0;
const RESERVED: f64 = 0.5;

/// A session to a peer, with the offer that opens it.
pub(crate) struct OutSession {
    pub(crate) session: Session,
    /// `None` for a pair key.
    pub(crate) offer: Option<Bytes>,
    /// A reply has shown that the peer holds the session.
    proven: AtomicBool,
    /// Stop starting messages with it (Unix seconds).
    renew_at: u64,
}

impl OutSession {
    /// The offer, as long as a call has to carry it.
    pub(crate) fn offer_for_call(&self) -> Option<&Bytes> {
        if self.proven.load(Ordering::Relaxed) { None } else { self.offer.as_ref() }
    }

    pub(crate) fn set_proven(&self, proven: bool) {
        if self.proven.load(Ordering::Relaxed) != proven {
            self.proven.store(proven, Ordering::Relaxed);
        }
    }
}

/// Sessions that this process opened, by peer.
#[derive(Default)]
pub(crate) struct Outgoing {
    sessions: Mutex<HashMap<Principal, Arc<OutSession>>>,
}

impl Outgoing {
    /// Opens a new session next time.
    pub(crate) fn forget(&self, peer: &Principal) {
        self.sessions.lock().remove(peer);
    }
}

impl Endpoint {
    /// The session to `peer`, opened now if there is none or it is near its end.
    pub(crate) async fn session_to(&self, peer: &Principal) -> Result<Arc<OutSession>, CallError> {
        let now = self.clock.now();
        if let Some(session) = self.outgoing.sessions.lock().get(peer)
            && now.secs() < session.renew_at
        {
            return Ok(session.clone());
        }
        let opened = Arc::new(self.open_session(peer, now).await?);
        self.outgoing.sessions.lock().insert(peer.clone(), opened.clone());
        Ok(opened)
    }

    async fn open_session(&self, peer: &Principal, now: UnixTime) -> Result<OutSession, CallError> {
        let unknown = |why: String| CallError::UnknownTarget { target: peer.to_string(), why };
        let keys = self.directory.peer(peer).await.map_err(|e| unknown(e.to_string()))?;
        match keys {
            None => Err(unknown("there is no such principal".into())),
            Some(PeerKeys::Shared(pair)) => Ok(OutSession {
                session: shared::session(
                    pair.kid,
                    &pair.key,
                    self.identity.party().clone(),
                    pair.peer,
                ),
                offer: None,
                proven: AtomicBool::new(true),
                // Asked again now and then: the name may have a new incarnation.
                renew_at: now.secs() + 300,
            }),
            Some(PeerKeys::Pair(credential)) => {
                let initiator = self
                    .identity
                    .initiator()
                    .ok_or_else(|| unknown("a shared-key agent has no pair key with it".into()))?;
                let life = self.options.offer_life;
                let mut random = OsRandom::default();
                let (offer, session) = initiator.offer(&credential, now, life, &mut random)?;
                let end = session.window().map_or(now.secs(), |window| window.exp);
                Ok(OutSession {
                    session,
                    offer: Some(offer),
                    proven: AtomicBool::new(false),
                    renew_at: now.secs() + end.saturating_sub(now.secs()) / 2,
                })
            }
        }
    }
}

/// Sessions that were opened to this process.
#[derive(Default)]
pub(crate) struct Incoming {
    state: Mutex<IncomingState>,
    budget: Mutex<OfferBudget>,
}

#[derive(Default)]
struct IncomingState {
    sessions: HashMap<Handle, Arc<Session>>,
    by_sender: HashMap<Principal, VecDeque<Handle>>,
    order: VecDeque<Handle>,
    unknown: HashMap<Kid, Instant>,
    credentials: HashMap<Digest, Arc<SignedCredential>>,
    /// Highest incarnation and credential epoch verified, by principal.
    highest: HashMap<Principal, (u32, u32)>,
}

impl IncomingState {
    fn insert(&mut self, session: &Arc<Session>) {
        let handle = session.handle();
        let sender = session.requester().principal.clone();
        let own = self.by_sender.entry(sender).or_default();
        own.push_back(handle);
        if own.len() > MAX_PER_SENDER
            && let Some(oldest) = own.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        self.sessions.insert(handle, session.clone());
        self.order.push_back(handle);
        // Handles of sessions that are gone already are dropped here too.
        while self.sessions.len() > MAX_SESSIONS || self.order.len() > 2 * MAX_SESSIONS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.sessions.remove(&oldest);
        }
    }

    /// Takes note of a verified credential; refuses one that is older than another verified.
    fn check_epoch(&mut self, credential: &Arc<SignedCredential>) -> Result<(), Refusal> {
        let found = (credential.party.incarnation, credential.epoch);
        let highest = self.highest.entry(credential.party.principal.clone()).or_insert(found);
        if found < *highest {
            return Err(Refusal::EpochStale);
        }
        *highest = found;
        if self.credentials.len() >= MAX_CREDENTIALS {
            self.credentials.clear();
        }
        self.credentials.insert(credential.digest(), credential.clone());
        Ok(())
    }
}

/// What may be spent on offers of strangers and of senders that are known already.
struct OfferBudget {
    tokens: f64,
    reserve: f64,
    at: Instant,
}

impl Default for OfferBudget {
    fn default() -> Self {
        Self {
            tokens: OFFERS_PER_SECOND,
            reserve: OFFERS_PER_SECOND * RESERVED,
            at: Instant::now(),
        }
    }
}

impl OfferBudget {
    fn spend(&mut self, known: bool) -> Result<(), Refusal> {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        let rate = OFFERS_PER_SECOND;
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.reserve = (self.reserve + passed * rate * RESERVED).min(rate * RESERVED);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
        } else if known && self.reserve >= 1.0 {
            self.reserve -= 1.0;
        } else {
            return Err(Refusal::RateLimited);
        }
        Ok(())
    }
}

impl Endpoint {
    /// The session that a message names: cached, derived from a pair key, or opened from the
    /// offer beside it (step 3 of protocol section 9).
    pub(crate) async fn incoming_session(
        &self,
        handle: Handle,
        claimed_sender: &str,
        offer: Option<&[u8]>,
    ) -> Result<Arc<Session>, Refusal> {
        if let Some(session) = self.incoming.state.lock().sessions.get(&handle) {
            return Ok(session.clone());
        }
        match (handle, offer) {
            (Handle::Session(id), Some(offer)) => self.accept_offer(id, claimed_sender, offer),
            (Handle::Session(_), None) => Err(Refusal::SessionUnknown),
            (Handle::Key(kid), _) => self.pair_session(kid).await,
        }
    }

    fn accept_offer(
        &self,
        id: SessionId,
        claimed_sender: &str,
        bytes: &[u8],
    ) -> Result<Arc<Session>, Refusal> {
        let offer = Offer::parse(bytes)?;
        if offer.session_id() != id {
            return Err(Refusal::SessionUnknown);
        }
        let me = self.identity.party();
        offer.check(me, self.clock.now(), self.options.skew)?;
        let receive = self.identity.receive_key(offer.audience());
        let receive = receive.ok_or(Refusal::AudienceMismatch)?;
        if !receive.credential.suites.contains(offer.suite()) {
            return Err(Refusal::SuiteNotAllowed);
        }
        let known = claimed_sender.parse().is_ok_and(|sender: Principal| {
            self.incoming.state.lock().by_sender.contains_key(&sender)
        });
        self.incoming.budget.lock().spend(known)?;
        let cached = |digest: &Digest| self.incoming.state.lock().credentials.get(digest).cloned();
        let verified = offer.verify(&self.identity.trust(), cached)?;
        self.incoming.state.lock().check_epoch(verified.credential())?;
        let session = Arc::new(verified.open(&self.identity.domain(), me, &receive.key)?);
        self.counters.offers.add(1);
        self.incoming.state.lock().insert(&session);
        Ok(session)
    }

    async fn pair_session(&self, kid: Kid) -> Result<Arc<Session>, Refusal> {
        {
            let mut state = self.incoming.state.lock();
            if let Some(since) = state.unknown.get(&kid) {
                if since.elapsed() < UNKNOWN_FOR {
                    return Err(Refusal::SessionUnknown);
                }
                state.unknown.remove(&kid);
            }
        }
        let found = self.directory.pair_by_kid(kid).await;
        let Ok(Some(pair)) = found else {
            let mut state = self.incoming.state.lock();
            if state.unknown.len() >= MAX_UNKNOWN {
                state.unknown.clear();
            }
            state.unknown.insert(kid, Instant::now());
            return Err(Refusal::SessionUnknown);
        };
        let me = self.identity.party().clone();
        let session = Arc::new(shared::session(kid, &pair.key, pair.peer, me));
        self.incoming.state.lock().insert(&session);
        Ok(session)
    }

    /// Verifies the credential beside a fanout, or knows it already.
    pub(crate) fn fanout_signer(
        &self,
        bytes: &[u8],
        at: UnixTime,
    ) -> Result<Arc<SignedCredential>, Refusal> {
        let known = self.incoming.state.lock().credentials.get(&Digest::of(bytes)).cloned();
        if let Some(credential) = known {
            credential.validity.check(at)?;
            return Ok(credential);
        }
        self.incoming.budget.lock().spend(false)?;
        let credential = Arc::new(self.identity.trust().verify(bytes, at)?);
        self.incoming.state.lock().check_epoch(&credential)?;
        Ok(credential)
    }

    /// Opens new sessions from now on: after this process's own credential was renewed.
    pub fn forget_sessions(&self) {
        self.outgoing.sessions.lock().clear();
    }

    /// Drops what is held of a peer in both directions, so that it is looked up again.
    pub fn forget_peer(&self, peer: &Principal) {
        self.outgoing.forget(peer);
        let mut state = self.incoming.state.lock();
        if let Some(handles) = state.by_sender.remove(peer) {
            handles.iter().for_each(|handle| {
                state.sessions.remove(handle);
            });
        }
    }

    pub(crate) fn is_me(&self, party: &Party) -> bool {
        party == self.identity.party()
    }
}
