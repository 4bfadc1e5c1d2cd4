//! A conductor in Rust among OpenStack's services, as docs/migrate-openstack.md has it:
//!
//! ```text
//! bulla component add conductor --instance conductor-2
//! bulla keystore legacy-file --out conductor.legacy        # only for guests that do not seal yet
//!
//! trove_conductor bulla/components/conductor-2.key conductor.legacy
//! ```
//!
//! It prints the heartbeats that guests report. `cargo test -p bulla --test guide` holds the guide to these lines.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bulla::{Connection, Context, EndpointOptions, KeyFile, Method, Router, ServeOptions, Target};
use bulla_oslo::{Carriers, LegacyFile, LegacyPeer, LegacyReader, Queues, Rule};
use serde_json::Value;

async fn heartbeat(context: Context, report: Value) -> bulla::HandlerResult<()> {
    println!("{} reports {report}", context.sender());
    Ok(())
}

/// Takes what exemptions let through from guests that do not seal yet.
async fn legacy(connection: &Connection, file: &Path) -> Result<ServeOptions, Box<dyn Error>> {
    let max_frame = bulla_seal::DEFAULT_MAX_FRAME;
    // guide: legacy
    let legacy = LegacyFile::read(file, &connection.endpoint().identity().trust())?;
    for exemption in legacy.exemptions() {
        connection.endpoint().floors().store().add_exemption(exemption).await?;
    }
    connection.endpoint().refresh_floors().await?;
    let guests = Rule {
        exchange: "trove".into(),
        topic: "trove-conductor".into(),
        peer: LegacyPeer::TroveGuests(Arc::new(legacy)),
    };
    let options =
        ServeOptions::new().unsealed(Arc::new(LegacyReader::new(vec![guests], max_frame)));
    // guide: end
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let key = args.next().ok_or("use: trove_conductor KEY_FILE [LEGACY_FILE]")?;
    let old = args.next();
    // guide: conductor
    let file = KeyFile::read(key.as_ref())?;
    let exchange = file.bus.as_ref().map(|bus| bus.exchange.clone()).unwrap_or_default();
    let both = |native| Arc::new(Carriers::new(native, Queues::default(), exchange)) as _;
    let connection = Connection::open_around(key, None, EndpointOptions::default(), both).await?;
    // guide: end
    let options = match &old {
        Some(file) => legacy(&connection, file.as_ref()).await?,
        None => ServeOptions::new(),
    };
    // guide: conductor
    let router = Router::new().with(Method::new("heartbeat", heartbeat).open_to_agents());
    let serving = connection.serve(router, options.only_host()).await?;
    let conductor = Target::Named {
        principal: "component/conductor".parse()?,
        exchange: "trove".into(),
        topic: "trove-conductor".into(),
        server: None,
    };
    serving.server().consume(&conductor.inbox("trove").ok_or("no topic")?).await?;
    // guide: end
    tokio::signal::ctrl_c().await?;
    serving.drain(std::time::Duration::from_secs(30)).await;
    Ok(())
}
