//! What encryption at rest costs: two services, asked the same in turn.

use std::time::Duration;

use crate::client::{Client, posted};
use crate::load::{Outcome, claim, list, post, run_for};
use crate::served::Served;

const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 16;
/// Messages that are there to be claimed in each round, more than can be in its time.
const STOCK: usize = 40_000;

pub(crate) fn compare(name: &str, plain: &str, encrypted: &str) {
    let both = [Served::start(plain), Served::encrypted(encrypted)];
    let (one, bulk) = (posted(1), posted(20));
    for served in &both {
        let mut client = Client::new(served.port);
        assert_eq!(client.ask("POST", "/v2/queues/listed/messages", &posted(10)).0, 201);
    }
    in_turn((name, "post"), &both, |_| (), move |client| post(client, &one));
    in_turn((name, "list of 10"), &both, |_| (), list);
    let fill = |served: &Served| {
        let mut client = Client::new(served.port);
        client.ask("POST", "/v2/queues/claimed/purge", "{\"resource_types\": [\"messages\"]}");
        for _ in 0..STOCK / 20 {
            assert_eq!(client.ask("POST", "/v2/queues/claimed/messages", &bulk).0, 201);
        }
    };
    let path = "/v2/queues/claimed/claims?limit=10";
    in_turn((name, "claim, delete"), &both, fill, move |client| claim(client, path));
}

/// The medians of the rounds' own ratios.
fn in_turn(
    (name, what): (&str, &str),
    both: &[Served; 2],
    prepare: impl Fn(&Served),
    ask: impl Fn(&mut Client) -> Option<(u64, u64)> + Send + Sync + Clone + 'static,
) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let of = |which: &str| format!("{name} {which}");
        let [plain, encrypted] = both;
        let run = |which: &str, served| {
            prepare(served);
            run_for(LONG, (&of(which), what, CONNECTIONS), served, ask.clone())
        };
        rounds.push((run("plain", plain), run("sealed", encrypted)));
    }
    let median = |of: fn(&Outcome) -> f64| {
        let mut all: Vec<_> =
            rounds.iter().map(|(plain, encrypted)| of(encrypted) / of(plain)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "{name}: {what}, encrypted over plain: requests/s {:.2}, processor time {:.2}",
        median(|outcome| outcome.requests),
        median(|outcome| outcome.cpu)
    );
}
