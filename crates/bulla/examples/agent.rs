//! An agent with a method of its own that takes its time and says how far it is:
//!
//! ```text
//! bulla agent add db-1 --key --out db-1.key
//! agent db-1.key
//! bulla call agent/db-1 volume.resize '{"gigabytes": 20}'
//! ```

use std::error::Error;
use std::time::Duration;

use bulla::{Connection, Context, Method, RemoteError, Router, ServeOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
struct Resize {
    gigabytes: u64,
}

#[derive(Debug, Serialize)]
struct Resized {
    gigabytes: u64,
    for_whom: String,
}

/// Runs once for each call, whatever the broker delivers twice. When the caller gives up, this is
/// dropped at its next `await`.
async fn resize(context: Context, args: Resize) -> Result<Resized, RemoteError> {
    if args.gigabytes == 0 {
        return Err(RemoteError::new("TooSmall", "a volume has at least one gigabyte"));
    }
    for percent in [25, 50, 75] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let told = context.progress(&percent).await;
        told.map_err(|error| RemoteError::new("Broken", error.to_string()))?;
    }
    let for_whom = context.sender().principal.to_string();
    Ok(Resized { gigabytes: args.gigabytes, for_whom })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = std::env::args().nth(1).ok_or("use: agent KEY_FILE")?;
    let bus = std::env::var("BULLA_BUS_URL").ok();
    let connection = Connection::open(key, bus.as_deref()).await?;
    let router = Router::new().with(Method::new("resize", resize).namespace("volume"));
    let serving = connection.serve(router, ServeOptions::new()).await?;
    println!("{} is ready", connection.principal());
    tokio::signal::ctrl_c().await?;
    serving.drain(Duration::from_secs(10)).await;
    connection.close().await;
    Ok(())
}
