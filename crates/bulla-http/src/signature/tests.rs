use axum::http::Request;

use super::base::Message;
use super::verify::{Claimed, Fault, Times};
use super::{AccessKey, AccessSecret, SIGNATURE, SIGNATURE_INPUT, fields};

/// The request of RFC 9421 appendix B.2.
fn standard() -> Request<()> {
    Request::post("/foo?param=Value&Pet=dog")
        .header("Host", "example.com")
        .header("Date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("Content-Type", "application/json")
        .header("Content-Digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:")
        .header("Content-Length", "18")
        .body(())
        .unwrap()
}

fn base(request: &Request<()>, scheme: &str, input: &str) -> Option<String> {
    let read = fields::input(input).unwrap();
    let message = Message {
        method: request.method(),
        scheme,
        target: request.uri(),
        headers: request.headers(),
    };
    message.base(&read.components, &read.text)
}

/// Appendix B.2.5: the key is the text's bytes there, too.
#[test]
fn the_standards_own_hmac() {
    let input = r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    let base = base(&standard(), "https", input).unwrap();
    assert_eq!(
        base,
        "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
         \"@authority\": example.com\n\
         \"content-type\": application/json\n\
         \"@signature-params\": (\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\""
    );
    use base64::Engine;
    let secret =
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    let secret = base64::engine::general_purpose::STANDARD.decode(secret).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let tag = aws_lc_rs::hmac::sign(&key, base.as_bytes());
    assert_eq!(fields::sequence(tag.as_ref()), ":pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:");
}

/// Appendix B.2.2 and B.2.3: the bases of the other signatures of that request.
#[test]
fn the_standards_own_bases() {
    let input = r#"sig-b22=("@authority" "content-digest" "@query");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#;
    assert_eq!(
        base(&standard(), "https", input).unwrap(),
        "\"@authority\": example.com\n\
         \"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\
         \"@query\": ?param=Value&Pet=dog\n\
         \"@signature-params\": (\"@authority\" \"content-digest\" \"@query\");created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\""
    );
    let input = r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#;
    let base = base(&standard(), "https", input).unwrap();
    let lines: Vec<_> = base.lines().take(5).collect();
    assert_eq!(
        lines,
        [
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT",
            "\"@method\": POST",
            "\"@path\": /foo",
            "\"@query\": ?param=Value&Pet=dog",
            "\"@authority\": example.com",
        ]
    );
}

/// Section 2.2's examples of derived components.
#[test]
fn derived_components() {
    let of = |uri: &str, host: &str, scheme: &str, name: &str| {
        let request = Request::get(uri).header("Host", host).body(()).unwrap();
        let text = base(&request, scheme, &format!("s=(\"{name}\")"))?;
        Some(text.lines().next().unwrap().split_once(": ").unwrap().1.to_owned())
    };
    for (uri, host, scheme, name, value) in [
        (
            "/path?param=value",
            "www.example.com",
            "https",
            "@target-uri",
            "https://www.example.com/path?param=value",
        ),
        ("/path", "Example.COM:443", "https", "@authority", "example.com"),
        ("/path", "example.com:80", "http", "@authority", "example.com"),
        ("/path", "example.com:80", "https", "@authority", "example.com:80"),
        ("/path?a", "h", "https", "@request-target", "/path?a"),
        ("/path?queryString", "h", "https", "@query", "?queryString"),
        ("/path", "h", "https", "@query", "?"),
        ("/path?param=value", "h", "https", "@path", "/path"),
        ("/", "h", "http", "@scheme", "http"),
    ] {
        assert_eq!(of(uri, host, scheme, name).as_deref(), Some(value), "{uri} {host} {name}");
    }
    // A second authority, one that is unknown, and a field that is not there.
    assert_eq!(of("https://other/", "h", "https", "@authority"), None);
    assert_eq!(of("/", "h", "https", "@status"), None);
    assert_eq!(of("/", "h", "https", "x"), None);
}

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "a-secret-of-a-test";

fn key() -> AccessKey {
    AccessKey::new("BULLTEST", SECRET).unwrap()
}

fn signed(body: &[u8]) -> Request<()> {
    let mut request = Request::post("/v1/calls?a=1")
        .header("Host", "api.example:7443")
        .header("Content-Type", "application/json")
        .body(())
        .unwrap();
    key().sign_at("https", &mut request, body, (NOW, "n-1")).unwrap();
    request
}

fn read_at(request: &Request<()>, has_body: bool, now: u64) -> Result<Claimed, Fault> {
    let parts = (request.method(), request.uri(), request.headers());
    Claimed::read(parts, "https", has_body, now, Times::default())
}

fn good(request: &Request<()>) -> bool {
    let secret = AccessSecret::new(SECRET).unwrap();
    read_at(request, true, NOW).is_ok_and(|claimed| claimed.is_by(&secret))
}

#[test]
fn what_the_client_signs_the_server_takes() {
    let request = signed(b"{}");
    assert!(good(&request), "{request:?}");
    let claimed = read_at(&request, true, NOW).unwrap();
    assert_eq!((claimed.key(), claimed.seen().nonce), ("BULLTEST", "n-1"));
    assert!(super::digest_matches(claimed.digest().unwrap(), b"{}"));
    assert!(!claimed.is_by(&AccessSecret::new("another").unwrap()));
    // Without a body there is no digest to sign.
    assert!(read_at(&signed(b""), false, NOW).unwrap().digest().is_none());
}

#[test]
fn any_change_of_what_is_signed_is_found() {
    let changed = |change: &dyn Fn(&mut Request<()>)| {
        let mut request = signed(b"{}");
        change(&mut request);
        request
    };
    let header = |name: &'static str, value: &'static str| {
        changed(&|request| {
            request.headers_mut().insert(name, value.parse().unwrap());
        })
    };
    let bad = [
        changed(&|request| *request.method_mut() = axum::http::Method::PUT),
        changed(&|request| *request.uri_mut() = "/v1/calls?a=2".parse().unwrap()),
        changed(&|request| *request.uri_mut() = "/v1/casts?a=1".parse().unwrap()),
        header("host", "other.example"),
        header("content-type", "text/plain"),
        header("content-digest", "sha-256=:AA==:"),
        changed(&|request| {
            request.headers_mut().append("host", "other.example".parse().unwrap());
        }),
        changed(&|request| {
            let again = request.headers()[SIGNATURE].clone();
            request.headers_mut().append(SIGNATURE, again);
        }),
    ];
    for request in &bad {
        assert!(!good(request), "{request:?}");
    }
    // The parameters are signed, too.
    for (from, to) in [("n-1", "n-2"), ("BULLTEST", "BULLTESS"), ("1800000000", "1800000001")] {
        let request = changed(&|request| {
            let input = request.headers()[SIGNATURE_INPUT].to_str().unwrap().replace(from, to);
            request.headers_mut().insert(SIGNATURE_INPUT, input.parse().unwrap());
        });
        assert!(!good(&request), "{to}");
    }
}

#[test]
fn what_must_be_signed_can_not_be_left_out() {
    let fault = |input: &str, has_body: bool| {
        let mut request = signed(b"{}");
        request.headers_mut().insert(SIGNATURE_INPUT, input.parse().unwrap());
        read_at(&request, has_body, NOW).unwrap_err()
    };
    let of = |components: &str, parameters: &str| format!("bulla=({components});{parameters}");
    let all = r#""@method" "@target-uri" "content-digest""#;
    let parameters = format!(r#"created={NOW};keyid="k";nonce="n";alg="hmac-sha256""#);
    for components in [
        r#""@target-uri" "content-digest""#,
        r#""@method" "content-digest""#,
        r#""@method" "@authority" "@path" "content-digest""#,
        r#""@method" "@target-uri""#,
    ] {
        assert_eq!(fault(&of(components, &parameters), true), Fault::NotCovered, "{components}");
    }
    for (gone, why) in [
        (format!("created={NOW};"), Fault::NotCovered),
        ("keyid=\"k\";".to_owned(), Fault::NotCovered),
        ("nonce=\"n\";".to_owned(), Fault::NotCovered),
        (";alg=\"hmac-sha256\"".to_owned(), Fault::NotCovered),
    ] {
        assert_eq!(fault(&of(all, &parameters.replace(&gone, "")), true), why, "{gone}");
    }
    let other = parameters.replace("hmac-sha256", "rsa-v1_5-sha256");
    assert_eq!(fault(&of(all, &other), true), Fault::Algorithm);
    // What says that an agent made it does not count for an access key, whatever the bytes.
    let mut agents = signed(b"{}");
    let input = agents.headers()[SIGNATURE_INPUT].to_str().unwrap();
    let input = input.replace("hmac-sha256", "ed25519").parse().unwrap();
    agents.headers_mut().insert(SIGNATURE_INPUT, input);
    let claimed = read_at(&agents, true, NOW).unwrap();
    assert!(claimed.is_agents() && !claimed.is_by(&AccessSecret::new(SECRET).unwrap()));
    let twice = format!("{all} \"@method\"");
    assert_eq!(fault(&of(&twice, &parameters), true), Fault::Malformed);
}

#[test]
fn old_and_future_ones_are_refused() {
    let request = signed(b"{}");
    for (now, taken) in
        [(NOW, true), (NOW - 30, true), (NOW - 31, false), (NOW + 90, true), (NOW + 91, false)]
    {
        assert_eq!(read_at(&request, true, now).is_ok(), taken, "{now}");
    }
    let expires = |at: u64| {
        let mut request = signed(b"{}");
        let input = request.headers()[SIGNATURE_INPUT].to_str().unwrap();
        let input = format!("{input};expires={at}");
        request.headers_mut().insert(SIGNATURE_INPUT, input.parse().unwrap());
        read_at(&request, true, NOW + 40).map(|_| ())
    };
    assert_eq!(expires(NOW + 10), Ok(()));
    assert_eq!(expires(NOW + 9), Err(Fault::Time));
    assert_eq!(expires(NOW - 1), Err(Fault::Time));
}

#[test]
fn nothing_prints_the_secret() {
    let text = format!("{:?} {:?}", key(), AccessSecret::new(SECRET).unwrap());
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn a_key_file_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("access-key-id = \"BULLX\"\nsecret-key = \"s3cret\"\n");
    assert_eq!(AccessKey::load(&path).unwrap().id(), "BULLX");
    for bad in [
        "",
        "access-key-id = \"BULLX\"\n",
        "access-key-id = BULLX\nsecret-key = \"s3cret\"\n",
        "access-key-id = \"a\"\naccess-key-id = \"a\"\nsecret-key = \"s3cret\"\n",
        "access-key-id = \"\"\nsecret-key = \"s3cret\"\n",
        "s3cret",
    ] {
        write(bad);
        let error = AccessKey::load(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(AccessKey::load(&path).is_err());
}
