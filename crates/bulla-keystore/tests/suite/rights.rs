//! Database roles: what each may do, and what the server itself refuses it.
use std::collections::HashMap;

use bulla_keystore::{
    ComponentKeystore, DatabaseRole, KeyType, Keystore, KeystoreError, PeerKeys, Plan,
    RolePassword, StoreAddress,
};
use bulla_seal::{Suite, UnixTime};

use crate::common::{Database, Fixture, Raw, agent, component, fixture, group};

type Roles = HashMap<String, (String, String)>;

/// Two component types, agents of both sorts, groups, a statement, an access key. `None` on SQLite,
/// which has no roles.
async fn deployment() -> Option<(Fixture, Roles)> {
    if crate::DATABASE == Database::Sqlite {
        return None;
    }
    let fixture = Fixture::on(crate::DATABASE).await?;
    let fixture = fixture.and_components(&["control", "conductor", "backup"]).await;
    let keystore = &fixture.keystore;
    fixture.shared("db-1").await;
    keystore.add_agent("db-2", KeyType::Pair, Suite::X25519).await.unwrap();
    for (name, member) in [("blue", "conductor"), ("green", "backup")] {
        keystore.add_group(&group(name)).await.unwrap();
        keystore.add_member(&group(name), &component(member)).await.unwrap();
    }
    keystore.statement().await.unwrap();
    keystore.add_access_key(&"operator/alice".parse().unwrap(), None).await.unwrap();
    let roles = fixture.grant().await;
    Some((fixture, roles))
}

impl Fixture {
    fn role_url(&self, roles: &Roles, of: &str) -> String {
        let (name, password) = &roles[of];
        self.url_of(name, password)
    }

    async fn raw_as(&self, roles: &Roles, of: &str) -> Raw {
        Raw::connect(self.database, &self.role_url(roles, of)).await
    }

    async fn host(&self, roles: &Roles, of: &str) -> Result<ComponentKeystore, KeystoreError> {
        let address: StoreAddress = self.role_url(roles, of).parse().unwrap();
        let of = component(of);
        ComponentKeystore::open(address, self.kek.for_type(&of), &of).await
    }

    fn owner(&self) -> StoreAddress {
        self.url.parse().unwrap()
    }
}

async fn refused(raw: &mut Raw, sql: &str) {
    let Err(said) = raw.try_script(sql).await else { panic!("went through: {sql}") };
    let rights =
        ["denied", "permission", "must ", "not allowed", "row-level security", "Invalid role"];
    assert!(rights.iter().any(|word| said.contains(word)), "{sql}: {said}");
}

