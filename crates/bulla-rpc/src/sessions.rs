//! Sessions that this process opened and sessions that were opened to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulla_guard::floor::{FloorError, Peer};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    Audience, Digest, GroupName, Handle, Header, Kid, Offer, OsRandom, Parsed, Party, Principal,
    Refusal, Route, Session, SessionId, SignedCredential, SignedStatement, UnixTime, shared,
};
use bulla_transport::Address;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::directory::PeerKeys;
use crate::endpoint::{Endpoint, EndpointOptions};
use crate::error::CallError;
use crate::rate::SenderRates;
use crate::standing::Standing;
use crate::target::Target;

/// Sessions that one sender may have open here (protocol section 9).
const MAX_PER_SENDER: usize = 8;
/// Sessions, credentials and unknown names held at the most.
const MAX_SESSIONS: usize = 200_000;
const MAX_CREDENTIALS: usize = 100_000;
const MAX_UNKNOWN: usize = 10_000;
/// How long a kid stays unknown before the directory is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// The part of a budget that is kept for those that are known already.
const RESERVED: f64 = 0.5;
/// Of that part, what one sender's name may use, so that one who floods leaves the rest alone.
const RESERVED_PER_SENDER: u32 = 50;
/// Encapsulations opened per second for one verified sender.
const OPENED_PER_SENDER: u32 = 100;

/// A session to a peer, with the offer that opens it.
pub(crate) struct OutSession {
    pub(crate) session: Session,
    /// `None` for a pair key.
    pub(crate) offer: Option<Bytes>,
    /// A reply has shown that the peer holds the session.
    proven: AtomicBool,
    /// Stop starting messages with it (Unix seconds).
    renew_at: u64,
    /// The path to the peer itself, not to one of its hosts.
    path: OnceLock<Arc<Path>>,
    /// How the peer's key stands.
    pub(crate) standing: Standing,
    /// The epoch of the newest statement that the peer has shown to hold.
    shown: AtomicU64,
}

/// A session that a peer opened to this process.
#[derive(Debug)]
pub(crate) struct InSession {
    pub(crate) session: Arc<Session>,
    pub(crate) standing: Standing,
    peer: OnceLock<Arc<Peer>>,
    /// The epoch of the newest statement that a reply carried to the peer.
    told: AtomicU64,
}

impl InSession {
    fn new(session: Session, standing: Standing) -> Arc<Self> {
        let session = Arc::new(session);
        Arc::new(Self { session, standing, peer: OnceLock::new(), told: AtomicU64::new(0) })
    }

    /// The sender's floor, looked up once a session.
    pub(crate) async fn peer(&self, endpoint: &Endpoint) -> Result<&Arc<Peer>, FloorError> {
        if let Some(peer) = self.peer.get() {
            return Ok(peer);
        }
        let peer = endpoint.floors.peer(self.standing.party()).await?;
        Ok(self.peer.get_or_init(|| peer))
    }

    /// The statement to send along with a reply: once after each new one.
    pub(crate) fn statement(&self, endpoint: &Endpoint) -> Option<Arc<SignedStatement>> {
        let statement = endpoint.statement_for(self.told.load(Ordering::Relaxed))?;
        self.told.fetch_max(statement.epoch, Ordering::Relaxed);
        Some(statement)
    }
}

/// Where messages of a session go: on the bus, and as they are sealed for it.
pub(crate) struct Path {
    pub(crate) route: Route,
    pub(crate) address: Arc<Address>,
}

impl Path {
    fn new(exchange: &str, target: &Target, peer: &Party) -> Result<Self, CallError> {
        let audience = Audience::Party(peer.clone());
        let route = Route::new(exchange, &target.topic(), target.server(), audience)
            .map_err(|e| CallError::Usage(e.to_string()))?;
        Ok(Self { route, address: Arc::new(target.address(exchange)) })
    }
}

impl OutSession {
    /// The offer, as long as a call has to carry it.
    pub(crate) fn offer_for_call(&self) -> Option<&Bytes> {
        if self.proven.load(Ordering::Relaxed) { None } else { self.offer.as_ref() }
    }

