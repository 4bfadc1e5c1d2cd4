//! Step one: from bytes to a message whose sender is proven (steps 1 to 8 of protocol section 9).

mod opened;
mod place;
mod sequence;
mod unsealed;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use tokio::time::Instant;

use bulla_guard::floor::{Action, FloorError, Judgement, Peer};
use bulla_journal::{Text, events};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    Detail, Expected, GroupName, GroupSession, Kid, Level, MessageId, MessageKind, Parsed, Party,
    Refusal, RequestBody, UnixTime,
};
use bulla_transport::{Address, Inbox, Outbound, ReplyName};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tower::{Layer, Service};

use place::Place;
use sequence::{Noted, Sequence};
use unsealed::is_foreign;

use super::shares::{Shares, Slot, Turn};
use super::{MaybeReady, Settlement};
use crate::endpoint::Endpoint;
use crate::notice::OfferNeeded;
use crate::renewal::wire;
use crate::server::ServerOptions;
use crate::sessions::{Found, InSession};
use crate::trace::{self, OpenSpan, Parent, SpanKind, TraceContext};
use crate::unsealed::Unsealed;

use opened::Content;
pub(crate) use opened::Opened;

/// Notices that may be sent per second.
const NOTICES_PER_SECOND: f64 = 50.0;
/// Signers and groups whose sequences are remembered.
const MAX_SIGNERS: usize = 10_000;

/// Why a message goes no further.
#[derive(Debug)]
enum Stop {
    /// Before anybody vouched for it: told now and then.
    Refused(Refusal),
    /// Its sender is proven: told each time.
    Proven(Refusal, Party, MessageId),
    /// What its sender may is not known just now.
    Retry(FloorError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<FloorError> for Stop {
    fn from(error: FloorError) -> Self {
        Self::Retry(error)
    }
}

#[derive(Clone)]
pub(crate) struct OpenLayer {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    level: Level,
    shares: Shares,
    inner_signature: bool,
    unsealed: Option<Arc<dyn Unsealed>>,
    /// A handful: the principal's own inboxes and its groups'.
    places: RwLock<Vec<(Arc<Inbox>, Arc<Place>)>>,
    groups: Mutex<HashMap<(GroupName, u32), Arc<GroupSession>>>,
    sequences: Mutex<HashMap<(Kid, GroupName), Sequence>>,
    notices: Mutex<(f64, Instant)>,
}

impl OpenLayer {
    pub(crate) fn new(endpoint: Endpoint, options: &ServerOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                endpoint,
                level: options.level,
                shares: Shares::new(options.per_agent.unwrap_or(options.concurrency / 4)),
                inner_signature: options.inner_signature,
                unsealed: options.unsealed.clone(),
                places: RwLock::default(),
                groups: Mutex::default(),
                sequences: Mutex::default(),
                notices: Mutex::new((NOTICES_PER_SECOND, Instant::now())),
            }),
        }
    }
}

impl<S> Layer<S> for OpenLayer {
    type Service = Open<S>;

