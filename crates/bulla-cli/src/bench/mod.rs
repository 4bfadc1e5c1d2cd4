//! `bulla bench`: plain and sealed side by side on the same bus.
//!
//! Both lanes run in slices that follow each other at once, in an order that turns round with
//! each round, and are compared pair by pair: what else the machine does then hits both alike.

mod cost;
mod lane;
mod load;
mod overhead;
mod page;
mod plain;
mod report;
mod stages;
mod stats;
mod threads;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::StoreError;
use bulla_rpc::value::ValueError;
use bulla_rpc::{CallError, ServeError};
use bulla_seal::{MAX_FRAME, NameError, OfferError, RandomFailed, Refusal};
use bulla_transport::memory::MemoryBus;
use bulla_transport::{PublishError, TransportError};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use thiserror::Error;

pub(crate) use lane::Bus;
use lane::Lane;
use load::{Load, Slice, Sort};
use report::{Cell, Report};
use threads::Threads;

use crate::settings::Carrier;

/// Methods that a server runs at one time, on every lane.
const CONCURRENT_METHODS: usize = 256;
/// Unread replies that a reply inbox may hold, as in the sealed client.
const REPLY_PREFETCH: u16 = 2048;

/// Measure plain and sealed calls side by side on the same bus.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// The broker, amqp:// or amqps://, or a queue service, queue+https://; without it, the in-memory bus
    /// of one process.
    #[arg(long, value_name = "URL")]
    pub(crate) bus: Option<String>,
    /// How messages travel on the broker: frames as they are, or in oslo.messaging's bodies, on its
    /// exchanges and queues. Unless given, as the settings say.
    #[arg(long, value_enum, requires = "bus")]
    pub(crate) carrier: Option<Carrier>,
    /// Sizes of arguments and results, in bytes (100,1KiB,…).
    #[arg(long, value_delimiter = ',', value_parser = parse_size, value_name = "SIZES", default_value = "100,1KiB,16KiB")]
    sizes: Vec<usize>,
    /// How many calls are on their way at once.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..), value_name = "N", default_value = "1,16,64")]
    concurrency: Vec<u16>,
    /// The sort of keys that the called agent has.
    #[arg(long, value_enum, default_value_t = KeyType::Pair)]
    key_type: KeyType,
    /// Adds a lane whose claims are kept so; there is always one that keeps them in memory.
    #[arg(long, value_enum, value_name = "STORE")]
    claims: Option<Claims>,
    /// Rounds; each is one slice of every lane.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 20, value_name = "N")]
    rounds: u32,
    /// Length of a slice, in milliseconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=60_000), default_value_t = 250, value_name = "MS")]
    slice: u64,
    /// As many rounds as fit into so many seconds, instead of a number of rounds.
    #[arg(long, conflicts_with = "rounds", value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    duration: Option<u64>,
    /// Only calls, or only casts.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Sealed calls of which each is journalled against sealed calls without a journal, in the place of
    /// sealed against plain.
    #[arg(long, conflicts_with = "claims")]
    journal: bool,
    /// Adds a second plain lane, which shows how far two equals differ on this machine.
    #[arg(long)]
    control: bool,
    /// Writes the figures as a page with plots, `index.html`, into this folder, which is made.
    #[arg(long, conflicts_with = "overhead", value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print how many bytes the envelope adds to each kind of message, and measure no speed.
    #[arg(long)]
    overhead: bool,
}

/// The sort of keys that an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyType {
    /// Keys of its own.
    Pair,
    /// One key that the keystore holds too.
    Shared,
}

impl KeyType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "key-pair",
            Self::Shared => "shared-key",
        }
    }
}

/// Where claims are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Claims {
    /// In memory.
    Memory,
    /// In a file, durable.
    Sqlite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Calls.
    Calls,
    /// Casts.
    Casts,
}

