//! Known-answer vectors in `docs/vectors/`: every suite, every kind, both levels, with all inputs
//! and intermediates; statements and exemptions. What is checked in must be what this code makes, byte for byte:
//!
//!     BULLA_WRITE_VECTORS=1 cargo test -p bulla-seal --test vectors     writes them anew
//!
//! Keys, ids and IVs are derived here a second time, from HKDF, GHASH (bit by bit, from NIST SP
//! 800-38D) and AES alone, and compared with what the crate did.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::{hkdf, hmac};
use bulla_seal::cbor::{Reader, Writer};
use bulla_seal::*;
use common::*;
use serde_json::{Map, Value, json};

fn hex(bytes: &[u8]) -> Value {
    Value::String(hex::encode(bytes))
}

fn expand(key: &[u8], info: &[u8]) -> [u8; 32] {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key);
    let mut out = [0; 32];
    prk.expand(&[info], Len).unwrap().fill(&mut out).unwrap();
    out
}

fn array(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.array(items.len());
    for item in items {
        match item {
            Item::Text(text) => w.text(text),
            Item::Bytes(bytes) => w.bytes(bytes),
            Item::Uint(n) => w.uint(*n),
        }
    }
    out
}

enum Item<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Uint(u64),
}
use Item::{Bytes, Text, Uint};

/// x · y in GF(2^128) as SP 800-38D section 6.3 has it.
fn multiply(x: u128, y: u128) -> u128 {
    let (mut z, mut v) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            z ^= v;
        }
        v = if v & 1 == 1 { v >> 1 ^ 0xe1 << 120 } else { v >> 1 };
    }
    z
}

/// The tag of AES-256-GCM with an all-zero nonce, no plaintext and `input` as associated data.
fn ghash(key: &[u8; 32], input: &[u8]) -> [u8; 16] {
    let aes = Aes256Enc::new(key.into());
    let encrypt = |block: u128| {
        let mut block = aes::Block::from(block.to_be_bytes());
        aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let h = encrypt(0);
    let mut y = 0;
    for chunk in input.chunks(16) {
        let mut block = [0; 16];
        block[..chunk.len()].copy_from_slice(chunk);
        y = multiply(y ^ u128::from_be_bytes(block), h);
    }
    y = multiply(y ^ (input.len() as u128 * 8) << 64, h);
    (y ^ encrypt(1)).to_be_bytes()
}

/// The fast PRF of ADR 0001, again.
struct Prf {
    hash: [u8; 32],
    block: [u8; 32],
}

impl Prf {
    fn new(direction: &[u8], label: &str) -> Self {
        let part = |part| expand(direction, &array(&[Text(label), Text(part)]));
        Self { hash: part("hash"), block: part("block") }
    }

    fn blocks(&self, input: &[u8], count: u8) -> Vec<u8> {
        let u = ghash(&self.hash, input);
        let aes = Aes256Enc::new(&self.block.into());
        (0..count)
            .flat_map(|i| {
                let mut block = aes::Block::from(u);
                block[15] ^= i;
                aes.encrypt_block(&mut block);
                <[u8; 16]>::from(block)
            })
            .collect()
    }
}

/// The parts of an envelope as they stand in a frame.
struct Parts {
    header: Vec<u8>,
    content: Vec<u8>,
    authenticator: Vec<u8>,
    proof: Option<Vec<u8>>,
}

fn parts(frame: &Frame) -> Parts {
    let envelope = frame.envelope();
    let mut r = Reader::new(envelope);
    let group = r.clone().array(2).is_ok();
    if group {
        r.array(2).unwrap();
    }
    let tag = r.any_tag().unwrap();
    r.array(if tag == 16 { 3 } else { 4 }).unwrap();
    let header = r.bytes().unwrap().to_vec();
    r.map(0).unwrap();
    let content = r.bytes().unwrap().to_vec();
    let authenticator = if tag == 16 {
        content[content.len() - 16..].to_vec()
    } else {
        r.bytes().unwrap().to_vec()
    };
    let proof = group.then(|| r.skip().unwrap().to_vec());
    r.end().unwrap();
    Parts { header, content, authenticator, proof }
}

/// What a vector is made from.
struct Made<'a> {
    name: String,
    direction: [u8; 32],
    reply: bool,
    hedge: Hedge,
    incarnation: u32,
    aad: Vec<u8>,
    plaintext: &'a [u8],
    frame: &'a Frame,
    extra: Map<String, Value>,
}

