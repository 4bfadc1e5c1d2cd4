//! A deployment of the suite's own, made anew for each trial: a root, issuers, a control component
//! with two hosts, another component, two honest agents and one that the intruder took over.

mod clock;
mod desk;
mod hand;
mod intruder;
mod judge;
mod keyring;
mod keys;
mod ledger;
mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_rpc::target::{group_topic, topic_of};
use bulla_rpc::{CallError, Clock, Server, Target};
use bulla_seal::{GroupKey, GroupName, Kid, OsRandom, Random, Secret, Suite};
use bulla_transport::{Address, Inbox, Transport};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub use clock::Shifted;
pub use desk::Desk;
pub use hand::{Hand, Keep, Sent};
pub use intruder::{Forged, Stolen, body as intruder_body, hedge};
pub use judge::{Expected, Mark};
pub use keyring::{Authority, Keyring, a_day, blank, random_kid};
pub use keys::Keys;
pub use ledger::{Ledger, Ran};
pub use peer::{Peer, PeerOptions};

use crate::bus::Bus;
use crate::cell::{Cell, KeyType, Kind};
use crate::suite::Settings;
use crate::trouble::Trouble;

/// A word in the arguments of every honest request; nobody but its receiver may read it.
pub const SECRET_ARGUMENT: &str = "pa55word-of-the-database";
/// A word in every honest result.
pub const SECRET_RESULT: &str = "r00t-password-as-the-result";
/// A word in every honest error.
pub const SECRET_ERROR: &str = "table-customers-row-4711";

/// How long an honest call may take before the deployment counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an honest party may take to do its part before the trial counts as one that could not be
/// carried out.
const HONEST: Duration = Duration::from_secs(20);

/// A deployment and its intruder.
pub struct World {
    /// The bus.
    pub bus: Bus,
    /// What is tried.
    pub cell: Cell,
    /// As the suite was asked to set up its deployments.
    pub settings: Settings,
    /// Everybody's clock.
    pub clock: Arc<Shifted>,
    /// Root and issuers.
    pub authority: Authority,
    /// What ran.
    pub ledger: Arc<Ledger>,
    /// The group that the honest agents and the intruder's are in.
    pub group: GroupKey,
    /// The first host of the control component; calls agents, answers them.
    pub control: Peer,
    /// The agent that is attacked.
    pub agent: Peer,
    /// The agent that the intruder took over: its keys. Nobody serves as it.
    pub mallory: Stolen,
    /// The intruder's connection.
    pub intruder: Arc<dyn Transport>,
    /// What the honest agent remembers.
    pub agent_claims: Arc<MemoryClaims>,
    /// What the hosts of the control component remember, together.
    pub control_claims: Arc<MemoryClaims>,
    agent_server: Mutex<Option<Arc<Server>>>,
    life: AtomicU64,
    tag: String,
    numbers: AtomicU64,
    servers: Mutex<Vec<Arc<Server>>>,
    inboxes: Mutex<Vec<Inbox>>,
    exchanges: Mutex<Vec<String>>,
}

/// Stage on which a row plays.
pub type Stage = Arc<World>;

/// An honest message that the broker keeps back.
pub struct Taken {
    /// The message.
    pub sent: Sent,
    /// The number in its arguments.
    pub n: u64,
    /// The call that waits for its answer.
    pub call: Option<Pending>,
}

/// A call that waits.
pub type Pending = JoinHandle<Result<Value, CallError>>;