    fn layer(&self, inner: S) -> Open<S> {
        Open { shared: self.shared.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Open<S> {
    shared: Arc<Shared>,
    inner: S,
}

/// A message that parsed and was not refused by what is known without waiting for anything.
pub(crate) enum Sifted {
    Request {
        parsed: Parsed,
        place: Arc<Place>,
        found: Found,
    },
    Fanout {
        parsed: Parsed,
        place: Arc<Place>,
    },
    /// Not sealed: read only if there are exemptions at all.
    Unsealed {
        body: Bytes,
        place: Arc<Place>,
    },
    #[cfg(bulla_mutants)]
    Plain(Opened),
}

impl<S> Open<S> {
    /// The part of opening that waits for nothing and does no cryptography, apart from the rest,
    /// so that a flood of what nobody here can open takes no task and no worker. `None` if the
    /// message is refused, which is counted.
    pub(crate) fn sift(&self, payload: Bytes, origin: &Origin) -> Option<Sifted> {
        self.shared
            .sift(payload, origin)
            .map_err(|refusal| self.shared.endpoint.refused(refusal, "message refused"))
            .ok()
    }
}

/// What is known of a message beside its bytes.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Where it was consumed from: the receiver's own knowledge.
    pub(crate) inbox: Arc<Inbox>,
    /// The sender's hint for notices, if it is a well-formed name.
    pub(crate) reply_hint: Option<ReplyName>,
}

/// A message on its way into the pipeline.
pub(crate) struct Message {
    pub(crate) sifted: Sifted,
    pub(crate) origin: Origin,
    /// Held until it ran.
    pub(crate) slot: Slot,
}

/// A message that came out of it.
pub(crate) struct Processed {
    pub(crate) settlement: Settlement,
    pub(crate) span: Option<OpenSpan>,
    /// Given back when it is settled.
    pub(crate) slot: Slot,
}

impl<S> Service<Message> for Open<S>
where
    S: Service<Opened, Response = Settlement, Error = Infallible, Future = MaybeReady<Settlement>>
        + Clone
        + Send
        + 'static,
{
    type Response = Processed;
    type Error = Infallible;
    type Future = MaybeReady<Processed>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Message) -> Self::Future {
        let Message { sifted, origin, slot } = message;
        if !self.shared.opens_now(&sifted) {
            return MaybeReady::later(self.clone().open(sifted, origin, slot));
        }
        let opened = match self.shared.open_now(sifted, &origin) {
            Ok(opened) => opened,
            Err(stop) => return MaybeReady::Ready(self.shared.stopped(stop, slot)),
        };
        match self.shared.turn_now(&opened) {
            Ok(Some(turn)) => self.pass_on(opened, turn, slot),
            Ok(None) => MaybeReady::later(self.clone().wait(opened, slot)),
            Err(stop) => MaybeReady::Ready(self.shared.stopped(stop, slot)),
        }
    }
}

impl<S> Open<S>
where
    S: Service<Opened, Response = Settlement, Error = Infallible, Future = MaybeReady<Settlement>>
        + Clone
        + Send
        + 'static,
{
    /// Where something has to be waited for: a directory, a store of floors.
    async fn open(
        self,
        sifted: Sifted,
        origin: Origin,
        slot: Slot,
    ) -> Result<Processed, Infallible> {
        match self.shared.open(sifted, &origin).await {
            Ok(opened) => self.wait(opened, slot).await,
            Err(stop) => Ok(self.shared.stopped(stop, slot)),
        }
    }

    /// Waits for the sender's turn.
    async fn wait(mut self, opened: Opened, mut slot: Slot) -> Result<Processed, Infallible> {
        match self.shared.turn(&opened, &mut slot).await {
            Ok(turn) => self.pass_on(opened, turn, slot).await,
            Err(stop) => Ok(self.shared.stopped(stop, slot)),
        }
    }

    fn pass_on(&mut self, opened: Opened, turn: Turn, slot: Slot) -> MaybeReady<Processed> {
        let mut span = None;
        let context = self.shared.trace(&opened, &mut span);
        let rest = match context {
            Some(context) => trace::enter(context, || self.inner.call(opened)),
            None => self.inner.call(opened),
        };
        if let MaybeReady::Ready(settlement) = rest {
            return MaybeReady::Ready(Processed { settlement, span, slot });
        }
        MaybeReady::later(async move {
            // Held until it ran.
            let _turn = turn;
            let settlement = match context {
                Some(context) => trace::within(context, rest).await?,
                None => rest.await?,
            };
            Ok(Processed { settlement, span, slot })
        })
    }
}

impl Shared {
    /// The trace that a message belongs to, with a span of its own if there are spans.
    fn trace(&self, opened: &Opened, span: &mut Option<OpenSpan>) -> Option<TraceContext> {
        let body = opened.body().ok()?;
        let told = body.trace_parent.and_then(TraceContext::parse);
        let kind = match opened.kind() {
            MessageKind::Call => SpanKind::Server,
            _ => SpanKind::Consumer,
        };
        let parent = Parent::of_sender(opened.sender(), told);
        let name = || full_name(body.namespace, body.method).into();
        *span = self.endpoint.span(kind, parent, name);
        let Some(span) = span else { return told };
        span.set("rpc.system", "bulla");
        span.set("rpc.method", body.method);
        span.set("bulla.sender", &opened.sender().principal);
        Some(span.context())
    }

