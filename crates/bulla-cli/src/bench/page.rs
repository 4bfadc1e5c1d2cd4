//! What a bench found as one HTML page that needs nothing else: no script, no font, no network.

use std::fmt::Write;

use super::cost::{self, Cost};
use super::load::Sort;
use super::report::{Cell, Figures, Report, number, size, with_interval};
use super::stages::Stages;
use super::stats::Estimate;

/// A figure of a lane, and how it is called.
struct Plot {
    title: &'static str,
    of: fn(&Figures) -> Option<Estimate>,
}

const PLOTS: [Plot; 4] = [
    Plot { title: "Per second", of: |f| f.per_second },
    Plot { title: "Latency, median (µs)", of: |f| f.p50_us },
    Plot { title: "Latency, 99th percentile (µs)", of: |f| f.p99_us },
    Plot { title: "Processor time of both ends (µs a call)", of: |f| f.cpu_us },
];

/// Of the drawing area of a plot.
const WIDTH: f64 = 284.0;
const HEIGHT: f64 = 170.0;
/// Room for the labels of its axes.
const LEFT: f64 = 56.0;
const BELOW: f64 = 30.0;
const ABOVE: f64 = 12.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1f24;--soft:#6b7280;--line:#d6d9de;--page:#fff;--l0:#8a8f98;--l1:#1d5fd1;--l2:#b45309;--l3:#15803d}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa1ab;--line:#3a3f47;--page:#15171a;--l0:#9aa1ab;--l1:#6ea8fe;--l2:#f0a04b;--l3:#5cc98a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1560px;margin:2rem auto;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem}p{color:var(--soft);margin:.3rem 0;max-width:75ch}
.big{display:flex;flex-wrap:wrap;gap:1rem;margin:1.2rem 0}.big div{border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;flex:0 0 12.5rem}
.big b{display:block;font-size:1.6rem;font-variant-numeric:tabular-nums}.big span{color:var(--soft);font-size:.85rem}
.row{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0}figcaption{font-weight:600;font-size:.9rem;margin-bottom:.2rem}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--line)}.l0{--c:var(--l0)}.l1{--c:var(--l1)}.l2{--c:var(--l2)}.l3{--c:var(--l3)}
svg .line{fill:none;stroke:var(--c);stroke-width:2}svg .dot{fill:var(--c)}svg .bar{stroke:var(--c);stroke-width:1.5}.key{font-weight:600;color:var(--c);margin-right:1rem}
.stack{display:flex;height:1.6rem;border-radius:6px;overflow:hidden;max-width:60rem}.steps span{margin-right:1.1rem;white-space:nowrap}.steps i{display:inline-block;width:.8rem;height:.8rem;border-radius:3px;margin-right:.35rem;vertical-align:-.08rem}
.s0{background:#8a8f98}.s1{background:#1d5fd1}.s2{background:#6ea8fe}.s3{background:#b45309}.s4{background:#15803d}.s5{background:#5cc98a}.s6{background:var(--line)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin-top:.5rem}td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:500}
";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::with_capacity(32 << 10);
    // Writing to a string can't fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let lanes = lanes(report);
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>bulla bench</title><style>{STYLE}</style><h1>bulla bench</h1>\
         <p>{} bus, {} agent, {} processors, {} rounds of {} ms a lane. Lanes run in turn; points are \
         medians, and bars through them their 95 % intervals.</p>",
        escaped(&report.bus),
        report.key_type.as_str(),
        report.cpus,
        report.rounds,
        report.slice_ms
    )?;
    if report.refused > 0 {
        write!(
            out,
            "<p><b>{} messages were refused: these figures are not to be trusted.</b></p>",
            report.refused
        )?;
    }
    write!(out, "<p>")?;
    for (n, lane) in lanes.iter().enumerate() {
        write!(out, "<span class=\"key l{}\">● {}</span>", n % 4, escaped(lane))?;
    }
    write!(out, "</p><div class=big>")?;
    for cell in &report.cells {
        // The lane that matters; the others are in the plots.
        if let Some(ratio) = cell.ratios.first() {
            write!(
                out,
                "<div><b>{}</b><span>{} over {}, per second: {} of {}, {} at once</span></div>",
                number(ratio.per_second, 3),
                escaped(ratio.lane),
                escaped(lanes.first().copied().unwrap_or_default()),
                many(cell.load.sort),
                size(cell.load.size),
                cell.load.concurrency
            )?;
        }
    }
    write!(out, "</div>")?;
    for group in groups(&report.cells) {
        let Some(first) = group.first() else { continue };
        write!(
            out,
            "<h2>{} of {}</h2><div class=row>",
            many(first.load.sort),
            size(first.load.size)
        )?;
        for plot in &PLOTS {
            write!(out, "<figure><figcaption>{}</figcaption>", plot.title)?;
            draw(out, plot, &group, lanes.len())?;
            write!(out, "</figure>")?;
        }
        write!(out, "</div>")?;
    }
    stages(out, report)?;
    table(out, report)
}

