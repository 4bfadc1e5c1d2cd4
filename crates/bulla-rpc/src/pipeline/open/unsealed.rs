//! Messages of peers that do not seal: read by what knows their form, and on only by an exemption.

use std::sync::Arc;

use bulla_guard::floor::Judgement;
use bulla_seal::{Level, MessageKind, Party, Refusal};
use bulla_transport::Inbox;
use bytes::Bytes;

use super::opened::{Content, Opened};
use super::place::Place;
use super::{Origin, Shared, Sifted, Stop, full_name};
use crate::unsealed::{Exempted, UnsealedRequest};

/// Whether a payload is a carrier's body and no frame: no frame begins so.
pub(super) fn is_foreign(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

impl Shared {
    /// Nothing is read while no exemption could let it through.
    pub(super) fn sift_unsealed(&self, body: Bytes, origin: &Origin) -> Result<Sifted, Refusal> {
        let now = self.endpoint.now().secs();
        let exemptions = self.endpoint.floors.exemptions();
        if !exemptions
            .iter()
            .any(|exemption| exemption.is_live(now) && exemption.level < Level::Signed)
        {
            return Err(Refusal::LevelNotAllowed);
        }
        let place = self.place(&origin.inbox)?;
        Ok(Sifted::Unsealed { body, place })
    }

    pub(super) async fn open_unsealed(
        &self,
        body: &[u8],
        place: Arc<Place>,
        origin: &Origin,
    ) -> Result<Opened, Stop> {
        let reader = self.unsealed.as_ref().ok_or(Refusal::LevelNotAllowed)?;
        let now = self.endpoint.now().secs();
        let request = reader.read(body, &origin.inbox, now)?;
        let fanout = matches!(*origin.inbox, Inbox::Fanout { .. });
        if fanout != (request.kind == MessageKind::Fanout) || request.level >= Level::Signed {
            return Err(Refusal::KindNotAllowed.into());
        }
        let sender = self.exempted(&request, now).ok_or(Refusal::LevelNotAllowed)?;
        self.endpoint.check_party(&sender)?;
        self.endpoint.check_current(&sender)?;
        let peer = self.endpoint.floors.peer(&sender).await?;
        Ok(Opened {
            content: Content::Unsealed(Exempted { request, sender, received_at: now }),
            place,
            session: None,
            signer: None,
            peer,
            judgement: Judgement::Refuse { floor: self.level },
            now,
            hint: None,
        })
    }

    /// The sender in the incarnation that an exemption names for this method and level.
    fn exempted(&self, request: &UnsealedRequest, now: u64) -> Option<Party> {
        let method = full_name(request.namespace.as_deref(), &request.method);
        let exemptions = self.endpoint.floors.exemptions();
        let fitting = exemptions.iter().filter(|exemption| {
            exemption.is_live(now)
                && exemption.peer.principal == request.sender
                && exemption.method == method
                && request.level >= exemption.level
        });
        fitting.max_by_key(|exemption| exemption.peer.incarnation).map(|found| found.peer.clone())
    }
}