impl Made<'_> {
    fn vector(self) -> Value {
        let Parts { header, content, authenticator, proof } = parts(self.frame);
        let id = self.frame.id();
        let at = header.windows(16).position(|w| w == id.as_bytes()).unwrap();
        let mut without_id = header.clone();
        without_id[at..at + 16].fill(0);
        let id_input = array(&[
            Text("bulla/1 id"),
            Bytes(&self.hedge.random),
            Uint(self.hedge.now.ns),
            Uint(self.hedge.counter),
            Uint(self.incarnation.into()),
            Bytes(&self.hedge.boot),
            Bytes(&without_id),
            Bytes(&self.aad),
            Bytes(self.plaintext),
        ]);
        let id_prf = Prf::new(&self.direction, "bulla/1 id");
        assert_eq!(id_prf.blocks(&id_input, 1), id.as_bytes(), "{}: id", self.name);
        let digest =
            Digest::of(&array(&[Text("bulla/1 envelope"), Bytes(&header), Bytes(&authenticator)]));
        assert_eq!(digest, self.frame.digest(), "{}: digest", self.name);
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.into(), value);
        put("name", self.name.as_str().into());
        put("direction_key", hex(&self.direction));
        put(
            "hedge",
            json!({
                "random": hex(&self.hedge.random),
                "ns": self.hedge.now.ns,
                "counter": self.hedge.counter,
                "boot": hex(&self.hedge.boot),
                "incarnation": self.incarnation,
            }),
        );
        put("external_aad", hex(&self.aad));
        put("plaintext", hex(self.plaintext));
        put("id_hash_key", hex(&id_prf.hash));
        put("id_block_key", hex(&id_prf.block));
        put("id_input", hex(&id_input));
        put("id", hex(id.as_bytes()));
        put("header", hex(&header));
        let sealed = content.ends_with(&authenticator);
        if sealed {
            let label = if self.reply { "bulla/1 reply" } else { "bulla/1 msg" };
            let prf = Prf::new(&self.direction, label);
            let structure = array(&[Text("Encrypt0"), Bytes(&header), Bytes(&self.aad)]);
            let derived = prf.blocks(&structure, 3);
            put("message_hash_key", hex(&prf.hash));
            put("message_block_key", hex(&prf.block));
            put("enc_structure", hex(&structure));
            put("message_key", hex(&derived[..32]));
            put("iv", hex(&derived[32..44]));
        } else {
            let mac = expand(&self.direction, &array(&[Text("bulla/1 mac")]));
            let structure =
                array(&[Text("MAC0"), Bytes(&header), Bytes(&self.aad), Bytes(self.plaintext)]);
            if authenticator.len() == 32 {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &mac);
                assert_eq!(hmac::sign(&key, &structure).as_ref(), authenticator);
                put("mac_key", hex(&mac));
            }
        }
        put("content", hex(&content));
        put("authenticator", hex(&authenticator));
        if let Some(proof) = proof {
            put("proof", hex(&proof));
        }
        put("envelope", hex(self.frame.envelope()));
        put("frame", hex(self.frame.bytes()));
        put("envelope_digest", hex(digest.as_bytes()));
        out.extend(self.extra);
        Value::Object(out)
    }
}

fn aad(
    route: &Route,
    kind: MessageKind,
    level: Level,
    audience: Option<&Party>,
    request: Option<Digest>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.array(9);
    w.text("bulla/1 aad");
    w.uint(kind.to_wire().into());
    w.uint(level.to_wire().into());
    w.text(route.exchange());
    w.text(route.topic());
    w.text_or_null(route.server());
    match (audience, route.audience()) {
        (Some(party), _) | (None, Audience::Party(party)) => {
            w.text(party.principal.as_str());
            w.uint(party.incarnation.into());
        }
        (None, Audience::Group(group)) => {
            w.text(group.as_str());
            w.null();
        }
    }
    w.bytes_or_null(request.as_ref().map(Digest::as_bytes));
    out
}

