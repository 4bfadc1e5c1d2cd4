//! Every row on a RabbitMQ.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bulla_attack::{Bus, ROWS, Row, Settings, run};
use bulla_rpc::EndpointOptions;
use bulla_services::{RabbitMq, require};
use bulla_transport::RabbitOptions;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_holds_on_rabbitmq() {
    let Some(broker) = require(RabbitMq::start()) else { return };
    let only = std::env::var("BULLA_ONLY").ok();
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| only.as_ref().is_none_or(|id| row.id.starts_with(id))).collect();
    let bus = Bus::rabbit(RabbitOptions::new(&broker.url()).unwrap()).await.unwrap();
    let settings = Settings::like(EndpointOptions::default()).unwrap();
    let report = run(&rows, &bus, &settings, |_, _| {}).await;
    for row in &report.rows {
        for cell in row.cells.iter().filter(|cell| !cell.is_good() || only.is_some()) {
            println!(
                "{} {} {}: {:?} {} ({} ms)",
                row.id, cell.kind, cell.key, cell.verdict, cell.seen, cell.millis
            );
        }
    }
    println!("{} s", report.seconds);
    assert!(report.is_good(), "{:?}", report.trials());
    bus.close().await;
    for what in ["list_queues", "list_exchanges"] {
        let listed = broker.rabbitmqctl(&[what, "-q", "name"]).unwrap();
        let ours = listed.lines().filter(|name| name.contains('-') || name.contains("bulla"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