/// Where a sealed call's processor time goes: its steps, and what is left.
fn stages(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(
        out,
        "<h2>Where a sealed call's processor time goes</h2><p>Each step alone in a loop; the rest is RPC, \
         runtime and the client of the bus, at the most calls at once that were measured.</p>"
    )?;
    for stages in &report.stages {
        let steps: f64 = stages.steps.iter().map(|(_, ns)| ns / 1e3).sum();
        let whole = whole(report, stages).filter(|whole| *whole > steps).unwrap_or(steps);
        write!(out, "<p><b>{}</b>, {whole:.1} µs</p><div class=stack>", size(stages.size))?;
        let rest = ("the rest", (whole - steps) * 1e3);
        for (n, (name, ns)) in stages.steps.iter().copied().chain([rest]).enumerate() {
            let share = ns / 10.0 / whole;
            write!(
                out,
                "<div class=s{n} style=\"width:{share:.2}%\" title=\"{name}: {:.2} µs\"></div>",
                ns / 1e3
            )?;
        }
        write!(out, "</div><p class=steps>")?;
        for (n, (name, ns)) in stages.steps.iter().copied().chain([rest]).enumerate() {
            write!(out, "<span><i class=s{n}></i>{name} {:.2} µs</span>", ns / 1e3)?;
        }
        write!(out, "</p>")?;
    }
    write!(out, "<h2>What one call takes whatever the load</h2><table><tr>")?;
    cost::HEAD.iter().try_for_each(|head| write!(out, "<th>{head}"))?;
    for row in report.costs.iter().map(Cost::row) {
        write!(out, "<tr>")?;
        row.iter().try_for_each(|cell| write!(out, "<td>{}", escaped(cell)))?;
    }
    write!(out, "</table>")
}

/// Processor time of a sealed call, in microseconds.
fn whole(report: &Report, stages: &Stages) -> Option<f64> {
    let same = |cell: &&Cell| cell.load.sort == Sort::Call && cell.load.size == stages.size;
    let cell = report.cells.iter().filter(same).max_by_key(|cell| cell.load.concurrency)?;
    let sealed = cell.lanes.iter().find(|lane| lane.lane == "sealed")?;
    Some(sealed.cpu_us?.median)
}

fn lanes(report: &Report) -> Vec<&'static str> {
    let first = report.cells.first();
    first.map(|cell| cell.lanes.iter().map(|lane| lane.lane).collect()).unwrap_or_default()
}

/// The cells that differ by concurrency alone.
fn groups(cells: &[Cell]) -> Vec<Vec<&Cell>> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        let same = |group: &&mut Vec<&Cell>| {
            group.first().is_some_and(|first| {
                first.load.sort == cell.load.sort && first.load.size == cell.load.size
            })
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups
}