fn direction(secret: &[u8], suite: Suite, word: &str, session: &Session) -> [u8; 32] {
    let (from, to) = (session.requester(), session.responder());
    expand(
        secret,
        &array(&[
            Text("bulla/1 dir"),
            Uint(suite.to_wire().into()),
            Text(word),
            Text(from.principal.as_str()),
            Uint(from.incarnation.into()),
            Text(to.principal.as_str()),
            Uint(to.incarnation.into()),
        ]),
    )
}

fn plaintext(buf: &MessageBuf, spare: &mut MessageBuf) -> Vec<u8> {
    let len = buf.len();
    let bytes = spare.sink();
    bytes[bytes.len() - len..].to_vec()
}

fn request_bytes() -> Vec<u8> {
    let (buf, mut spare) = (
        request_plaintext(&[0xa1, 0x61, 0x6e, 0x05]),
        request_plaintext(&[0xa1, 0x61, 0x6e, 0x05]),
    );
    plaintext(&buf, &mut spare)
}

/// A session with its secret, known because this test made it or opened it.
struct Known {
    suite: Suite,
    ours: Session,
    theirs: Arc<Session>,
    secret: [u8; 32],
    signer: Option<SigningKey>,
    offer: Option<bytes::Bytes>,
    inputs: Map<String, Value>,
}

fn shared_known() -> Known {
    let component = Party::new(Principal::component("control").unwrap(), 1);
    let agent = Party::new(Principal::agent("db-1").unwrap(), 1);
    let k = [5; 32];
    let pair = expand(
        &k,
        &array(&[
            Text("bulla/1 pair"),
            Text("agent/db-1"),
            Uint(1),
            Text("component/control"),
            Uint(1),
        ]),
    );
    let http = expand(&k, &array(&[Text("bulla/1 http"), Text("agent/db-1"), Uint(1)]));
    assert_eq!(shared::http_key(&Secret::new(k), &agent).expose(), &http);
    let salt = hmac::Key::new(hmac::HMAC_SHA256, b"bulla/1 shared");
    let secret: [u8; 32] = hmac::sign(&salt, &pair).as_ref().try_into().unwrap();
    let session = || shared_session(&component, &agent);
    let inputs = json!({
        "agent_key": hex(&k), "agent": "agent/db-1", "agent_incarnation": 1,
        "component": "component/control", "pair_epoch": 1, "pair_key": hex(&pair),
        "kid": hex(&[7; 8]), "session_secret": hex(&secret), "http_key": hex(&http),
    });
    let ours = Arc::into_inner(session()).unwrap();
    let Value::Object(inputs) = inputs else { unreachable!() };
    Known {
        suite: Suite::Shared,
        ours,
        theirs: session(),
        secret,
        signer: None,
        offer: None,
        inputs,
    }
}

/// HPKE's `info` and the exporter context, from the offer as signed.
fn offer_secret(
    world: &World,
    component: &Component,
    agent: &Agent,
    offer: &[u8],
) -> (Vec<u8>, Vec<u8>, Vec<u8>, [u8; 32]) {
    let mut r = Reader::new(offer);
    r.tag(18).unwrap();
    r.array(4).unwrap();
    r.bytes().unwrap();
    r.map(0).unwrap();
    let mut p = Reader::new(r.bytes().unwrap());
    p.array(10).unwrap();
    p.uint().unwrap();
    let suite = p.uint().unwrap();
    let enc = p.bytes().unwrap().to_vec();
    let info = array(&[
        Text("bulla/1 hpke"),
        Uint(suite),
        Text(&component.party.principal.spiffe_id(&world.domain)),
        Uint(1),
        Text(&agent.party.principal.spiffe_id(&world.domain)),
        Uint(1),
        Bytes(agent.credential.kid.as_bytes()),
    ]);
    let context = array(&[Text("bulla/1 session"), Bytes(Digest::of(offer).as_bytes())]);
    let secret = agent.kem.decapsulate(&enc, &info, None).unwrap().export(&context).unwrap();
    (enc, info, context, *secret.expose())
}

