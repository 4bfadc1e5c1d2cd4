//! What is asked, and how quickly it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, posted};
use crate::served::Served;

const LONG: Duration = Duration::from_secs(3);
const CONNECTIONS: &[usize] = &[1, 16, 64];
/// How many connections there are, if not each of those.
pub(crate) const ONE: &str = "at-1";
/// Messages in each of many queues.
const EACH: usize = 100;

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) requests: f64,
    /// Milliseconds of processor time a request.
    pub(crate) cpu: f64,
}

/// Asks by so many connections for a while; `ask` says how many requests it made, and messages it got.
fn run(
    of: (&str, &str, usize),
    served: &Served,
    ask: impl Fn(&mut Client) -> Option<(u64, u64)> + Send + Sync + 'static,
) {
    run_for(LONG, of, served, ask);
}

pub(crate) fn run_for(
    how_long: Duration,
    (store, what, connections): (&str, &str, usize),
    served: &Served,
    ask: impl Fn(&mut Client) -> Option<(u64, u64)> + Send + Sync + 'static,
) -> Outcome {
    let (ask, requests, messages) = (Arc::new(ask), AtomicU64::new(0), AtomicU64::new(0));
    let (requests, messages) = (Arc::new(requests), Arc::new(messages));
    let (begun, cpu) = (Instant::now(), served.cpu());
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (mut client, ask) = (Client::new(served.port), ask.clone());
            let (requests, messages) = (requests.clone(), messages.clone());
            thread::spawn(move || {
                let mut times = Vec::new();
                while begun.elapsed() < how_long {
                    let asked = Instant::now();
                    let Some((made, got)) = ask(&mut client) else { break };
                    times.push(asked.elapsed() / u32::try_from(made).unwrap());
                    requests.fetch_add(made, Ordering::Relaxed);
                    messages.fetch_add(got, Ordering::Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times: Vec<_> = workers.into_iter().flat_map(|it| it.join().unwrap()).collect();
    let (long, cpu) = (begun.elapsed().as_secs_f64(), served.cpu() - cpu);
    times.sort_unstable();
    let part = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let requests = requests.load(Ordering::Relaxed) as f64;
    println!(
        "{store:<9} {what:<13} {connections:>4} {:>12.0} {:>11.0} {:>8.2} {:>8.2} {:>12.3}",
        requests / long,
        messages.load(Ordering::Relaxed) as f64 / long,
        part(0.5),
        part(0.99),
        cpu / requests
    );
    Outcome { requests: requests / long, cpu: cpu / requests }
}

pub(crate) fn measure(name: &str, served: &Served, stock: usize) {
    let all = if std::env::args().any(|arg| arg == ONE) { &CONNECTIONS[..1] } else { CONNECTIONS };
    let mut client = Client::new(served.port);
    assert_eq!(client.ask("POST", "/v2/queues/listed/messages", &posted(10)).0, 201);
    let (one, bulk) = (posted(1), posted(20));
    for &connections in all {
        let one = one.clone();
        run((name, "post", connections), served, move |client| post(client, &one));
    }
    for &connections in all {
        run((name, "list of 10", connections), served, list);
    }
    for &connections in all {
        let queue = format!("claimed{connections}");
        let path = format!("/v2/queues/{queue}/messages");
        for _ in 0..stock / 20 {
            assert_eq!(client.ask("POST", &path, &bulk).0, 201);
        }
        let path = format!("/v2/queues/{queue}/claims?limit=10");
        run((name, "claim, delete", connections), served, move |client| claim(client, &path));
    }
}

pub(crate) fn post(client: &mut Client, one: &str) -> Option<(u64, u64)> {
    assert_eq!(client.ask("POST", "/v2/queues/posted/messages", one).0, 201);
    Some((1, 1))
}

pub(crate) fn list(client: &mut Client) -> Option<(u64, u64)> {
    let path = "/v2/queues/listed/messages?limit=10&echo=true";
    assert_eq!(client.ask("GET", path, "").0, 200);
    Some((1, 10))
}

/// Claims ten, and deletes each by itself.
pub(crate) fn claim(client: &mut Client, path: &str) -> Option<(u64, u64)> {
    let (status, body) = client.ask("POST", path, "{\"ttl\": 300, \"grace\": 60}");
    if status != 201 {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    for message in messages {
        let href = message["href"].as_str().unwrap();
        assert_eq!(client.ask("DELETE", href, "").0, 204);
    }
    let count = messages.len() as u64;
    Some((1 + count, count))
}

/// So many queues with [`EACH`] messages, which are asked in turn.
pub(crate) fn many(store: &str, queues: usize) {
    let served = Served::start(store);
    let mut fill = Client::new(served.port);
    let text = format!("{{\"ttl\": 3600, \"body\": \"{}\"}}", "x".repeat(100));
    let bulk = format!("{{\"messages\": [{}]}}", vec![text; EACH].join(","));
    for queue in 0..queues {
        assert_eq!(fill.ask("POST", &format!("/v2/queues/q{queue}/messages"), &bulk).0, 201);
    }
    let name = format!("{queues} q");
    let next = Arc::new(AtomicU64::new(0));
    // A step that has no factor in common with either number of queues.
    let queue = move || next.fetch_add(1, Ordering::Relaxed) * 7919 % queues as u64;
    let (one, at) = (posted(1), queue.clone());
    run((&name, "list of 10", 16), &served, move |client| {
        let path = format!("/v2/queues/q{}/messages?limit=10&echo=true", at());
        assert_eq!(client.ask("GET", &path, "").0, 200);
        Some((1, 10))
    });
    let at = queue.clone();
    run((&name, "claim, release", 16), &served, move |client| {
        let path = format!("/v2/queues/q{}/claims", at());
        let claim = client.ask("POST", &format!("{path}?limit=1"), "{\"ttl\": 300, \"grace\": 60}");
        assert_eq!(claim.0, 201);
        let body: serde_json::Value = serde_json::from_slice(&claim.1).unwrap();
        let href = body["messages"][0]["href"].as_str().unwrap();
        let id = href.rsplit('=').next().unwrap();
        assert_eq!(client.ask("DELETE", &format!("{path}/{id}"), "").0, 204);
        Some((2, 1))
    });
    run((&name, "post", 16), &served, move |client| {
        assert_eq!(client.ask("POST", &format!("/v2/queues/q{}/messages", queue()), &one).0, 201);
        Some((1, 1))
    });
}
