//! A control plane that enrols agents: a keystore of its own, on an exchange of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulla_keystore::{
    EnrolRefusal, Enrolment, Invitation, Kek, Keystore, KeystoreError, TOKEN_LIFETIME,
};
use bulla_rpc::enrol::{EnrolServer, Enroller, JoinError, Refused, TOPIC, Verdict, join};
use bulla_rpc::{Clock, DirectoryError};
use bulla_seal::enrol::{Applicant, Application, Enrolled, JoinToken};
use bulla_seal::{KemSecretKey, OsRandom, Principal, SignedCredential, SigningKey, SuiteSet};
use bulla_transport::{Address, Inbox, Transport};
use bytes::Bytes;

use super::{Peer, World};
use crate::row::Seen;
use crate::trouble::Trouble;

/// The component type that enrols.
const ENROLLER: &str = "control";
/// How long whoever joins waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// A control plane that new agents join.
pub struct Desk {
    /// The process that takes requests: its counters.
    pub peer: Peer,
    /// Who exists.
    pub keystore: Keystore,
    credential: SignedCredential,
    exchange: String,
    _server: EnrolServer,
    _folder: tempfile::TempDir,
}

struct Judge(Keystore);

#[async_trait]
impl Enroller for Judge {
    async fn enrol(&self, request: Bytes) -> Result<Verdict, DirectoryError> {
        let judged = self.0.enrol(ENROLLER, &request).await;
        Ok(match judged.map_err(|error| DirectoryError(error.to_string()))? {
            Enrolment::Answered { party, answer, again } => {
                Verdict::Answer { agent: party.principal, answer: answer.into(), again }
            }
            Enrolment::Refused(refusal) => Verdict::Refused(Refused {
                name: refusal.as_str(),
                why: refusal.to_string(),
                unknown: refusal == EnrolRefusal::Unknown,
                alarm: refusal.is_alarm(),
            }),
        })
    }
}

impl Desk {
    /// Opens it on the world's bus and by its clock.
    pub async fn open(world: &World) -> Result<Self, Trouble> {
        let folder = tempfile::tempdir()?;
        let kek = Kek::create_file(folder.path().join("kek"))?;
        let (path, domain) = (folder.path().join("keystore.db"), world.authority.trust.domain());
        let clock = world.clock.clone();
        let keystore = Keystore::init(path, domain, kek).await?.keystore;
        let keystore = keystore.with_clock(move || clock.now());
        keystore.add_component(ENROLLER, &[], SuiteSet::only(world.suite())).await?;
        let credential = keystore.credential(&Principal::component(ENROLLER)?).await?;
        let exchange = format!("{}-{}", world.settings.endpoint.exchange, world.tag);
        let peer = world.control.again(Some(&exchange))?;
        let judge = Arc::new(Judge(keystore.clone()));
        let server = EnrolServer::start(peer.endpoint.clone(), judge).await?;
        let topic = TOPIC.to_owned();
        world.clean_up(Inbox::Topic { exchange: exchange.clone(), topic });
        for part in ["", ".reply", ".enrol", ".agent", ".agent.reply"] {
            world.clean_up_exchange(format!("{exchange}{part}"));
        }
        Ok(Self { peer, keystore, credential, exchange, _server: server, _folder: folder })
    }

    /// A new agent's join file.
    pub async fn invite(&self, world: &World, id: &str) -> Result<Invitation, KeystoreError> {
        self.keystore.invite_agent(id, world.suite(), TOKEN_LIFETIME, false).await
    }

    /// A request of whoever has this token, with keys of its own.
    pub fn apply(
        &self,
        world: &World,
        invited: &Invitation,
        token: &JoinToken,
    ) -> Result<Application, Trouble> {
        let random = &mut OsRandom::default();
        let applicant = Applicant {
            domain: world.authority.trust.domain(),
            party: &invited.party,
            token,
            enroller: &self.credential,
        };
        let signing = SigningKey::generate(random)?;
        let kem = KemSecretKey::generate(world.suite(), random)?;
        Ok(applicant.apply(signing, kem, world.clock.now(), random)?)
    }

    /// Asks to join until there is an answer, on `transport`.
    pub async fn join(
        &self,
        transport: &Arc<dyn Transport>,
        application: &Application,
    ) -> Result<Enrolled, JoinError> {
        let root = self.keystore.trust_store();
        join(transport, &self.exchange, application, &root, PATIENCE).await
    }

    /// Where requests go.
    pub fn address(&self) -> Address {
        Address::Topic { exchange: self.exchange.clone(), topic: TOPIC.to_owned() }
    }

    /// Asks to join as the intruder: held if it is refused by that name, and no answer comes.
    pub async fn knock(
        &self,
        world: &World,
        application: &Application,
        refusal: &'static str,
    ) -> Result<Seen, Trouble> {
        let before = world.mark(&self.peer);
        let refused = || {
            let count = self.peer.refusals().get(refusal).copied().unwrap_or_default();
            count > before.refused(refusal)
        };
        tokio::select! {
            joined = self.join(&world.intruder, application) => match joined {
                Ok(enrolled) => {
                    let party = &enrolled.credential.party;
                    Ok(Seen::GotThrough(format!("a credential for {party} was handed out")))
                }
                Err(JoinError::NoAnswer { .. }) => {
                    Ok(Seen::Unexpected("there was neither an answer nor a refusal".into()))
                }
                Err(error) => Err(error.into()),
            },
            true = world.until(refused) => Ok(Seen::Held(refusal.to_owned())),
        }
    }
}
