#!/usr/bin/env python3
"""Opens the known-answer vectors of docs/vectors/ with an independent COSE library.

    python3 -m venv venv && venv/bin/pip install -r tests/vectors/requirements.txt
    venv/bin/python tests/vectors/check_vectors.py

Each envelope is decoded and opened (or its MAC or signature verified) by pycose, given message
key, IV and external AAD. Everything that leads there is derived again from the inputs with the
primitives of `cryptography`: pair key, session secret, direction keys, ids, message keys,
digests, key commitments, Merkle paths, and the chain of credentials.

What pycose needs from the outside: the IV, because the message carries none (it is derived), and
a lookup of header labels that it does not know. It keeps such labels (-65537, and a numeric typ)
as they are. It wants cbor2 before version 6, which gives tuples inside tags. The protected bytes stay as received, so nothing is re-encoded before verification.
"""

import hashlib
import hmac
import json
import pathlib
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from pycose.headers import IV, KID
from pycose.keys import OKPKey, SymmetricKey
from pycose.keys.curves import Ed25519
from pycose.messages import CoseMessage, Enc0Message, Mac0Message, Sign1Message

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "vectors"
SUITES = {"shared": 0, "x25519": 1, "x-wing": 2, "group": 0}
KINDS = {"call": 1, "cast": 2, "notification": 3, "fanout": 4, "reply": 5}
LEVELS = {"signed": 2, "sealed": 3}
TYP, OWN = 65001, -65537

passed = failed = 0


def check(name, ok):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}")


def array(*items):
    return cbor2.dumps(list(items), canonical=True)


def sha256(data):
    return hashlib.sha256(data).digest()


def expand(key, *info):
    return HKDFExpand(hashes.SHA256(), 32, array(*info)).derive(key)


def prf(direction, label, data, blocks):
    """ADR 0001: the tag of GCM over `data` as associated data, then AES under a second key."""
    u = AESGCM(expand(direction, label, "hash")).encrypt(bytes(12), b"", data)
    ecb = Cipher(algorithms.AES(expand(direction, label, "block")), modes.ECB()).encryptor()
    return b"".join(ecb.update(u[:15] + bytes([u[15] ^ i])) for i in range(blocks))


def verifies(public, signature, data):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
        return True
    except InvalidSignature:
        return False


def verifies_sign1(data, public, label):
    """COSE_Sign1 whose external AAD is the label's array."""
    message = CoseMessage.decode(data)
    assert isinstance(message, Sign1Message)
    message.external_aad = array(label)
    message.key = OKPKey(crv=Ed25519, x=public, optional_params={})
    return message.verify_signature()


def sign1_of(data, public, label):
    """What it is over, as bytes."""
    assert verifies_sign1(data, public, label), label
    return CoseMessage.decode(data).payload


def sign1_payload(data, public, label):
    """A credential, an offer and whatever else is an array that one key signed."""
    return cbor2.loads(sign1_of(data, public, label))


def check_chain(name, session):
    root = bytes.fromhex(session["root_public_key"])
    issuer = sign1_payload(
        bytes.fromhex(session["component_issuer_credential"]), root, "bulla/1 credential"
    )
    check(f"{name}: issuer's right", issuer[2] == 2)
    sender = sign1_payload(
        bytes.fromhex(session["sender_credential"]), issuer[4], "bulla/1 credential"
    )
    check(f"{name}: sender's key", sender[5].hex() == session["sender_public_key"])
    return sender


def labeled_extract(suite_id, salt, label, ikm):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, "sha256")


def labeled_expand(suite_id, prk, label, info, length):
    data = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    return HKDFExpand(hashes.SHA256(), length, data).derive(prk)


def x25519(secret, public):
    """The shared point and the own public key."""
    private = X25519PrivateKey.from_private_bytes(secret)
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    dh = private.exchange(X25519PublicKey.from_public_bytes(public))
    return dh, private.public_key().public_bytes(*raw)


def dhkem(secret, enc):
    """RFC 9180 section 4.1."""
    dh, own = x25519(secret, enc)
    kem = b"KEM" + (0x20).to_bytes(2, "big")
    prk = labeled_extract(kem, b"", b"eae_prk", dh)
    return labeled_expand(kem, prk, b"shared_secret", enc + own, 32)