    fn sift(&self, payload: Bytes, origin: &Origin) -> Result<Sifted, Refusal> {
        #[cfg(bulla_mutants)]
        if let Some(opened) = self.open_plaintext(&payload, origin) {
            return Ok(Sifted::Plain(opened));
        }
        if self.unsealed.is_some() && is_foreign(&payload) {
            return self.sift_unsealed(payload, origin);
        }
        let parsed = Parsed::parse(payload, self.endpoint.options.max_message)?;
        self.endpoint.note_statement(&parsed);
        let place = self.place(&origin.inbox)?;
        let fanout = match (&place.group, &parsed.header().detail) {
            (None, Detail::Request) => false,
            (Some(_), Detail::Group { .. }) => true,
            (_, Detail::Request) if off(Check::QueueKind) => false,
            (_, Detail::Group { .. }) if off(Check::QueueKind) => true,
            _ => return Err(Refusal::KindNotAllowed),
        };
        if fanout {
            return Ok(Sifted::Fanout { parsed, place });
        }
        let found = self.endpoint.find_session(&parsed).inspect_err(|refusal| {
            if *refusal == Refusal::SessionUnknown {
                self.ask_for_offer(&parsed, origin);
            }
        })?;
        Ok(Sifted::Request { parsed, place, found })
    }

    async fn open(&self, sifted: Sifted, origin: &Origin) -> Result<Opened, Stop> {
        let mut opened = match sifted {
            Sifted::Request { parsed, place, found } => {
                self.open_request(parsed, place, found, origin).await?
            }
            Sifted::Fanout { parsed, place } => self.open_fanout(parsed, place).await?,
            Sifted::Unsealed { body, place } => self.open_unsealed(&body, place, origin).await?,
            #[cfg(bulla_mutants)]
            Sifted::Plain(opened) => return Ok(opened),
        };
        self.settle_floor(&mut opened)?;
        self.raise_floor(&opened).await?;
        keep_hint(&mut opened, origin);
        Ok(opened)
    }

    /// Whether nothing has to be waited for to open it: its session and its sender's floor are in
    /// memory, and the floor would not rise with it.
    fn opens_now(&self, sifted: &Sifted) -> bool {
        match sifted {
            Sifted::Request { parsed, found: Found::Session(session), .. } => session
                .known_peer()
                .is_some_and(|peer| self.endpoint.floors.stays(peer, parsed.header().level)),
            #[cfg(bulla_mutants)]
            Sifted::Plain(_) => true,
            _ => false,
        }
    }

    /// Opens what [`opens_now`](Self::opens_now) said so of.
    fn open_now(&self, sifted: Sifted, origin: &Origin) -> Result<Opened, Stop> {
        let mut opened = match sifted {
            Sifted::Request { parsed, place, found: Found::Session(session) } => {
                let now = self.admit(&session)?;
                let peer = session.known_peer().cloned().ok_or(Refusal::SessionUnknown)?;
                self.open_in(session, parsed, (place, peer), now)?
            }
            #[cfg(bulla_mutants)]
            Sifted::Plain(opened) => return Ok(opened),
            _ => return Err(Refusal::SessionUnknown.into()),
        };
        self.settle_floor(&mut opened)?;
        keep_hint(&mut opened, origin);
        Ok(opened)
    }

    /// Whether an agent's share of a component's workers is what it runs in. What stops a run must
    /// not wait for it.
    fn has_share(&self, opened: &Opened) -> bool {
        let own = |body: RequestBody<'_>| body.namespace == Some(crate::builtin::NAMESPACE);
        opened.sender().principal.is_agent()
            && self.endpoint.identity.principal().is_component()
            && !opened.body().is_ok_and(own)
    }

    /// The sender's turn, if it may run one more just now.
    fn turn_now(&self, opened: &Opened) -> Result<Option<Turn>, Stop> {
        if !self.has_share(opened) {
            return Ok(Some(Turn::free()));
        }
        let Some(turn) = self.shares.turn_now(&opened.sender().principal) else { return Ok(None) };
        self.still_good(opened)?;
        Ok(Some(turn))
    }

    /// Waits until the sender may run one more.
    async fn turn(&self, opened: &Opened, slot: &mut Slot) -> Result<Turn, Stop> {
        if let Some(turn) = self.turn_now(opened)? {
            return Ok(turn);
        }
        let sender = &opened.sender().principal;
        let turn = self.shares.turn(sender, slot).await.ok_or(Refusal::RateLimited)?;
        self.still_good(opened)?;
        Ok(turn)
    }

