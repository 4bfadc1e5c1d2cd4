//! Ratios of Bulla to its peers, slice by slice of the same round.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::compare::{BULLA, Measured};

const BEGIN: &str = "<!-- peers: made by `cargo xtask bench peers` -->";
const END: &str = "<!-- peers end -->";

/// What is said of a peer.
fn title(peer: &str) -> &str {
    match peer {
        BULLA => "Bulla, sealed, over RabbitMQ",
        "lapin" => "lapin, in the clear",
        "lapin-tls" => "lapin, TLS to the broker",
        "grpc" => "gRPC (tonic), certificates on both ends, no broker",
        "nats" => "NATS request and reply, in the clear",
        "oslo-plain" => "oslo.messaging, in the clear",
        "oslo-trove" => "oslo.messaging with Trove's serializer",
        "celery-auth" => "Celery with its `auth` serializer",
        other => other,
    }
}

/// Rows of peers, three columns for each concurrency; medians over the rounds.
pub(crate) fn table(measured: &[Measured], peers: &[&str], concurrency: &[u16]) -> String {
    let mut out = String::from("| Bulla, sealed, to |");
    for n in concurrency {
        let _ = write!(out, " calls/s, {n} | p50, {n} | CPU, {n} |");
    }
    out += "\n|---|";
    out += &"---|".repeat(3 * concurrency.len());
    for peer in peers.iter().filter(|peer| **peer != BULLA) {
        let _ = write!(out, "\n| {} |", title(peer));
        for &n in concurrency {
            let of = |figure: fn(&Measured) -> f64| ratio(measured, peer, n, figure);
            let rate = |of: &Measured| of.slice.calls as f64 / of.slice.seconds;
            for ratio in [of(rate), of(|of| of.slice.p50_us), of(|of| of.cpu_us)] {
                let _ = write!(out, " {} |", shown(ratio));
            }
        }
    }
    let _ = write!(out, "\n\nOn the machine that made this, Bulla did");
    for &n in concurrency {
        let own: Vec<&Measured> = of(measured, BULLA, n).collect();
        let rate = median(own.iter().map(|of| of.slice.calls as f64 / of.slice.seconds));
        let p50 = median(own.iter().map(|of| of.slice.p50_us));
        let cpu = median(own.iter().map(|of| of.cpu_us));
        let _ = write!(
            out,
            " {rate:.0} calls/s at {n} (p50 {p50:.0} µs, {cpu:.0} µs of processor time)"
        );
        out += if Some(&n) == concurrency.last() { ".\n" } else { "," };
    }
    out
}

fn of<'a>(
    measured: &'a [Measured],
    peer: &'a str,
    concurrency: u16,
) -> impl Iterator<Item = &'a Measured> {
    measured.iter().filter(move |one| one.peer == peer && one.concurrency == concurrency)
}

/// The median of the rounds' own ratios.
fn ratio(measured: &[Measured], peer: &str, n: u16, figure: fn(&Measured) -> f64) -> f64 {
    let pairs = of(measured, BULLA, n).filter_map(|own| {
        let other = of(measured, peer, n).find(|other| other.round == own.round)?;
        Some(figure(own) / figure(other))
    });
    median(pairs)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
}

fn shown(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}

/// Replaces what stands between the two lines of `page`.
pub(crate) fn put(page: &Path, table: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(page)?;
    let (before, rest) = text.split_once(BEGIN).ok_or(format!("no line {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("no line {END:?}"))?;
    Ok(fs::write(page, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))?)
}
