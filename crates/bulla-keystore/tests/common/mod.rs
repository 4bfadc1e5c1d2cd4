//! A fresh keystore in a folder of its own.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::path::PathBuf;

use bulla_keystore::{AgentKeys, Kek, KeyType, Keystore};
use bulla_seal::{Principal, Secret, SigningKey, Suite, SuiteSet, TrustDomain};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;

pub struct Fixture {
    pub folder: TempDir,
    pub kek: Kek,
    pub root: SigningKey,
    pub keystore: Keystore,
}

impl Fixture {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let path = folder.path().join("keystore.db");
        let made = Keystore::init(path, &domain(), kek.clone()).await.unwrap();
        Self { folder, kek, root: made.root, keystore: made.keystore }
    }

    pub async fn with_components(names: &[&str]) -> Self {
        let fixture = Self::new().await;
        for name in names {
            fixture.keystore.add_component(name, &[], SuiteSet::all()).await.unwrap();
        }
        fixture
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("keystore.db")
    }

    /// A connection past the keystore, as an attacker or a curious operator has it.
    pub async fn raw(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).foreign_keys(false);
        options.connect().await.unwrap()
    }

    pub async fn shared(&self, id: &str) -> (Secret<32>, u32) {
        match self.keystore.add_agent(id, KeyType::Shared, Suite::Shared).await.unwrap() {
            AgentKeys::Shared { key, incarnation, .. } => (key, incarnation),
            AgentKeys::Pair { .. } => panic!("a shared key was asked for"),
        }
    }
}

pub fn domain() -> TrustDomain {
    TrustDomain::new("cloud.example").unwrap()
}

pub fn agent(id: &str) -> Principal {
    Principal::agent(id).unwrap()
}

pub fn component(name: &str) -> Principal {
    Principal::component(name).unwrap()
}
