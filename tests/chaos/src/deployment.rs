//! Keys of a caller and two worker hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_keystore::{Kek, Keystore};
use bulla_rpc::{Clock, Endpoint, EndpointOptions, KeyFile, SystemClock};
use bulla_seal::{SuiteSet, TrustDomain};
use bulla_transport::{ConsumeOptions, Transport};
use serde_json::json;

use crate::Failed;

/// The component that the worker processes are hosts of.
pub(crate) const SERVICE: &str = "component/counter";
const CALLER: &str = "component/caller";
const DAY: Duration = Duration::from_secs(12 * 3600);

/// The key files.
pub(crate) struct KeyFiles {
    pub(crate) caller: PathBuf,
    pub(crate) workers: [PathBuf; 2],
}

impl KeyFiles {
    pub(crate) async fn write(folder: &Path) -> Result<Self, Failed> {
        let kek = Kek::create_file(folder.join("kek"))?;
        let domain = TrustDomain::new("chaos.example")?;
        let keystore = Keystore::init(folder.join("keystore.db"), &domain, kek).await?.keystore;
        for name in ["counter", "caller"] {
            keystore.add_component(name, &[], SuiteSet::all()).await?;
        }
        let caller = write(&keystore, "caller", "caller-1", folder).await?;
        let first = write(&keystore, "counter", "counter-1", folder).await?;
        let second = write(&keystore, "counter", "counter-2", folder).await?;
        keystore.close().await;
        Ok(Self { caller, workers: [first, second] })
    }
}

/// The key file of one host of a component.
async fn write(
    keystore: &Keystore,
    name: &str,
    host: &str,
    folder: &Path,
) -> Result<PathBuf, Failed> {
    let (kem, audience) = keystore.component_keys(name).await?;
    let (key, signing) = keystore.issue_signing(name, host, DAY).await?;
    let trust = keystore.trust_store();
    let mut peers = Vec::new();
    for peer in [SERVICE, CALLER] {
        let credential = keystore.credential(&peer.parse()?).await?;
        peers.push(BASE64.encode(credential.as_bytes()));
    }
    let file = json!({
        "version": 1,
        "principal": signing.party.principal.to_string(),
        "incarnation": signing.party.incarnation,
        "trust-domain": trust.domain().to_string(),
        "root": BASE64.encode(trust.root().as_bytes()),
        "issuers": trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect::<Vec<_>>(),
        "signing-key": BASE64.encode(key.seed().expose()),
        "signing-credential": BASE64.encode(signing.as_bytes()),
        "receive": [{
            "suite": kem.suite().as_str(),
            "key": BASE64.encode(kem.expose()),
            "credential": BASE64.encode(audience.as_bytes()),
        }],
        "peers": peers,
    });
    let file: KeyFile = serde_json::from_value(file)?;
    let path = folder.join(format!("{host}.key"));
    file.write(&path)?;
    Ok(path)
}

/// The endpoint of a key file's holder.
pub(crate) fn endpoint(
    key_file: &Path,
    transport: Arc<dyn Transport>,
    replicated: bool,
) -> Result<Endpoint, Failed> {
    let (identity, peers) = KeyFile::read(key_file)?.open(key_file, SystemClock.now())?;
    let queues = ConsumeOptions { replicated, ..ConsumeOptions::default() };
    let options = EndpointOptions { queues, ..EndpointOptions::default() };
    Ok(Endpoint::new(identity, Arc::new(peers), transport, options)?)
}
