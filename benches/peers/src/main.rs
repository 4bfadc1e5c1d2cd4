//! The same call through Bulla and through what else one could take, side by side: an echo of 1 KiB, in slices that follow
//! each other in turn, so that what else the machine does hits all alike. Ratios come out; absolute times of one
//! machine say little.
//!
//! `cargo xtask bench peers` installs what the peers need and runs this.

mod compare;
mod cpu;
mod load;
mod peer;
mod table;

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What can go wrong in a benchmark stops it.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(version, about = "Bulla and its peers, side by side")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts brokers and peers, measures in turn, and writes the table.
    Compare(CompareArgs),
    /// One peer, both its ends; obeys what it reads (started by `compare`).
    Peer {
        /// Which.
        name: peer::Rust,
    },
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Calls on their way at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    concurrency: Vec<u16>,
    /// Rounds; each is one slice of every peer at every concurrency.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Length of a slice, in milliseconds.
    #[arg(long, default_value_t = 500)]
    slice: u64,
    /// Only these peers, and Bulla.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A Python that has oslo.messaging and Trove.
    #[arg(long, value_name = "PYTHON")]
    oslo: Option<PathBuf>,
    /// A Python that has Celery.
    #[arg(long, value_name = "PYTHON")]
    celery: Option<PathBuf>,
    /// A page with the two lines between which the table goes.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Every slice as it was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Failure> {
    match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Peer { name } => peer::run(name),
    }
}