def xwing(seed, enc):
    """draft-connolly-cfrg-xwing-kem: ML-KEM-768 and X25519, combined with SHA3-256."""
    keys = hashlib.shake_256(seed).digest(96)
    ml_secret = MLKEM768PrivateKey.from_seed_bytes(keys[:64]).decapsulate(enc[:1088])
    dh, own = x25519(keys[64:], enc[1088:])
    return hashlib.sha3_256(ml_secret + dh + enc[1088:] + own + b"\\.//^\\").digest()


def hpke_exporter(name, private, enc, info, psk=b"", psk_id=b""):
    """RFC 9180, base or psk mode, HKDF-SHA256, export only: what exports."""
    decapsulate, kem_id = {"x25519": (dhkem, 0x20), "x-wing": (xwing, 0x647A)}[name]
    shared = decapsulate(private, enc)
    suite = b"HPKE" + kem_id.to_bytes(2, "big") + b"\x00\x01\xff\xff"
    context = (
        (b"\x01" if psk else b"\x00")
        + labeled_extract(suite, b"", b"psk_id_hash", psk_id)
        + labeled_extract(suite, b"", b"info_hash", info)
    )
    secret = labeled_extract(suite, shared, b"secret", psk)
    exporter = labeled_expand(suite, secret, b"exp", context, 32)
    return lambda exported: labeled_expand(suite, exporter, b"sec", exported, 32)


def hpke_secret(name, session):
    enc = bytes.fromhex(session["hpke_enc"])
    private = bytes.fromhex(session["receiver_kem_secret"])
    info = bytes.fromhex(session["hpke_info"])
    export = hpke_exporter(name, private, enc, info)
    return export(bytes.fromhex(session["exporter_context"]))


def check_session(name, session):
    """Derives the direction keys from the inputs."""
    secret = bytes.fromhex(session.get("session_secret", ""))
    if name == "group":
        key = expand(bytes.fromhex(session["group_key"]), "bulla/1 dir", 0, "fanout", "all", 3)
        check("group: direction key", key.hex() == session["request_direction_key"])
        check_chain(name, session)
        return
    if name == "shared":
        pair = expand(
            bytes.fromhex(session["agent_key"]),
            "bulla/1 pair",
            session["agent"],
            session["agent_incarnation"],
            session["component"],
            session["pair_epoch"],
        )
        check("shared: pair key", pair.hex() == session["pair_key"])
        agent = session["agent"], session["agent_incarnation"]
        http = expand(bytes.fromhex(session["agent_key"]), "bulla/1 http", *agent)
        check("shared: HTTP key", http.hex() == session["http_key"])
        check("shared: secret", hmac.digest(b"bulla/1 shared", pair, "sha256") == secret)
    else:
        check_chain(name, session)
        offer = bytes.fromhex(session["offer"])
        content = sign1_payload(
            offer, bytes.fromhex(session["sender_public_key"]), "bulla/1 offer"
        )
        check(f"{name}: offer's suite", content[1] == SUITES[name])
        check(f"{name}: offer's credential", content[3].hex() == session["sender_credential"])
        check(f"{name}: session id", sha256(offer)[:16].hex() == session["session_id"])
        context = array("bulla/1 session", sha256(offer))
        check(f"{name}: exporter context", context.hex() == session["exporter_context"])
        check(f"{name}: session secret from HPKE", hpke_secret(name, session) == secret)
    ends = ["component/control", 1, "agent/db-1", 1]
    for word in ("request", "reply"):
        key = expand(secret, "bulla/1 dir", SUITES[name], word, *ends)
        check(f"{name}: {word} direction key", key.hex() == session[f"{word}_direction_key"])


def check_header(name, suite, vector, header):
    fields = cbor2.loads(header)
    kind = vector["name"].split("-")[0]
    check(f"{name}: canonical header", cbor2.dumps(fields) == header)
    check(f"{name}: labels", list(fields) == [1, 4, 15, 16, OWN] and fields[16] == TYP)
    own, claims = fields[OWN], fields[15]
    level = 2 if vector["name"].endswith("-signed") and "sealed" not in vector["name"] else 3
    check(f"{name}: suite, kind, level", own[:3] == [SUITES[suite], KINDS[kind], level])
    names = [6, 7] if kind == "reply" else [1, 4, 6, 7]
    check(f"{name}: claims", list(claims) == names and claims[7].hex() == vector["id"])


