//! Sessions that this process opened.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bulla_seal::{
    Audience, GroupName, OsRandom, Party, Principal, Resting, Route, Session, SignedStatement,
    UnixTime, Window, shared,
};
use bulla_transport::Address;
use bytes::Bytes;
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::directory::PeerKeys;
use crate::endpoint::{Endpoint, EndpointOptions};
use crate::error::CallError;
use crate::standing::Standing;
use crate::target::Target;

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
    /// Used since somebody looked for sessions that rest.
    used: AtomicBool,
}

/// Where messages of a session go: on the bus, and as they are sealed for it.
pub(crate) struct Path {
    pub(crate) route: Route,
    pub(crate) address: Arc<Address>,
}

impl Path {
    fn new(exchange: &str, target: &Target, peer: &Party) -> Result<Self, CallError> {
        let audience = Audience::Party(peer.clone());
        let on = target.exchange(exchange);
        let route = Route::new(on, &target.topic(), target.server(), audience)
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
        is_usable(self.renew_at, self.session.window(), now)
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

    fn rest(&self) -> Rested {
        Rested {
            session: self.session.rest(),
            offer: self.offer.clone(),
            proven: self.proven.load(Ordering::Relaxed),
            renew_at: self.renew_at,
            standing: self.standing.again(),
            shown: self.shown.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_proven(&self, proven: bool) {
        if self.proven.load(Ordering::Relaxed) != proven {
            self.proven.store(proven, Ordering::Relaxed);
        }
    }
}

fn is_usable(renew_at: u64, window: Option<Window>, now: u64) -> bool {
    now < renew_at && window.is_none_or(|window| now >= window.iat)
}

/// A session that was not used for a while: what it takes to go on with it.
struct Rested {
    session: Resting,
    offer: Option<Bytes>,
    proven: bool,
    renew_at: u64,
    standing: Standing,
    shown: u64,
}

impl Rested {
    fn wake(&self) -> OutSession {
        OutSession {
            session: self.session.wake(),
            offer: self.offer.clone(),
            proven: AtomicBool::new(self.proven),
            renew_at: self.renew_at,
            path: OnceLock::new(),
            standing: self.standing.again(),
            shown: AtomicU64::new(self.shown),
            used: AtomicBool::new(true),
        }
    }
}

/// Sessions that are looked at for one that may rest, for each that wakes: whatever there is, a call waits
/// for no more.
const LOOKED_AT: usize = 8;

enum Kept {
    Awake(Arc<OutSession>),
    Resting(Box<Rested>),
}

impl Kept {
    fn standing(&self) -> &Standing {
        match self {
            Self::Awake(session) => &session.standing,
            Self::Resting(rested) => &rested.standing,
        }
    }
}

/// Sessions by peer. Those that are awake stand in a queue, and who comes to its head unused since the last
/// time rests.
struct Sessions {
    by_peer: HashMap<Principal, Kept, RandomState>,
    awake: VecDeque<Principal>,
    /// How many may be awake.
    limit: usize,
}

impl Sessions {
    fn new(limit: usize) -> Self {
        Self { by_peer: HashMap::default(), awake: VecDeque::new(), limit }
    }

    fn usable(&mut self, peer: &Principal, now: u64) -> Option<Arc<OutSession>> {
        let rested = match self.by_peer.get(peer)? {
            Kept::Awake(session) => {
                let session = session.is_usable(now).then_some(session)?;
                if !session.used.load(Ordering::Relaxed) {
                    session.used.store(true, Ordering::Relaxed);
                }
                return Some(session.clone());
            }
            Kept::Resting(rested) => rested,
        };
        if !is_usable(rested.renew_at, rested.session.window(), now) {
            return None;
        }
        let session = Arc::new(rested.wake());
        self.insert(peer, session.clone());
        Some(session)
    }

    fn insert(&mut self, peer: &Principal, session: Arc<OutSession>) {
        let before = self.by_peer.insert(peer.clone(), Kept::Awake(session));
        if !matches!(before, Some(Kept::Awake(_))) {
            self.awake.push_back(peer.clone());
        }
        for _ in 0..LOOKED_AT {
            if self.awake.len() <= self.limit {
                return;
            }
            self.look_at_next();
        }
    }

    fn look_at_next(&mut self) {
        let Some(peer) = self.awake.pop_front() else { return };
        let Some(kept) = self.by_peer.get_mut(&peer) else { return };
        let Kept::Awake(session) = kept else { return };
        // A call that is on its way goes on with the session that it has.
        if session.used.swap(false, Ordering::Relaxed) || Arc::strong_count(session) > 1 {
            self.awake.push_back(peer);
            return;
        }
        *kept = Kept::Resting(Box::new(session.rest()));
    }
}

/// Sessions that this process opened, by peer.
pub(crate) struct Outgoing {
    sessions: Mutex<Sessions>,
    /// Of this process's fanouts, by group: a gap that a member sees is one of its own group.
    sequences: Mutex<HashMap<GroupName, u64>>,
}

impl Outgoing {
    pub(crate) fn new(options: &EndpointOptions) -> Self {
        let sessions = Mutex::new(Sessions::new(options.awake_sessions));
        Self { sessions, sequences: Mutex::default() }
    }

    /// Opens a new session next time.
    pub(crate) fn forget(&self, peer: &Principal) {
        self.sessions.lock().by_peer.remove(peer);
    }

    /// Opens new sessions from now on.
    pub(super) fn forget_all(&self) {
        let mut sessions = self.sessions.lock();
        *sessions = Sessions::new(sessions.limit);
    }

    /// Keeps the sessions of those peers whose key still stands.
    pub(super) fn retain(&self, stands: impl Fn(&Standing) -> bool) {
        self.sessions.lock().by_peer.retain(|_, kept| stands(kept.standing()));
    }

    #[cfg(bulla_mutants)]
    pub(super) fn find(&self, is: impl Fn(&OutSession) -> bool) -> Option<Arc<OutSession>> {
        let sessions = self.sessions.lock();
        sessions.by_peer.values().find_map(|kept| match kept {
            Kept::Awake(session) => is(session).then(|| session.clone()),
            Kept::Resting(_) => None,
        })
    }

    /// Opens a new session next time, if this is still the one in use.
    pub(crate) fn forget_if(&self, peer: &Principal, session: &Arc<OutSession>) {
        let mut sessions = self.sessions.lock();
        let used = sessions.by_peer.get(peer);
        if matches!(used, Some(Kept::Awake(used)) if Arc::ptr_eq(used, session)) {
            sessions.by_peer.remove(peer);
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
        self.sessions.lock().usable(peer, now)
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
        let mut opened = self.look_up_session(peer, now).await?;
        if self.check_standing(&opened.standing).is_err() {
            // What the directory keeps may be older than the statement: the name may have a new
            // key, or holder.
            self.directory.expire(peer);
            opened = self.look_up_session(peer, now).await?;
            let revoked = |refusal| CallError::Revoked { target: peer.to_string(), refusal };
            self.check_standing(&opened.standing).map_err(revoked)?;
        }
        let opened = Arc::new(opened);
        // Of several that were opened at once, one is used by all.
        let mut sessions = self.outgoing.sessions.lock();
        if let Some(first) = sessions.usable(peer, now.secs()) {
            return Ok(first);
        }
        sessions.insert(peer, opened.clone());
        Ok(opened)
    }

    /// A session under the keys that the directory has of `peer`.
    async fn look_up_session(
        &self,
        peer: &Principal,
        now: UnixTime,
    ) -> Result<OutSession, CallError> {
        let unknown = |why: String| CallError::UnknownTarget { target: peer.to_string(), why };
        match self.directory.peer(peer).await.map_err(|e| unknown(e.to_string()))? {
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
                used: AtomicBool::new(true),
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
                    used: AtomicBool::new(true),
                })
            }
        }
    }
}
