//! What a bench found, for people and for machines.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::cost::{self, Cost};
use super::load::{Load, Slice, Sort};
use super::stages::{self, Stages};
use super::stats::Estimate;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bus: String,
    pub(super) key_type: super::KeyType,
    pub(super) cpus: usize,
    /// The machine's load average of the last minute before and after: what else ran.
    pub(super) load_average: [Option<f64>; 2],
    pub(super) rounds: usize,
    pub(super) slice_ms: u64,
    pub(super) cells: Vec<Cell>,
    /// What a call takes that no load changes.
    pub(super) costs: Vec<Cost>,
    /// What the steps of a sealed call take.
    pub(super) stages: Vec<Stages>,
    /// Messages that the sealed lanes refused: none, unless something is wrong.
    pub(super) refused: u64,
}

/// One kind of load on all lanes.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    #[serde(flatten)]
    pub(super) load: Load,
    pub(super) lanes: Vec<Figures>,
    /// Each further lane over the first, pair by pair.
    pub(super) ratios: Vec<Figures>,
}

/// Medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) lane: &'static str,
    pub(super) per_second: Option<Estimate>,
    pub(super) p50_us: Option<Estimate>,
    pub(super) p99_us: Option<Estimate>,
    /// Processor time of this process.
    pub(super) cpu_us: Option<Estimate>,
    /// Of that, the client's thread.
    pub(super) client_cpu_us: Option<Estimate>,
    /// Of that, the server's thread.
    pub(super) server_cpu_us: Option<Estimate>,
}

impl Figures {
    fn new(lane: &'static str, of: impl Fn(fn(&Slice) -> f64) -> Option<Estimate>) -> Self {
        Self {
            lane,
            per_second: of(|s| s.per_second),
            p50_us: of(|s| s.p50),
            p99_us: of(|s| s.p99),
            cpu_us: of(|s| s.cpu),
            client_cpu_us: of(|s| s.client_cpu),
            server_cpu_us: of(|s| s.server_cpu),
        }
    }
}

impl Cell {
    /// From the slices of each lane, in the order of the rounds.
    pub(super) fn new(load: Load, slices: &[(&'static str, Vec<Slice>)]) -> Self {
        let of = |(lane, slices): &(&'static str, Vec<Slice>)| {
            Figures::new(lane, |figure| Estimate::of(slices.iter().map(figure)))
        };
        let ratios = slices.split_first().map(|((_, first), rest)| {
            let over = |(lane, slices): &(&'static str, Vec<Slice>)| {
                Figures::new(lane, |figure| {
                    Estimate::of(slices.iter().zip(first).map(|(a, b)| figure(a) / figure(b)))
                })
            };
            rest.iter().map(over).collect()
        });
        Self { load, lanes: slices.iter().map(of).collect(), ratios: ratios.unwrap_or_default() }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let what = match self.load.sort {
            Sort::Call => "call",
            Sort::Cast => "cast",
        };
        let Some((plain, others)) = self.lanes.split_first() else { return Vec::new() };
        let row = |(other, ratio): (&Figures, &Figures)| {
            let both = |of: fn(&Figures) -> Option<Estimate>, digits| {
                format!("{} {}", number(of(plain), digits), number(of(other), digits))
            };
            vec![
                what.to_owned(),
                size(self.load.size),
                self.load.concurrency.to_string(),
                other.lane.to_owned(),
                number(plain.per_second, 0),
                number(other.per_second, 0),
                with_interval(ratio.per_second),
                both(|f| f.p50_us, 0),
                both(|f| f.p99_us, 0),
                both(|f| f.client_cpu_us, 1),
                both(|f| f.server_cpu_us, 1),
                both(|f| f.cpu_us, 1),
                with_interval(ratio.cpu_us),
            ]
        };
        others.iter().zip(&self.ratios).map(row).collect()
    }
}

const HEAD: [&str; 13] = [
    "",
    "size",
    "at once",
    "against",
    "",
    "",
    "ratio (95 %)",
    "p50 µs",
    "p99 µs",
    "client µs",
    "server µs",
    "CPU µs",
    "ratio (95 %)",
];

impl Report {
    pub(super) fn print(&self) {
        let [before, after] = self.load_average;
        let average = |load: Option<f64>| load.map_or("?".to_owned(), |load| load.to_string());
        println!(
            "{} bus, {} agent, {} processors, load average {} before and {} after",
            self.bus,
            self.key_type.as_str(),
            self.cpus,
            average(before),
            average(after),
        );
        let first = self.cells.first().and_then(|cell| cell.lanes.first());
        let (without, with) = match first.map(|lane| lane.lane) {
            Some("sealed") => ("without", "journalled"),
            _ => ("plain", "sealed"),
        };
        println!(
            "{} rounds of {} ms a lane; medians, and of ratios the 95 % interval; pairs of figures \
             are {without} and {with}; client and server are the \
             processor time of their threads, CPU that of the process",
            self.rounds, self.slice_ms
        );
        let rates = [format!("{without}/s"), format!("{with}/s")];
        let mut head = HEAD;
        head.iter_mut()
            .filter(|head| head.is_empty())
            .skip(1)
            .zip(&rates)
            .for_each(|(to, rate)| *to = rate);
        table(&head, self.cells.iter().flat_map(Cell::rows));
        println!(
            "\none call: bytes on the bus there and back, and allocations of both ends and a bus in memory"
        );
        table(&cost::HEAD, self.costs.iter().map(Cost::row));
        println!("\nsteps of a sealed call, each alone in a loop: ns of processor time");
        table(&stages::HEAD, self.stages.iter().map(Stages::row));
        if self.refused > 0 {
            println!("{} messages were refused: these figures are not to be trusted", self.refused);
        }
    }
}

/// Columns for people, numbers to the right.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled).set_header(head.iter());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn number(estimate: Option<Estimate>, digits: usize) -> String {
    estimate.map_or_else(|| "?".to_owned(), |e| format!("{:.digits$}", e.median))
}

pub(super) fn with_interval(ratio: Option<Estimate>) -> String {
    ratio
        .map_or_else(|| "?".to_owned(), |r| format!("{:.3} ({:.3}-{:.3})", r.median, r.low, r.high))
}

pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}
