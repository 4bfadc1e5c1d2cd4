//! What is compared.

mod bulla;
mod grpc;
mod lapin;
mod nats;

use std::thread;

use clap::ValueEnum;
use tokio::runtime::{Builder, Runtime};

use crate::{Failure, load};

/// Peers that are part of this program: client and server on a thread each, both with a runtime of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rust {
    /// Sealed, over RabbitMQ.
    Bulla,
    /// RPC in the clear as one writes it with lapin.
    Lapin,
    /// The same, with TLS to the broker.
    LapinTls,
    /// gRPC with certificates on both ends, without a broker.
    Grpc,
    /// Request and reply over NATS, in the clear.
    Nats,
}

/// The variable that says where a peer's broker is.
pub(crate) const ADDRESS: &str = "PEER_ADDRESS";
/// The variable that names the folder with certificates.
pub(crate) const FOLDER: &str = "PEER_FOLDER";

/// Runs both ends of a peer and obeys what is read.
pub(crate) fn run(peer: Rust) -> Result<(), Failure> {
    let address = std::env::var(ADDRESS)?;
    runtime()?.block_on(async {
        match peer {
            Rust::Bulla => load::obey(bulla::start(&address).await?).await,
            Rust::Lapin => load::obey(lapin::start(&address, None).await?).await,
            Rust::LapinTls => {
                let ca = std::fs::read_to_string(file("broker.pem")?)?;
                load::obey(lapin::start(&address, Some(ca)).await?).await
            }
            Rust::Grpc => load::obey(grpc::start().await?).await,
            Rust::Nats => load::obey(nats::start(&address).await?).await,
        }
    })
}

fn file(name: &str) -> Result<std::path::PathBuf, Failure> {
    Ok(std::path::PathBuf::from(std::env::var(FOLDER)?).join(name))
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Runs a server on a thread of its own; returns when it said that it serves.
async fn serve<F>(
    server: impl FnOnce(tokio::sync::oneshot::Sender<()>) -> F + Send + 'static,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let (ready, serving) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let ended = runtime().and_then(|runtime| runtime.block_on(server(ready)));
        if let Err(error) = ended {
            eprintln!("the server ended: {error}");
        }
    });
    Ok(serving.await.map_err(|_| "the server did not start")?)
}
