//! Two services of your own that call each other, and an agent that calls one of them, each in its
//! own process with its own key file:
//!
//! ```text
//! bulla component add orders --out orders.key
//! bulla component add billing --out billing.key
//! bulla agent add till-1 --key --out till-1.key
//!
//! two_services orders orders.key       # serves `place` to agents, `price` to services
//! two_services billing billing.key     # serves `charge` to services
//! two_services agent till-1.key tea    # places an order and prints the receipt as JSON
//! ```
//!
//! agent ── place ──► orders ── charge ──► billing ── price ──► orders
//!
//! `BULLA_BUS_URL` overrides the bus that the key files name.

use std::error::Error;
use std::time::Duration;

use bulla::{
    CallError, Client, Connection, Context, Method, RemoteError, Router, ServeOptions, Target,
};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Charge {
    customer: String,
    order: Order,
}

#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    /// Who ordered, as proven to `orders`.
    customer: String,
    item: String,
    cents: u64,
    /// Who asked for the charge, as proven to `billing`.
    charged_by: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let bus = std::env::var("BULLA_BUS_URL").ok();
    let connect = |key: String| async move { Connection::open(key, bus.as_deref()).await };
    match args.as_slice() {
        [role, key] if role == "orders" => serve(connect(key.clone()).await?, orders).await,
        [role, key] if role == "billing" => serve(connect(key.clone()).await?, billing).await,
        [role, key, item] if role == "agent" => order(connect(key.clone()).await?, item).await,
        _ => Err("use: two_services orders|billing KEY_FILE, or agent KEY_FILE ITEM".into()),
    }
}

/// Serves until it is told to stop.
async fn serve(connection: Connection, router: impl FnOnce(Client) -> Router) -> Result<()> {
    let router = router(connection.client().clone());
    // One host of each: it needs no claim store that hosts share.
    let serving = connection.serve(router, ServeOptions::new().only_host()).await?;
    println!("{} is ready", connection.principal());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminated.recv() => {}
    }
    serving.drain(Duration::from_secs(10)).await;
    connection.close().await;
    Ok(())
}

fn orders(client: Client) -> Router {
    let place = move |context: Context, order: Order| {
        let client = client.clone();
        async move {
            let billing: Target = "component/billing".parse().map_err(broken)?;
            let customer = context.sender().principal.to_string();
            let charge = Charge { customer, order };
            let receipt: Receipt =
                client.call(&billing, "charge", &charge).await.map_err(passed)?;
            Ok(receipt)
        }
    };
    let price = |_: Context, item: String| async move {
        match item.as_str() {
            "tea" => Ok(250_u64),
            "cake" => Ok(420),
            _ => Err(RemoteError::new("NoSuchItem", format!("there is no {item} here"))),
        }
    };
    Router::new()
        .with(Method::new("place", place).open_to_agents())
        .with(Method::new("price", price).open_to_components().read_only())
}

fn billing(client: Client) -> Router {
    let charge = move |context: Context, charge: Charge| {
        let client = client.clone();
        async move {
            let Charge { customer, order: Order { item, count } } = charge;
            // Calls back the service that is waiting for this answer.
            let orders: Target = "component/orders".parse().map_err(broken)?;
            let price: u64 = client.call(&orders, "price", &item).await.map_err(passed)?;
            let cents = price.saturating_mul(count);
            let charged_by = context.sender().principal.to_string();
            Ok(Receipt { customer, item, cents, charged_by })
        }
    };
    Router::new().with(Method::new("charge", charge).open_to_components())
}

/// An agent that places an order.
async fn order(connection: Connection, item: &str) -> Result<()> {
    let orders: Target = "component/orders".parse()?;
    let order = Order { item: item.to_owned(), count: 2 };
    let receipt: Receipt = connection.client().call(&orders, "place", &order).await?;
    println!("{}", serde_json::to_string(&receipt)?);
    connection.close().await;
    Ok(())
}

/// What a service that was asked said is passed on; the rest is our own failure.
fn passed(error: CallError) -> RemoteError {
    match error {
        CallError::Remote(error) => error,
        other => broken(other),
    }
}

fn broken(error: impl Error) -> RemoteError {
    RemoteError::new("Broken", error.to_string())
}