impl World {
    /// Builds a deployment and has everybody speak once, so that sessions are open.
    pub async fn new(bus: &Bus, cell: Cell, settings: &Settings) -> Result<Stage, Trouble> {
        let clock = Arc::new(Shifted::default());
        let now = clock.now();
        let authority = Authority::new(now)?;
        let ledger = Arc::new(Ledger::default());
        let tag = random_tag()?;
        let name = |role: &str| format!("{role}-{tag}");
        let group = GroupName::new(&name("everyone"))?;
        let key = Secret::generate(&mut OsRandom::default())?;
        let group = GroupKey { group, epoch: 1, key };
        let valid = a_day(now);
        let control = authority.component(&name("control"), valid, settings.suite)?;
        let agent = |id: &str| match cell.key {
            KeyType::Pair => authority.agent(&name(id), valid, settings.suite),
            KeyType::Shared => Authority::shared_agent(&name(id)),
        };
        let (victim, mallory) = (agent("agent-1")?, agent("agent-0")?);
        let control = Peer::new(bus, &authority, control, &clock, settings)?;
        let agent = Peer::new(bus, &authority, victim, &clock, settings)?;
        let mallory = Stolen::new(mallory);
        let world = Self {
            bus: bus.clone(),
            cell,
            settings: settings.clone(),
            clock,
            authority,
            ledger,
            group,
            control,
            agent,
            mallory,
            intruder: bus.intruder(),
            agent_claims: Arc::new(MemoryClaims::for_new_bus(StoreOptions::default())),
            control_claims: Arc::new(MemoryClaims::for_new_bus(StoreOptions::default())),
            agent_server: Mutex::default(),
            life: AtomicU64::new(60),
            tag,
            numbers: AtomicU64::new(1000),
            servers: Mutex::default(),
            inboxes: Mutex::default(),
            exchanges: Mutex::default(),
        };
        world.introduce(&world.control, &world.agent.keys)?;
        world.introduce(&world.control, &world.mallory.keys)?;
        for peer in [&world.control, &world.agent] {
            peer.directory.known().add_group_key(world.group.clone());
        }
        world.agent.learn(&world.control.keys);
        let world = Arc::new(world);
        let server = world.serve(&world.agent, &PeerOptions::with(&world.agent_claims)).await?;
        *world.agent_server.lock() = Some(server);
        world.serve(&world.control, &PeerOptions::with(&world.control_claims)).await?;
        world.warm_up().await?;
        Ok(world)
    }

    /// Makes an agent and a component known to each other.
    pub fn introduce(&self, component: &Peer, agent: &Keyring) -> Result<(), Trouble> {
        component.learn(agent);
        if let Some((at_agent, at_component)) =
            agent.pair_with(&component.keys.party, random_kid()?)
        {
            component.directory.add_pair(at_component);
            if agent.party == self.agent.keys.party {
                self.agent.directory.add_pair(at_agent.clone());
            }
            if agent.party == self.mallory.keys.party {
                self.mallory.pairs.lock().push(at_agent);
            }
        }
        Ok(())
    }

    /// Another component, which the intruder has broken into; the honest agent knows it.
    pub async fn other_component(&self) -> Result<Peer, Trouble> {
        self.other_component_with(&self.settings).await
    }

    /// The same with settings of its own.
    pub async fn other_component_with(&self, settings: &Settings) -> Result<Peer, Trouble> {
        let valid = a_day(self.clock.now());
        // As long as the other's name, so that one can be written over the other.
        let name = format!("billing-{}", self.tag);
        let keys = self.authority.component(&name, valid, self.settings.suite)?;
        let peer = Peer::new(&self.bus, &self.authority, keys, &self.clock, settings)?;
        self.introduce(&peer, &self.agent.keys)?;
        self.introduce(&peer, &self.mallory.keys)?;
        self.agent.learn(&peer.keys);
        peer.directory.known().add_group_key(self.group.clone());
        Ok(peer)
    }

    /// A second honest agent, known to the control component and serving.
    pub async fn second_agent(&self) -> Result<Peer, Trouble> {
        let id = format!("agent-2-{}", self.tag);
        let keys = match self.cell.key {
            KeyType::Pair => {
                self.authority.agent(&id, a_day(self.clock.now()), self.settings.suite)?
            }
            KeyType::Shared => Authority::shared_agent(&id)?,
        };
        let peer = Peer::new(&self.bus, &self.authority, keys, &self.clock, &self.settings)?;
        self.control.learn(&peer.keys);
        if let Some((at_agent, at_component)) =
            peer.keys.pair_with(&self.control.keys.party, random_kid()?)
        {
            self.control.directory.add_pair(at_component);
            peer.directory.add_pair(at_agent);
        }
        peer.learn(&self.control.keys);
        self.serve(&peer, &PeerOptions::default()).await?;
        Ok(peer)
    }

    /// Ends the honest agent's process.
    pub async fn stop_agent(&self) {
        let server = self.agent_server.lock().take();
        if let Some(server) = server {
            server.drain(Duration::ZERO).await;
        }
    }

