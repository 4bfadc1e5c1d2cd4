//! Starts a private RabbitMQ, prints its address, and keeps it until standard input ends or the
//! process is stopped: for measuring and for looking around by hand.
//!
//! ```sh
//! cargo run --release -p bulla-services --example rabbit
//! ```

use std::io::{self, Read, Write};

use bulla_services::{RabbitMq, ServiceError};

fn main() -> Result<(), ServiceError> {
    let broker = RabbitMq::start()?;
    println!("{}", broker.url());
    // Whoever reads it through a pipe wants it now; who closed the pipe wants no broker.
    if io::stdout().flush().is_ok() {
        wait_for_end_of_input();
    }
    drop(broker);
    Ok(())
}

fn wait_for_end_of_input() {
    let mut ignored = [0; 64];
    while matches!(io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
}
