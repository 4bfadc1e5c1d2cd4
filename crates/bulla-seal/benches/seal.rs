//! What sealing and opening cost, as ratios to a bare AES-256-GCM seal with a cached key in the
//! same run, and the candidates for ids and keys of `docs/adr/0001-message-derivations.md`.
//!
//! Every round measures everything once, in turn, so that a slow spell of the machine falls on
//! all alike; shown are the minimum and the median over the rounds, and for the ratios the ratio
//! of the minima and the median of the rounds' own ratios.
//!
//!     cargo bench -p bulla-seal [-- part of a name]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::{digest, hkdf, hmac};
use bulla_seal::*;
use common::*;

const SIZES: [usize; 3] = [100, 1024, 16 * 1024];
/// About what an Enc_structure has.
const STRUCTURE: usize = 200;
/// Associated data of the bare seal, in bytes: about what names exchange, topic and parties.
const CONTEXT: usize = 48;
/// Many short rounds: what a neighbour on the machine does then falls on a case and on what it is
/// compared with alike.
const ROUNDS: usize = 1500;
const ROUND: Duration = Duration::from_micros(60);

/// One thing to measure: runs a number of times and returns the time that counts.
struct Case {
    name: String,
    run: Box<dyn FnMut(u32) -> Duration>,
    repeats: u32,
    ns: Vec<f64>,
}

impl Case {
    fn new(name: impl Into<String>, mut once: impl FnMut() + 'static) -> Self {
        Self::timed(name, move |n| {
            let start = Instant::now();
            (0..n).for_each(|_| once());
            start.elapsed()
        })
    }

    fn timed(name: impl Into<String>, run: impl FnMut(u32) -> Duration + 'static) -> Self {
        let mut case = Self { name: name.into(), run: Box::new(run), repeats: 1, ns: Vec::new() };
        while (case.run)(case.repeats) < ROUND {
            case.repeats *= 2;
        }
        case
    }

    fn round(&mut self) {
        let took = (self.run)(self.repeats);
        self.ns.push(took.as_nanos() as f64 / f64::from(self.repeats));
    }

    fn min(&self) -> f64 {
        self.ns.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    for size in SIZES {
        let mut cases = message_cases(size);
        if size != 100 {
            cases.extend(id_candidates(size));
        }
        measure(&format!("{size} B"), &mut cases);
    }
    let mut cases = vec![bare(1024)];
    cases.extend(key_candidates());
    measure(&format!("keys from {STRUCTURE} B (bare: 1024 B)"), &mut cases);
}

fn measure(title: &str, cases: &mut Vec<Case>) {
    // The first case is what the others are compared with.
    if let Some(wanted) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')) {
        let mut first = true;
        cases.retain(|case| std::mem::take(&mut first) || case.name.contains(&wanted));
    }
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::round);
    }
    println!("{title:<48} {:>9} {:>9} {:>7} {:>7}", "min ns", "med ns", "min x", "med x");
    for case in &*cases {
        let (min, median_ns) = (case.min(), median(case.ns.iter().copied()));
        let ratios = case.ns.iter().zip(&cases[0].ns).map(|(own, bare)| own / bare);
        let (a, b) = (min / cases[0].min(), median(ratios));
        println!("  {:<46} {min:>9.0} {median_ns:>9.0} {a:>7.2} {b:>7.2}", case.name);
    }
    println!();
}

fn gcm(algorithm: &'static aws_lc_rs::aead::Algorithm) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).unwrap())
}

fn tag(key: &LessSafeKey, aad: &[u8], in_out: &mut [u8]) -> [u8; 16] {
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out).unwrap();
    tag.as_ref().try_into().unwrap()
}

/// What any sealed message needs: a cached key, and associated data that say where it belongs.
fn bare(size: usize) -> Case {
    let (key, mut buf) = (gcm(&AES_256_GCM), vec![3; size]);
    Case::new("bare A256GCM seal, cached key, 48 B of context", move || {
        black_box(tag(&key, black_box(&[8; CONTEXT]), black_box(&mut buf)));
    })
}

fn without_context(size: usize) -> Case {
    let (key, mut buf) = (gcm(&AES_256_GCM), vec![3; size]);
    Case::new("part: the same without context", move || {
        black_box(tag(&key, &[], black_box(&mut buf)));
    })
}

