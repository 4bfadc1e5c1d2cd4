//! A strict reader of the OpenMetrics text format, and enough of HTTP to get it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One request on a connection of its own: status and body.
pub fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    write!(stream, "{request}\r\n{body}").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunked(body) } else { body.to_owned() })
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return out;
        }
        out += &rest[..size];
        body = &rest[size + 2..];
    }
}

type Labels = BTreeMap<String, String>;

/// What a page says.
pub struct Page(BTreeMap<(String, Labels), f64>);

impl Page {
    /// Reads a page; whatever the format does not allow ends the test.
    pub fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").unwrap();
        let (mut samples, mut families) = (BTreeMap::new(), Vec::new());
        let mut family: Option<(String, String)> = None;
        let mut helped = None;
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && !families.contains(&name.to_owned()), "{line}");
                families.push(name.to_owned());
                helped = Some(name.to_owned());
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(helped.as_deref(), Some(name), "{line}");
                family = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            assert!(!line.starts_with('#'), "{line}");
            let (name, labels, value) = sample(line);
            let (of, kind) = family.as_ref().expect(line);
            let end = name.strip_prefix(of.as_str()).expect(line);
            let ends: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other}: {line}"),
            };
            assert!(ends.contains(&end), "{line} in a {kind}");
            assert!(value >= 0.0 || kind == "gauge", "{line}");
            assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
        let page = Self(samples);
        page.check_histograms();
        independent(text);
        page
    }

    fn check_histograms(&self) {
        for ((name, labels), all) in &self.0 {
            let Some(of) = name.strip_suffix("_count").filter(|_| labels.is_empty()) else {
                continue;
            };
            let buckets = self.0.iter().filter(|((name, _), _)| *name == format!("{of}_bucket"));
            let bound = |labels: &Labels| match labels["le"].as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().unwrap(),
            };
            let mut buckets: Vec<_> = buckets.map(|((_, l), count)| (bound(l), *count)).collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{of}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *all)), "{of}");
        }
    }

    /// A sample that must be there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name}{labels:?}"))
    }

    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.0.get(&(name.to_owned(), labels)).copied()
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), Labels::new(), value);
    };
    let mut rest = labels.strip_suffix('}').expect(line);
    let mut out = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        let end = after
            .char_indices()
            .scan(false, |escaped, (at, c)| {
                let quote = c == '"' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some((at, quote))
            })
            .find_map(|(at, quote)| quote.then_some(at))
            .expect(line);
        assert!(out.insert(label.to_owned(), after[..end].to_owned()).is_none(), "{line}");
        rest = after[end + 1..].trim_start_matches(',');
    }
    (name.to_owned(), out, value)
}

/// The same by the reader of Prometheus's own Python client, where that is installed.
fn independent(text: &str) {
    const READ: &str = "import sys\ntry:\n from prometheus_client.openmetrics.parser import \
        text_string_to_metric_families as read\nexcept ImportError:\n sys.exit(77)\n\
        print(len(list(read(sys.stdin.read()))))";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let child = Command::new(python)
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return eprintln!("there is no Python") };
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let read = child.wait_with_output().unwrap();
    match read.status.code() {
        Some(77) => eprintln!("Python has no prometheus_client: its reader did not look at it"),
        code => assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&read.stderr)),
    }
}