    fn stopped(&self, stop: Stop, slot: Slot) -> Processed {
        Processed { settlement: self.stop(stop), span: None, slot }
    }

    /// What may have changed while a message waited: it expired, or its sender's key was revoked.
    fn still_good(&self, opened: &Opened) -> Result<(), Refusal> {
        let late = opened.expires().saturating_add(self.endpoint.options.skew);
        if self.endpoint.now().secs() > late {
            return Err(Refusal::Expired);
        }
        match &opened.session {
            Some(session) => self.check_standing(session),
            None => Ok(()),
        }
    }

    fn stop(&self, stop: Stop) -> Settlement {
        match stop {
            Stop::Refused(refusal) => self.endpoint.refused(refusal, "message refused"),
            Stop::Proven(refusal, sender, message) => {
                let refusal = refusal.as_str();
                self.endpoint.counters.refuse(refusal);
                let principal = sender.principal.clone();
                let event = events::SenderRefused { refusal, sender, message };
                self.endpoint.tell(&principal, event);
            }
            Stop::Retry(error) => {
                tracing::error!(%error, "the message goes back to the queue");
                return Settlement::Retry;
            }
        }
        Settlement::Refused
    }

    /// Step 4, on every message: whether the sender's keys still count, and whether this process
    /// knows enough of revocation to act on it.
    fn check_standing(&self, session: &InSession) -> Result<(), Refusal> {
        self.endpoint.check_standing(&session.standing)?;
        self.endpoint.check_current(session.standing.party())
    }

    /// Step 4, on every message: its level is not below the sender's floor, or below what this
    /// server demands. An exemption names a method, which is not known before the message is
    /// opened: here it is enough that there is one for the sender.
    fn check_floor(&self, peer: &Peer, level: Level, now: UnixTime) -> Result<(), Refusal> {
        if self.endpoint.floors.may_pass(peer, level, self.level, now.secs())
            || off(Check::LevelAllowed)
        {
            Ok(())
        } else {
            Err(Refusal::LevelNotAllowed)
        }
    }

    /// After step 8: an exemption is for this method or the message is refused.
    fn settle_floor(&self, opened: &mut Opened) -> Result<(), Stop> {
        let level = opened.level();
        opened.judgement = match self.judge_floor(opened, level) {
            // Nobody has proven to be its sender: it is told as such, and exemptions alone let it on.
            judgement if opened.is_unsealed() && !matches!(judgement, Judgement::Exempt { .. }) => {
                return Err(Refusal::LevelNotAllowed.into());
            }
            Judgement::Refuse { .. } if !off(Check::LevelAllowed) => {
                let (sender, id) = (opened.sender().clone(), opened.id());
                return Err(Stop::Proven(Refusal::LevelNotAllowed, sender, id));
            }
            accepted => accepted,
        };
        match opened.judgement {
            Judgement::Exempt { id, until } => {
                self.endpoint.counters.exempted.add(1);
                let sender = opened.sender().clone();
                let exemption = Text::of(&id);
                let used = events::ExemptionUsed { exemption, sender, level, until };
                self.endpoint.tell(&opened.sender().principal, used);
            }
            Judgement::BelowTarget { .. } => self.endpoint.counters.below_target.add(1),
            _ => {}
        }
        Ok(())
    }

    /// An agent's floor rises, and that is kept before anything is done with the message.
    async fn raise_floor(&self, opened: &Opened) -> Result<(), Stop> {
        let (peer, level) = (&opened.peer, opened.level());
        let action = self.endpoint.floors.passed(peer, level).await?;
        if let Action::Raised { from } = action {
            let peer = peer.party().clone();
            self.endpoint.events().emit(events::FloorRose { peer, from, to: level });
        }
        Ok(())
    }

    fn judge_floor(&self, opened: &Opened, level: Level) -> Judgement {
        let floors = &self.endpoint.floors;
        if !opened.is_unsealed() && floors.is_plain(&opened.peer, level, self.level) {
            return Judgement::Accept;
        }
        let Ok(body) = opened.body() else { return Judgement::Refuse { floor: self.level } };
        let method = full_name(body.namespace, body.method);
        floors.judge(&opened.peer, &method, level, self.level, opened.now)
    }

