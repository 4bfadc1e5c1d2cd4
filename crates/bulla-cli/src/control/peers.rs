//! Floors of peers, the census and exemptions, as the API shows them.

use std::collections::BTreeMap;

use bulla_api::{CallFailure, ExemptRequest, Peer, PeerExemption, RaiseRequest, Seen, TakenBack};
use bulla_guard::floor::{Event, FloorError, unknown_peer};
use bulla_http::Identity;
use bulla_journal::{Text, events};
use bulla_keystore::KeystoreError;
use bulla_rpc::{Clock, Endpoint, SystemClock};
use bulla_seal::exemption::MAX_EXEMPTION_LIFE;
use bulla_seal::{Exemption, Kid, Level, Party, Principal};

use super::ControlNode;
use super::plane::{internal, millis};

fn broken(error: FloorError) -> CallFailure {
    CallFailure::Internal { why: error.to_string() }
}

fn bad(why: impl ToString) -> CallFailure {
    CallFailure::BadRequest { why: why.to_string() }
}

impl ControlNode {
    fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// Every peer of which something is known.
    pub(super) async fn peers(&self) -> Result<Vec<Peer>, CallFailure> {
        let floors = self.endpoint().floors();
        floors.flush().await.map_err(broken)?;
        self.endpoint().refresh_floors().await.map_err(broken)?;
        let now = SystemClock.now().secs();
        let mut peers: BTreeMap<Party, Peer> = BTreeMap::new();
        let blank = |party: &Party| {
            let record = unknown_peer(party);
            Peer {
                principal: party.principal.to_string(),
                incarnation: party.incarnation.into(),
                accepts: record.accepts.to_string(),
                sends: record.sends.to_string(),
                target: None,
                seen: Vec::new(),
                exemptions: Vec::new(),
            }
        };
        for (party, record) in floors.store().records().await.map_err(broken)? {
            let peer = peers.entry(party.clone()).or_insert_with(|| blank(&party));
            peer.accepts = record.accepts.to_string();
            peer.sends = record.sends.to_string();
            peer.target = record.target.map(|target| target.to_string());
        }
        for row in floors.store().census().await.map_err(broken)? {
            let peer = peers.entry(row.peer.clone()).or_insert_with(|| blank(&row.peer));
            peer.seen.push(Seen {
                method: row.method,
                level: row.level.to_string(),
                count: row.count,
                last_ms: millis(row.last),
                below: row.below,
                last_below_ms: (row.below > 0).then(|| millis(row.last_below)),
            });
        }
        for given in floors.exemptions().iter() {
            let peer = peers.entry(given.peer.clone()).or_insert_with(|| blank(&given.peer));
            peer.exemptions.push(exemption(given, now));
        }
        Ok(peers.into_values().collect())
    }

    pub(super) async fn raise(
        &self,
        by: &Identity,
        request: RaiseRequest,
    ) -> Result<Peer, CallFailure> {
        let party = self.party(&request.principal).await?;
        let to = level(&request.level)?;
        let event = if request.shadow { Event::Rehearse { to } } else { Event::Raise { to } };
        let floors = self.endpoint().floors();
        let peer = floors.peer(&party).await.map_err(broken)?;
        floors.apply(&peer, event).await.map_err(broken)?;
        let (operator, shadow) = (Text::of(by), request.shadow);
        self.events().emit(events::FloorRaised { operator, peer: party, to, shadow });
        let shown = self.peers().await?.into_iter();
        let mut shown = shown.filter(|peer| peer.principal == request.principal);
        shown.next_back().ok_or_else(|| {
            bad(format!(
                "the floor of {} is below {to} already, and a rehearsal is for a higher one",
                request.principal
            ))
        })
    }

    pub(super) async fn exempt(
        &self,
        by: &Identity,
        request: ExemptRequest,
    ) -> Result<PeerExemption, CallFailure> {
        let party = self.party(&request.principal).await?;
        let level = level(&request.level)?;
        let (now, until) = (SystemClock.now().secs(), request.until_ms / 1000);
        if until <= now || until - now > MAX_EXEMPTION_LIFE {
            return Err(bad("an exemption ends in the future, and at most 90 days from now"));
        }
        let given = self.keystore.exempt(&party, &request.method, level, until).await;
        let given = given.map_err(|error| match error {
            KeystoreError::Credential(_) => bad(format!(
                "`{}` is no method, or the operator's issuer ends before the exemption would",
                request.method
            )),
            other => internal(other),
        })?;
        let floors = self.endpoint().floors();
        floors.store().add_exemption(&given).await.map_err(broken)?;
        self.endpoint().refresh_floors().await.map_err(broken)?;
        let (operator, text) = (Text::of(by), Text::of(&*given));
        self.events().emit(events::ExemptionGiven { operator, exemption: text, until });
        Ok(exemption(&given, now))
    }

    pub(super) async fn take_back(
        &self,
        by: &Identity,
        id: &str,
    ) -> Result<TakenBack, CallFailure> {
        let unknown =
            || bad(format!("there is no exemption {id}; `bulla peers exempt` lists them"));
        let kid = bulla_rpc::directory::wire::kid(id).ok_or_else(unknown)?;
        let floors = self.endpoint().floors();
        if !floors.store().remove_exemption(kid).await.map_err(broken)? {
            return Err(unknown());
        }
        self.endpoint().refresh_floors().await.map_err(broken)?;
        let (operator, exemption) = (Text::of(by), Text::new(id));
        self.events().emit(events::ExemptionTakenBack { operator, exemption });
        Ok(TakenBack { id: Kid::to_string(&kid) })
    }

    async fn party(&self, name: &str) -> Result<Party, CallFailure> {
        let principal: Principal = name.parse().map_err(bad)?;
        self.keystore.party(&principal).await.map_err(|error| match error {
            KeystoreError::UnknownPrincipal(_) => {
                CallFailure::UnknownTarget { target: name.to_owned() }
            }
            other => internal(other),
        })
    }
}

fn level(name: &str) -> Result<Level, CallFailure> {
    name.parse().map_err(|error| bad(format!("`{name}` is no level: {error}")))
}

fn exemption(given: &Exemption, now: u64) -> PeerExemption {
    PeerExemption {
        id: given.id.to_string(),
        principal: given.peer.principal.to_string(),
        method: given.method.clone(),
        level: given.level.to_string(),
        until_ms: millis(given.until),
        live: given.is_live(now),
    }
}
