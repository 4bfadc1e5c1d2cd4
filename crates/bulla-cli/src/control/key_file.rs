//! Key files: what an agent or a host of a component type takes with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_keystore::{AgentKeys, HOST_LIFETIME, Keystore};
use bulla_rpc::KeyFile;
use bulla_rpc::identity::{AudienceEntry, BusEntry, PairEntry};
use bulla_rpc::target::DEFAULT_EXCHANGE;
use bulla_seal::{KemSecretKey, Party, Principal, SignedCredential, SigningKey, TrustStore};

use crate::failure::Result;
use crate::settings::Settings;

/// The control plane's own component type.
const CONTROL: &str = "control";

/// Where the bus is, for a key file, with the login that is meant for key files or else the
/// control plane's own; `None` if it is in one process's memory.
pub(crate) fn bus_entry(settings: &Settings) -> Option<BusEntry> {
    let bus = &settings.bus;
    Some(BusEntry {
        former_url: None,
        login_pending: false,
        url: bus.key_file_url.as_ref().or(bus.url.as_ref())?.clone(),
        exchange: bus.exchange.clone().unwrap_or_else(|| DEFAULT_EXCHANGE.to_owned()),
        ca: bus.ca.clone(),
        ca_pem: bus.ca_pem.clone(),
        client_cert: bus.client_cert.clone(),
        client_key: bus.client_key.clone(),
    })
}

/// What key files have in common, read once however many are written.
pub(crate) struct KeyFiles {
    trust: TrustStore,
    control: SignedCredential,
}

impl KeyFiles {
    pub(crate) async fn new(keystore: &Keystore) -> Result<Self> {
        let control = keystore.credential(&Principal::component(CONTROL)?).await?;
        Ok(Self { trust: keystore.trust_store(), control })
    }

    /// The key file of a new agent.
    pub(crate) fn agent(
        &self,
        id: &str,
        keys: AgentKeys,
        bus: Option<BusEntry>,
    ) -> Result<KeyFile> {
        let principal = Principal::agent(id)?;
        match keys {
            AgentKeys::Pair { signing, kem, credential } => {
                let mut file = self.blank(&credential.party, bus);
                sign_with(&mut file, &signing, &credential);
                receive_with(&mut file, &kem, &credential);
                Ok(file)
            }
            AgentKeys::Shared { key, incarnation, pairs } => {
                let mut file = self.blank(&Party::new(principal, incarnation), bus);
                file.shared_key = Some(BASE64.encode(key.expose()));
                file.pairs = pairs
                    .iter()
                    .map(|pair| PairEntry {
                        kid: pair.kid.to_string(),
                        component: pair.component.to_string(),
                        epoch: pair.epoch,
                    })
                    .collect();
                Ok(file)
            }
        }
    }

    /// What every key file has: whose it is, what it trusts, and the control plane's credential.
    fn blank(&self, party: &Party, bus: Option<BusEntry>) -> KeyFile {
        let Self { trust, control } = self;
        KeyFile {
            version: 1,
            principal: party.principal.to_string(),
            incarnation: party.incarnation,
            trust_domain: trust.domain().to_string(),
            root: BASE64.encode(trust.root().as_bytes()),
            root_sequence: trust.root_sequence(),
            former_root: None,
            issuers: trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect(),
            shared_key: None,
            signing_key: None,
            signing_credential: None,
            receive: Vec::new(),
            peers: vec![BASE64.encode(control.as_bytes())],
            pairs: Vec::new(),
            statements: true,
            renewed: false,
            bus,
        }
    }
}

/// The key file of one host of a component type, with a new signing key for it, which the host
/// renews when it runs.
pub(crate) async fn component_key_file(
    keystore: &Keystore,
    name: &str,
    instance: &str,
    bus: Option<BusEntry>,
) -> Result<KeyFile> {
    let receive = keystore.receive_keys(name).await?;
    let (signing, credential) = keystore.issue_signing(name, instance, HOST_LIFETIME).await?;
    let mut file = KeyFiles::new(keystore).await?.blank(&credential.party, bus);
    sign_with(&mut file, &signing, &credential);
    for (kem, audience) in &receive {
        receive_with(&mut file, kem, audience);
    }
    Ok(file)
}

fn sign_with(file: &mut KeyFile, key: &SigningKey, credential: &SignedCredential) {
    file.signing_key = Some(BASE64.encode(key.seed().expose()));
    file.signing_credential = Some(BASE64.encode(credential.as_bytes()));
}

fn receive_with(file: &mut KeyFile, key: &KemSecretKey, credential: &SignedCredential) {
    file.receive.push(AudienceEntry {
        suite: key.suite().as_str().to_owned(),
        key: BASE64.encode(key.expose()),
        credential: BASE64.encode(credential.as_bytes()),
    });
}