fn pair_known(suite: Suite) -> Known {
    let mut world = World::new();
    let component = world.component("control", suite);
    let agent = world.agent("db-1", suite);
    let (ours, theirs, offer) = sessions(&mut world, &component, &agent);
    let (enc, info, context, secret) = offer_secret(&world, &component, &agent, &offer);
    let inputs = json!({
        "trust_domain": world.domain.as_str(),
        "root_public_key": hex(world.trust.root().as_bytes()),
        "component_issuer_credential": hex(world.trust.issuers().nth(1).unwrap().1),
        "sender_credential": hex(component.signing.as_bytes()),
        "sender_seed": hex(component.key.seed().expose()),
        "sender_public_key": hex(component.key.verifying_key().as_bytes()),
        "receiver_credential": hex(agent.credential.as_bytes()),
        "receiver_kem_secret": hex(agent.kem.expose()),
        "offer": hex(&offer), "hpke_enc": hex(&enc), "hpke_info": hex(&info),
        "exporter_context": hex(&context), "session_secret": hex(&secret),
        "session_id": ours.handle().to_string(),
    });
    let Value::Object(inputs) = inputs else { unreachable!() };
    Known { suite, ours, theirs, secret, signer: Some(component.key), offer: Some(offer), inputs }
}

fn file(known: Known) -> Value {
    let route = Route::new(
        "bulla",
        "agent.db-1",
        Some("host-1"),
        Audience::Party(known.ours.responder().clone()),
    )
    .unwrap();
    let request_key = direction(&known.secret, known.suite, "request", &known.ours);
    let reply_key = direction(&known.secret, known.suite, "reply", &known.ours);
    let mut vectors = Vec::new();
    let mut count = 0;
    let mut next = || {
        count += 1;
        hedge(count)
    };
    let plain = request_bytes();
    let mut bindings = Vec::new();
    let mut protections = vec![("sealed", Protection::Sealed)];
    match &known.signer {
        Some(key) => protections.extend([
            ("sealed-signed", Protection::SealedSigned(key)),
            ("signed", Protection::Signed(key)),
        ]),
        None => protections.push(("signed", Protection::Maced)),
    }
    for (level_name, protection) in protections {
        for kind in [MessageKind::Call, MessageKind::Cast, MessageKind::Notification] {
            let hedge = next();
            let spec = RequestSpec { kind, route: &route, expires: NOW.secs() + 60, protection };
            let sealed =
                known.ours.seal_request(&spec, &hedge, MessageBuf::from_plaintext(&plain)).unwrap();
            let frame = sealed.into_frame(known.offer.as_deref());
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            let expected = Expected { level: Level::Signed, ..Expected::new(&route, NOW) };
            let opened = known.theirs.open_request(parsed, &expected).unwrap();
            if kind == MessageKind::Call {
                bindings.push((level_name, opened.reply_binding()));
            }
            vectors.push(
                Made {
                    name: format!("{kind}-{level_name}"),
                    direction: request_key,
                    reply: false,
                    hedge,
                    incarnation: 1,
                    aad: aad(&route, kind, opened.level(), None, None),
                    plaintext: &plain,
                    frame: &frame,
                    extra: Map::new(),
                }
                .vector(),
            );
        }
    }
    for (level_name, binding) in bindings {
        if level_name == "sealed-signed" {
            continue;
        }
        let mut error = Vec::new();
        ErrorBody { kind: "NotFound", message: "no such volume", details: None, trace: None }
            .write(&mut error);
        for (outcome, index, plain) in [
            (Outcome::Progress, 0, &[0x18, 0x32][..]),
            (Outcome::Value, 1, &[0xa1, 0x61, 0x6e, 0x05]),
            (Outcome::Error, 1, &error),
        ] {
            let hedge = next();
            let spec = ReplySpec { outcome, index };
            let buf = MessageBuf::from_plaintext(plain);
            let frame =
                known.theirs.seal_reply(&binding, spec, &hedge, buf).unwrap().into_frame(None);
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            assert_eq!(known.ours.open_reply(parsed, &binding).unwrap().payload(), plain);
            let audience = Some(known.ours.requester());
            let mut extra = Map::new();
            extra.insert("request_digest".into(), hex(binding.digest.as_bytes()));
            vectors.push(
                Made {
                    name: format!("reply-{outcome}-{level_name}"),
                    direction: reply_key,
                    reply: true,
                    hedge,
                    incarnation: 1,
                    aad: aad(
                        &route,
                        MessageKind::Reply,
                        binding.level,
                        audience,
                        Some(binding.digest),
                    ),
                    plaintext: plain,
                    frame: &frame,
                    extra,
                }
                .vector(),
            );
        }
    }
    let mut inputs = known.inputs;
    inputs.insert("request_direction_key".into(), hex(&request_key));
    inputs.insert("reply_direction_key".into(), hex(&reply_key));
    json!({ "suite": known.suite.as_str(), "session": inputs, "vectors": vectors })
}

