//! A broker user for each agent.
//!
//! Whoever shares a broker login can fill, empty and delete the queues of all who share it. What is
//! read is sealed and what is forged is refused, but messages are lost. [`BrokerUsers`] gives every
//! agent a RabbitMQ user of its own through the management API, with the [`Rights`] to do its work
//! and nothing else: to use its own queues, to answer components, to call the component types that
//! agents may call, and to ask to join.
//!
//! ```no_run
//! use bulla_broker::{Agent, BrokerUsers, Login, Options};
//!
//! # async fn example() -> Result<(), bulla_broker::BrokerError> {
//! let users = BrokerUsers::new(Options {
//!     url: "https://rabbit.example:15671".to_owned(),
//!     user: "bulla-admin".to_owned(),
//!     password: "from a file".to_owned().into(),
//!     ca: Some(b"-----BEGIN CERTIFICATE-----".to_vec()),
//!     vhost: "/".to_owned(),
//!     exchange: "bulla".to_owned(),
//!     owner: "cloud.example".to_owned(),
//!     prefix: "agent.".to_owned(),
//!     components: vec!["control".to_owned()],
//!     login: Login::Password,
//! })?;
//! let agent = Agent { id: "db-1".to_owned(), groups: vec!["all".to_owned()] };
//! let survey = users.survey_of(&["db-1"]).await?;
//! let passwords = users.add(&survey, &[agent]).await?;
//! users.remove("db-1").await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod http;
mod login;
mod management;
mod rights;
mod tls;
mod users;

pub use error::BrokerError;
pub use login::{Login, Password, with_login};
pub use rights::{Agent, Rights, TopicRights};
pub use users::{BATCH, BrokerUsers, Known, Options, Survey};
