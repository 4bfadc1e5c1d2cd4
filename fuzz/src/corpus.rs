//! The corpus: small, checked in, one file an input.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where a target's inputs are.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A target's inputs, by name.
pub fn load(target: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        files.push(entry?.path());
    }
    files.sort();
    files.into_iter().map(fs::read).collect()
}

/// Makes the corpus anew from the known-answer vectors in `docs/vectors`; returns how many files.
pub fn write_from_vectors() -> std::io::Result<usize> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors");
    let mut count = 0;
    for entry in fs::read_dir(vectors)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let value: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        count += walk(&value, &stem)?;
    }
    for (n, name) in NAMES.iter().enumerate() {
        count += write("names", &format!("{n}"), name.as_bytes())?;
    }
    for (name, record) in crate::targets::records::examples() {
        count += write("records", name, &record)?;
    }
    // How the bytes of `tamper` are read is its own affair.
    for n in 0..16u8 {
        count += write("tamper", &format!("{n}-whole"), &[n])?;
        count += write("tamper", &format!("{n}"), &[n, 3 * n, n, 1 << (n % 8), 0, 200, 7])?;
    }
    Ok(count)
}

const NAMES: [&str; 6] = [
    "agent/db-1",
    "component/control@h1",
    "group/all",
    "agent.db~1.9f3a",
    "spiffe://bulla.example/agent/a",
    "component/x_y-z.1",
];

/// Which target a field of the vectors is for.
fn target_of(field: &str) -> Option<&'static str> {
    Some(match field {
        "frame" => "frame",
        "offer" => "offer",
        "sender_credential" | "agent_credential" | "receiver_credential" => "credential",
        _ => return None,
    })
}

fn walk(value: &Value, name: &str) -> std::io::Result<usize> {
    let mut count = 0;
    match value {
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                count += walk(item, &format!("{name}-{n}"))?;
            }
        }
        Value::Object(fields) => {
            let what = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (field, value) in fields {
                let name = format!("{name}-{field}");
                if let Ok(bytes) = hex_of(value) {
                    count += field_to_corpus(field, &name, &what, &bytes)?;
                } else {
                    count += walk(value, &name)?;
                }
            }
        }
        _ => {}
    }
    Ok(count)
}

fn field_to_corpus(field: &str, name: &str, value: &str, bytes: &[u8]) -> std::io::Result<usize> {
    if let Some(target) = target_of(field) {
        // Credentials are signed anew by the target: it takes the payload.
        let bytes = if target == "credential" { payload(bytes) } else { bytes.to_vec() };
        return write(target, name, &bytes);
    }
    match field {
        "signed" if name.contains("exemptions") => write("exemption", name, &payload(bytes)),
        "signed" | "statement" => write("statement", name, &payload(bytes)),
        "plaintext" => {
            Ok(write("body", name, bytes)? + write("reply", name, &as_reply(value, bytes))?)
        }
        _ => Ok(0),
    }
}

/// A reply's outcome goes before its plaintext.
fn as_reply(outcome: &str, plaintext: &[u8]) -> Vec<u8> {
    let first = if outcome.contains("error") { 1 } else { 0 };
    [&[first], plaintext].concat()
}

/// The payload of a COSE_Sign1.
fn payload(sign1: &[u8]) -> Vec<u8> {
    let item = crate::cbor::Item::read(sign1);
    item.and_then(|item| item.items().get(2).map(|item| item.bytes().to_vec())).unwrap_or_default()
}

fn hex_of(value: &Value) -> Result<Vec<u8>, hex::FromHexError> {
    hex::decode(value.as_str().unwrap_or("no"))
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<usize> {
    fs::create_dir_all(folder(target))?;
    fs::write(folder(target).join(name), bytes)?;
    Ok(1)
}
