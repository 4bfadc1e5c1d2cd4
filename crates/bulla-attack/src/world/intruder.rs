//! What the intruder makes with keys that it stole.

use std::sync::Arc;

use bulla_rpc::PairKey;
use bulla_seal::{
    Audience, Frame, Hedge, MessageBuf, MessageKind, OsRandom, Party, Protection, Random,
    RequestBody, RequestSpec, Route, Session, UnixTime, shared,
};
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Keyring, Peer, World};
use crate::trouble::Trouble;

/// A principal whose keys the intruder holds.
#[derive(Debug)]
pub struct Stolen {
    /// The keys.
    pub keys: Keyring,
    /// Pair keys with components.
    pub pairs: Mutex<Vec<PairKey>>,
    twin: Mutex<Option<Forged>>,
}

/// A session of the intruder's, with the offer that opens it.
#[derive(Debug, Clone)]
pub struct Forged {
    /// The session.
    pub session: Arc<Session>,
    /// Its offer, for key pairs.
    pub offer: Option<Bytes>,
}

/// Fresh randomness and this time.
pub fn hedge(now: UnixTime) -> Result<Hedge, Trouble> {
    let (mut random, mut boot) = ([0; 16], [0; 16]);
    OsRandom::default().fill(&mut random)?;
    OsRandom::default().fill(&mut boot)?;
    Ok(Hedge { random, now, counter: 1, boot })
}

impl Stolen {
    /// Of these keys.
    pub fn new(keys: Keyring) -> Self {
        Self { keys, pairs: Mutex::default(), twin: Mutex::default() }
    }

    /// A session with `to` as whom the keys belong to.
    pub fn session(&self, to: &Peer, world: &World, now: UnixTime) -> Result<Forged, Trouble> {
        open(&self.keys, &self.pairs.lock(), to, world, now)
    }
}

fn open(
    keys: &Keyring,
    pairs: &[PairKey],
    to: &Peer,
    world: &World,
    now: UnixTime,
) -> Result<Forged, Trouble> {
    if keys.k.is_some() {
        let pair = pairs.iter().find(|pair| pair.peer == to.keys.party);
        let pair = pair.ok_or_else(|| Trouble::new("no pair key with that component"))?;
        let session =
            shared::session(pair.kid, &pair.key, keys.party.clone(), to.keys.party.clone());
        return Ok(Forged { session: Arc::new(session), offer: None });
    }
    world.open_as(keys, to, now)
}

impl World {
    /// A session with `to`, opened with stolen signing keys.
    pub fn open_as(&self, keys: &Keyring, to: &Peer, now: UnixTime) -> Result<Forged, Trouble> {
        self.open_with(keys, &to.keys, now)
    }

    /// The same, with what the intruder has for `to`'s credential.
    pub fn open_with(
        &self,
        keys: &Keyring,
        to: &Keyring,
        now: UnixTime,
    ) -> Result<Forged, Trouble> {
        let (key, credential) = keys.signing()?;
        let domain = self.authority.trust.domain().clone();
        let initiator = bulla_seal::Initiator::new(key.clone(), credential.clone(), domain)?;
        let audience = &to.receive()?.credential;
        let (offer, session) = initiator.offer(audience, now, 3600, &mut OsRandom::default())?;
        Ok(Forged { session: Arc::new(session), offer: Some(offer) })
    }

    /// The session that both copies of a cloned machine are in.
    pub fn twin_session(&self, now: UnixTime) -> Result<Forged, Trouble> {
        let mut twin = self.mallory.twin.lock();
        if let Some(twin) = &*twin {
            return Ok(twin.clone());
        }
        let forged = self.mallory.session(&self.control, self, now)?;
        *twin = Some(forged.clone());
        Ok(forged)
    }

    /// The route to `to` as everybody believes it.
    pub fn route_to(&self, to: &Party) -> Result<Route, Trouble> {
        let topic = bulla_rpc::target::topic_of(&to.principal);
        Ok(Route::new(self.exchange(), &topic, None, Audience::Party(to.clone()))?)
    }

    /// Seals a request of the intruder's.
    pub fn seal(
        &self,
        forged: &Forged,
        kind: MessageKind,
        body: &RequestBody<'_>,
        now: UnixTime,
        life: u64,
    ) -> Result<Frame, Trouble> {
        let route = self.route_to(forged.session.responder())?;
        let mut buf = MessageBuf::with_capacity(256);
        body.write(buf.sink());
        let spec = RequestSpec {
            kind,
            route: &route,
            expires: now.secs() + life,
            protection: Protection::Sealed,
        };
        let sealed = forged.session.seal_request(&spec, &hedge(now)?, buf)?;
        Ok(sealed.into_frame(forged.offer.as_deref()))
    }
}

/// A request's body with these arguments, encoded.
pub fn body<'a>(method: &'a str, args: &'a [u8]) -> RequestBody<'a> {
    RequestBody {
        namespace: None,
        method,
        version: "1.0",
        args,
        context: None,
        trace_parent: None,
        reply_to: None,
    }
}