    /// The path to `target`, which is this session's peer or a host of it.
    pub(crate) fn path_to(
        &self,
        endpoint: &Endpoint,
        target: &Target,
    ) -> Result<Arc<Path>, CallError> {
        let path = || Path::new(&endpoint.options.exchange, target, self.session.responder());
        if !matches!(target, Target::Principal(_)) {
            return path().map(Arc::new);
        }
        if let Some(known) = self.path.get() {
            return Ok(known.clone());
        }
        let path = path().map(Arc::new)?;
        Ok(self.path.get_or_init(|| path).clone())
    }

    /// Whether messages made at `now` may start in it; a clock that was set back has to catch up
    /// with an offer first.
    fn is_usable(&self, now: u64) -> bool {
        now < self.renew_at && self.session.window().is_none_or(|window| now >= window.iat)
    }

    /// The statement to send along with a message: until the peer has shown that it holds it.
    /// What is not answered, and what carries an offer, carries the statement too.
    pub(crate) fn statement(
        &self,
        endpoint: &Endpoint,
        always: bool,
    ) -> Option<Arc<SignedStatement>> {
        let shown = if always { 0 } else { self.shown.load(Ordering::Relaxed) };
        endpoint.statement_for(shown)
    }

    /// The peer answered a message that carried a statement of this epoch.
    pub(crate) fn has_shown(&self, epoch: u64) {
        if epoch > self.shown.load(Ordering::Relaxed) {
            self.shown.fetch_max(epoch, Ordering::Relaxed);
        }
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
    /// Of this process's fanouts, by group: a gap that a member sees is one of its own group.
    sequences: Mutex<HashMap<GroupName, u64>>,
}

impl Outgoing {
    /// Opens a new session next time.
    pub(crate) fn forget(&self, peer: &Principal) {
        self.sessions.lock().remove(peer);
    }

    /// Opens a new session next time, if this is still the one in use.
    pub(crate) fn forget_if(&self, peer: &Principal, session: &Arc<OutSession>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(peer).is_some_and(|used| Arc::ptr_eq(used, session)) {
            sessions.remove(peer);
        }
    }

    /// The sequence number of the next fanout to `group`. Starts from the clock, so that it rises
    /// over restarts too.
    pub(crate) fn next_in_sequence(&self, group: &GroupName, now: UnixTime) -> u64 {
        let mut sequences = self.sequences.lock();
        let next = sequences.entry(group.clone()).or_insert(now.ns);
        let sequence = *next;
        *next += 1;
        sequence
    }

    fn usable(&self, peer: &Principal, now: u64) -> Option<Arc<OutSession>> {
        let sessions = self.sessions.lock();
        sessions.get(peer).filter(|session| session.is_usable(now)).cloned()
    }
}

impl Endpoint {
    /// The session to `peer`, opened now if there is none or it is near its end.
    pub(crate) async fn session_to(&self, peer: &Principal) -> Result<Arc<OutSession>, CallError> {
        let now = self.now();
        if let Some(session) = self.outgoing.usable(peer, now.secs()) {
            if self.check_standing(&session.standing).is_ok() {
                return Ok(session);
            }
            self.outgoing.forget_if(peer, &session);
        }
        let unknown = |why: String| CallError::UnknownTarget { target: peer.to_string(), why };
        let keys = self.directory.peer(peer).await.map_err(|e| unknown(e.to_string()))?;
        let opened = Arc::new(self.open_session(peer, keys, now)?);
        let revoked = |refusal| CallError::Revoked { target: peer.to_string(), refusal };
        self.check_standing(&opened.standing).map_err(revoked)?;
        // Of several that were opened at once, one is used by all.
        let mut sessions = self.outgoing.sessions.lock();
        if let Some(first) = sessions.get(peer).filter(|first| first.is_usable(now.secs())) {
            return Ok(first.clone());
        }
        sessions.insert(peer.clone(), opened.clone());
        Ok(opened)
    }

