//! Key files without a control plane: each names every peer that its holder has.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shared by several test binaries"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla::KeyFile;
use bulla_keystore::{AgentKeys, Kek, KeyType, Keystore};
use bulla_seal::{KemSecretKey, SignedCredential, SigningKey, Suite, SuiteSet, TrustDomain};
use serde_json::{Value, json};
use tempfile::TempDir;

pub async fn keystore(folder: &TempDir, components: &[&str]) -> Keystore {
    let kek = Kek::create_file(folder.path().join("kek")).unwrap();
    let domain = TrustDomain::new("cloud.example").unwrap();
    let path = folder.path().join("keystore.db");
    let keystore = Keystore::init(path, &domain, kek).await.unwrap().keystore;
    for name in components {
        keystore.add_component(name, &[], SuiteSet::all()).await.unwrap();
    }
    keystore
}

/// The key file of the one host of a component type, which knows the `peers`.
pub async fn write_key_file(
    keystore: &Keystore,
    name: &str,
    peers: &[&str],
    bus: Option<Value>,
    folder: &Path,
) -> PathBuf {
    let (kem, audience) = keystore.component_keys(name).await.unwrap();
    let hour = Duration::from_secs(3600);
    let (key, signing) = keystore.issue_signing(name, &format!("{name}-1"), hour).await.unwrap();
    let path = folder.join(format!("{name}.key"));
    write(keystore, (&key, &signing), (&kem, &audience), peers, bus, &path).await;
    path
}

/// The key file of a new agent, which knows the `peers`.
pub async fn write_agent_file(
    keystore: &Keystore,
    id: &str,
    peers: &[&str],
    bus: Option<Value>,
    folder: &Path,
) -> PathBuf {
    let keys = keystore.add_agent(id, KeyType::Pair, Suite::X25519).await.unwrap();
    let AgentKeys::Pair { signing, kem, credential } = keys else { panic!("{keys:?}") };
    let path = folder.join(format!("{id}.key"));
    write(keystore, (&signing, &credential), (&kem, &credential), peers, bus, &path).await;
    path
}

async fn write(
    keystore: &Keystore,
    (key, signing): (&SigningKey, &SignedCredential),
    (kem, audience): (&KemSecretKey, &SignedCredential),
    peers: &[&str],
    bus: Option<Value>,
    path: &Path,
) {
    let trust = keystore.trust_store();
    let mut known = Vec::new();
    for peer in peers {
        let credential = keystore.credential(&peer.parse().unwrap()).await.unwrap();
        known.push(BASE64.encode(credential.as_bytes()));
    }
    let mut file = json!({
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
        "peers": known,
    });
    if let Some(bus) = bus {
        file["bus"] = bus;
    }
    let file: KeyFile = serde_json::from_value(file).unwrap();
    file.write(path).unwrap();
}