#[tokio::test]
async fn a_file_has_no_roles() {
    if crate::DATABASE != Database::Sqlite {
        return;
    }
    let fixture = fixture!("control");
    let password = |_: &DatabaseRole| RolePassword::generate();
    for error in [
        Keystore::apply_grants(&fixture.address, &fixture.kek, password).await.unwrap_err(),
        Keystore::revert_grants(&fixture.address).await.unwrap_err(),
        Keystore::plan_grants(&fixture.address).await.unwrap_err(),
    ] {
        assert!(matches!(error, KeystoreError::NoRoles { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_host_reads_what_its_type_needs() {
    let Some((fixture, roles)) = deployment().await else { return };
    let keystore = &fixture.keystore;
    let conductor = component("conductor");
    let host = fixture.host(&roles, "conductor").await.unwrap();
    assert_eq!(*host.trust_store().root(), fixture.root.verifying_key());

    let PeerKeys::Pair(credential) = host.peer(&agent("db-2")).await.unwrap() else { panic!() };
    assert_eq!(credential, keystore.credential(&agent("db-2")).await.unwrap());
    let PeerKeys::Pair(backup) = host.peer(&component("backup")).await.unwrap() else { panic!() };
    assert_eq!(backup, keystore.credential(&component("backup")).await.unwrap());
    let pair = keystore.pair_key(&agent("db-1"), &conductor).await.unwrap();
    let PeerKeys::Shared(found) = host.peer(&agent("db-1")).await.unwrap() else { panic!() };
    assert!(found.key.ct_eq(&pair.key) && found.kid == pair.kid && found.agent == pair.agent);
    assert!(host.pair_by_kid(pair.kid).await.unwrap().unwrap().key.ct_eq(&pair.key));
    let of_backup = keystore.pair_key(&agent("db-1"), &component("backup")).await.unwrap();
    assert!(host.pair_by_kid(of_backup.kid).await.unwrap().is_none());

    let blue = keystore.group_key(&group("blue"), None).await.unwrap();
    let found = host.group_key(&group("blue"), None).await.unwrap();
    assert!(found.key.ct_eq(&blue.key) && found.epoch == blue.epoch);
    for not_its in ["green", "all"] {
        let error = host.group_key(&group(not_its), None).await.unwrap_err();
        assert!(matches!(error, KeystoreError::NotAMember { .. }), "{error}");
    }
    let (kem, audience) = keystore.component_keys("conductor").await.unwrap();
    let mut received = host.receive_keys().await.unwrap();
    let (own, credential) = received.swap_remove(0);
    assert_eq!((own.expose(), credential), (kem.expose(), audience));
    let statement = keystore.statement().await.unwrap();
    assert_eq!(host.statement().await.unwrap(), statement);
    let late = UnixTime::from_secs(statement.not_after + 200);
    let late = host.clone().with_clock(move || late).statement().await.unwrap_err();
    assert!(matches!(late, KeystoreError::NoStatement), "{late}");
    for error in [
        host.peer(&agent("nobody")).await.unwrap_err(),
        host.pair_key(&agent("nobody")).await.unwrap_err(),
    ] {
        assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
    }
    let error = host.pair_key(&agent("db-2")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotShared(_)), "{error}");
}

#[tokio::test]
async fn what_changes_reaches_a_host_at_once() {
    let Some((fixture, roles)) = deployment().await else { return };
    let keystore = &fixture.keystore;
    let conductor = component("conductor");
    let host = fixture.host(&roles, "conductor").await.unwrap();
    // A new agent, named by nobody else.
    fixture.shared("db-3").await;
    let here = host.pair_key(&agent("db-3")).await.unwrap();
    assert!(keystore.pair_key(&agent("db-3"), &conductor).await.unwrap().key.ct_eq(&here.key));
    // One that is removed, and its name given anew.
    keystore.remove_agent("db-3").await.unwrap();
    assert!(host.pair_by_kid(here.kid).await.unwrap().is_none());
    fixture.shared("db-3").await;
    let again = host.pair_key(&agent("db-3")).await.unwrap();
    assert!(!again.key.ct_eq(&here.key) && again.agent.incarnation == 2);
    // A group whose epoch rises, and one that is left.
    keystore.add_member(&group("blue"), &agent("db-2")).await.unwrap();
    keystore.remove_member(&group("blue"), &agent("db-2")).await.unwrap();
    assert_eq!(host.group_key(&group("blue"), None).await.unwrap().epoch, 2);
    host.group_key(&group("blue"), Some(1)).await.unwrap();
    keystore.remove_member(&group("blue"), &conductor).await.unwrap();
    for epoch in [None, Some(1), Some(2)] {
        let error = host.group_key(&group("blue"), epoch).await.unwrap_err();
        assert!(matches!(error, KeystoreError::NotAMember { .. }), "{error}");
    }
    // Pair keys of a type of which a host was revoked.
    let life = std::time::Duration::from_secs(600);
    keystore.issue_signing("conductor", "c-1", life).await.unwrap();
    keystore.revoke_host("conductor", "c-1", bulla_keystore::Reach::Type).await.unwrap();
    let error = host.pair_key(&agent("db-1")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotFilled(_)), "{error}");
    assert!(keystore.fill_component_keys().await.unwrap() >= 2);
    assert_eq!(host.pair_key(&agent("db-1")).await.unwrap().epoch, 2);
    assert_eq!(keystore.fill_component_keys().await.unwrap(), 0);
}

#[tokio::test]
async fn a_host_needs_its_own_key_encryption_key_and_goes_over_to_the_next() {
    let Some((fixture, roles)) = deployment().await else { return };
    let conductor = component("conductor");
    let address: StoreAddress = fixture.role_url(&roles, "conductor").parse().unwrap();
    // Another type's part of the KEK, with this type's login; and the other way round.
    let backup = fixture.kek.for_type(&component("backup"));
    let error = ComponentKeystore::open(&address, &backup, &conductor).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let error = ComponentKeystore::open(&address, &backup, &component("backup")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotFilled(_)), "{error}");
    // A type's part opens nothing of the control plane's, whoever logs in.
    let part = fixture.kek.for_type(&conductor);
    let error = Keystore::open(&fixture.address, &part).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");

    let path = fixture.folder.path().join("conductor.kek");
    fixture.kek.create_type_file(&path, &conductor).unwrap();
    let part = bulla_keystore::Kek::from_type_file(&path).unwrap();
    assert_eq!(part.component(), Some(&conductor));
    assert!(bulla_keystore::Kek::from_file(&path).is_err());
    ComponentKeystore::open(&address, &part, &conductor).await.unwrap();

    let next = bulla_keystore::Kek::create_file(fixture.folder.path().join("next")).unwrap();
    fixture.keystore.rotate_kek(&next, 2, |_| {}).await.unwrap();
    let state = fixture.keystore.kek_state().await.unwrap();
    assert!(state.counts.iter().any(|c| c.table == "component_keys" && c.current >= 6));
    let error = ComponentKeystore::open(&address, &part, &conductor).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let next = next.for_type(&conductor);
    let host = ComponentKeystore::open(&address, &next, &conductor).await.unwrap();
    host.pair_key(&agent("db-1")).await.unwrap();
    host.receive_keys().await.unwrap();
}

/// Statements that a component type's role may not make, each with a grant that would allow it.
fn forbidden_to_components() -> Vec<(&'static str, &'static str)> {
    vec![
        ("SELECT encrypted_key FROM instance_keys", "SELECT ON instance_keys"),
        ("SELECT kid FROM pair_keys", "SELECT ON pair_keys"),
        ("SELECT encrypted_key FROM group_keys", "SELECT ON group_keys"),
        ("SELECT group_id FROM group_members", "SELECT ON group_members"),
        ("SELECT encrypted_seed FROM issuers", "SELECT (encrypted_seed) ON issuers"),
        ("SELECT encrypted_root FROM trust_domain", "SELECT (encrypted_root) ON trust_domain"),
        ("SELECT kek_id FROM trust_domain", "SELECT ON trust_domain"),
        ("SELECT access_key_id FROM access_keys", "SELECT ON access_keys"),
        ("SELECT encrypted_secret FROM join_tokens", "SELECT ON join_tokens"),
        ("SELECT join_counter FROM join_states", "SELECT ON join_states"),
        ("SELECT peer FROM peer_floors", "SELECT ON peer_floors"),
        ("SELECT role FROM database_roles", "SELECT ON database_roles"),
        ("SELECT instance FROM credentials", "SELECT (instance) ON credentials"),
        ("UPDATE statement SET epoch = 1 WHERE 1 = 0", "UPDATE ON statement"),
        ("DELETE FROM statement WHERE 1 = 0", "DELETE ON statement"),
        ("INSERT INTO statement SELECT * FROM statement WHERE 1 = 0", "INSERT ON statement"),
        ("UPDATE principals SET state = 'deleted' WHERE 1 = 0", "UPDATE (state) ON principals"),
        ("UPDATE credentials SET bytes = NULL WHERE 1 = 0", "UPDATE (bytes) ON credentials"),
        ("DELETE FROM revoked_kids WHERE 1 = 0", "DELETE ON revoked_kids"),
        ("DELETE FROM schema_version WHERE 1 = 0", "DELETE ON schema_version"),
    ]
}

/// What nobody but the owner may do.
fn forbidden_to_all(database: Database, control: &str) -> Vec<String> {
    let mut all: Vec<String> = [
        "CREATE TABLE mine (id BIGINT)",
        "CREATE VIEW mine AS SELECT 1",
        "ALTER TABLE statement ADD COLUMN mine BIGINT",
        "ALTER TABLE statement RENAME TO mine",
        "DROP TABLE statement",
        "TRUNCATE TABLE statement",
        "CREATE INDEX mine ON statement (epoch)",
        "DELETE FROM database_roles",
        "UPDATE schema_version SET version = 1",
        "UPDATE issuers SET credential = NULL",
        "UPDATE credentials SET bytes = NULL",
        "UPDATE instance_keys SET instance_id = 'x'",
    ]
    .map(str::to_owned)
    .to_vec();
    let more: Vec<String> = match database {
        Database::Postgres => vec![
            "SET ROLE bulla".into(),
            "SET SESSION AUTHORIZATION bulla".into(),
            format!("GRANT bulla TO \"{control}\""),
            format!("ALTER ROLE \"{control}\" CREATEROLE"),
            format!("ALTER ROLE \"{control}\" SUPERUSER"),
            "CREATE ROLE mine".into(),
            "CREATE SCHEMA mine".into(),
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'".into(),
            "ALTER TABLE component_keys DISABLE ROW LEVEL SECURITY".into(),
            "CREATE POLICY mine ON component_keys USING (true)".into(),
            format!("DROP POLICY \"{control}\" ON component_keys"),
            "ALTER DEFAULT PRIVILEGES FOR ROLE bulla GRANT SELECT ON TABLES TO PUBLIC".into(),
            "COPY statement TO PROGRAM 'cat'".into(),
            "SELECT pg_read_file('postgresql.conf')".into(),
            "SELECT rolpassword FROM pg_authid".into(),
            "ALTER DATABASE postgres SET search_path = mine".into(),
            "CREATE TRIGGER mine BEFORE INSERT ON statement EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()".into(),
        ],
        _ => vec![
            "GRANT SELECT ON *.* TO CURRENT_USER".into(),
            format!("GRANT SELECT ON instance_keys TO '{control}'@'%'"),
            format!("ALTER USER '{control}'@'%' ACCOUNT LOCK"),
            format!("DROP USER '{control}'@'%'"),
            "CREATE USER mine".into(),
            "CREATE ROLE mine".into(),
            "SET ROLE bulla".into(),
            "CREATE DATABASE mine".into(),
            "CREATE FUNCTION mine() RETURNS INT RETURN 1".into(),
            "CREATE DEFINER = 'bulla'@'%' VIEW mine AS SELECT * FROM instance_keys".into(),
            "CREATE OR REPLACE VIEW own_component_keys AS SELECT * FROM component_keys".into(),
            "ALTER SQL SECURITY DEFINER VIEW own_component_keys AS SELECT * FROM instance_keys".into(),
            "CREATE TRIGGER mine BEFORE INSERT ON statement FOR EACH ROW SET NEW.epoch = 1".into(),
            "SELECT * FROM mysql.global_priv".into(),
            "SELECT * FROM statement INTO OUTFILE 'mine'".into(),
            "SET GLOBAL read_only = 1".into(),
        ],
    };
    all.extend(more);
    all
}

async fn widen(fixture: &Fixture, role: &str, grants: &[(&str, &str)]) {
    let mut owner = fixture.raw().await;
    let role = match fixture.database {
        Database::Postgres => format!("\"{role}\""),
        _ => format!("'{role}'@'%'"),
    };
    for (_, grant) in grants {
        owner.script(&format!("GRANT {grant} TO {role}")).await;
    }
}

#[tokio::test]
async fn a_component_role_may_do_nothing_else() {
    let Some((fixture, roles)) = deployment().await else { return };
    let mut raw = fixture.raw_as(&roles, "conductor").await;
    let table = |name: &str| match fixture.database {
        Database::MariaDb => format!("own_{name}"),
        _ => name.to_owned(),
    };
    // Its own rows, and no others.
    let own = format!("SELECT count(*) FROM {}", table("component_keys"));
    assert_eq!(raw.number(&own).await, 3);
    assert_eq!(raw.number(&format!("{own} WHERE component <> 'conductor'")).await, 0);
    let own = format!("SELECT count(*) FROM {}", table("audience_keys"));
    assert_eq!(raw.number(&own).await, 1);
    let sql = "SELECT count(*) FROM component_keys WHERE component <> 'conductor'";
    assert!(fixture.raw().await.number(sql).await >= 3, "there are others");
    if fixture.database == Database::Postgres {
        raw.script("SET default_transaction_read_only = off").await;
        raw.script("SET search_path = pg_temp, public").await;
        let count = "SELECT count(*) FROM principals WHERE state <> 'active'";
        assert_eq!(raw.number(count).await, 0);
        let count = "SELECT count(*) FROM credentials WHERE purpose = 'signing'";
        assert_eq!(raw.number(count).await, 0);
        refused(&mut raw, "SET row_security = off; SELECT encrypted_key FROM component_keys").await;
        raw.script("SET row_security = on; SET search_path = public").await;
        let grant = format!("GRANT SELECT ON instance_keys TO \"{}\"", roles["backup"].0);
        refused(&mut raw, &grant).await;
    } else {
        for table in ["component_keys", "audience_keys"] {
            refused(&mut raw, &format!("SELECT encrypted_key FROM {table}")).await;
            refused(&mut raw, &format!("DELETE FROM own_{table}")).await;
            refused(&mut raw, &format!("UPDATE own_{table} SET kid = NULL")).await;
        }
    }
    for sql in forbidden_to_all(fixture.database, &roles["control"].0) {
        refused(&mut raw, &sql).await;
    }
    let forbidden = forbidden_to_components();
    for (sql, _) in &forbidden {
        refused(&mut raw, sql).await;
    }
    // Each of them goes through with a right too many, which the next `apply` takes away.
    widen(&fixture, &roles["conductor"].0, &forbidden).await;
    let mut raw = fixture.raw_as(&roles, "conductor").await;
    if fixture.database == Database::Postgres {
        raw.script("SET default_transaction_read_only = off").await;
    }
    for (sql, grant) in &forbidden {
        let said = raw.try_script(sql).await;
        assert!(said.is_ok(), "{grant} is not what {sql} needs: {said:?}");
    }
    let roles = fixture.grant().await;
    let mut raw = fixture.raw_as(&roles, "conductor").await;
    if fixture.database == Database::Postgres {
        raw.script("SET default_transaction_read_only = off").await;
    }
    for (sql, _) in &forbidden {
        refused(&mut raw, sql).await;
    }
}

#[tokio::test]
async fn the_control_planes_role_writes_rows_and_no_tables() {
    let Some((fixture, roles)) = deployment().await else { return };
    let mut raw = fixture.raw_as(&roles, "control").await;
    for sql in forbidden_to_all(fixture.database, &roles["backup"].0) {
        refused(&mut raw, &sql).await;
    }
    for sql in ["DELETE FROM principals", "DELETE FROM credentials", "DELETE FROM group_keys"] {
        refused(&mut raw, sql).await;
    }
    assert_eq!(raw.number("SELECT count(*) FROM audience_keys").await, 3);
    // The schema is the owner's.
    let address: StoreAddress = fixture.role_url(&roles, "control").parse().unwrap();
    let error = Keystore::revert(&address, &fixture.kek, 1).await.unwrap_err();
    assert!(matches!(error, KeystoreError::RolesInTheWay { .. }), "{error}");
    let error = Keystore::revert_grants(&address).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Database(_)), "{error}");
}

