//! What befalls servers and networks while calls are made.

use std::time::Duration;

use bulla_services::{Postgres, Proxy, RabbitCluster, RabbitMq, Redis};
use bulla_transport::address::routing_word;
use tokio::task::block_in_place;

use crate::Failed;
use crate::deployment::SERVICE;
use crate::dice::Dice;
use crate::progress::Progress;

/// A fault waits for its turn no longer than this: calls that hang must not keep it away.
const PATIENCE: Duration = Duration::from_secs(120);
/// Calls that end between the loss of a node and its return.
const WITHOUT_IT: u64 = 50;

/// When faults come: evenly spread over the calls.
pub(crate) struct Schedule<'a> {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) progress: &'a Progress,
    pub(crate) dice: &'a Dice,
}

impl Schedule<'_> {
    /// Waits for fault `n`'s turn; false if no calls are made any more.
    async fn turn(&self, n: u64) -> bool {
        let at = (n + 1) * self.calls / (self.faults + 1);
        let more = self.progress.reach(at, PATIENCE).await;
        tokio::time::sleep(self.dice.millis(0, 30)).await;
        more
    }

    /// Stops a server, in good order and as a crash in turn, and starts it again. How often.
    pub(crate) async fn restarts(&self, server: &mut impl Server) -> Result<u64, Failed> {
        for n in 0..self.faults {
            if !self.turn(n).await {
                return Ok(n);
            }
            block_in_place(|| server.again(n % 2 == 0))?;
        }
        Ok(self.faults)
    }

    /// Cuts and hangs each of these networks in turn. How often.
    pub(crate) async fn cuts(&self, networks: &[&Proxy]) -> Result<u64, Failed> {
        let ways = networks.iter().flat_map(|network| [(network, true), (network, false)]);
        for (n, (network, cut)) in (0..self.faults).zip(ways.cycle()) {
            if !self.turn(n).await {
                return Ok(n);
            }
            if cut {
                network.cut()
            } else {
                network.hang()
            }
            tokio::time::sleep(self.dice.millis(100, 4000)).await;
            network.restore();
        }
        Ok(self.faults)
    }

    /// Kills the node that leads the service's queue; who was connected to it goes to another. It
    /// comes back a while later. How often.
    pub(crate) async fn leaders(
        &self,
        cluster: &mut RabbitCluster,
        networks: &[&Proxy],
    ) -> Result<u64, Failed> {
        let queue = routing_word(SERVICE);
        for n in 0..self.faults {
            if !self.turn(n).await {
                return Ok(n);
            }
            let leader = block_in_place(|| cluster.leader(&queue))?;
            let nodes = cluster.nodes_mut();
            let next = nodes.get((leader + 1) % nodes.len()).map(RabbitMq::port);
            let node = nodes.get_mut(leader).ok_or("no such node")?;
            block_in_place(|| node.kill());
            for network in networks {
                if network.to() == node.port() {
                    network.point_to(next.ok_or("no other node")?);
                }
            }
            let calls = self.progress.ended() + WITHOUT_IT;
            self.progress.reach(calls, PATIENCE / 4).await;
            block_in_place(|| node.restart())?;
        }
        Ok(self.faults)
    }
}

/// What can be ended and started again.
pub(crate) trait Server {
    fn again(&mut self, crash: bool) -> Result<(), Failed>;
}

macro_rules! server {
    ($($name:ty),+) => {$(
        impl Server for $name {
            fn again(&mut self, crash: bool) -> Result<(), Failed> {
                if crash { self.kill() } else { self.stop() }
                Ok(self.restart()?)
            }
        }
    )+};
}
server!(RabbitMq, Redis, Postgres);
