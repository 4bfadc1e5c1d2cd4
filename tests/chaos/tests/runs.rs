//! The runs, small. `cargo xtask chaos` makes them at full size.
#![expect(clippy::panic, reason = "the helpers of tests fail as tests do")]

use bulla_chaos::{Plan, Report, Run, table};
use bulla_services::ServiceError;

/// `None` where the servers are not installed.
async fn make(run: Run, calls: u64) -> Option<Report> {
    let program = env!("CARGO_BIN_EXE_bulla-chaos").into();
    match (Plan { calls, seed: 1, program }).make(run).await {
        Ok(report) => {
            eprintln!("{}", table(std::slice::from_ref(&report)));
            Some(report)
        }
        Err(error) => match error.downcast::<ServiceError>() {
            Ok(error) => bulla_services::require(Err(*error)),
            Err(error) => panic!("{error}"),
        },
    }
}

async fn passes(run: Run, calls: u64) {
    if let Some(report) = make(run, calls).await {
        assert!(report.passed(), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed() {
    passes(Run::Kill, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_die_at_each_point() {
    passes(Run::Points, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts() {
    passes(Run::Broker, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts() {
    passes(Run::Redis, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_restarts() {
    passes(Run::Postgres, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_that_are_cut_and_hang() {
    passes(Run::Network, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_its_leader() {
    passes(Run::Cluster, 1000).await;
}

/// That the runs would see a second execution.
#[tokio::test(flavor = "multi_thread")]
async fn claims_that_forget_are_found_out() {
    let Some(report) = make(Run::Forgetful, 100).await else { return };
    assert!(report.tally.executed_twice > 0, "{report:?}");
    assert!(!report.passed());
}