def check_id(name, vector, header, aad):
    hedge = vector["hedge"]
    id_ = bytes.fromhex(vector["id"])
    data = array(
        "bulla/1 id",
        bytes.fromhex(hedge["random"]),
        hedge["ns"],
        hedge["counter"],
        hedge["incarnation"],
        bytes.fromhex(hedge["boot"]),
        header.replace(id_, bytes(16)),
        aad,
        bytes.fromhex(vector["plaintext"]),
    )
    direction = bytes.fromhex(vector["direction_key"])
    check(f"{name}: id", prf(direction, "bulla/1 id", data, 1) == id_)


def check_open(name, session, vector, envelope, header, aad):
    message = CoseMessage.decode(envelope)
    message.external_aad = aad
    plaintext = bytes.fromhex(vector["plaintext"])
    direction = bytes.fromhex(vector["direction_key"])
    if isinstance(message, Enc0Message):
        label = "bulla/1 reply" if vector["name"].startswith("reply") else "bulla/1 msg"
        derived = prf(direction, label, array("Encrypt0", header, aad), 3)
        key, iv = derived[:32], derived[32:44]
        check(f"{name}: message key", key.hex() == vector["message_key"])
        check(f"{name}: IV", iv.hex() == vector["iv"])
        message.key = SymmetricKey(k=key)
        message.uhdr_update({IV: iv})
        opened = message.decrypt()
        if "sealed-signed" in vector["name"]:
            check_inner(name, session, opened, header, aad, plaintext)
        else:
            check(f"{name}: opened", opened == plaintext)
    elif isinstance(message, Mac0Message):
        key = expand(direction, "bulla/1 mac")
        check(f"{name}: MAC key", key.hex() == vector["mac_key"])
        message.key = SymmetricKey(k=key)
        check(f"{name}: MAC", message.verify_tag() and message.payload == plaintext)
    else:
        x = bytes.fromhex(session["sender_public_key"])
        message.key = OKPKey(crv=Ed25519, x=x, optional_params={})
        check(f"{name}: signature", message.verify_signature() and message.payload == plaintext)
    # The same bytes with another external AAD must not open.
    message.external_aad = aad + b"\x00"
    try:
        ok = {Enc0Message: "decrypt", Mac0Message: "verify_tag", Sign1Message: "verify_signature"}
        refused = not getattr(message, ok[type(message)])()
    except Exception:
        refused = True
    check(f"{name}: another AAD refused", refused)


def check_inner(name, session, opened, header, aad, plaintext):
    body, signature = opened[:-66], opened[-64:]
    check(f"{name}: body", b"\x87" + body[1:] == plaintext and opened[0] == 0x88)
    signed = array("bulla/1 message", header, aad, sha256(plaintext))
    public = bytes.fromhex(session["sender_public_key"])
    check(f"{name}: inner signature", verifies(public, signature, signed))


def root_of(leaf, index, size, path):
    """RFC 9162's tree: the left part has the largest power of two below the size."""
    sides, start, end = [], 0, size
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left = index < middle
        start, end = (start, middle) if left else (middle, end)
        sides.append(left)
    assert len(sides) == len(path)
    for left, node in zip(reversed(sides), path):
        leaf = sha256(b"\x01" + (leaf + node if left else node + leaf))
    return leaf


def check_fanout(name, session, vector, header, aad):
    id_ = bytes.fromhex(vector["id"])
    commitment = expand(bytes.fromhex(vector["direction_key"]), "bulla/1 commit", id_)
    content = bytes.fromhex(vector["content"])
    signed = array("bulla/1 fanout", aad, header, sha256(content), commitment)
    check(f"{name}: to be signed", signed.hex() == vector["to_sign"])
    public = bytes.fromhex(session["sender_public_key"])
    proof = cbor2.loads(bytes.fromhex(vector["proof"]))
    if isinstance(proof, bytes):
        check(f"{name}: signature", verifies(public, proof, signed))
        return
    signature, size, index, path = proof
    root = root_of(sha256(b"\x00" + signed), index, size, path)
    kid = cbor2.loads(header)[4]
    check(
        f"{name}: signature over the tree",
        verifies(public, signature, array("bulla/1 tree", kid, size, root)),
    )


