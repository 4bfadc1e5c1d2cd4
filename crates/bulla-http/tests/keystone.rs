//! Tokens of a real Keystone's; and no secret is in any log, however much is logged.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use bulla_http::certs;
use bulla_http::{
    AccessKey, AccessKeys, AccessSecret, Authenticators, ClientCertificates, Dialer, Identity,
    KeyOwner, KeystoneLogin, KeystoneOptions, Listener, Options, Rate, Token,
};
use bulla_services::{Keystone, require};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Only stops a test that hangs.
const LONG: Duration = Duration::from_secs(60);
const ACCESS_SECRET: &str = "the-secret-of-the-access-key";

/// Everything that is logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Keys;

#[async_trait]
impl AccessKeys for Keys {
    async fn find(&self, _: &str) -> Result<Result<KeyOwner, &'static str>, String> {
        let secret = AccessSecret::new(ACCESS_SECRET).unwrap();
        Ok(Ok(KeyOwner { user: "program/backup".into(), secret }))
    }

    fn used(&self, _: &str) {}
}

struct Door {
    port: u16,
    ca: PathBuf,
}

impl Door {
    async fn open(dir: &Path, options: KeystoneOptions) -> Self {
        let files = certs::make(dir, &[], "ada").unwrap();
        let many = Rate { rate: 1000.0, burst: 1000 };
        let by = Authenticators::default().access_keys(Arc::new(Keys), None).failures(many);
        let by = by.keystone(options).unwrap();
        let tls = files.server_tls().client_certificates(ClientCertificates::Optional);
        let options = Options::tls("127.0.0.1:0".parse().unwrap(), tls).authenticators(by);
        let listener = Listener::bind(options).await.unwrap();
        let port = listener.local_addr().port();
        let who = |who: Identity| async move {
            format!(
                "{who} {:?} {:?} {}",
                who.authenticator(),
                who.roles(),
                who.projects().join(" ")
            )
        };
        let router = Router::new().route("/who", get(who));
        tokio::spawn(listener.serve(router, CancellationToken::new()));
        Self { port, ca: files.ca }
    }

    async fn send(&self, head: &str) -> String {
        let dialer = Dialer::trusting(&self.ca).unwrap();
        let mut stream = dialer.connect("localhost", self.port, LONG).await.unwrap();
        let request =
            format!("GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    async fn show(&self, token: &str) -> String {
        self.send(&format!("x-auth-token: {token}\r\n")).await
    }

    async fn is(&self, token: &str, status: u16) {
        let answer = self.show(token).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!answer.contains(token), "{answer}");
    }
}

