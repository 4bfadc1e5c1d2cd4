//! For how long after `bulla agent revoke` has returned the last of many control-plane processes
//! takes an answer of the agent.
//!
//!     cargo bench -p bulla-cli --features postgres --bench revocation -- 8 40
//!
//! Processes of `bulla serve` on one keystore and one claim store in PostgreSQL and a RabbitMQ, all
//! private; agents that run; so many revocations, one after the other. Each process is asked to
//! call the agent, over and over, until it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement fails like a test"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use bulla_api::{CallRequest, Client, Endpoint};
use bulla_http::certs::Files;
use bulla_services::{Postgres, RabbitMq};
use common::{Deployment, Process};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (processes, rounds) = (numbers.next().unwrap_or(8), numbers.next().unwrap_or(40));
    let (keys, claims) = (Postgres::start().unwrap(), Postgres::start().unwrap());
    let rabbit = RabbitMq::start().unwrap();
    let env = vec![("BULLA_KEYSTORE_URL", keys.url()), ("BULLA_CLAIMS_STORE", claims.url())];
    let deployment = Deployment { dir: tempfile::tempdir().unwrap(), bus: Some(rabbit.url()), env };
    deployment.ok(&["init"]);
    let planes: Vec<Process> = (0..processes)
        .map(|n| {
            let mut command = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
            command.env("BULLA_CONTROL_INSTANCE", format!("host-{n}"));
            Process::start(command, "API at")
        })
        .collect();
    let clients: Vec<Client> = planes.iter().map(|plane| client(&deployment, plane)).collect();
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let id = format!("db-{round}");
        let key = deployment.add_agent(&id, &[]);
        let state = deployment.path(&format!("state-{round}"));
        let agent = deployment.agent(&key, &["--state", state.to_str().unwrap()]);
        // Every process has spoken with it.
        for client in &clients {
            ping(client, &id).await.unwrap();
        }
        deployment.ok(&["agent", "revoke", &id]);
        let returned = Instant::now();
        let mut asking = JoinSet::new();
        for client in clients.clone() {
            let id = id.clone();
            asking.spawn(async move {
                // What is under way when it refuses waits for its timeout: what counts is the last
                // answer that it took.
                let mut last = Duration::ZERO;
                while ping(&client, &id).await.is_ok() {
                    last = returned.elapsed();
                }
                last
            });
        }
        let each = asking.join_all().await;
        took.push(each.into_iter().max().unwrap());
        agent.stop();
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize].as_millis();
    println!(
        "{processes} processes, {rounds} revocations: the last process took the agent's last answer after p50 {} ms, p99 {} ms, at most {} ms",
        at(0.5),
        at(0.99),
        took[took.len() - 1].as_millis(),
    );
}

fn client(deployment: &Deployment, plane: &Process) -> Client {
    let said = plane.lines.iter().find_map(|line| line.split_once("API at ")).unwrap().1;
    let url = said.trim_end_matches('.').to_owned();
    let files = Files::in_dir(&deployment.home().join("tls")).operator_tls();
    Client::new(&Endpoint::Tls { url, files }).unwrap()
}

async fn ping(client: &Client, id: &str) -> Result<(), bulla_api::ClientError> {
    let request = CallRequest {
        target: format!("agent/{id}"),
        namespace: Some("agent".to_owned()),
        method: "ping".to_owned(),
        version: None,
        args: json!({}),
        context: None,
        timeout_ms: Some(Duration::from_secs(5).as_millis() as u64),
    };
    client.call(&request).await.map(drop)
}