fn message_cases(size: usize) -> Vec<Case> {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    let (ours, theirs, _) = sessions(&mut world, &component, &agent);
    let ours = std::sync::Arc::new(ours);
    let route = route_to(&agent.party);
    let mut args = Vec::with_capacity(size);
    cbor::Writer::new(&mut args).bytes(&vec![5; size - 40]);
    let request = ours.seal_request(&spec(&route), &hedge(1), request_plaintext(&args)).unwrap();
    let request = request.into_frame(None);
    let opened = theirs.open_request(parsed(&request), &expected(&route)).unwrap();
    let binding = opened.reply_binding();
    let value = ReplySpec { outcome: Outcome::Value, index: 0 };
    let buf = MessageBuf::from_plaintext(&args);
    let reply = theirs.seal_reply(&binding, value, &hedge(1), buf).unwrap().into_frame(None);
    let seal_request = {
        let (ours, route, args) = (ours.clone(), route.clone(), args.clone());
        over(
            "seal_request",
            move || request_plaintext(&args),
            move |buf| {
                black_box(
                    ours.seal_request(&spec(&route), &hedge(1), buf).unwrap().into_frame(None),
                );
            },
        )
    };
    let open_request = {
        let theirs = theirs.clone();
        over("open_request", clone_of(&request), move |bytes| {
            let parsed = Parsed::parse(bytes, DEFAULT_MAX_FRAME).unwrap();
            black_box(theirs.open_request(parsed, &expected(&route)).unwrap());
        })
    };
    let seal_reply = {
        let binding = binding.clone();
        over(
            "seal_reply",
            move || MessageBuf::from_plaintext(&args),
            move |buf| {
                black_box(
                    theirs.seal_reply(&binding, value, &hedge(1), buf).unwrap().into_frame(None),
                );
            },
        )
    };
    let open_reply = over("open_reply", clone_of(&reply), move |bytes| {
        let parsed = Parsed::parse(bytes, DEFAULT_MAX_FRAME).unwrap();
        black_box(ours.open_reply(parsed, &binding).unwrap());
    });
    let parse = over("part: parse a frame", clone_of(&request), |bytes| {
        black_box(Parsed::parse(bytes, DEFAULT_MAX_FRAME).unwrap());
    });
    let digest = {
        let request = request.clone();
        Case::new("apart: the envelope's digest, where asked for", move || {
            black_box(black_box(&request).digest());
        })
    };
    let fresh = {
        let key = gcm(&AES_256_GCM);
        over("part: bare A256GCM seal, fresh buffer", clone_of(&request), move |mut bytes| {
            black_box(tag(&key, &[], &mut bytes[..size]));
        })
    };
    let nothing = over("part: drop a buffer", clone_of(&request), drop);
    let mut cases = vec![
        bare(size),
        without_context(size),
        seal_request,
        open_request,
        seal_reply,
        open_reply,
        digest,
        parse,
        fresh,
        nothing,
    ];
    cases.extend(parts(size));
    cases
}

/// What a message can't do without: the rest is ours.
fn parts(size: usize) -> Vec<Case> {
    let mut buf = vec![3; size];
    let (hash, structure) = (gcm(&AES_256_GCM), [9; STRUCTURE]);
    let (hash2, input) = (gcm(&AES_256_GCM), vec![9; size + STRUCTURE]);
    let (block, block2) = (ecb(), ecb());
    vec![
        Case::new("part: key set-up and A256GCM seal", move || {
            black_box(tag(&gcm(&AES_256_GCM), &[9; STRUCTURE], black_box(&mut buf)));
        }),
        Case::new("part: id (GHASH, AES block)", move || {
            let mut u = tag(&hash2, black_box(&input), &mut []);
            block2.encrypt(&mut u).unwrap();
            black_box(u);
        }),
        Case::new("part: message key (GHASH, three AES blocks)", move || {
            let mut blocks = [tag(&hash, black_box(&structure), &mut []); 3];
            block.encrypt(blocks.as_flattened_mut()).unwrap();
            black_box(blocks);
        }),
    ]
}

fn ecb() -> EncryptingKey {
    EncryptingKey::ecb(UnboundCipherKey::new(&AES_256, &[8; 32]).unwrap()).unwrap()
}

fn clone_of(frame: &Frame) -> impl FnMut() -> bytes::BytesMut + use<> {
    let bytes = frame.bytes().clone();
    move || bytes::BytesMut::from(&bytes[..])
}

