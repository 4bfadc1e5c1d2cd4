//! Sessions that were opened to this process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulla_guard::floor::{FloorError, Peer};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    Digest, Handle, Header, Kid, Offer, Parsed, Principal, Refusal, Session, SessionId,
    SignedCredential, SignedStatement, UnixTime, shared,
};
use bulla_transport::Address;
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::endpoint::{Endpoint, EndpointOptions};
use crate::rate::SenderRates;
use crate::standing::Standing;

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

/// A session that a peer opened to this process.
#[derive(Debug)]
pub(crate) struct InSession {
    pub(crate) session: Arc<Session>,
    pub(crate) standing: Standing,
    /// Offered under a credential that was followed by another: good for asking to renew and for
    /// nothing else.
    pub(crate) former: bool,
    peer: OnceLock<Arc<Peer>>,
    /// The epoch of the newest statement that a reply carried to the peer.
    told: AtomicU64,
    /// Where the last reply went: a session is one process's, and a process has one reply inbox.
    replies_to: Mutex<Option<Arc<Address>>>,
}

impl InSession {
    fn new(session: Session, standing: Standing) -> Arc<Self> {
        Arc::new(Self::of(session, standing, false))
    }

    fn of(session: Session, standing: Standing, former: bool) -> Self {
        let (session, peer) = (Arc::new(session), OnceLock::new());
        let replies_to = Mutex::default();
        Self { session, standing, former, peer, told: AtomicU64::new(0), replies_to }
    }

    /// The sender's floor, looked up once a session.
    pub(crate) async fn peer(&self, endpoint: &Endpoint) -> Result<&Arc<Peer>, FloorError> {
        if let Some(peer) = self.peer.get() {
            return Ok(peer);
        }
        let peer = endpoint.floors.peer(self.standing.party()).await?;
        Ok(self.peer.get_or_init(|| peer))
    }

    /// The address of replies to this name, which `make` checks and makes if it is not the last one's.
    pub(crate) fn reply_address(
        &self,
        name: &str,
        make: impl FnOnce() -> Option<Address>,
    ) -> Option<Arc<Address>> {
        // Where checks can be switched off, each is made every time.
        #[cfg(bulla_mutants)]
        self.replies_to.lock().take();
        let mut last = self.replies_to.lock();
        match &*last {
            Some(known) if matches!(&**known, Address::Reply { to, .. } if to.as_str() == name) => {
                Some(known.clone())
            }
            _ => {
                let made = Arc::new(make()?);
                *last = Some(made.clone());
                Some(made)
            }
        }
    }

    /// The sender's floor, if it was looked up.
    pub(crate) fn known_peer(&self) -> Option<&Arc<Peer>> {
        self.peer.get()
    }

    /// The statement to send along with a reply: once after each new one.
    pub(crate) fn statement(&self, endpoint: &Endpoint) -> Option<Arc<SignedStatement>> {
        let statement = endpoint.statement_for(self.told.load(Ordering::Relaxed))?;
        self.told.fetch_max(statement.epoch, Ordering::Relaxed);
        Some(statement)
    }
}

/// Where the session that a message names comes from.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is there.
    Session(Arc<InSession>),
    /// The offer beside the message opens it.
    Offer(SessionId),
    /// The directory may know the key; asking it is paid for.
    Pair(Kid),
}

/// Sessions that were opened to this process.
pub(crate) struct Incoming {
    pub(super) state: Mutex<IncomingState>,
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
pub(super) struct IncomingState {
    pub(super) sessions: HashMap<Handle, Arc<InSession>, RandomState>,
    pub(super) by_sender: HashMap<Holder, VecDeque<Handle>>,
    order: VecDeque<Handle>,
    unknown: HashMap<Kid, Instant>,
    /// Key ids that named a key once.
    valid: HashSet<Kid>,
    pub(super) credentials: HashMap<Digest, Arc<SignedCredential>>,
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

    /// Whether it was the credential of who still is its holder, an agent's.
    fn is_former(&self, credential: &SignedCredential) -> bool {
        let party = &credential.party;
        let highest = self.highest.get(&party.principal);
        party.principal.is_agent()
            && highest.is_some_and(|highest| highest.incarnation == party.incarnation)
    }

    pub(super) fn drop_sessions(&mut self, of: impl Fn(&Holder) -> bool) {
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
    /// Where the session that a message names comes from, as far as that is known without waiting
    /// or asymmetric work (step 3 of protocol section 9). A look-up that it needs is charged.
    pub(crate) fn find_session(&self, parsed: &Parsed) -> Result<Found, Refusal> {
        let handle = parsed.header().handle;
        if let Some(session) = self.incoming.state.lock().sessions.get(&handle) {
            return Ok(Found::Session(session.clone()));
        }
        match (handle, parsed.offer()) {
            (Handle::Session(id), Some(_)) => Ok(Found::Offer(id)),
            (Handle::Session(_), None) => Err(Refusal::SessionUnknown),
            (Handle::Key(kid), _) => self.charge_lookup(kid),
        }
    }

    /// The session: cached, derived from a pair key, or opened from the offer beside the message.
    pub(crate) async fn incoming_session(
        &self,
        found: Found,
        parsed: &Parsed,
    ) -> Result<Arc<InSession>, Refusal> {
        match found {
            Found::Session(session) => Ok(session),
            Found::Offer(id) => {
                // A message before this one may have opened it.
                let handle = Handle::Session(id);
                if let Some(session) = self.incoming.state.lock().sessions.get(&handle) {
                    return Ok(session.clone());
                }
                let offer = parsed.offer().ok_or(Refusal::SessionUnknown)?;
                self.accept_offer(id, parsed, offer)
            }
            Found::Pair(kid) => self.pair_session(kid).await,
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
        let former = {
            let mut state = self.incoming.state.lock();
            match state.check_epoch(verified.credential()) {
                Ok(()) => {
                    state.keep(verified.credential());
                    false
                }
                // A second copy of an agent is noticed when it asks to renew, so that is opened.
                Err(Refusal::EpochStale)
                    if self.options.renews && state.is_former(verified.credential()) =>
                {
                    true
                }
                Err(refusal) => return Err(refusal),
            }
        };
        // From here on the sender is proven and pays by itself.
        if !self.incoming.opened.take(&verified.sender().principal) && !off(Check::SenderRate) {
            return Err(Refusal::RateLimited);
        }
        let standing = Standing::of_credential(verified.credential());
        let session = verified.open(&self.identity.domain(), me, &receive.key)?;
        self.counters.offers.add(1);
        if former {
            return Ok(Arc::new(InSession::of(session, standing, true)));
        }
        let session = InSession::new(session, standing);
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

    fn charge_lookup(&self, kid: Kid) -> Result<Found, Refusal> {
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
        Ok(Found::Pair(kid))
    }

    async fn pair_session(&self, kid: Kid) -> Result<Arc<InSession>, Refusal> {
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