    /// The mistake of taking messages in the clear: one of somebody who has a session here.
    #[cfg(bulla_mutants)]
    fn open_plaintext(&self, payload: &[u8], origin: &Origin) -> Option<Opened> {
        let place = self.place(&origin.inbox).ok().filter(|_| off(Check::NoPlaintext))?;
        let session = self.endpoint.any_session()?;
        let route = &place.route;
        let request = bulla_seal::mutants::plaintext_request(payload, &session.session, route)?;
        let peer = session.known_peer()?.clone();
        Some(Opened {
            content: Content::Request(request),
            place,
            session: Some(session),
            signer: None,
            peer,
            judgement: Judgement::Accept,
            now: self.endpoint.now().secs(),
            hint: None,
        })
    }

    fn place(&self, inbox: &Arc<Inbox>) -> Result<Arc<Place>, Refusal> {
        let same = |known: &&(Arc<Inbox>, _)| Arc::ptr_eq(&known.0, inbox) || known.0 == *inbox;
        if let Some((_, place)) = self.places.read().iter().find(same) {
            return Ok(place.clone());
        }
        let place =
            Arc::new(Place::of(inbox, self.endpoint.identity.party(), &self.endpoint.options)?);
        self.places.write().push((inbox.clone(), place.clone()));
        Ok(place)
    }