fn parsed(frame: &Frame) -> Parsed {
    Parsed::parse(frame.bytes().clone(), DEFAULT_MAX_FRAME).unwrap()
}

/// Inputs are made outside the time that counts: their buffers are the caller's.
fn over<T: 'static>(
    name: &str,
    mut input: impl FnMut() -> T + 'static,
    mut run: impl FnMut(T) + 'static,
) -> Case {
    Case::timed(name, move |n| {
        let mut took = Duration::ZERO;
        let mut left = n;
        while left > 0 {
            let batch = left.min(8);
            let inputs: Vec<T> = (0..batch).map(|_| input()).collect();
            let start = Instant::now();
            inputs.into_iter().for_each(&mut run);
            took += start.elapsed();
            left -= batch;
        }
        took
    })
}

type Candidate = Box<dyn FnMut(&[u8])>;

/// Candidates for the message id: over about 200 bytes of inputs and the plaintext.
fn id_candidates(size: usize) -> Vec<Case> {
    let input = vec![9u8; size + STRUCTURE];
    let of = |name: &str, mut run: Candidate| {
        let input = input.clone();
        Case::new(format!("id: {name}"), move || run(black_box(&input)))
    };
    let mac = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let (siv, hash, block) =
        (gcm(&AES_256_GCM_SIV), gcm(&AES_256_GCM), Aes256Enc::new(&[8; 32].into()));
    vec![
        of(
            "HMAC-SHA-256",
            Box::new(move |input| {
                black_box(hmac::sign(&mac, input));
            }),
        ),
        of(
            "keyed BLAKE3",
            Box::new(|input| {
                black_box(blake3::keyed_hash(&[7; 32], input));
            }),
        ),
        of(
            "AES-256-GCM-SIV tag over AAD",
            Box::new(move |input| {
                black_box(tag(&siv, input, &mut []));
            }),
        ),
        of(
            "GHASH, then AES-256 (chosen)",
            Box::new(move |input| {
                let mut u = aes::Block::from(tag(&hash, input, &mut []));
                block.encrypt_block(&mut u);
                black_box(u);
            }),
        ),
    ]
}

/// Candidates for message key and IV: over an Enc_structure.
fn key_candidates() -> Vec<Case> {
    let input = vec![9u8; STRUCTURE];
    let of = |name: &str, mut run: Candidate| {
        let input = input.clone();
        Case::new(format!("key: {name}"), move || run(black_box(&input)))
    };
    let (siv, hash) = (gcm(&AES_256_GCM_SIV), gcm(&AES_256_GCM));
    let (block, chain) = (Aes256Enc::new(&[8; 32].into()), Aes256Enc::new(&[9; 32].into()));
    vec![
        of(
            "SHA-256, then HKDF-Expand",
            Box::new(|input| {
                struct Len;
                impl hkdf::KeyType for Len {
                    fn len(&self) -> usize {
                        44
                    }
                }
                let hash = digest::digest(&digest::SHA256, input);
                let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &[7; 32]);
                let mut out = [0; 44];
                prk.expand(&[hash.as_ref()], Len).unwrap().fill(&mut out).unwrap();
                black_box(out);
            }),
        ),
        of(
            "AES-256-GCM-SIV as PRF",
            Box::new(move |input| {
                let mut out = [0; 44];
                black_box(tag(&siv, input, &mut out));
                black_box(out);
            }),
        ),
        of(
            "CBC-MAC, then AES-256 in counter mode",
            Box::new(move |input| {
                let mut u = aes::Block::default();
                for chunk in input.chunks(16) {
                    u.iter_mut().zip(chunk).for_each(|(to, from)| *to ^= from);
                    chain.encrypt_block(&mut u);
                }
                black_box(three(&chain, u));
            }),
        ),
        of(
            "GHASH, then AES-256 (chosen)",
            Box::new(move |input| {
                black_box(three(&block, tag(&hash, input, &mut []).into()));
            }),
        ),
    ]
}

fn three(key: &Aes256Enc, u: aes::Block) -> [aes::Block; 3] {
    let mut blocks = [u; 3];
    (0u8..).zip(&mut blocks).for_each(|(i, block)| block[15] ^= i);
    key.encrypt_blocks(&mut blocks);
    blocks
}
