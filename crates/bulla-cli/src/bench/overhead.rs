//! How many bytes the envelope adds: counted on real frames, as the bus saw them.

use std::sync::Arc;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_rpc::{Client, Router, Server, ServerOptions, Target};
use bulla_seal::cbor::Reader;
use bulla_seal::{GroupName, Refusal, Suite};
use bulla_transport::memory::{MemoryBus, Tap};
use bytes::Bytes;
use serde::Serialize;

use super::lane::{Echo, METHOD};
use super::world::{Ends, World};
use super::{BenchError, KeyType};

/// Arguments of the messages that are counted, in bytes.
const SIZE: usize = 1024;
/// Bytes of an AES-256-GCM tag.
const TAG: usize = 16;

/// One sort of message.
#[derive(Debug, Serialize)]
pub(super) struct Overhead {
    message: &'static str,
    session: &'static str,
    frame: usize,
    plaintext: usize,
    overhead: usize,
    /// What it may be at the most, where the project has set a goal.
    goal: Option<usize>,
}

impl Overhead {
    fn of(
        message: &'static str,
        session: &'static str,
        goal: Option<usize>,
        frame: &[u8],
    ) -> Result<Self, BenchError> {
        let plaintext = plaintext_len(frame).map_err(BenchError::Refused)?;
        let overhead = frame.len() - plaintext;
        Ok(Self { message, session, frame: frame.len(), plaintext, overhead, goal })
    }

    pub(super) fn row(&self) -> Vec<String> {
        let goal = match self.goal {
            Some(goal) if self.overhead > goal => format!("{goal} (missed)"),
            Some(goal) => goal.to_string(),
            None => String::new(),
        };
        let number = |n: usize| n.to_string();
        let bytes = [self.frame, self.plaintext, self.overhead].map(number);
        let mut row = vec![self.message.to_owned(), self.session.to_owned()];
        row.extend(bytes);
        row.push(goal);
        row
    }
}

pub(super) const HEAD: [&str; 6] =
    ["message", "session", "frame", "plaintext", "overhead", "at most"];

/// Sends one of each and counts.
pub(super) async fn measure() -> Result<Vec<Overhead>, BenchError> {
    let mut all = Vec::new();
    let mut x25519 = Sender::start(KeyType::Pair, Suite::X25519).await?;
    let name = "X25519";
    let (first, _) = x25519.call().await?;
    let (call, reply) = x25519.call().await?;
    all.push(Overhead::of("call", name, Some(120), &call)?);
    all.push(Overhead::of("reply", name, Some(110), &reply)?);
    all.push(Overhead::of("call with its offer", name, Some(500), &first)?);
    all.push(Overhead::of("cast (with its offer)", name, None, &x25519.cast().await?)?);
    all.push(Overhead::of("fanout (with a credential)", name, None, &x25519.fanout().await?)?);
    x25519.end().await;
    let mut x_wing = Sender::start(KeyType::Pair, Suite::XWing).await?;
    let name = "X-Wing";
    let (first, _) = x_wing.call().await?;
    let (call, reply) = x_wing.call().await?;
    all.push(Overhead::of("call", name, Some(120), &call)?);
    all.push(Overhead::of("reply", name, Some(110), &reply)?);
    all.push(Overhead::of("call with its offer", name, None, &first)?);
    all.push(Overhead::of("cast (with its offer)", name, None, &x_wing.cast().await?)?);
    x_wing.end().await;
    let mut shared = Sender::start(KeyType::Shared, Suite::X25519).await?;
    let name = "shared key";
    let (call, reply) = shared.call().await?;
    all.push(Overhead::of("call", name, Some(120), &call)?);
    all.push(Overhead::of("reply", name, Some(110), &reply)?);
    all.push(Overhead::of("cast", name, None, &shared.cast().await?)?);
    shared.end().await;
    Ok(all)
}

/// A caller, an agent, and an ear on their bus.
struct Sender {
    client: Client,
    server: Server,
    target: Target,
    tap: Tap,
    args: Echo,
}

impl Sender {
    async fn start(keys: KeyType, suite: Suite) -> Result<Self, BenchError> {
        let bus = MemoryBus::new();
        let transports = (Arc::new(bus.transport()) as Arc<_>, Arc::new(bus.transport()) as Arc<_>);
        let Ends { caller, agent, target } = World::new()?.pair("db-1", keys, suite, transports)?;
        let router = Router::new().method(METHOD, |_, args: Echo| async move { Ok(args) });
        let claims = Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()));
        let server = Server::start(agent, router, ServerOptions::new(claims)).await?;
        server.join_groups().await?;
        let (client, tap) = (Client::new(caller), bus.tap());
        Ok(Self { client, server, target, tap, args: Echo::of_size(SIZE) })
    }

    /// The frames of a call and of its reply.
    async fn call(&mut self) -> Result<(Bytes, Bytes), BenchError> {
        let _: Echo = self.client.call(&self.target, METHOD, &self.args).await?;
        Ok((self.frame().await?, self.frame().await?))
    }

    async fn cast(&mut self) -> Result<Bytes, BenchError> {
        self.client.cast(&self.target, METHOD, &self.args).await?;
        self.frame().await
    }

    async fn fanout(&mut self) -> Result<Bytes, BenchError> {
        let group = Target::Group(GroupName::new("all")?);
        self.client.fanout(&group, METHOD, &self.args).await?;
        self.frame().await
    }

    async fn frame(&mut self) -> Result<Bytes, BenchError> {
        let tapped = self.tap.next().await;
        Ok(tapped.ok_or(BenchError::Broken("a bus that shows nothing"))?.payload)
    }

    async fn end(self) {
        self.client.close();
        self.server.drain(std::time::Duration::from_secs(5)).await;
    }
}

/// Bytes of plaintext in a sealed frame: those of the ciphertext without the tag.
fn plaintext_len(frame: &[u8]) -> Result<usize, Refusal> {
    let mut r = Reader::new(frame);
    r.array(4)?;
    r.uint()?;
    let mut group = r.clone();
    if group.array(2).is_ok() {
        r = group;
    }
    r.any_tag()?;
    r.array(3)?;
    r.bytes()?;
    r.map(0)?;
    r.bytes()?.len().checked_sub(TAG).ok_or(Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_goal_is_met() {
        let all = measure().await.unwrap();
        assert_eq!(all.len(), 12);
        for overhead in all {
            assert!(overhead.goal.is_none_or(|goal| overhead.overhead <= goal), "{overhead:?}");
            assert!(overhead.plaintext > SIZE && overhead.overhead > TAG, "{overhead:?}");
        }
    }
}