    /// Ends the honest agent's process and starts another with these claims.
    pub async fn restart_agent(&self, claims: MemoryClaims) -> Result<Peer, Trouble> {
        self.stop_agent().await;
        let peer = self.agent.again(None)?;
        self.serve(&peer, &PeerOptions::with(&Arc::new(claims))).await?;
        Ok(peer)
    }

    /// How long messages live from now on, in seconds.
    pub fn messages_live(&self, seconds: u64) {
        self.life.store(seconds, Ordering::SeqCst);
    }

    /// How long messages live.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.life.load(Ordering::SeqCst))
    }

    /// The intruder's agent as a process of its own, which nobody watches.
    pub fn as_mallory(&self) -> Result<Peer, Trouble> {
        let keys = self.mallory.keys.clone();
        let peer = Peer::new(&self.bus, &self.authority, keys, &self.clock, &self.settings)?;
        for pair in self.mallory.pairs.lock().iter() {
            peer.directory.add_pair(pair.clone());
        }
        peer.learn(&self.control.keys);
        Ok(peer)
    }

    /// Keeps back the next request that `sender` starts by `send`.
    pub async fn take_sent<T>(
        &self,
        sender: &Peer,
        send: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<(Sent, T), Trouble> {
        let before = sender.hand.held();
        sender.hand.keep(Keep::Requests);
        let sending = send.await;
        let kept = sender.hand.kept(before + 1).await;
        let sent = sender.hand.release().pop();
        kept?;
        let sent = sent.ok_or_else(|| Trouble::new("nothing was kept back"))?;
        Ok((sent, sending?))
    }

    /// A second host of the control component.
    pub fn second_host(&self) -> Result<Peer, Trouble> {
        let receive = self.control.keys.receive()?;
        let keys = self.authority.host(receive, "h2", a_day(self.clock.now()))?;
        let mut peer = Peer::new(&self.bus, &self.authority, keys, &self.clock, &self.settings)?;
        peer.share_directory(&self.control)?;
        Ok(peer)
    }

    /// The exchange of this suite's deployments.
    pub fn exchange(&self) -> &str {
        &self.settings.endpoint.exchange
    }

    /// A number that no message had.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// A name of this world's own.
    pub fn name(&self, role: &str) -> String {
        format!("{role}-{}", self.tag)
    }

    /// The honest arguments of a message with the number `n`.
    pub fn args(n: u64) -> Value {
        json!({ "n": n, "secret": SECRET_ARGUMENT })
    }

    /// Where `peer` is called.
    pub fn address_of(&self, peer: &Keyring) -> Address {
        Target::Principal(peer.party.principal.clone()).address(self.exchange())
    }

    /// Where the group is told.
    pub fn group_address(&self) -> Address {
        Target::Group(self.group.group.clone()).address(self.exchange())
    }

    /// Where the messages of this cell's kind go.
    pub fn address(&self) -> Address {
        match self.cell.kind {
            Kind::Fanout => self.group_address(),
            _ => self.address_of(&self.agent.keys),
        }
    }

    /// Everybody speaks once.
    async fn warm_up(&self) -> Result<(), Trouble> {
        self.health().await?;
        if self.cell.kind == Kind::Fanout {
            let n = self.number();
            let from = self.ledger.count();
            self.control.fanout(&self.group.group, "work", n).await?;
            self.ledger.wait(from + 1).await?;
        }
        Ok(())
    }

    /// A legitimate call in each direction.
    pub async fn health(&self) -> Result<(), Trouble> {
        for (from, to) in [(&self.control, &self.agent), (&self.agent, &self.control)] {
            let target = Target::Principal(to.keys.party.principal.clone());
            let request = from.client.request(&target, "health").timeout(PATIENCE);
            let value: Result<u64, CallError> = request.call(&json!({ "n": 7 })).await;
            match value {
                Ok(7) => {}
                Ok(other) => return Err(Trouble(format!("a legitimate call returned {other}"))),
                Err(error) => return Err(Trouble(format!("a legitimate call failed: {error}"))),
            }
        }
        Ok(())
    }

    /// Has the control component send one message of this cell's kind to the honest agent (or to
    /// the group), which the broker keeps back. For replies it is the agent's answer.
    pub async fn take(&self) -> Result<Taken, Trouble> {
        self.take_method("work").await
    }

    /// The same, of some method.
    pub async fn take_method(&self, method: &'static str) -> Result<Taken, Trouble> {
        self.take_from(&self.control, method).await
    }

    /// The same, from another sender.
    pub async fn take_from(&self, sender: &Peer, method: &'static str) -> Result<Taken, Trouble> {
        let n = self.number();
        let reply = self.cell.kind == Kind::Reply;
        let keeper = if reply { &self.agent } else { sender };
        let before = keeper.hand.held();
        keeper.hand.keep(if reply { Keep::Replies } else { Keep::Requests });
        let call = sender.send(self, method, n).await?;
        keeper.hand.kept(before + 1).await?;
        let sent = keeper.hand.release().pop();
        let sent = sent.ok_or_else(|| Trouble::new("nothing was kept back"))?;
        Ok(Taken { sent, n, call })
    }

    /// Publishes as the intruder.
    pub async fn inject(
        &self,
        to: &Address,
        payload: impl Into<bytes::Bytes>,
    ) -> Result<(), Trouble> {
        self.inject_with(&Sent { to: to.clone(), payload: payload.into(), hint: None }).await
    }

    /// Publishes as the intruder, with properties.
    pub async fn inject_with(&self, message: &Sent) -> Result<(), Trouble> {
        let outbound = bulla_transport::Outbound {
            reply_hint: message.hint.clone(),
            ..bulla_transport::Outbound::new(message.payload.clone())
        };
        Ok(self.intruder.publish(&message.to, outbound).await?)
    }

    /// Lets `peer` serve, and remembers to clean up after it.
    pub async fn serve(&self, peer: &Peer, options: &PeerOptions) -> Result<Arc<Server>, Trouble> {
        let server = Arc::new(peer.start(self, options).await?);
        self.servers.lock().push(server.clone());
        self.remember(peer);
        Ok(server)
    }

    fn remember(&self, peer: &Peer) {
        let exchange = peer.endpoint.options().exchange.clone();
        let principal = &peer.keys.party.principal;
        let topic = topic_of(principal);
        let mut inboxes = self.inboxes.lock();
        inboxes.push(Inbox::Topic { exchange: exchange.clone(), topic: topic.clone() });
        let instance = peer.endpoint.identity().instance();
        if let Some(server) = instance {
            let server = server.to_owned();
            inboxes.push(Inbox::Server {
                exchange: exchange.clone(),
                topic: topic.clone(),
                server,
            });
        }
        let member = match instance {
            Some(instance) => format!("{topic}.{instance}"),
            None => topic,
        };
        let topic = group_topic(&self.group.group);
        self.exchanges.lock().push(format!("{topic}_fanout"));
        inboxes.push(Inbox::Fanout { exchange, topic, member });
    }

    /// Remembers a queue that the intruder made.
    pub fn clean_up(&self, inbox: Inbox) {
        self.inboxes.lock().push(inbox);
    }

    /// Remembers an exchange that the intruder made.
    pub fn clean_up_exchange(&self, name: String) {
        self.exchanges.lock().push(name);
    }

    /// Ends every server and removes every queue.
    pub async fn end(&self) {
        let servers = std::mem::take(&mut *self.servers.lock());
        for server in servers {
            server.drain(Duration::ZERO).await;
        }
        self.control.client.close();
        self.agent.client.close();
        let inboxes = std::mem::take(&mut *self.inboxes.lock());
        for inbox in inboxes {
            self.control.hand.delete(&inbox).await.ok();
        }
        let mut exchanges = std::mem::take(&mut *self.exchanges.lock());
        exchanges.extend(["control", "billing"].map(|role| {
            format!("{}.component.{}", self.settings.endpoint.exchange, self.name(role))
        }));
        exchanges.sort();
        exchanges.dedup();
        self.bus.remove_exchanges(&exchanges).await;
    }

    /// The suite's suite.
    pub fn suite(&self) -> Suite {
        self.settings.suite
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({})", self.tag)
    }
}

fn random_tag() -> Result<String, Trouble> {
    let mut tag = [0; 5];
    OsRandom::default().fill(&mut tag)?;
    Ok(hex::encode(tag))
}

/// The key id of a message.
pub fn kid_of(handle: &[u8]) -> Option<Kid> {
    handle.try_into().ok().map(Kid)
}