#[tokio::test]
async fn auditors_see_everything_but_secrets() {
    let Some((fixture, roles)) = deployment().await else { return };
    let mut raw = fixture.raw_as(&roles, "auditor").await;
    for sql in [
        "SELECT access_key_id, api_user, last_used FROM access_keys",
        "SELECT name, state FROM principals",
        "SELECT kid, instance FROM credentials WHERE purpose = 'signing'",
        "SELECT instance_id, deleted FROM instance_keys",
        "SELECT token_id, alarms FROM join_tokens",
        "SELECT component, name FROM component_keys",
        "SELECT kid FROM audience_keys",
        "SELECT role FROM database_roles",
    ] {
        raw.script(sql).await;
    }
    assert_eq!(raw.number("SELECT count(*) FROM audience_keys").await, 3);
    for (table, column) in [
        ("trust_domain", "encrypted_root"),
        ("issuers", "encrypted_seed"),
        ("instance_keys", "encrypted_key"),
        ("audience_keys", "encrypted_key"),
        ("group_keys", "encrypted_key"),
        ("component_keys", "encrypted_key"),
        ("access_keys", "encrypted_secret_key"),
        ("join_tokens", "encrypted_secret"),
        ("join_tokens", "encrypted_verifier"),
        ("join_tokens", "encrypted_answer"),
    ] {
        refused(&mut raw, &format!("SELECT {column} FROM {table}")).await;
        refused(&mut raw, &format!("SELECT * FROM {table}")).await;
    }
    if fixture.database == Database::Postgres {
        raw.script("SET default_transaction_read_only = off").await;
    }
    for sql in forbidden_to_all(fixture.database, &roles["control"].0) {
        refused(&mut raw, &sql).await;
    }
    for (sql, _) in forbidden_to_components().iter().filter(|(sql, _)| !sql.starts_with("SELECT")) {
        refused(&mut raw, sql).await;
    }
}

