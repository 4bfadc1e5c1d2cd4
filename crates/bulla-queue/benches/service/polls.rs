//! What requests cost that wait for something, each on a connection of its own and for a queue of its own.

use std::io::{BufRead, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use axum::http::Request;
use bulla_http::{AccessKey, DialStream, Dialer, certs};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, connect, posted, request};
use crate::served::{ACCESS_KEY, Served};

/// Requests that wait.
pub(crate) const POLLS: usize = 10_000;
/// Connections that are made at a time.
const AT_ONCE: usize = 16;
const LONG: Duration = Duration::from_secs(60);
const BODY: &str = "{\"ttl\": 300, \"grace\": 60}";

/// The last of the queues, to which something is posted at the end.
fn last() -> String {
    format!("/v2/queues/w{}", POLLS - 1)
}

pub(crate) fn plain(served: &Served) {
    let before = served.status("VmRSS:");
    let mut waiting = Vec::new();
    for n in 0..POLLS {
        let mut stream = connect(served.port);
        let asked = request("POST", &format!("/v2/queues/w{n}/claims?wait=30"), BODY);
        stream.get_mut().write_all(asked.as_bytes()).unwrap();
        waiting.push(stream);
    }
    thread::sleep(Duration::from_secs(2));
    let figures = Figures::of(served);
    let mut begun = Client::new(served.port);
    assert_eq!(begun.ask("POST", &format!("{}/messages", last()), &posted(1)).0, 201);
    let mut line = String::new();
    waiting.last_mut().unwrap().read_line(&mut line).unwrap();
    assert!(line.contains("201"), "{line}");
    figures.show("requests that wait", before);
}

/// As agents do: TLS, no client certificate, each request signed.
pub(crate) fn tls(dir: &Path) {
    let files = certs::make(dir, &[], "bench").unwrap();
    let served = Served::tls(&dir.join("q.db").display().to_string(), dir);
    let before = served.status("VmRSS:");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dialer = Dialer::trusting(&files.ca).unwrap();
        let dial = async |_| dialer.connect("localhost", served.port, LONG).await.unwrap();
        let mut streams: Vec<DialStream> =
            stream::iter(0..POLLS).map(dial).buffer_unordered(AT_ONCE).collect().await;
        let idle = Figures::of(&served);
        for (n, stream) in streams.iter_mut().enumerate() {
            send(stream, &format!("/v2/queues/w{n}/claims?wait=30"), BODY).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let figures = Figures::of(&served);
        let mut begun = dial(0).await;
        send(&mut begun, &format!("{}/messages", last()), &posted(1)).await;
        for stream in [&mut begun, streams.last_mut().unwrap()] {
            let mut begin = [0; 12];
            stream.read_exact(&mut begin).await.unwrap();
            assert_eq!(&begin, b"HTTP/1.1 201");
        }
        idle.show("connections over TLS without a request", before);
        figures.show("requests that wait, over TLS", before);
    });
}

async fn send(stream: &mut DialStream, path: &str, body: &str) {
    let request = Request::post(path).header("host", "localhost");
    let request = request.header("client-id", "30387f00-39a0-11ee-be56-0242ac120002");
    let mut request = request.header("content-type", "application/json").body(()).unwrap();
    let (id, secret) = ACCESS_KEY;
    AccessKey::new(id, secret).unwrap().sign("https", &mut request, body.as_bytes()).unwrap();
    let mut text = format!("POST {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// What the service holds.
struct Figures {
    rss: u64,
    threads: u64,
}

impl Figures {
    fn of(served: &Served) -> Self {
        Self { rss: served.status("VmRSS:"), threads: served.status("Threads:") }
    }

    fn show(&self, what: &str, before: u64) {
        let (more, before) = ((self.rss - before) / 1024, before / 1024);
        let threads = self.threads;
        println!("{POLLS} {what}: {more} MiB more than the {before} MiB before, {threads} threads");
    }
}
