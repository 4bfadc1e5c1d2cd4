//! Every row on the bus in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bulla_attack::{Bus, ROWS, Row, Settings, run};
use bulla_rpc::EndpointOptions;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_holds_in_memory() {
    let only = std::env::var("BULLA_ONLY").ok();
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| only.as_ref().is_none_or(|id| row.id.starts_with(id))).collect();
    let settings = Settings::like(EndpointOptions::default()).unwrap();
    let report = run(&rows, &Bus::memory(), &settings, |_, _| {}).await;
    for row in &report.rows {
        for cell in &row.cells {
            println!(
                "{} {} {}: {:?} {} ({} ms)",
                row.id, cell.kind, cell.key, cell.verdict, cell.seen, cell.millis
            );
        }
    }
    println!("{} s", report.seconds);
    assert!(report.is_good(), "{:?}", report.trials());
}
