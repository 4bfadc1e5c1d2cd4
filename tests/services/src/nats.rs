//! NATS.

use std::path::Path;

use crate::error::ServiceError;
use crate::instance::{Instance, directory, guard};
use crate::ports::free_port;
use crate::process::answers;

const PROGRAM: &str = "/usr/sbin/nats-server";

/// A private NATS server on loopback, without accounts.
pub struct Nats {
    instance: Instance,
    port: u16,
}

guard!(Nats, "NATS");

impl Nats {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        if !Path::new(PROGRAM).exists() {
            return Err(ServiceError::NotInstalled { server: "NATS", package: "nats-server" });
        }
        let (directory, port) = (directory("nats")?, free_port()?);
        let args = [PROGRAM, "--addr", "127.0.0.1", "--port", &port.to_string()];
        let args = args.map(str::to_owned).into();
        let ready = Box::new(move || answers(port, b""));
        let instance = Instance::start("NATS", directory, args, "TERM", ready)?;
        Ok(Self { instance, port })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
