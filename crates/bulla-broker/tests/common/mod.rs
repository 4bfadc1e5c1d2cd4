//! A RabbitMQ with its management API, and the users of a deployment on it.

use std::time::Duration;

use bulla_broker::{Agent, BrokerUsers, Login, Options, with_login};
use bulla_services::{RabbitMq, require};
use bulla_transport::{Consumer, Outbound, RabbitOptions, RabbitTransport, TransportEvent};
use tokio::sync::broadcast::Receiver;

/// Long enough that only a hang reaches it.
pub const HANG: Duration = Duration::from_secs(120);

pub struct World {
    pub rabbit: RabbitMq,
    pub users: BrokerUsers,
    /// The control plane's own way onto the bus.
    pub admin: RabbitTransport,
}

impl World {
    /// `None` where RabbitMQ is not installed and may be missing.
    pub async fn start() -> Option<Self> {
        let start = || RabbitMq::builder().management(true).start();
        let rabbit = require(tokio::task::spawn_blocking(start).await.unwrap())?;
        let users = BrokerUsers::new(options(&rabbit)).unwrap();
        let admin = connect(&rabbit.url()).await;
        Some(Self { rabbit, users, admin })
    }

    pub fn options(&self) -> Options {
        options(&self.rabbit)
    }

    /// Adds an agent's user; the URL that it connects with.
    pub async fn add(&self, id: &str) -> String {
        let survey = self.users.survey_of(&[id]).await.unwrap();
        let made = self.users.add(&survey, &[agent(id)]).await.unwrap();
        let name = self.users.name_of(id);
        let login = (name.as_str(), made[0].as_ref().unwrap());
        with_login(&self.rabbit.url(), Some(login)).unwrap().to_string()
    }
}

pub fn options(rabbit: &RabbitMq) -> Options {
    let (user, password) = rabbit.admin();
    Options {
        url: rabbit.management_address(),
        user: user.to_owned(),
        password: password.to_owned().into(),
        ca: None,
        vhost: "/".to_owned(),
        exchange: "bulla".to_owned(),
        owner: "bulla.local".to_owned(),
        prefix: "agent.".to_owned(),
        components: vec!["control".to_owned()],
        login: Login::Password,
    }
}

pub fn agent(id: &str) -> Agent {
    agent_in(id, &["all"])
}

pub fn agent_in(id: &str, groups: &[&str]) -> Agent {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Agent { id: id.to_owned(), groups }
}

pub async fn connect(url: &str) -> RabbitTransport {
    RabbitTransport::connect(RabbitOptions::new(url).unwrap()).await.unwrap()
}

pub fn message(payload: &str) -> Outbound {
    Outbound { confirm: true, mandatory: true, ..Outbound::new(payload.to_owned().into()) }
}

pub async fn next(consumer: &mut Box<dyn Consumer>) -> String {
    let delivery = tokio::time::timeout(HANG, consumer.next()).await.unwrap().unwrap();
    delivery.acker.ack();
    String::from_utf8(delivery.payload.to_vec()).unwrap()
}

/// Waits for the loss of a connection.
pub async fn lost(events: &mut Receiver<TransportEvent>) {
    let losing = async {
        loop {
            if let TransportEvent::Lost { .. } = events.recv().await.unwrap() {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, losing).await.unwrap();
}
