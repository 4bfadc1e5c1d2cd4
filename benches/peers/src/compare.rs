//! Starts brokers and peers, and has them run in turn.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bulla_services::{Authority, Nats, RabbitMq};
use clap::ValueEnum;
use serde::Serialize;

use crate::load::{READY, Slice};
use crate::{CompareArgs, Failure, cpu, peer, table};

/// What the others are compared with.
pub(crate) const BULLA: &str = "bulla";
/// Length of the slice that warms a peer up, in milliseconds.
const WARM_UP: u64 = 1000;
/// The programs that need Python.
const OSLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/oslo.py");
const CELERY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/celery_auth.py");

/// One slice of one peer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) peer: String,
    pub(crate) round: u32,
    pub(crate) concurrency: u16,
    #[serde(flatten)]
    pub(crate) slice: Slice,
    /// Processor time of both ends, a call, in microseconds; the broker's is not in it.
    pub(crate) cpu_us: f64,
}

/// A peer's process, which has both ends or starts the other.
struct Running {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It goes when its input ends; what it started goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(name: &str, mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut running = Self { name: name.to_owned(), child, input, output };
        while running.line()? != READY {}
        Ok(running)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("{} ended", self.name).into());
        }
        Ok(line.trim().to_owned())
    }

    fn slice(&mut self, concurrency: u16, ms: u64) -> Result<(Slice, f64), Failure> {
        let before = cpu::of_tree(self.child.id());
        writeln!(self.input, "{concurrency} {ms}")?;
        let line = self.line()?;
        let slice: Slice =
            serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        let cpu = cpu::of_tree(self.child.id()).saturating_sub(before);
        Ok((slice, cpu.as_secs_f64() * 1e6 / slice.calls.max(1) as f64))
    }
}

pub(crate) fn run(args: &CompareArgs) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("peers")?;
    write_certificates(&authority, folder.path())?;
    eprintln!("starting RabbitMQ and NATS");
    let rabbit = RabbitMq::builder().tls(true).start()?;
    fs::write(folder.path().join("broker.pem"), rabbit.ca_pem())?;
    let nats = Nats::start()?;
    let mut peers = Vec::new();
    for (name, command) in commands(args, folder.path(), &rabbit, &nats)? {
        if name == BULLA || args.only.is_empty() || args.only.contains(&name) {
            eprintln!("starting {name}");
            peers.push(Running::start(&name, command)?);
        }
    }
    let measured = measure(args, &mut peers)?;
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&measured)?)?;
    }
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let table = table::table(&measured, &names, &args.concurrency);
    println!("{table}");
    match &args.write {
        Some(page) => table::put(page, &table),
        None => Ok(()),
    }
}

/// Slices in turn; the order turns round with each round.
fn measure(args: &CompareArgs, peers: &mut [Running]) -> Result<Vec<Measured>, Failure> {
    for peer in &mut *peers {
        for concurrency in &args.concurrency {
            peer.slice(*concurrency, WARM_UP)?;
        }
    }
    let mut measured = Vec::new();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for &concurrency in &args.concurrency {
            for peer in &mut *peers {
                let (slice, cpu_us) = peer.slice(concurrency, args.slice)?;
                let peer = peer.name.clone();
                measured.push(Measured { peer, round, concurrency, slice, cpu_us });
            }
        }
        peers.reverse();
    }
    if args.rounds % 2 == 1 {
        peers.reverse();
    }
    Ok(measured)
}

fn commands(
    args: &CompareArgs,
    folder: &Path,
    rabbit: &RabbitMq,
    nats: &Nats,
) -> Result<Vec<(String, Command)>, Failure> {
    let mut commands = Vec::new();
    for kind in peer::Rust::value_variants() {
        let name = kind.to_possible_value().ok_or("a peer without a name")?.get_name().to_owned();
        let address = match kind {
            peer::Rust::Nats => nats.url(),
            peer::Rust::LapinTls => rabbit.tls_url(),
            _ => rabbit.url(),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["peer", &name]).env(peer::ADDRESS, address).env(peer::FOLDER, folder);
        commands.push((name, command));
    }
    let url = rabbit.url();
    let oslo_url = url.replacen("amqp://", "rabbit://", 1) + "?rabbit_login_method=PLAIN";
    for mode in ["plain", "trove"] {
        if let Some(python) = &args.oslo {
            let mut command = Command::new(python);
            command.args([OSLO, "client", mode]).env(peer::ADDRESS, &oslo_url);
            commands.push((format!("oslo-{mode}"), command));
        }
    }
    if let Some(python) = &args.celery {
        let mut command = Command::new(python);
        command.args([CELERY, "client"]).env(peer::ADDRESS, &url).env(peer::FOLDER, folder);
        commands.push(("celery-auth".to_owned(), command));
    }
    Ok(commands)
}

fn write_certificates(authority: &Authority, folder: &Path) -> Result<(), Failure> {
    fs::write(folder.join("ca.pem"), authority.pem())?;
    let identities = BTreeMap::from([
        ("server", authority.server(&["localhost"])?),
        ("client", authority.client("client")?),
    ]);
    for (name, identity) in identities {
        fs::write(folder.join(format!("{name}.pem")), identity.certificate)?;
        fs::write(folder.join(format!("{name}.key")), identity.key)?;
    }
    Ok(())
}
