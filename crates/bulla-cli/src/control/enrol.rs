//! The control plane's half of enrolment: the keystore judges what comes in over the bus.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_journal::{Events, events};
use bulla_keystore::{EnrolRefusal, Enrolment, Invitation, Keystore};
use bulla_rpc::DirectoryError;
use bulla_rpc::enrol::{Enroller, Refused, Verdict};
use bulla_rpc::identity::{BusEntry, JoinFile, TokenEntry};
use bulla_seal::{Principal, SignedCredential};
use bytes::Bytes;

use super::CONTROL;
use super::logins::Logins;
use crate::failure::Result;

/// The keystore as the one who judges requests to join.
pub(super) struct KeystoreEnroller {
    pub(super) keystore: Keystore,
    pub(super) logins: Arc<Logins>,
    pub(super) events: Events,
}

#[async_trait]
impl Enroller for KeystoreEnroller {
    async fn enrol(&self, request: Bytes) -> std::result::Result<Verdict, DirectoryError> {
        let enrolment = self.keystore.enrol(CONTROL, &request).await;
        Ok(match enrolment.map_err(|error| DirectoryError(error.to_string()))? {
            Enrolment::Answered { party, answer, again } => {
                Verdict::Answer { agent: party.principal, answer: answer.into(), again }
            }
            Enrolment::Refused(EnrolRefusal::Reused(party)) => {
                let (agent, refusal) = (party.principal.clone(), "enrol-token-reused");
                self.events.emit(events::AgentQuarantined { agent, refusal });
                self.logins.cut_quarantined(&self.keystore, party.principal.name());
                refused(&EnrolRefusal::Reused(party))
            }
            Enrolment::Refused(refusal) => refused(&refusal),
        })
    }
}

fn refused(refusal: &EnrolRefusal) -> Verdict {
    Verdict::Refused(Refused {
        name: refusal.as_str(),
        why: refusal.to_string(),
        unknown: *refusal == EnrolRefusal::Unknown,
        alarm: refusal.is_alarm(),
    })
}

/// Makes join files: looks up once what all of them have.
pub(crate) struct JoinFiles {
    keystore: Keystore,
    control: SignedCredential,
}

impl JoinFiles {
    pub(crate) async fn new(keystore: &Keystore) -> Result<Self> {
        let control = keystore.credential(&Principal::component(CONTROL)?).await?;
        Ok(Self { keystore: keystore.clone(), control })
    }

    /// The join file of a new agent, which finds the bus at `bus`.
    pub(crate) fn make(&self, invitation: &Invitation, bus: Option<BusEntry>) -> JoinFile {
        let trust = self.keystore.trust_store();
        let token = &invitation.token;
        JoinFile {
            version: 1,
            principal: invitation.party.principal.to_string(),
            incarnation: invitation.party.incarnation,
            trust_domain: trust.domain().to_string(),
            root: BASE64.encode(trust.root().as_bytes()),
            root_sequence: trust.root_sequence(),
            issuers: trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect(),
            enroller: BASE64.encode(self.control.as_bytes()),
            suite: invitation.suite.as_str().to_owned(),
            statements: true,
            join: TokenEntry {
                id: BASE64.encode(token.id.as_bytes()),
                secret: BASE64.encode(token.secret.expose()),
                expires: invitation.expires,
            },
            bus,
        }
    }
}