/// Whether a login is let in.
async fn gets_in(fixture: &Fixture, roles: &Roles, of: &str) -> bool {
    let address: StoreAddress = fixture.role_url(roles, of).parse().unwrap();
    match Keystore::open(&address, &fixture.kek).await {
        Err(KeystoreError::Unreachable { .. }) => false,
        Err(KeystoreError::Database(_) | KeystoreError::WrongKek { .. }) | Ok(_) => true,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn everything_is_taken_back_and_given_again() {
    let Some((fixture, first)) = deployment().await else { return };
    let second = fixture.grant().await;
    assert!(!gets_in(&fixture, &first, "control").await, "passwords are set anew");
    for of in ["control", "conductor", "backup", "auditor"] {
        assert!(gets_in(&fixture, &second, of).await);
    }
    let error = Keystore::revert(fixture.owner(), &fixture.kek, 9).await.unwrap_err();
    assert!(matches!(error, KeystoreError::RolesInTheWay { count: 4 }), "{error}");

    let dropped = Keystore::revert_grants(fixture.owner()).await.unwrap();
    assert_eq!(dropped.len(), 4);
    for of in ["control", "conductor", "backup", "auditor"] {
        assert!(!gets_in(&fixture, &second, of).await);
    }
    assert!(Keystore::revert_grants(fixture.owner()).await.unwrap().is_empty());
    let mut raw = fixture.raw().await;
    for table in ["database_roles", "component_keys"] {
        assert_eq!(raw.number(&format!("SELECT count(*) FROM {table}")).await, 0);
    }
    let left = match fixture.database {
        Database::Postgres => {
            "SELECT (SELECT count(*) FROM pg_policies)
                 + (SELECT count(*) FROM pg_class WHERE relrowsecurity)"
        }
        _ => "SELECT count(*) FROM information_schema.views WHERE table_schema = database()",
    };
    assert_eq!(raw.number(left).await, 0);
    // Nothing is copied for nobody.
    fixture.shared("db-9").await;
    assert_eq!(raw.number("SELECT count(*) FROM component_keys").await, 0);
    Keystore::revert(fixture.owner(), &fixture.kek, 9).await.unwrap();
    Keystore::migrate(fixture.owner(), &fixture.kek).await.unwrap();
    let third = fixture.grant().await;
    let host = fixture.host(&third, "conductor").await.unwrap();
    host.pair_key(&agent("db-9")).await.unwrap();
}

/// The owner is no superuser: it owns its database and may make roles.
#[tokio::test]
async fn an_owner_needs_no_more_than_its_database_and_to_make_roles() {
    if crate::DATABASE == Database::Sqlite {
        return;
    }
    let mut fixture = fixture!();
    let mut raw = fixture.raw().await;
    let (before, database) = fixture.url.rsplit_once('/').unwrap();
    let (before, database) = (before.to_owned(), format!("{database}_own"));
    let make = match fixture.database {
        Database::Postgres => vec![
            format!("CREATE ROLE {database}_owner LOGIN CREATEROLE PASSWORD 'owner-s-password'"),
            format!("CREATE DATABASE {database} OWNER {database}_owner"),
        ],
        _ => vec![
            format!("CREATE DATABASE {database}"),
            format!("CREATE USER {database}_owner@'%' IDENTIFIED BY 'owner-s-password'"),
            format!("GRANT ALL ON {database}.* TO {database}_owner@'%' WITH GRANT OPTION"),
            format!("GRANT CREATE USER ON *.* TO {database}_owner@'%'"),
        ],
    };
    for sql in make {
        raw.script(&sql).await;
    }
    fixture.url = format!("{before}/{database}")
        .replace("bulla:test-only@", &format!("{database}_owner:owner-s-password@"));
    fixture.address = fixture.owner();
    let kek = fixture.kek.clone();
    let domain = crate::common::domain();
    fixture.keystore = Keystore::init(&fixture.address, &domain, kek).await.unwrap().keystore;
    let fixture = fixture.and_components(&["control", "conductor"]).await;
    fixture.shared("db-1").await;
    for _ in 0..2 {
        let granted = Keystore::apply_grants(fixture.owner(), &fixture.kek, |_| {
            RolePassword::new("a-password-for-all-of-them")
        });
        let granted = granted.await.unwrap();
        assert_eq!(granted.roles.len(), 3);
        let url = |role: &DatabaseRole| {
            fixture.url.replace(
                &format!("{database}_owner:owner-s-password@"),
                &format!("{}:a-password-for-all-of-them@", role.name),
            )
        };
        for granted in &granted.roles {
            let address: StoreAddress = url(&granted.role).parse().unwrap();
            match granted.role.component.as_deref() {
                Some("control") => {
                    let keystore = Keystore::open(&address, &fixture.kek).await.unwrap();
                    keystore.add_group(&group("blue")).await.unwrap();
                    keystore.remove_agent("db-1").await.unwrap();
                    keystore.add_agent("db-1", KeyType::Shared, Suite::Shared).await.unwrap();
                    keystore.close().await;
                    let sql = "DELETE FROM member_groups WHERE name = 'blue'";
                    let mut raw = fixture.raw().await;
                    raw.script("DELETE FROM group_keys WHERE epoch = 1 AND group_id > 1").await;
                    raw.script(sql).await;
                }
                Some(_) => {
                    let conductor = component("conductor");
                    let part = fixture.kek.for_type(&conductor);
                    let host = ComponentKeystore::open(&address, part, &conductor).await.unwrap();
                    host.pair_key(&agent("db-1")).await.unwrap();
                }
                None => {
                    let mut raw = Raw::connect(fixture.database, &url(&granted.role)).await;
                    refused(&mut raw, "SELECT encrypted_key FROM instance_keys").await;
                    raw.script("SELECT name FROM principals").await;
                }
            }
        }
    }
    Keystore::revert_grants(fixture.owner()).await.unwrap();
}

#[tokio::test]
async fn a_new_type_gets_its_role_with_the_next_apply() {
    let Some((fixture, _)) = deployment().await else { return };
    assert!(fixture.keystore.components_without_role().await.unwrap().is_empty());
    let fixture = fixture.and_components(&["scheduler"]).await;
    assert_eq!(fixture.keystore.components_without_role().await.unwrap(), ["scheduler"]);
    let roles = fixture.grant().await;
    assert!(fixture.keystore.components_without_role().await.unwrap().is_empty());
    let host = fixture.host(&roles, "scheduler").await.unwrap();
    let pair = host.pair_key(&agent("db-1")).await.unwrap();
    let same = fixture.keystore.pair_key(&agent("db-1"), &component("scheduler")).await.unwrap();
    assert!(pair.key.ct_eq(&same.key));
}

#[tokio::test]
async fn roles_of_others_are_left_alone() {
    if crate::DATABASE == Database::Sqlite {
        return;
    }
    let fixture = fixture!("control", "conductor");
    let Plan { roles, sql } = Keystore::plan_grants(fixture.owner()).await.unwrap();
    assert_eq!(roles.len(), 3);
    let conductor = roles.iter().find(|role| role.component.as_deref() == Some("conductor"));
    let name = &conductor.unwrap().name;
    let mut raw = fixture.raw().await;
    let (make, unmake) = match fixture.database {
        Database::Postgres => (format!("CREATE ROLE \"{name}\""), format!("DROP ROLE \"{name}\"")),
        _ => (format!("CREATE USER '{name}'@'%'"), format!("DROP USER '{name}'@'%'")),
    };
    raw.script(&make).await;
    let password = |_: &DatabaseRole| RolePassword::generate();
    let error = Keystore::apply_grants(fixture.owner(), &fixture.kek, password).await.unwrap_err();
    assert!(matches!(&error, KeystoreError::RoleTaken { role } if role == name), "{error}");
    assert_eq!(raw.number("SELECT count(*) FROM database_roles").await, 0);
    raw.script(&unmake).await;

    // By hand, as it was printed.
    assert!(sql.iter().any(|sql| sql.contains("'<password>'")), "{sql:#?}");
    let password = match fixture.database {
        Database::Postgres => "by-hand-and-long-enough".to_owned(),
        _ => "*6C1DE89C0DCE4A9EE4B8F4C3F9E8D62C4A9B8B6A".to_owned(),
    };
    for statement in &sql {
        raw.script(&statement.replace("<password>", &password)).await;
    }
    if fixture.database == Database::Postgres {
        assert!(fixture.keystore.fill_component_keys().await.unwrap() > 0);
        let roles = HashMap::from([("conductor".to_owned(), (name.clone(), password))]);
        fixture.host(&roles, "conductor").await.unwrap();
    }
    // A role that became more than it was made.
    let (stronger, weaker) = match fixture.database {
        Database::Postgres => {
            (format!("GRANT bulla TO \"{name}\""), format!("REVOKE bulla FROM \"{name}\""))
        }
        _ => {
            let (right, user) = ("SELECT ON *.*", format!("'{name}'@'%'"));
            (format!("GRANT {right} TO {user}"), format!("REVOKE {right} FROM {user}"))
        }
    };
    raw.script(&stronger).await;
    let apply = |_: &DatabaseRole| RolePassword::generate();
    let error = Keystore::apply_grants(fixture.owner(), &fixture.kek, apply).await.unwrap_err();
    assert!(matches!(error, KeystoreError::RoleTooStrong { .. }), "{error}");
    raw.script(&weaker).await;
    fixture.grant().await;
}