def check_vector(suite, session, vector):
    name = f"{suite} {vector['name']}"
    header = bytes.fromhex(vector["header"])
    aad = bytes.fromhex(vector["external_aad"])
    envelope = bytes.fromhex(vector["envelope"])
    frame = bytes.fromhex(vector["frame"])
    beside = session.get("offer" if suite != "group" else "sender_credential")
    beside = b"\xf6" if vector["name"].startswith("reply") or not beside else bytes.fromhex(beside)
    check(f"{name}: frame", frame == b"\x84\x01" + envelope + beside + b"\xf6")
    if suite == "group":
        check_fanout(name, session, vector, header, aad)
        proof = bytes.fromhex(vector["proof"])
        check(f"{name}: envelope", envelope[:1] == b"\x82" and envelope.endswith(proof))
        envelope = envelope[1 : -len(proof)]
    check_header(name, suite, vector, header)
    check_id(name, vector, header, aad)
    check_open(name, session, vector, envelope, header, aad)
    digest = sha256(array("bulla/1 envelope", header, bytes.fromhex(vector["authenticator"])))
    check(f"{name}: digest", digest.hex() == vector["envelope_digest"])


def check_signed(data):
    """Statements and exemptions: signed by an issuer with the right, and saying what is written."""
    root = bytes.fromhex(data["session"]["root_public_key"])

    def issuer(name, right):
        credential = bytes.fromhex(data["session"][f"{name}_issuer_credential"])
        payload = sign1_payload(credential, root, "bulla/1 credential")
        check(f"{name}: issuer's right", payload[2] == right)
        return payload

    revocation, operator = issuer("revocation", 3), issuer("operator", 4)
    for statement in data["statements"]:
        name = f"statement {statement['name']}"
        signed = bytes.fromhex(statement["signed"])
        check(f"{name}: kid", CoseMessage.decode(signed).phdr[KID] == revocation[3])
        payload = sign1_payload(signed, revocation[4], "bulla/1 statement")
        wanted = [
            1,
            statement["epoch"],
            statement["issued_at"],
            statement["not_after"],
            [[bytes.fromhex(kid), until] for kid, until in statement["revoked"]],
            statement["lowest"],
            statement["groups"],
        ]
        check(f"{name}: payload", payload == wanted)
        check(f"{name}: an hour", 0 < payload[3] - payload[2] <= 3600)
        check(f"{name}: digest", sha256(signed).hex() == statement["digest"])
        frame = bytes.fromhex(statement["frame"])
        check(f"{name}: last place", frame.endswith(signed) and frame[0] == 0x84)
        check(f"{name}: frame", len(cbor2.loads(frame)) == 4)
    for exemption in data["exemptions"]:
        name = f"exemption {exemption['name']}"
        signed = bytes.fromhex(exemption["signed"])
        check(f"{name}: kid", CoseMessage.decode(signed).phdr[KID] == operator[3])
        payload = sign1_payload(signed, operator[4], "bulla/1 exemption")
        wanted = [
            1,
            bytes.fromhex(exemption["id"]),
            exemption["peer"],
            exemption["incarnation"],
            exemption["method"],
            LEVELS[exemption["level"]],
            exemption["not_before"],
            exemption["until"],
        ]
        check(f"{name}: payload", payload == wanted)


def check_roots(data):
    """Announcements: what the old root says, signed as it is by the new one; and the issuers."""
    domain = data["session"]["trust_domain"]
    root, sequence = bytes.fromhex(data["session"]["root_public_key"]), 1
    issuers = None
    for vector in data["announcements"]:
        sequence += 1
        name = f"root {sequence}"
        new = bytes.fromhex(vector["new_root"])
        announcement = bytes.fromhex(vector["announcement"])
        check(f"{name}: size", len(announcement) <= 640)
        consent = CoseMessage.decode(announcement)
        said = consent.payload
        sign1_of(announcement, new, "bulla/1 root consent")
        payload = sign1_payload(said, root, "bulla/1 root")
        wanted = [1, domain, sequence, root, new, vector["issued_at"], vector["until"]]
        check(f"{name}: payload", payload == wanted)
        check(f"{name}: overlap", 3_600 <= payload[6] - payload[5] <= 366 * 86_400)
        check(f"{name}: no kid", KID not in consent.phdr and KID not in CoseMessage.decode(said).phdr)
        for key, label in ((root, "bulla/1 root consent"), (new, "bulla/1 root")):
            check(f"{name}: one use, one key", not verifies_sign1(announcement, key, label))
        signed = [
            sign1_payload(bytes.fromhex(issuer), new, "bulla/1 credential")
            for issuer in vector["issuers"]
        ]
        check(f"{name}: the same issuers", issuers in (None, signed) and len(signed) == 4)
        root, issuers = new, signed