fn secret_file(dir: &Path, name: &str, secret: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test]
async fn tokens_count_as_long_as_keystone_says_so_and_are_in_no_log() {
    let logged = Logged::default();
    let writer = logged.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let Some(mut keystone) = require(Keystone::start()) else { return };
    keystone.add("bulla", "service", &["service"]).unwrap();
    keystone.add("ada", "ops", &["member"]).unwrap();
    keystone.add("ada", "play", &["member", "reader"]).unwrap();
    keystone.add("bob", "ops", &["reader", "odd"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = secret_file(dir.path(), "password", "bullabulla");
    let url = keystone.url();
    let options = |cache: u64| KeystoneOptions {
        url: url.clone(),
        ca: None,
        login: KeystoneLogin::Password {
            user: "bulla".into(),
            user_domain: "Default".into(),
            project: "service".into(),
            project_domain: "Default".into(),
            file: file.clone(),
        },
        cache: Duration::from_secs(cache),
        roles: vec![("member".into(), "operator".into()), ("reader".into(), "viewer".into())],
        projects: vec!["ops@Default".into()],
    };
    let home = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    // One asks each time, one goes by what it heard for long.
    let door = Door::open(&home("strict"), options(0)).await;
    let lazy = Door::open(&home("lazy"), options(3600)).await;

    let ada = keystone.token("ada", "ops").unwrap();
    let answer = door.show(&ada).await;
    assert!(answer.contains("user/ada@Default Keystone [\"operator\", \"viewer\"]"), "{answer}");
    assert!(answer.contains(" ops@Default"), "{answer}");
    let bob = keystone.token("bob", "ops").unwrap();
    let answer = lazy.show(&bob).await;
    assert!(answer.contains("user/bob@Default Keystone [\"viewer\"]"), "{answer}");
    lazy.is(&ada, 200).await;
    // For another project, and none at all.
    let play = keystone.token("ada", "play").unwrap();
    door.is(&play, 401).await;
    lazy.is(&play, 401).await;
    let altered = format!("{}AAAA", &ada[..ada.len() - 4]);
    for bad in [altered.as_str(), "nonsense", "%2e%2e", &"a".repeat(9000)] {
        door.is(bad, 401).await;
    }

    // Revoked is refused, at once where nothing is remembered.
    keystone.revoke(&ada).unwrap();
    door.is(&ada, 401).await;
    lazy.is(&ada, 200).await;
    keystone.disable("bob").unwrap();
    door.is(&bob, 401).await;

    // Away: what is not known is not allowed.
    keystone.add("eve", "ops", &["member"]).unwrap();
    let eve = keystone.token("eve", "ops").unwrap();
    keystone.stop();
    door.is(&eve, 503).await;
    lazy.is(&eve, 503).await;
    lazy.is(&ada, 200).await;
    keystone.restart().unwrap();
    door.is(&eve, 200).await;

    // Its own token is revoked, its password is wrong, or it may not ask.
    let own = keystone.token("bulla", "service").unwrap();
    keystone.revoke(&own).unwrap();
    door.is(&eve, 200).await;
    let login = |user: &str, project: &str, file: PathBuf| KeystoneLogin::Password {
        user: user.into(),
        user_domain: "Default".into(),
        project: project.into(),
        project_domain: "Default".into(),
        file,
    };
    let another = keystone.token("ada", "ops").unwrap();
    let wrong = secret_file(dir.path(), "wrong", "a-wrong-password");
    for (name, login) in [
        ("wrong-password", login("bulla", "service", wrong)),
        ("no-right", login("eve", "ops", secret_file(dir.path(), "eve", "eveeve"))),
    ] {
        let closed = Door::open(&home(name), KeystoneOptions { login, ..options(0) }).await;
        // Whose a token of one's own is, everybody may ask.
        let answer = closed.show(&another).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{name}: {answer}");
    }

    // Every other secret of the house, right and wrong.
    let token = Token::create(&dir.path().join("token")).unwrap();
    let bearer = token.authorization();
    assert!(door.send(&format!("authorization: {}\r\n", *bearer)).await.contains(" 401 "));
    let mut signed = axum::http::Request::get("/who").header("host", "localhost").body(()).unwrap();
    let key = AccessKey::new("BULLTEST", ACCESS_SECRET).unwrap();
    key.sign("https", &mut signed, b"").unwrap();
    let head: String = ["signature-input", "signature"]
        .map(|name| format!("{name}: {}\r\n", signed.headers()[name].to_str().unwrap()))
        .concat();
    let answer = door.send(&head).await;
    assert!(answer.contains("program/backup AccessKey"), "{answer}");

    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("logged in at Keystone"), "nothing is logged");
    assert!(text.contains("Keystone can't be asked"), "it is not said that it is away");
    assert!(text.contains("does not take the service's own login"), "why is not said");
    assert!(text.contains("may not validate tokens"), "why is not said");
    let signature = signed.headers()["signature"].to_str().unwrap().to_owned();
    for secret in [
        &ada,
        &another,
        &bob,
        &eve,
        &play,
        &altered,
        &own,
        "bullabulla",
        "a-wrong-password",
        "eveeve",
        bearer.trim_start_matches("Bearer "),
        ACCESS_SECRET,
        &signature,
    ] {
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "a secret is in the log");
    }
}