fn fanout_file() -> Value {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let group = GroupName::new("all").unwrap();
    let group_key = [8; 32];
    let session = GroupSession::new(&GroupKey {
        group: group.clone(),
        epoch: 3,
        key: Secret::new(group_key),
    });
    let signer = FanoutSigner::new(component.key.clone(), component.signing.clone()).unwrap();
    let route = Route::new("bulla", "group.all", None, Audience::Group(group)).unwrap();
    let direction = expand(
        &group_key,
        &array(&[Text("bulla/1 dir"), Uint(0), Text("fanout"), Text("all"), Uint(3)]),
    );
    let plain = request_bytes();
    let mut vectors = Vec::new();
    let mut sequence = 0;
    for (name, count) in [("alone", 1), ("batch", 5)] {
        let kinds = [MessageKind::Fanout, MessageKind::Notification];
        let mut hedges = Vec::new();
        let sealed = (0..count)
            .map(|i| {
                sequence += 1;
                let kind = kinds[i % 2];
                hedges.push((kind, hedge(sequence)));
                let spec = FanoutSpec { kind, route: &route, expires: NOW.secs() + 60, sequence };
                session
                    .seal(&signer, &spec, &hedge(sequence), MessageBuf::from_plaintext(&plain))
                    .unwrap()
            })
            .collect();
        for ((kind, hedge), frame) in hedges.into_iter().zip(signer.sign_batch(sealed)) {
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            session.open(parsed, &component.signing, &expected(&route)).unwrap();
            let Parts { header, content, .. } = parts(&frame);
            let commitment =
                expand(&direction, &array(&[Text("bulla/1 commit"), Bytes(frame.id().as_bytes())]));
            let aad = aad(&route, kind, Level::Sealed, None, None);
            let to_sign = array(&[
                Text("bulla/1 fanout"),
                Bytes(&aad),
                Bytes(&header),
                Bytes(Digest::of(&content).as_bytes()),
                Bytes(&commitment),
            ]);
            let mut extra = Map::new();
            extra.insert("commitment".into(), hex(&commitment));
            extra.insert("to_sign".into(), hex(&to_sign));
            vectors.push(
                Made {
                    name: format!("{kind}-{name}-{}", hedge.counter),
                    direction,
                    reply: false,
                    hedge,
                    incarnation: 1,
                    aad,
                    plaintext: &plain,
                    frame: &frame,
                    extra,
                }
                .vector(),
            );
        }
    }
    json!({
        "suite": "group",
        "session": {
            "group": "all", "epoch": 3, "group_key": hex(&group_key), "request_direction_key": hex(&direction),
            "root_public_key": hex(world.trust.root().as_bytes()),
            "component_issuer_credential": hex(world.trust.issuers().nth(1).unwrap().1),
            "sender_credential": hex(component.signing.as_bytes()),
            "sender_public_key": hex(component.key.verifying_key().as_bytes()),
        },
        "vectors": vectors,
    })
}