    fn open_session(
        &self,
        peer: &Principal,
        keys: Option<PeerKeys>,
        now: UnixTime,
    ) -> Result<OutSession, CallError> {
        let unknown = |why: String| CallError::UnknownTarget { target: peer.to_string(), why };
        match keys {
            None => Err(unknown("there is no such principal".into())),
            Some(PeerKeys::Shared(pair)) => Ok(OutSession {
                standing: Standing::of_pair(&pair, self.identity.party()),
                shown: AtomicU64::new(0),
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
                path: OnceLock::new(),
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
                    path: OnceLock::new(),
                    standing: Standing::of_credential(&credential),
                    shown: AtomicU64::new(0),
                })
            }
        }
    }
}

/// Sessions that were opened to this process.
pub(crate) struct Incoming {
    state: Mutex<IncomingState>,
    budget: Mutex<Budget>,
    lookups: Mutex<Budget>,
    reserved: SenderRates,
    opened: SenderRates,
}

impl Incoming {
    pub(crate) fn new(options: &EndpointOptions) -> Self {
        Self {
            state: Mutex::default(),
            budget: Mutex::new(Budget::new(options.offers_per_second)),
            lookups: Mutex::new(Budget::new(options.lookups_per_second)),
            reserved: SenderRates::new(RESERVED_PER_SENDER),
            opened: SenderRates::new(OPENED_PER_SENDER),
        }
    }
}

/// Who opened a session: a principal, and which host of a component type. Hosts neither use up
/// each other's sessions nor outdate each other's credentials.
type Holder = (Principal, Option<String>);

fn holder(session: &Session) -> Holder {
    let instance = session.requester_credential().and_then(|own| own.instance.clone());
    (session.requester().principal.clone(), instance)
}

/// Highest incarnation verified of a principal, and the highest credential epoch of each host.
#[derive(Default)]
struct Highest {
    incarnation: u32,
    epochs: HashMap<Option<String>, u32>,
}

#[derive(Default)]
struct IncomingState {
    sessions: HashMap<Handle, Arc<InSession>>,
    by_sender: HashMap<Holder, VecDeque<Handle>>,
    order: VecDeque<Handle>,
    unknown: HashMap<Kid, Instant>,
    /// Key ids that named a key once.
    valid: HashSet<Kid>,
    credentials: HashMap<Digest, Arc<SignedCredential>>,
    highest: HashMap<Principal, Highest>,
}

impl IncomingState {
    fn insert(&mut self, session: &Arc<InSession>) {
        let handle = session.session.handle();
        if self.sessions.insert(handle, session.clone()).is_some() {
            return;
        }
        let own = self.by_sender.entry(holder(&session.session)).or_default();
        own.push_back(handle);
        if own.len() > MAX_PER_SENDER
            && let Some(oldest) = own.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        self.order.push_back(handle);
        // First what is gone already, so that one sender's many sessions push nobody else's out.
        if self.order.len() > 2 * self.sessions.len() + 64 {
            let sessions = &self.sessions;
            self.order.retain(|handle| sessions.contains_key(handle));
        }
        while self.sessions.len() > MAX_SESSIONS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.sessions.remove(&oldest);
        }
    }

    /// Refuses a credential that is older than another verified, and drops the sessions that a
    /// newer one leaves behind (step 4 of protocol section 9: on every message).
    fn check_epoch(&mut self, credential: &SignedCredential) -> Result<(), Refusal> {
        let party = &credential.party;
        let highest = self.highest.entry(party.principal.clone()).or_default();
        if party.incarnation < highest.incarnation {
            return if off(Check::Epoch) { Ok(()) } else { Err(Refusal::EpochStale) };
        }
        if party.incarnation > highest.incarnation {
            let known = highest.incarnation > 0;
            *highest = Highest { incarnation: party.incarnation, ..Highest::default() };
            highest.epochs.insert(credential.instance.clone(), credential.epoch);
            if known {
                self.drop_sessions(|(principal, _)| *principal == party.principal);
            }
            return Ok(());
        }
        let epoch = highest.epochs.entry(credential.instance.clone()).or_insert(credential.epoch);
        if credential.epoch < *epoch {
            return if off(Check::Epoch) { Ok(()) } else { Err(Refusal::EpochStale) };
        }
        if credential.epoch > *epoch {
            *epoch = credential.epoch;
            let own = (party.principal.clone(), credential.instance.clone());
            self.drop_sessions(|holder| *holder == own);
        }
        Ok(())
    }

    fn drop_sessions(&mut self, of: impl Fn(&Holder) -> bool) {
        let sessions = &mut self.sessions;
        self.by_sender.retain(|holder, handles| {
            let gone = of(holder);
            if gone {
                handles.iter().for_each(|handle| drop(sessions.remove(handle)));
            }
            !gone
        });
    }

    /// Takes note of a verified credential, so that it is verified once.
    fn keep(&mut self, credential: &Arc<SignedCredential>) {
        if self.credentials.len() >= MAX_CREDENTIALS {
            self.credentials.clear();
        }
        self.credentials.insert(credential.digest(), credential.clone());
    }
}

