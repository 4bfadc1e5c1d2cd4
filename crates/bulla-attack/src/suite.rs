//! Running rows.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bulla_rpc::EndpointOptions;
use bulla_seal::{OsRandom, Random, Suite};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use crate::bus::Bus;
use crate::cell::Cell;
use crate::report::{CellReport, Report, RowReport, Verdict};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::World;

/// Longest that one trial may take.
const LIMIT: Duration = Duration::from_secs(180);

/// How the suite sets up the deployments that it attacks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As every endpoint of the deployment has them.
    pub endpoint: EndpointOptions,
    /// The suite of everybody's key.
    pub suite: Suite,
    /// Trials at the same time.
    pub concurrency: usize,
}

impl Settings {
    /// Like a deployment with these settings, on an exchange of the suite's own.
    pub fn like(endpoint: EndpointOptions) -> Result<Self, Trouble> {
        let mut tag = [0; 4];
        OsRandom::default().fill(&mut tag)?;
        let exchange = format!("bulla-attack-{}", hex::encode(tag));
        let endpoint = EndpointOptions { exchange, ..endpoint };
        Ok(Self { endpoint, suite: Suite::X25519, concurrency: 4 })
    }
}

/// Plays `rows` on `bus`, telling `progress` each cell as it ends.
pub async fn run(
    rows: &[&'static Row],
    bus: &Bus,
    settings: &Settings,
    mut progress: impl FnMut(&'static Row, &CellReport),
) -> Report {
    let begun = Instant::now();
    let trials = rows.iter().flat_map(|row| Cell::all().map(|cell| (*row, cell)));
    let mut done = stream::iter(trials)
        .map(|(row, cell)| async move { (row, play(row, cell, bus, settings).await) })
        .buffered(settings.concurrency.max(1));
    let mut reports: Vec<RowReport> = Vec::new();
    while let Some((row, cell)) = done.next().await {
        progress(row, &cell);
        match reports.last_mut().filter(|report| report.id == row.id) {
            Some(report) => report.cells.push(cell),
            None => reports.push(RowReport::new(row, cell)),
        }
    }
    drop(done);
    let exchange = &settings.endpoint.exchange;
    let parts = ["", ".agent", ".enrol", ".reply", ".agent.reply"];
    bus.remove_exchanges(&parts.map(|part| format!("{exchange}{part}"))).await;
    Report {
        transport: bus.name().to_owned(),
        address: bus.address(),
        seconds: begun.elapsed().as_secs_f64(),
        rows: reports,
    }
}

/// Plays one row in one cell, in a deployment of its own.
// Not async: the rows are compiled here, and not once more by whoever plays them
// (docs/adr/0008).
#[inline(never)]
pub fn play<'a>(
    row: &'static Row,
    cell: Cell,
    bus: &'a Bus,
    settings: &'a Settings,
) -> BoxFuture<'a, CellReport> {
    Box::pin(playing(row, cell, bus, settings))
}

async fn playing(row: &'static Row, cell: Cell, bus: &Bus, settings: &Settings) -> CellReport {
    if let Some(why) = row.not_applicable(cell) {
        return CellReport::new(cell, Verdict::NotApplicable, why);
    }
    let begun = Instant::now();
    let mut tried = guarded(trial(row, cell, bus, settings)).await;
    if tried.is_err() && matches!(bus, Bus::Rabbit(_)) {
        // It says nothing of the row: a broker that others load may be away for seconds.
        tried = guarded(trial(row, cell, bus, settings)).await;
    }
    let (verdict, seen) = match tried {
        Ok(seen) => {
            let verdict = match &seen {
                Seen::Held(_) => Verdict::Held,
                Seen::GotThrough(_) => Verdict::GotThrough,
                Seen::Unexpected(_) => Verdict::Unexpected,
            };
            (verdict, seen.text().to_owned())
        }
        Err(Trouble(why)) => (Verdict::Failed, why),
    };
    let mut report = CellReport::new(cell, verdict, &seen);
    report.millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    report
}

async fn trial(
    row: &'static Row,
    cell: Cell,
    bus: &Bus,
    settings: &Settings,
) -> Result<Seen, Trouble> {
    let world = World::new(bus, cell, settings).await?;
    let seen = guarded((row.run)(world.clone())).await;
    world.end().await;
    seen
}

/// What hangs or breaks is told like any other trouble.
async fn guarded(trial: impl Future<Output = Result<Seen, Trouble>>) -> Result<Seen, Trouble> {
    let trial = AssertUnwindSafe(trial).catch_unwind();
    match tokio::time::timeout(LIMIT, trial).await {
        Ok(Ok(tried)) => tried,
        Ok(Err(_)) => Err(Trouble::new("the trial panicked")),
        Err(_) => Err(Trouble(format!("the trial took more than {} s", LIMIT.as_secs()))),
    }
}