/// What issuers sign beside credentials, and a frame that carries it.
fn signed_file() -> Value {
    let world = World::new();
    let known = shared_known();
    let root = world.trust.root();
    let issuer = |kid| {
        let (_, bytes) = world.trust.issuers().find(|(issuer, _)| issuer.kid == kid).unwrap();
        hex(bytes)
    };
    let audience = Audience::Party(known.ours.responder().clone());
    let route = Route::new("bulla", "agent.db-1", None, audience).unwrap();
    let spec = RequestSpec {
        kind: MessageKind::Call,
        route: &route,
        expires: NOW.secs() + 60,
        protection: Protection::Sealed,
    };
    let statements: Vec<Value> = [("empty", empty_statement()), ("full", full_statement())]
        .into_iter()
        .map(|(name, statement)| {
            let signed = world.revocation.state(&statement).unwrap();
            let read = world.trust.verify_statement(signed.as_bytes()).unwrap();
            assert_eq!(*read, statement);
            let buf = MessageBuf::from_plaintext(&request_bytes());
            let sealed = known.ours.seal_request(&spec, &hedge(1), buf).unwrap();
            let frame = sealed.into_frame_with(None, Some(signed.as_bytes()));
            let parsed = Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap();
            assert_eq!(parsed.statement(), Some(&signed.as_bytes()[..]));
            json!({
                "name": name,
                "epoch": statement.epoch,
                "issued_at": statement.issued_at,
                "not_after": statement.not_after,
                "revoked": statement.revoked.iter()
                    .map(|r| json!([r.kid.to_string(), r.until])).collect::<Vec<_>>(),
                "lowest": statement.lowest.iter()
                    .map(|l| json!([l.principal.as_str(), l.incarnation, l.credential_epoch, l.pair_epoch]))
                    .collect::<Vec<_>>(),
                "groups": statement.groups.iter()
                    .map(|(group, epoch)| json!([group.as_str(), epoch])).collect::<Vec<_>>(),
                "signed": hex(signed.as_bytes()),
                "digest": hex(signed.digest().as_bytes()),
                "frame": hex(frame.bytes()),
            })
        })
        .collect();
    let exemption = exemption();
    let signed = world.operator.exempt(&exemption).unwrap();
    assert_eq!(*world.trust.verify_exemption(signed.as_bytes()).unwrap(), exemption);
    json!({
        "suite": "signed",
        "session": {
            "root_public_key": hex(root.as_bytes()),
            "revocation_issuer_credential": issuer(world.revocation.credential().kid),
            "operator_issuer_credential": issuer(world.operator.credential().kid),
        },
        "vectors": [],
        "statements": statements,
        "exemptions": [{
            "name": "one",
            "id": exemption.id.to_string(),
            "peer": exemption.peer.principal.as_str(),
            "incarnation": exemption.peer.incarnation,
            "method": exemption.method,
            "level": exemption.level.as_str(),
            "not_before": exemption.not_before,
            "until": exemption.until,
            "signed": hex(signed.as_bytes()),
        }],
    })
}

/// Two roots that follow the first one, and the issuers as each signed them.
fn roots_file() -> Value {
    let world = World::new();
    let mut trust = world.trust.clone();
    let later = [0xb2, 0xb3].map(|seed| SigningKey::from_seed(Secret::new([seed; 32])).unwrap());
    let mut old = &world.root;
    let mut vectors = Vec::new();
    for (new, sequence) in later.iter().zip(2..) {
        let announcement = RootAnnouncement {
            domain: world.domain.clone(),
            sequence,
            old: old.verifying_key(),
            new: new.verifying_key(),
            issued_at: NOW.secs() + u64::from(sequence),
            until: NOW.secs() + 30 * 86_400,
        };
        let bytes = announcement.sign(old, new).unwrap();
        assert_eq!(trust.take_root(&bytes, NOW).unwrap().as_ref(), Some(&announcement));
        let known: Vec<_> = trust.issuers().map(|(issuer, _)| issuer.clone()).collect();
        let issuers: Vec<_> = known.iter().map(|issuer| issuer.sign(new)).collect();
        for issuer in &issuers {
            trust.add_issuer(issuer).unwrap();
        }
        vectors.push(json!({
            "sequence": sequence,
            "old_root": hex(old.verifying_key().as_bytes()),
            "new_root": hex(new.verifying_key().as_bytes()),
            "issued_at": announcement.issued_at,
            "until": announcement.until,
            "announcement": hex(&bytes),
            "issuers": issuers.iter().map(|bytes| hex(bytes)).collect::<Vec<_>>(),
        }));
        old = new;
    }
    assert!(trust.retire_root(UnixTime::from_secs(NOW.secs() + 30 * 86_400)));
    assert_eq!((trust.root_sequence(), trust.issuers().count()), (3, 4));
    json!({
        "suite": "roots",
        "session": {
            "trust_domain": world.domain.as_str(),
            "root_public_key": hex(world.root.verifying_key().as_bytes()),
        },
        "vectors": [],
        "announcements": vectors,
    })
}