/// A bench could not be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// The bus can't be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A message could not be sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A sealed call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A value could not be encoded or decoded.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The server did not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The claim store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The throw-away keys could not be made.
    #[error("the throw-away keys could not be made: {0}")]
    Keys(#[from] OfferError),
    /// A frame or credential was refused.
    #[error("a message or credential of the bench was refused: {}", .0.as_str())]
    Refused(#[from] Refusal),
    /// A name is not well formed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// A file can't be used.
    #[error("can't use {what}: {source}")]
    Io {
        /// The file.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was measured does not do what it should.
    #[error("the bench met {0}; its figures would mean nothing")]
    Broken(&'static str),
    /// The journal can't be written.
    #[error(transparent)]
    Journal(#[from] bulla_journal::JournalError),
    /// The journal's key could not be made.
    #[error(transparent)]
    JournalKey(#[from] bulla_journal::KeyError),
    /// The user stopped it.
    #[error("stopped")]
    Interrupted,
    /// The report could not be written.
    #[error("the report could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs it and prints what it found. `bus` is the broker that [`BenchArgs::bus`] names.
pub(crate) async fn run(args: BenchArgs, bus: Option<Bus>, json: bool) -> Result<(), BenchError> {
    if args.overhead {
        let all = overhead::measure().await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("bytes around the CBOR plaintext, component/control calling agent/db-1");
            report::table(&overhead::HEAD, all.iter().map(overhead::Overhead::row));
        }
        return Ok(());
    }
    let bus = bus.unwrap_or_else(|| Bus::Memory(MemoryBus::new()));
    if let Some(folder) = &args.report {
        // Before the measuring: a folder that can't be written to is told at once.
        write_page(folder, "")?;
    }
    let report = args.measure(&bus).await?;
    if let Some(folder) = &args.report {
        write_page(folder, &page::page(&report))?;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

fn write_page(folder: &Path, page: &str) -> Result<(), BenchError> {
    let file = folder.join("index.html");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, page))
        .map_err(|source| BenchError::Io { what: file.display().to_string(), source })
}

impl BenchArgs {
    async fn measure(&self, bus: &Bus) -> Result<Report, BenchError> {
        let (lanes, before) = (self.lanes(bus).await?, load_average());
        let cells = tokio::select! {
            cells = self.cells(&lanes) => cells,
            _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
        };
        let refused = lanes.iter().map(|lane| lane.refusals()).sum();
        for lane in lanes {
            if let Some(lane) = Arc::into_inner(lane) {
                lane.close().await?;
            }
        }
        let stages =
            self.sizes.iter().map(|&size| stages::measure(size)).collect::<Result<_, _>>()?;
        Ok(Report {
            costs: cost::measure(&self.sizes, self.key_type).await?,
            stages,
            bus: bus.name(),
            key_type: self.key_type,
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            load_average: [before, load_average()],
            rounds: self.rounds(),
            slice_ms: self.slice,
            cells: cells?,
            refused,
        })
    }

    /// The plain lane first: the others are compared with it.
    async fn lanes(&self, bus: &Bus) -> Result<Vec<Arc<Lane>>, BenchError> {
        let word = world::unique()?;
        let on = (bus, &Arc::new(Threads::start()?));
        if self.journal {
            return self.journal_lanes(on, &word).await;
        }
        let mut lanes = vec![Lane::plain(on, "plain", &word).await?];
        if self.control {
            lanes.push(Lane::plain(on, "control", &word).await?);
        }
        lanes.push(Lane::sealed(on, "sealed", &word, self.key_type, Claims::Memory, false).await?);
        if self.claims == Some(Claims::Sqlite) {
            lanes.push(
                Lane::sealed(on, "sqlite", &word, self.key_type, Claims::Sqlite, false).await?,
            );
        }
        Ok(lanes.into_iter().map(Arc::new).collect())
    }

    async fn journal_lanes(
        &self,
        on: (&Bus, &Arc<Threads>),
        word: &str,
    ) -> Result<Vec<Arc<Lane>>, BenchError> {
        let mut names = vec![("sealed", false), ("journal", true)];
        if self.control {
            names.insert(1, ("control", false));
        }
        let mut lanes = Vec::with_capacity(names.len());
        for (name, journal) in names {
            let lane = Lane::sealed(on, name, word, self.key_type, Claims::Memory, journal);
            lanes.push(Arc::new(lane.await?));
        }
        Ok(lanes)
    }

    fn loads(&self) -> Vec<Load> {
        let most = self.concurrency.iter().copied().max().unwrap_or(1);
        let (calls, casts) = (self.only != Some(Only::Casts), self.only != Some(Only::Calls));
        let calls = self.sizes.iter().filter(|_| calls).flat_map(|&size| {
            self.concurrency.iter().map(move |&at_once| (Sort::Call, size, at_once))
        });
        let casts = self.sizes.iter().filter(|_| casts).map(|&size| (Sort::Cast, size, most));
        calls
            .chain(casts)
            .map(|(sort, size, at_once)| Load { sort, size, concurrency: at_once.into() })
            .collect()
    }

    fn lane_count(&self) -> usize {
        2 + usize::from(self.control) + usize::from(self.claims == Some(Claims::Sqlite))
    }

    fn rounds(&self) -> usize {
        let Some(seconds) = self.duration else { return self.rounds as usize };
        let round = self.slice * (self.loads().len() * self.lane_count()) as u64;
        usize::try_from(seconds * 1000 / round.max(1)).unwrap_or(usize::MAX).max(1)
    }

    async fn cells(&self, lanes: &[Arc<Lane>]) -> Result<Vec<Cell>, BenchError> {
        let loads = self.loads();
        let progress = progress(loads.len() * lanes.len() * (1 + self.rounds()));
        let mut cells = Vec::with_capacity(loads.len());
        for load in loads {
            let length = Duration::from_millis(self.slice);
            let mut slices: Vec<(&'static str, Vec<Slice>)> =
                lanes.iter().map(|lane| (lane.name, Vec::new())).collect();
            // The first round warms up: caches, sessions, pools of channels.
            for round in 0..=self.rounds() {
                let mut order: Vec<_> = lanes.iter().zip(&mut slices).collect();
                if !round.is_multiple_of(2) {
                    order.reverse();
                }
                for (lane, (_, slices)) in order {
                    let slice = load.run(lane, length).await?;
                    if round > 0 {
                        slices.push(slice);
                    }
                    progress.inc(1);
                }
            }
            cells.push(Cell::new(load, &slices));
        }
        progress.finish_and_clear();
        Ok(cells)
    }
}

/// For people: it draws nothing where standard error is no terminal.
fn progress(slices: usize) -> ProgressBar {
    let bar = ProgressBar::new(slices as u64);
    match ProgressStyle::with_template("measuring {wide_bar} {pos}/{len} slices, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Bytes, also in KiB and MiB.
fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        _ => return Err("write a number of bytes, or one with KiB or MiB".to_owned()),
    };
    // Leaves room for what goes around it in the largest message.
    let most = MAX_FRAME - 4096;
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| *size <= most).ok_or_else(|| format!("a number of bytes up to {most}"))
}

/// The machine's load average of the last minute.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn args(words: &[&str]) -> BenchArgs {
        let words = ["bench"].iter().chain(words);
        Command::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).args
    }

    #[test]
    fn sizes_have_units_and_a_limit() {
        assert_eq!(parse_size("100"), Ok(100));
        assert_eq!(parse_size("16KiB"), Ok(16_384));
        assert_eq!(parse_size("15MiB"), Ok(15 << 20));
        for bad in ["", "KiB", "1GiB", "-1", "16MiB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_turned_into_rounds() {
        assert_eq!(args(&[]).rounds(), 20);
        // Nine kinds of calls and three of casts on two lanes, 6 s a round.
        assert_eq!(args(&["--duration", "60"]).rounds(), 10);
        assert_eq!(args(&["--duration", "1"]).rounds(), 1);
    }

    #[tokio::test]
    async fn calls_with_a_journal_are_measured_against_calls_without() {
        let args =
            args(&["--rounds=1", "--slice=10", "--sizes=10", "--concurrency=4", "--journal"]);
        let report = args.measure(&Bus::Memory(MemoryBus::new())).await.unwrap();
        assert_eq!(report.refused, 0);
        let lanes: Vec<_> = report.cells[0].lanes.iter().map(|lane| lane.lane).collect();
        assert_eq!(lanes, ["sealed", "journal"]);
    }

    #[tokio::test]
    async fn both_lanes_run_every_kind_of_load() {
        for keys in ["pair", "shared"] {
            let args = args(&[
                "--rounds=1",
                "--slice=10",
                "--sizes=10",
                "--concurrency=1,4",
                "--control",
                "--claims=sqlite",
                "--key-type",
                keys,
            ]);
            let report = args.measure(&Bus::Memory(MemoryBus::new())).await.unwrap();
            assert_eq!((report.cells.len(), report.refused), (3, 0));
            let page = page::page(&report);
            // Of calls and of casts, and every lane in each.
            assert_eq!(page.matches("<svg").count(), 8, "{page}");
            assert_eq!(page.matches("<polyline").count(), 32, "{page}");
            for cell in &report.cells {
                assert_eq!((cell.lanes.len(), cell.ratios.len()), (4, 3));
                assert!(cell.lanes.iter().all(|l| l.per_second.unwrap().median > 0.0), "{cell:?}");
            }
        }
    }
}
