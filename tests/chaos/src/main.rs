//! `bulla-chaos`: the runs, or one worker of theirs.

use std::process::ExitCode;

use bulla_chaos::{Failed, Plan, Run, json, table, work};
use clap::{Args, Parser, Subcommand};

/// Counts calls while servers fail.
#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One worker process of a run; its settings come on standard input.
    Worker,
    /// Makes runs, one after the other.
    Run(Wish),
}

#[derive(Args)]
struct Wish {
    /// Which; all that must pass unless named.
    #[arg(value_enum)]
    runs: Vec<Run>,
    /// Numbered calls of each run.
    #[arg(long, default_value_t = 20_000)]
    calls: u64,
    /// What random moments come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Command::parse().what {
        What::Worker => work().await.map(|()| true),
        What::Run(wish) => run(wish).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run(wish: Wish) -> Result<bool, Failed> {
    let program = std::env::current_exe()?;
    let plan = Plan { calls: wish.calls, seed: wish.seed, program };
    let runs = if wish.runs.is_empty() { Run::ALL.to_vec() } else { wish.runs };
    let mut reports = Vec::new();
    for run in runs {
        eprintln!("{run:?}: {} calls", plan.calls);
        reports.push(plan.make(run).await?);
    }
    if wish.json {
        println!("{}", json(&reports)?);
    } else {
        println!("{}", table(&reports));
    }
    Ok(reports.iter().all(|report| report.passed()))
}