/// Enrolment by token: request and answer, with an enroller of either suite.
fn enrol_file() -> Value {
    let vectors: Vec<Value> = [Suite::X25519, Suite::XWing].into_iter().map(enrolment).collect();
    let world = World::new();
    let (_, issuer) = world.trust.issuers().next().unwrap();
    let (_, components) = world.trust.issuers().nth(1).unwrap();
    json!({
        "suite": "enrol",
        "session": {
            "trust_domain": world.domain.as_str(),
            "root_public_key": hex(world.root.verifying_key().as_bytes()),
            "agent_issuer_credential": hex(issuer),
            "component_issuer_credential": hex(components),
        },
        "vectors": [],
        "enrolments": vectors,
    })
}

fn enrolment(suite: Suite) -> Value {
    let mut world = World::new();
    let control = world.component("control", suite);
    let party = Party::new(Principal::agent("db-1").unwrap(), 2);
    let token = enrol::JoinToken { id: TokenId([0x71; 16]), secret: Secret::new([0x72; 32]) };
    let signing = SigningKey::from_seed(Secret::new([0x73; 32])).unwrap();
    let kem = KemSecretKey::from_bytes(Suite::X25519, &[0x74; 32]).unwrap();
    let applicant = enrol::Applicant {
        domain: &world.domain,
        party: &party,
        token: &token,
        enroller: &control.audience,
    };
    let application =
        applicant.apply(signing.clone(), kem.clone(), NOW, &mut Counting(7_000)).unwrap();
    let request = application.request();
    let own = (&**control.audience, &control.kem);
    let read = enrol::Request::parse(request).unwrap();
    let opened = read.open(&world.domain, (&party, &token), own).unwrap();
    let mut credential = world.credential(&party);
    credential.signing = Some(*opened.signing());
    credential.kem = Some(opened.kem().clone());
    let credential = world.agents.issue(&credential).unwrap();
    let answer = enrol::Answer {
        credential: credential.as_bytes().clone(),
        issuers: world.trust.issuers().map(|(_, bytes)| bytes.clone()).collect(),
        peers: vec![control.audience.as_bytes().clone()],
    };
    let answer = opened.answer(&answer, NOW, &mut Counting(8_000)).unwrap();
    let root = TrustStore::new(world.domain.clone(), *world.trust.root());
    let enrolled = application.open_answer(&answer, &root, NOW).unwrap();
    assert_eq!(enrolled.credential, credential);
    // What the enroller keeps of a used token, by hand.
    let verifier =
        expand(&[0x72; 32], &array(&[Text("bulla/1 enrol verifier"), Bytes(&[0x71; 16])]));
    assert_eq!(&verifier, token.verifier().expose().expose());
    json!({
        "name": suite.as_str(),
        "token": hex(&[0x71; 16]),
        "token_secret": hex(&[0x72; 32]),
        "token_verifier": hex(&verifier),
        "agent": party.principal.as_str(),
        "agent_incarnation": party.incarnation,
        "agent_public_key": hex(signing.verifying_key().as_bytes()),
        "agent_kem_public_key": hex(kem.public().as_bytes()),
        "enroller": "component/control",
        "enroller_incarnation": control.party.incarnation,
        "enroller_credential": hex(control.audience.as_bytes()),
        "enroller_kem_secret": hex(control.kem.expose()),
        "request": hex(request),
        "request_digest": hex(Digest::of(request).as_bytes()),
        "answer_exported": hex(application.parts().answer_key.expose()),
        "answer": hex(&answer),
        "agent_credential": hex(credential.as_bytes()),
    })
}

fn check(name: &str, made: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors").join(name);
    let made = serde_json::to_string_pretty(made).unwrap() + "\n";
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    // The order of members is the reader's business.
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(read(&kept) == read(&made), "{name} is not what the code makes");
}

#[test]
fn shared() {
    check("shared.json", &file(shared_known()));
}

#[test]
fn x25519() {
    check("x25519.json", &file(pair_known(Suite::X25519)));
}

#[test]
fn x_wing() {
    check("x-wing.json", &file(pair_known(Suite::XWing)));
}

#[test]
fn fanout() {
    check("fanout.json", &fanout_file());
}

#[test]
fn roots() {
    check("roots.json", &roots_file());
}

#[test]
fn enrolments() {
    check("enrol.json", &enrol_file());
}

#[test]
fn signed() {
    check("signed.json", &signed_file());
}
