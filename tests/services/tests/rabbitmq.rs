//! The guard itself.

use bulla_services::{RabbitCluster, RabbitMq, require};

#[test]
fn a_private_rabbitmq_starts_restarts_and_leaves_nothing() {
    let started = RabbitMq::builder().tls(true).user("db-1", "secret", [".*", ".*", ".*"]).start();
    let Some(mut server) = require(started) else { return };
    let users = server.rabbitmqctl(&["list_users"]).unwrap();
    assert!(users.contains("db-1"), "{users}");

    server.restart().unwrap();
    let users = server.rabbitmqctl(&["list_users"]).unwrap();
    assert!(users.contains("db-1"), "a restart keeps what is durable: {users}");

    let (directory, port) = (server.directory(), server.port());
    drop(server);
    assert!(!directory.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn three_nodes_are_one_broker() {
    let Some(mut cluster) = require(RabbitCluster::start()) else { return };
    let running = cluster.nodes()[0].rabbitmqctl(&["cluster_status"]).unwrap();
    for node in cluster.nodes() {
        assert!(running.contains(&format!("bulla{}@localhost", node.port())), "{running}");
    }
    cluster.nodes_mut()[2].kill();
    cluster.nodes()[1].rabbitmqctl(&["list_queues"]).unwrap();
    cluster.nodes_mut()[2].restart().unwrap();
}
