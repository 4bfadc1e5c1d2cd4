//! Three RabbitMQ nodes that are one broker.

use tempfile::TempDir;

use super::{Common, RabbitMq};
use crate::error::ServiceError;
use crate::instance::directory;
use crate::ports::free_port;
use crate::process::Process;

const NODES: usize = 3;

/// A private cluster of three nodes on loopback, for quorum queues.
#[derive(Debug)]
pub struct RabbitCluster {
    nodes: Vec<RabbitMq>,
    // Dropped after the nodes, which find each other through it.
    _mapper: Mapper,
}

/// The port mapper of the cluster.
struct Mapper {
    process: Option<Process>,
    _directory: TempDir,
}

impl Mapper {
    fn start(port: u16) -> Result<Self, ServiceError> {
        let directory = directory("epmd")?;
        let port = port.to_string();
        let process = Process::start(&["epmd", "-port", &port, "-address", "127.0.0.1"], |epmd| {
            epmd.env("WATCHED_DIRECTORY", directory.path());
        })?;
        Ok(Self { process: Some(process), _directory: directory })
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

impl std::fmt::Debug for Mapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mapper")
    }
}

impl RabbitCluster {
    /// Starts three nodes and joins them: half a minute.
    ///
    /// # Errors
    /// When RabbitMQ is not installed, or a node does not start or join.
    pub fn start() -> Result<Self, ServiceError> {
        let epmd = free_port()?;
        let common = Common { epmd, cookie: format!("BULLA{epmd}") };
        let mapper = Mapper::start(epmd)?;
        let mut nodes = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            nodes.push(RabbitMq::builder().start_in(Some(common.clone()))?);
        }
        let cluster = Self { nodes, _mapper: mapper };
        if let [first, others @ ..] = cluster.nodes.as_slice() {
            for node in others {
                node.rabbitmqctl(&["stop_app"])?;
                node.rabbitmqctl(&["join_cluster", &first.layout.node()])?;
                node.rabbitmqctl(&["start_app"])?;
            }
        }
        Ok(cluster)
    }

    /// The nodes.
    pub fn nodes(&self) -> &[RabbitMq] {
        &self.nodes
    }

    /// The same, to stop and restart.
    pub fn nodes_mut(&mut self) -> &mut [RabbitMq] {
        &mut self.nodes
    }

    /// The index of the node that leads the quorum queue `queue`, as a node that is up sees it.
    ///
    /// # Errors
    /// When the queue is not there or has no leader.
    pub fn leader(&self, queue: &str) -> Result<usize, ServiceError> {
        let mut why = "no node is up".to_owned();
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            let listed = match node.rabbitmqctl(&["list_queues", "name", "leader"]) {
                Ok(listed) => listed,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let leads = |line: &str| {
                let (name, leader) = line.split_once('\t')?;
                let of = |node: &RabbitMq| node.layout.node() == leader.trim();
                (name == queue).then(|| self.nodes.iter().position(of)).flatten()
            };
            if let Some(leader) = listed.lines().find_map(leads) {
                return Ok(leader);
            }
            why = listed;
        }
        Err(ServiceError::Command { command: format!("the leader of {queue}"), why })
    }
}
