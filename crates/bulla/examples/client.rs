//! A service that only calls, with progress shown as it comes:
//!
//! ```text
//! bulla component add api --out api.key
//! client api.key agent/db-1 volume.resize '{"gigabytes": 20}'
//! ```

use std::error::Error;
use std::time::Duration;

use bulla::{Connection, Target};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [key, target, method, rest @ ..] = args.as_slice() else {
        return Err("use: client KEY_FILE TARGET [NAMESPACE.]METHOD [JSON]".into());
    };
    let target: Target = target.parse()?;
    let args: Value = serde_json::from_str(rest.first().map_or("null", String::as_str))?;
    let (namespace, name) = match method.split_once('.') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, method.as_str()),
    };
    let bus = std::env::var("BULLA_BUS_URL").ok();
    let connection = Connection::open(key, bus.as_deref()).await?;
    let mut request = connection.client().request(&target, name).timeout(Duration::from_secs(30));
    if let Some(namespace) = namespace {
        request = request.namespace(namespace);
    }
    let shown = |progress: Value| eprintln!("progress: {progress}");
    let result: Value = request.call_with_progress(&args, shown).await?;
    println!("{result}");
    connection.close().await;
    Ok(())
}