def check_enrolment(session, vector):
    """HPKE psk mode, both seals, the proof, and the agent's own signature."""
    name = f"enrolment {vector['name']}"
    root = bytes.fromhex(session["root_public_key"])
    token, secret = bytes.fromhex(vector["token"]), bytes.fromhex(vector["token_secret"])
    issuer = bytes.fromhex(session["component_issuer_credential"])
    issuer = sign1_payload(issuer, root, "bulla/1 credential")
    enroller_credential = bytes.fromhex(vector["enroller_credential"])
    enroller = sign1_payload(enroller_credential, issuer[4], "bulla/1 credential")
    request = bytes.fromhex(vector["request"])
    version, named, suite, audience, enc, sealed, proof = cbor2.loads(request)
    check(f"{name}: request", (version, named, suite) == (1, token, SUITES[vector["name"]]))
    check(f"{name}: audience", audience == enroller[1])
    check(f"{name}: canonical", cbor2.dumps(cbor2.loads(request)) == request)
    spiffe = f"spiffe://{session['trust_domain']}/"
    ends = (
        spiffe + vector["agent"],
        vector["agent_incarnation"],
        spiffe + vector["enroller"],
        vector["enroller_incarnation"],
        audience,
    )
    info = array("bulla/1 enrol", suite, *ends)
    private = bytes.fromhex(vector["enroller_kem_secret"])
    export = hpke_exporter(vector["name"], private, enc, info, secret, token)
    aad = array("bulla/1 enrol aad", token, suite, audience, enc)
    signed = AESGCM(export(array("bulla/1 enrol request"))).decrypt(bytes(12), sealed, aad)
    public = bytes.fromhex(vector["agent_public_key"])
    kem = bytes.fromhex(vector["agent_kem_public_key"])
    wanted = [1, session["trust_domain"], token, vector["agent"], vector["agent_incarnation"]]
    claims = sign1_payload(signed, public, "bulla/1 enrol")
    check(f"{name}: claims", claims == [*wanted, audience, enc, public, kem])
    verifier = expand(secret, "bulla/1 enrol verifier", token)
    check(f"{name}: verifier", verifier.hex() == vector["token_verifier"])
    head = sha256(array("bulla/1 enrol head", token, suite, audience, enc, sealed))
    check(f"{name}: proof", expand(verifier, "bulla/1 enrol proof", head) == proof)

    digest = sha256(request)
    check(f"{name}: digest", digest.hex() == vector["request_digest"])
    exported = export(array("bulla/1 enrol answer", digest))
    check(f"{name}: exported for the answer", exported.hex() == vector["answer_exported"])
    version, named, nonce, sealed = cbor2.loads(bytes.fromhex(vector["answer"]))
    check(f"{name}: answer", (version, named, len(nonce)) == (1, digest, 16))
    label = ("bulla/1 enrol answer key", digest, nonce)
    plain = AESGCM(expand(exported, *label)).decrypt(bytes(12), sealed, array(*label))
    version, credential, issuers, peers = cbor2.loads(plain)
    check(f"{name}: credential", credential.hex() == vector["agent_credential"])
    check(f"{name}: peers", peers == [enroller_credential])
    named = session["agent_issuer_credential"]
    check(f"{name}: issuers", named in [issuer.hex() for issuer in issuers])
    issuer = sign1_payload(bytes.fromhex(named), root, "bulla/1 credential")
    agent = sign1_payload(credential, issuer[4], "bulla/1 credential")
    check(f"{name}: issuer's right", issuer[2] == 1)
    check(f"{name}: agent", agent[2:4] == [vector["agent"], vector["agent_incarnation"]])
    check(f"{name}: agent's keys", agent[5:7] == [public, kem])


def main():
    files = sorted(VECTORS.glob("*.json"))
    check("seven files of vectors", len(files) == 7)
    for path in files:
        data = json.loads(path.read_text())
        if data["suite"] == "signed":
            check_signed(data)
            continue
        if data["suite"] == "roots":
            check_roots(data)
            continue
        if data["suite"] == "enrol":
            for vector in data["enrolments"]:
                check_enrolment(data["session"], vector)
            continue
        check_session(data["suite"], data["session"])
        for vector in data["vectors"]:
            check_vector(data["suite"], data["session"], vector)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
