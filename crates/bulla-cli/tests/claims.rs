//! Where the control plane keeps its claims, and that it is alone if they are not shared.

mod common;

use bulla_services::{VirtualHost, require};
use common::Deployment;

#[test]
fn a_second_control_plane_on_an_unshared_store_does_not_start() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let mut deployment = Deployment::new(Some(rabbit.url()));
    let first = deployment.serve();
    let said = deployment.fails(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("another consumer") && said.contains("[claims] store"), "{said}");
    // The operator's word.
    deployment.env.push(("BULLA_CLAIMS_ONLY_HOST", "true".to_owned()));
    let second = deployment.serve();
    second.stop();
    deployment.env.pop();
    // Once the other is gone.
    first.stop();
    deployment.serve().stop();
}

#[test]
fn a_bad_store_is_told_without_its_password() {
    let mut deployment = Deployment::new(None);
    deployment.env.push(("BULLA_CLAIMS_STORE", "amqp://u:hush@h/".to_owned()));
    let output = deployment.run(&["doctor"]);
    let said = common::text(&output.stdout);
    assert!(said.contains("claims") && said.contains("amqp:"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[cfg(feature = "redis")]
mod redis {
    use bulla_services::Redis;

    use super::*;

    #[test]
    fn control_planes_that_share_a_store_run_side_by_side() {
        let Some(rabbit) = require(VirtualHost::new()) else { return };
        let Some(redis) = require(Redis::start()) else { return };
        let mut deployment = Deployment::new(Some(rabbit.url()));
        deployment.env.push(("BULLA_CLAIMS_STORE", redis.url()));
        assert!(deployment.ok(&["doctor"]).contains("any number of hosts"));
        let _processes = [deployment.serve(), deployment.serve()];
    }

    #[test]
    fn doctor_refuses_a_redis_that_evicts() {
        let Some(redis) = require(Redis::builder().setting("maxmemory-policy allkeys-lru").start())
        else {
            return;
        };
        let mut deployment = Deployment::new(None);
        deployment.env.push(("BULLA_CLAIMS_STORE", redis.url()));
        let said = common::text(&deployment.run(&["doctor"]).stdout);
        assert!(said.contains("noeviction"), "{said}");
    }
}