/// One figure of all lanes against concurrency.
fn draw(out: &mut String, plot: &Plot, group: &[&Cell], lanes: usize) -> std::fmt::Result {
    let estimates = group.iter().flat_map(|cell| cell.lanes.iter().filter_map(plot.of));
    let top = nice(estimates.map(|estimate| estimate.high).fold(0.0, f64::max));
    let x = |n: usize| LEFT + WIDTH * (n as f64 + 0.5) / group.len().max(1) as f64;
    let y = |value: f64| ABOVE + HEIGHT * (1.0 - value / top);
    write!(
        out,
        "<svg width={:.0} height={:.0} role=img aria-label=\"{}\">",
        LEFT + WIDTH + 8.0,
        ABOVE + HEIGHT + BELOW,
        plot.title
    )?;
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let at = y(value);
        write!(
            out,
            "<line class=grid x1={LEFT} x2={:.1} y1={at:.1} y2={at:.1} />\
             <text x={:.1} y={:.1} text-anchor=end>{}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 4.0,
            short(value)
        )?;
    }
    for (n, cell) in group.iter().enumerate() {
        write!(
            out,
            "<text x={:.1} y={:.1} text-anchor=middle>{} at once</text>",
            x(n),
            ABOVE + HEIGHT + 18.0,
            cell.load.concurrency
        )?;
    }
    for lane in 0..lanes {
        let points: Vec<(f64, Estimate)> = group
            .iter()
            .enumerate()
            .filter_map(|(n, cell)| {
                // Beside each other, so that no interval hides another.
                let aside = (lane as f64 - (lanes as f64 - 1.0) / 2.0) * 6.0;
                Some((x(n) + aside, cell.lanes.get(lane).and_then(plot.of)?))
            })
            .collect();
        write!(out, "<g class=l{}><polyline class=line points=\"", lane % 4)?;
        for (at, estimate) in &points {
            write!(out, "{at:.1},{:.1} ", y(estimate.median))?;
        }
        write!(out, "\" />")?;
        for (at, Estimate { median, low, high }) in points {
            write!(
                out,
                "<line class=bar x1={at:.1} x2={at:.1} y1={:.1} y2={:.1} />\
                 <circle class=dot cx={at:.1} cy={:.1} r=3.5><title>{median:.1} ({low:.1} to {high:.1})</title></circle>",
                y(low),
                y(high),
                y(median)
            )?;
        }
        write!(out, "</g>")?;
    }
    write!(out, "</svg>")
}

fn table(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(
        out,
        "<h2>All figures</h2><table><tr><th><th>size<th>at once<th>lane<th>per second<th>rate, ratio (95 %)\
         <th>p50 µs<th>p50, ratio (95 %)<th>p99 µs<th>client µs<th>server µs<th>CPU µs<th>CPU, ratio (95 %)"
    )?;
    for cell in &report.cells {
        for (n, lane) in cell.lanes.iter().enumerate() {
            let ratio = n.checked_sub(1).and_then(|n| cell.ratios.get(n));
            let of = |of: fn(&Figures) -> Option<Estimate>| {
                ratio.map_or_else(String::new, |ratio| with_interval(of(ratio)))
            };
            write!(
                out,
                "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
                word(cell.load.sort),
                size(cell.load.size),
                cell.load.concurrency,
                escaped(lane.lane),
                number(lane.per_second, 0),
                of(|f| f.per_second),
                number(lane.p50_us, 0),
                of(|f| f.p50_us),
                number(lane.p99_us, 0),
                number(lane.client_cpu_us, 1),
                number(lane.server_cpu_us, 1),
                number(lane.cpu_us, 1),
                of(|f| f.cpu_us)
            )?;
        }
    }
    write!(out, "</table></html>")
}

fn many(sort: Sort) -> &'static str {
    match sort {
        Sort::Call => "Calls",
        Sort::Cast => "Casts",
    }
}

fn word(sort: Sort) -> &'static str {
    match sort {
        Sort::Call => "call",
        Sort::Cast => "cast",
    }
}

/// The next of 1, 2, 4, 6, 8 or 10 times a power of ten.
fn nice(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_above_what_they_show() {
        for (value, top) in
            [(0.0, 1.0), (0.7, 0.8), (9.5, 10.0), (10.0, 10.0), (10.1, 20.0), (61_000.0, 80_000.0)]
        {
            assert!((nice(value) - top).abs() < 1e-9, "{value}: {}", nice(value));
        }
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;>&amp;");
    }
}
