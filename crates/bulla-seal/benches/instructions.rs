//! How many instructions sealing and opening take, as ratios to a bare AES-256-GCM seal of the
//! same message with a cached key: what a loaded machine can't blur. Needs valgrind, in which
//! the cipher runs without AVX-512.
//!
//!     cargo bench -p bulla-seal --bench instructions
//!
//! Each operation runs under callgrind with a small and with a larger count; the difference is
//! what the operation itself takes. `-- OPERATION COUNT` just does it, for a profiler.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::process::Command;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bulla_seal::*;
use bytes::BytesMut;
use common::*;

const SIZE: usize = 1024;
const OPERATIONS: [&str; 9] = [
    "bare seal",
    "seal_request",
    "open_request",
    "seal_reply",
    "open_reply",
    "digest",
    "make a buffer",
    "copy a frame",
    "parse a frame",
];
const FEW: u64 = 100;
const MANY: u64 = 1100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [operation, count] => run(operation, count.parse().unwrap()),
        _ => table(),
    }
}

fn table() {
    let bare = instructions("bare seal");
    // What is made outside the operation that is measured.
    let (buffer, copy) = (instructions("make a buffer"), instructions("copy a frame"));
    for operation in OPERATIONS {
        let own = instructions(operation)
            - match operation {
                "seal_request" | "seal_reply" => buffer,
                "open_request" | "open_reply" | "parse a frame" => copy,
                _ => 0.0,
            };
        println!("{operation:<16} {own:>8.0} instructions {:>6.2} x", own / bare);
    }
}

fn instructions(operation: &str) -> f64 {
    let counted = |count: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args([operation, &count.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap();
        line.1.trim().parse::<u64>().unwrap()
    };
    (counted(MANY) - counted(FEW)) as f64 / (MANY - FEW) as f64
}

fn run(operation: &str, count: u64) {
    let mut world = World::new();
    let component = world.component("control", Suite::X25519);
    let agent = world.agent("db-1", Suite::X25519);
    let (ours, theirs, _) = sessions(&mut world, &component, &agent);
    let route = route_to(&agent.party);
    let mut args = Vec::with_capacity(SIZE);
    cbor::Writer::new(&mut args).bytes(&[5; SIZE - 40]);
    let seal = |buf| ours.seal_request(&spec(&route), &hedge(1), buf).unwrap().into_frame(None);
    let request = seal(request_plaintext(&args));
    let open = |bytes: BytesMut| {
        let parsed = Parsed::parse(bytes, DEFAULT_MAX_FRAME).unwrap();
        theirs.open_request(parsed, &expected(&route)).unwrap()
    };
    let binding = open(BytesMut::from(&request.bytes()[..])).reply_binding();
    let value = ReplySpec { outcome: Outcome::Value, index: 0 };
    let answer = |buf| theirs.seal_reply(&binding, value, &hedge(1), buf).unwrap().into_frame(None);
    let reply = answer(MessageBuf::from_plaintext(&args));
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let mut plain = vec![3; SIZE];
    let copy = |frame: &Frame| BytesMut::from(&frame.bytes()[..]);
    for _ in 0..count {
        match operation {
            "bare seal" => {
                let nonce = Nonce::assume_unique_for_key([0; 12]);
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut plain);
                drop(black_box(sealed.unwrap()));
            }
            "seal_request" => drop(black_box(seal(request_plaintext(&args)))),
            "open_request" => drop(black_box(open(copy(&request)))),
            "seal_reply" => drop(black_box(answer(MessageBuf::from_plaintext(&args)))),
            "open_reply" => {
                let parsed = Parsed::parse(copy(&reply), DEFAULT_MAX_FRAME).unwrap();
                drop(black_box(ours.open_reply(parsed, &binding).unwrap()));
            }
            "digest" => drop(black_box(request.digest())),
            "make a buffer" => drop(black_box(request_plaintext(&args))),
            "copy a frame" => drop(black_box(copy(&request))),
            "parse a frame" => {
                drop(black_box(Parsed::parse(copy(&request), DEFAULT_MAX_FRAME).unwrap()));
            }
            other => unknown(other),
        }
    }
}

fn unknown(operation: &str) {
    eprintln!("no operation {operation:?}; there are {OPERATIONS:?}");
    std::process::exit(2);
}
