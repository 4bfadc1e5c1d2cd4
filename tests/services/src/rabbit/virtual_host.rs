//! Virtual hosts of one broker that all tests of a process have in common: a broker takes seconds
//! to start, and what is in one virtual host is not seen in another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{RabbitMq, RabbitMqBuilder};
use crate::error::ServiceError;

/// What the broker starts with. More than a test program has tests.
pub(super) const COUNT: u32 = 12;

/// Never dropped: the watchdog ends the server with this process.
static BROKER: Mutex<Option<&'static RabbitMq>> = Mutex::new(None);
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// A virtual host that nobody else uses, for a test that neither stops the broker nor looks at
/// all of it.
#[derive(Debug)]
pub struct VirtualHost {
    broker: &'static RabbitMq,
    name: String,
}

impl VirtualHost {
    /// One of the broker of this process, which the first caller starts.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not start, or all are given away.
    pub fn new() -> Result<Self, ServiceError> {
        let broker = Self::broker()?;
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        if number >= COUNT {
            let why = format!("all {COUNT} virtual hosts are given away: raise their number");
            return Err(ServiceError::NotStarted { server: super::SERVER, why });
        }
        Ok(Self { broker, name: name(number) })
    }

    fn broker() -> Result<&'static RabbitMq, ServiceError> {
        let mut started = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = *started {
            return Ok(broker);
        }
        let broker = RabbitMqBuilder { virtual_hosts: COUNT, ..Default::default() }.start()?;
        Ok(started.insert(Box::leak(Box::new(broker))))
    }

    /// Its address, with the credentials of a user who may do everything.
    pub fn url(&self) -> String {
        self.broker.url().replace("/%2f", &format!("/{}", self.name))
    }

    /// Runs a command of `rabbitmqctl` that is about one virtual host.
    ///
    /// # Errors
    /// When it can't be run or fails.
    pub fn rabbitmqctl(&self, command: &str, args: &[&str]) -> Result<String, ServiceError> {
        self.broker.rabbitmqctl(&[&[command, "-p", self.name.as_str()], args].concat())
    }
}

pub(super) fn name(number: u32) -> String {
    format!("test-{number}")
}