/// What may be spent on strangers, and beyond that on who is known already.
struct Budget {
    rate: f64,
    tokens: f64,
    reserve: f64,
    at: Instant,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        let rate = f64::from(per_second);
        Self { rate, tokens: rate, reserve: rate * RESERVED, at: Instant::now() }
    }

    fn spend(&mut self, known: impl FnOnce() -> bool) -> Result<(), Refusal> {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        let rate = self.rate;
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.reserve = (self.reserve + passed * rate * RESERVED).min(rate * RESERVED);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
        } else if self.reserve >= 1.0 && known() {
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
        parsed: &Parsed,
    ) -> Result<Arc<InSession>, Refusal> {
        let handle = parsed.header().handle;
        if let Some(session) = self.incoming.state.lock().sessions.get(&handle) {
            return Ok(session.clone());
        }
        match (handle, parsed.offer()) {
            (Handle::Session(id), Some(offer)) => self.accept_offer(id, parsed, offer),
            (Handle::Session(_), None) => Err(Refusal::SessionUnknown),
            (Handle::Key(kid), _) => self.pair_session(kid).await,
        }
    }

    fn accept_offer(
        &self,
        id: SessionId,
        parsed: &Parsed,
        bytes: &[u8],
    ) -> Result<Arc<InSession>, Refusal> {
        let offer = Offer::parse(bytes)?;
        if offer.session_id() != id && !off(Check::OfferNamed) {
            return Err(Refusal::SessionUnknown);
        }
        let (me, now, skew) = (self.identity.party(), self.now(), self.options.skew);
        let receive = self.identity.receive_key(offer.audience());
        #[cfg(bulla_mutants)]
        let receive = receive.or_else(|| self.identity.any_receive_key());
        let receive = receive.ok_or(Refusal::AudienceMismatch)?;
        // Old messages, replayed with the offers that they came with, cost no asymmetric work.
        check_times(parsed.header(), now, skew)?;
        offer.check_for(&receive.credential, self.identity.accepted_suites(), now, skew)?;
        self.spend_on_offer(parsed.claimed_sender())?;
        let cached = |digest: &Digest| self.incoming.state.lock().credentials.get(digest).cloned();
        let verified = offer.verify(&self.identity.trust(), cached)?;
        // Before the costly part, and again on every message of the session.
        self.check_credential(verified.credential())?;
        {
            let mut state = self.incoming.state.lock();
            state.check_epoch(verified.credential())?;
            state.keep(verified.credential());
        }
        // From here on the sender is proven and pays by itself.
        if !self.incoming.opened.take(&verified.sender().principal) && !off(Check::SenderRate) {
            return Err(Refusal::RateLimited);
        }
        let standing = Standing::of_credential(verified.credential());
        let session = verified.open(&self.identity.domain(), me, &receive.key)?;
        let session = InSession::new(session, standing);
        self.counters.offers.add(1);
        self.incoming.state.lock().insert(&session);
        Ok(session)
    }

    /// Charges the check of a signature that may be anybody's. A part of the budget is for
    /// senders that had a session here, each within its own rate.
    fn spend_on_offer(&self, claimed_sender: &str) -> Result<(), Refusal> {
        let known = || {
            let Ok(sender) = claimed_sender.parse::<Principal>() else { return false };
            let has_session = self.incoming.state.lock().highest.contains_key(&sender);
            has_session && self.incoming.reserved.take(&sender)
        };
        if off(Check::OfferRate) {
            return Ok(());
        }
        self.incoming.budget.lock().spend(known)
    }

    async fn pair_session(&self, kid: Kid) -> Result<Arc<InSession>, Refusal> {
        {
            let mut state = self.incoming.state.lock();
            if let Some(since) = state.unknown.get(&kid) {
                if since.elapsed() < UNKNOWN_FOR {
                    return Err(Refusal::SessionUnknown);
                }
                state.unknown.remove(&kid);
            }
        }
        self.spend_on_lookup(kid)?;
        let found = self.directory.pair_by_kid(kid).await.map_err(|error| {
            // Not known to be unknown: asked again with the next message.
            tracing::warn!(%error, "a pair key could not be looked up");
            Refusal::SessionUnknown
        })?;
        let Some(pair) = found else {
            let mut state = self.incoming.state.lock();
            if state.unknown.len() >= MAX_UNKNOWN {
                state.unknown.clear();
            }
            state.unknown.insert(kid, Instant::now());
            return Err(Refusal::SessionUnknown);
        };
        let me = self.identity.party().clone();
        let standing = Standing::of_pair(&pair, &me);
        let session = InSession::new(shared::session(kid, &pair.key, pair.peer, me), standing);
        let mut state = self.incoming.state.lock();
        if state.valid.len() >= MAX_CREDENTIALS {
            state.valid.clear();
        }
        state.valid.insert(kid);
        state.insert(&session);
        Ok(session)
    }

    /// Charges the look-up of a key id that anybody may have made up. A part of the budget is for
    /// those that named a key here before.
    fn spend_on_lookup(&self, kid: Kid) -> Result<(), Refusal> {
        if off(Check::LookupRate) {
            return Ok(());
        }
        let known = || self.incoming.state.lock().valid.contains(&kid);
        self.incoming.lookups.lock().spend(known)
    }

    /// Some session that somebody opened here.
    #[cfg(bulla_mutants)]
    pub(crate) fn any_session(&self) -> Option<Arc<InSession>> {
        self.incoming.state.lock().sessions.values().next().cloned()
    }

    /// The session with this name to whomever, where replies of anybody are taken.
    #[cfg(bulla_mutants)]
    pub(crate) fn any_outgoing(&self, handle: Handle) -> Option<Arc<OutSession>> {
        let sessions = self.outgoing.sessions.lock();
        let named = sessions.values().find(|open| open.session.handle() == handle);
        named.filter(|_| off(Check::ReplyParty)).cloned()
    }

    /// Verifies the credential beside a fanout, or knows it already.
    pub(crate) fn fanout_signer(
        &self,
        bytes: &[u8],
        at: UnixTime,
    ) -> Result<Arc<SignedCredential>, Refusal> {
        let known = self.incoming.state.lock().credentials.get(&Digest::of(bytes)).cloned();
        if let Some(credential) = known {
            self.check_credential(&credential)?;
            credential.validity.check(at)?;
            self.incoming.state.lock().check_epoch(&credential)?;
            return Ok(credential);
        }
        self.incoming.budget.lock().spend(|| false)?;
        let credential = Arc::new(self.identity.trust().verify(bytes, at)?);
        self.check_credential(&credential)?;
        let mut state = self.incoming.state.lock();
        state.check_epoch(&credential)?;
        state.keep(&credential);
        Ok(credential)
    }

    /// Drops what a new statement of revocation refuses: sessions in both directions, and
    /// credentials that were verified.
    pub(crate) fn drop_refused(&self) {
        let stands = |standing: &Standing| self.check_standing(standing).is_ok();
        self.outgoing.sessions.lock().retain(|_, session| stands(&session.standing));
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
        self.outgoing.sessions.lock().clear();
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

    pub(crate) fn is_me(&self, party: &Party) -> bool {
        party == self.identity.party() || off(Check::Audience)
    }
}

/// Issue and expiry as the header says them, before anything is spent on the message; judged
/// again when the header is proven (step 6 of protocol section 9).
fn check_times(header: &Header, now: UnixTime, skew: u64) -> Result<(), Refusal> {
    if off(Check::MessageTimes) {
        return Ok(());
    }
    if header.iat > now.secs().saturating_add(skew) {
        return Err(Refusal::NotYetValid);
    }
    if now.secs() > header.exp.saturating_add(skew) {
        return Err(Refusal::Expired);
    }
    Ok(())
}
