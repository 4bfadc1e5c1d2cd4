//! A fresh keystore of its own: in a folder, or in a database of a private server.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod many;
mod raw;
mod servers;

use std::collections::HashMap;
use std::path::PathBuf;

use bulla_keystore::{
    AgentKeys, DatabaseRole, Kek, KeyType, Keystore, KeystoreError, RolePassword, StoreAddress,
};
use bulla_seal::{Principal, Secret, SigningKey, Suite, SuiteSet, TrustDomain};
use tempfile::TempDir;

pub use raw::Raw;

/// Which database a test program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
    MariaDb,
}

pub struct Fixture {
    pub folder: TempDir,
    pub address: StoreAddress,
    /// The address as text, with its password.
    pub url: String,
    pub database: Database,
    pub kek: Kek,
    pub root: SigningKey,
    pub keystore: Keystore,
}

impl Fixture {
    /// A SQLite file.
    pub async fn new() -> Self {
        Self::on(Database::Sqlite).await.unwrap()
    }

    pub async fn with_components(names: &[&str]) -> Self {
        Self::new().await.and_components(names).await
    }

    /// `None`, and a note, if there is no such server on this machine.
    pub async fn on(database: Database) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = match database {
            Database::Sqlite => folder.path().join("keystore.db").display().to_string(),
            _ => servers::fresh(database).await?,
        };
        let address: StoreAddress = url.parse().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let made = Keystore::init(&address, &domain(), kek.clone()).await.unwrap();
        let (root, keystore) = (made.root, made.keystore);
        Some(Self { folder, address, url, database, kek, root, keystore })
    }

    pub async fn and_components(self, names: &[&str]) -> Self {
        for name in names {
            self.keystore.add_component(name, &[], SuiteSet::all()).await.unwrap();
        }
        self
    }

    /// The same with the login of the control plane's role.
    pub async fn with_control_role(mut self) -> Self {
        if self.keystore.component_keys("control").await.is_err() {
            self = self.and_components(&["control"]).await;
        }
        let roles = self.grant().await;
        let (name, password) = roles.get("control").unwrap();
        self.address = self.url_of(name, password).parse().unwrap();
        self.keystore.close().await;
        self.keystore = Keystore::open(&self.address, self.kek.clone()).await.unwrap();
        self
    }

    /// Makes the roles; gives login and password by component type, and of `auditor`.
    pub async fn grant(&self) -> HashMap<String, (String, String)> {
        let mut roles = HashMap::new();
        let address: StoreAddress = self.url.parse().unwrap();
        let password = |role: &DatabaseRole| {
            let password = RolePassword::generate()?;
            let of = role.component.clone().unwrap_or_else(|| "auditor".to_owned());
            roles.insert(of, (role.name.clone(), password.expose().to_owned()));
            Ok(password)
        };
        Keystore::apply_grants(address, self.kek.clone(), password).await.unwrap();
        roles
    }

    /// The address for another login.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url.replace("bulla:test-only@", &format!("{user}:{password}@"))
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("keystore.db")
    }

    /// Opens it again, as another process would.
    pub async fn open(&self) -> Result<Keystore, KeystoreError> {
        Keystore::open(&self.address, self.kek.clone()).await
    }

    /// A connection past the keystore, as an attacker or a curious operator has it.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.database, &self.url).await
    }

    pub async fn shared(&self, id: &str) -> (Secret<32>, u32) {
        match self.keystore.add_agent(id, KeyType::Shared, Suite::Shared).await.unwrap() {
            AgentKeys::Shared { key, incarnation, .. } => (key, incarnation),
            AgentKeys::Pair { .. } => panic!("a shared key was asked for"),
        }
    }
}

/// A fixture on the database of this test program, or the test ends here.
#[allow(unused_macros, reason = "each test program uses a part")]
macro_rules! fixture {
    ($($component:literal),*) => {
        match $crate::common::Fixture::on($crate::DATABASE).await {
            Some(fixture) => {
                let fixture = fixture.and_components(&[$($component),*]).await;
                if $crate::AS_CONTROL { fixture.with_control_role().await } else { fixture }
            }
            None => return,
        }
    };
}
#[allow(unused_imports, reason = "each test program uses a part")]
pub(crate) use fixture;

/// A database without a keystore, if there is such a server here.
pub async fn empty_database(database: Database) -> Option<String> {
    servers::fresh(database).await
}

/// What the database's own tool for backups writes.
pub fn dump(fixture: &Fixture) -> Vec<u8> {
    servers::dump(fixture)
}

/// A backup made by the database's own tool.
pub async fn backup(fixture: &Fixture) -> Vec<u8> {
    servers::backup(fixture).await
}

/// Puts the database back to what it was. Nobody may have it open.
pub async fn restore(fixture: &Fixture, backup: &[u8]) {
    servers::restore(fixture, backup).await;
}

/// What lies on the server's disk of a table, after everything was written there.
pub async fn table_file(fixture: &Fixture, table: &str) -> Vec<u8> {
    servers::table_file(fixture, table).await
}

pub fn domain() -> TrustDomain {
    TrustDomain::new("cloud.example").unwrap()
}

pub fn agent(id: &str) -> Principal {
    Principal::agent(id).unwrap()
}

pub fn group(name: &str) -> bulla_seal::GroupName {
    bulla_seal::GroupName::new(name).unwrap()
}

pub fn component(name: &str) -> Principal {
    Principal::component(name).unwrap()
}