    fn expected<'a>(&self, place: &'a Place, now: UnixTime) -> Expected<'a> {
        Expected {
            // The floor was checked before, and is again when the method is known.
            level: Level::Plaintext,
            suites: self.endpoint.identity.accepted_suites(),
            inner_signature: self.inner_signature,
            skew: self.endpoint.options.skew,
            ..Expected::new(&place.route, now)
        }
    }

    async fn open_request(
        &self,
        parsed: Parsed,
        place: Arc<Place>,
        found: Found,
        origin: &Origin,
    ) -> Result<Opened, Stop> {
        let session = self.endpoint.incoming_session(found, &parsed).await;
        let session = session.inspect_err(|refusal| {
            if *refusal == Refusal::SessionUnknown {
                self.ask_for_offer(&parsed, origin);
            }
        })?;
        let now = self.admit(&session)?;
        let peer = session.peer(&self.endpoint).await?.clone();
        self.open_in(session, parsed, (place, peer), now)
    }

    /// What is checked of a session on every message, before its sender's floor is looked up; the time.
    fn admit(&self, session: &InSession) -> Result<UnixTime, Refusal> {
        if !self.endpoint.is_me(session.session.responder()) {
            return Err(Refusal::AudienceMismatch);
        }
        let now = self.endpoint.now();
        self.check_standing(session)?;
        Ok(now)
    }

    fn open_in(
        &self,
        session: Arc<InSession>,
        parsed: Parsed,
        (place, peer): (Arc<Place>, Arc<Peer>),
        now: UnixTime,
    ) -> Result<Opened, Stop> {
        self.check_floor(&peer, parsed.header().level, now)?;
        let request = session.session.open_request(parsed, &self.expected(&place, now))?;
        if session.former && !asks_to_renew(&request.body()?) {
            let (sender, id) = (session.standing.party().clone(), request.id());
            return Err(Stop::Proven(Refusal::EpochStale, sender, id));
        }
        Ok(Opened {
            content: Content::Request(request),
            place,
            session: Some(session),
            signer: None,
            peer,
            judgement: Judgement::Accept,
            now: now.secs(),
            hint: None,
        })
    }

    async fn open_fanout(&self, parsed: Parsed, place: Arc<Place>) -> Result<Opened, Stop> {
        let group = place.group.clone();
        #[cfg(bulla_mutants)]
        let group =
            group.or_else(|| parsed.claimed_group().and_then(|name| GroupName::new(name).ok()));
        let (Detail::Group { epoch, .. }, Some(group)) = (&parsed.header().detail, &group) else {
            return Err(Refusal::KindNotAllowed.into());
        };
        let (epoch, now) = (*epoch, self.endpoint.now());
        self.endpoint.check_group_epoch(group, epoch)?;
        let session = self.group_session(group, epoch).await?;
        let iat = UnixTime::from_secs(parsed.header().iat);
        let credential = parsed.offer().ok_or(Refusal::CredentialInvalid)?;
        let signer = self.endpoint.fanout_signer(credential, iat)?;
        self.endpoint.check_current(&signer.party)?;
        let peer = self.endpoint.floors.peer(&signer.party).await?;
        self.check_floor(&peer, parsed.header().level, now)?;
        let opened = session.open(parsed, &signer, &self.expected(&place, now))?;
        self.note_sequence(signer.kid, group, opened.sequence());
        Ok(Opened {
            content: Content::Fanout(opened),
            place,
            session: None,
            signer: Some(signer),
            peer,
            judgement: Judgement::Accept,
            now: now.secs(),
            hint: None,
        })
    }

    async fn group_session(
        &self,
        group: &GroupName,
        epoch: u32,
    ) -> Result<Arc<GroupSession>, Refusal> {
        let key = (group.clone(), epoch);
        if let Some(session) = self.groups.lock().get(&key) {
            return Ok(session.clone());
        }
        let found = self.endpoint.directory.group_key(group, Some(epoch)).await;
        let found = found.ok().flatten().ok_or(Refusal::GroupUnknown)?;
        let session = Arc::new(GroupSession::new(&found));
        self.groups.lock().insert(key, session.clone());
        Ok(session)
    }

    /// A gap means that the broker withholds something: it is counted and told. What comes late
    /// is counted back: order is not promised.
    fn note_sequence(&self, signer: Kid, group: &GroupName, sequence: u64) {
        let mut sequences = self.sequences.lock();
        // A signer's kid changes with each renewal: those of old ones go some day.
        if sequences.len() >= MAX_SIGNERS {
            sequences.clear();
        }
        let seen = sequences
            .entry((signer, group.clone()))
            .or_insert_with(|| Sequence::starting_at(sequence));
        match seen.note(sequence) {
            _ if off(Check::FanoutGap) => {}
            Noted::Next => {}
            Noted::Late => self.endpoint.counters.gaps.sub(1),
            Noted::Gap(missing) => {
                self.endpoint.counters.gaps.add(missing);
                let group = Text::of(&group);
                self.endpoint.events().emit(events::FanoutsMissing { group, signer, missing });
            }
        }
    }

    /// `offer-needed`, to a name in the claimed sender's reply name space and at a bounded rate.
    fn ask_for_offer(&self, parsed: &Parsed, origin: &Origin) {
        let Some(hint) = &origin.reply_hint else { return };
        let header = parsed.header();
        let wanted = header.kind == MessageKind::Call
            && OfferNeeded::applies_to(header.handle)
            && parsed.offer().is_none()
            && (hint.is_queue()
                || hint.belongs_to(parsed.claimed_sender())
                || off(Check::NoticeNameSpace));
        if !wanted || !self.may_notify() {
            return;
        }
        let endpoint = self.endpoint.clone();
        let address = Address::Reply {
            exchange: endpoint.options.exchange.clone(),
            to: hint.clone(),
            from: endpoint.identity.principal().to_string(),
        };
        let payload = OfferNeeded { message: header.id }.encode().into();
        endpoint.counters.notices.add(1);
        tokio::spawn(async move {
            let outbound = Outbound::new(payload);
            if let Err(error) = endpoint.transport.publish(&address, outbound).await {
                tracing::debug!(%error, "offer-needed could not be sent");
            }
        });
    }

    fn may_notify(&self) -> bool {
        let mut notices = self.notices.lock();
        let (tokens, at) = &mut *notices;
        *tokens =
            (*tokens + at.elapsed().as_secs_f64() * NOTICES_PER_SECOND).min(NOTICES_PER_SECOND);
        *at = Instant::now();
        let may = *tokens >= 1.0 || off(Check::NoticeRate);
        if may {
            *tokens -= 1.0;
        }
        may
    }
}

/// Where the message's outside says that replies go, on a carrier that has names of its own.
fn keep_hint(opened: &mut Opened, origin: &Origin) {
    let queue = |hint: &&ReplyName| hint.is_queue() || cfg!(bulla_mutants);
    opened.hint = origin.reply_hint.as_ref().filter(queue).cloned();
}

fn asks_to_renew(body: &RequestBody<'_>) -> bool {
    body.namespace == Some(wire::NAMESPACE) && body.method == wire::AGENT
}

/// `namespace.method`, or the method alone.
pub(crate) fn full_name(namespace: Option<&str>, method: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}.{method}"),
        None => method.to_owned(),
    }
}
