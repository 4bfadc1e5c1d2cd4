//! Real servers for tests and benches. Each guard starts a private instance on free loopback
//! ports, with a directory of its own, and removes both when it is dropped. A watchdog pipe ends
//! the server even if the test process is killed.
//!
//! ```no_run
//! # fn main() -> Result<(), bulla_services::ServiceError> {
//! let broker = bulla_services::RabbitMq::start()?;
//! println!("{}", broker.url());
//! # Ok(())
//! # }
//! ```

mod certs;
mod error;
mod instance;
mod keystone;
mod mariadb;
mod nats;
mod ports;
mod postgres;
mod process;
mod proxy;
mod rabbit;
mod redis;
mod softhsm;

pub use certs::{Authority, Identity};
pub use error::{ServiceError, require};
pub use keystone::Keystone;
pub use mariadb::MariaDb;
pub use nats::Nats;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use rabbit::{RabbitCluster, RabbitMq, RabbitMqBuilder, VirtualHost};
pub use redis::{Redis, RedisBuilder};
pub use softhsm::SoftHsm;
