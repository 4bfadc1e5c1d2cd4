//! `bulla peers`: floors, what still comes in below them, exemptions.

use bulla_api::{Client, ExemptRequest, Peer, PeerExemption, RaiseRequest};
use bulla_rpc::{Clock, SystemClock};

use super::api_client;
use crate::cli::{ApiArgs, LevelArg, PeersArgs, PeersCommand};
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::Home;
use crate::when;

pub(crate) async fn run(home: &Home, args: &PeersArgs, out: Output) -> Result<()> {
    let connect = |api: &ApiArgs| api_client(home, api);
    match &args.command {
        None => list(&connect(&args.api)?, out).await,
        Some(PeersCommand::Exempt { peer, method, until, level, revoke, api }) => {
            let client = connect(api)?;
            match (peer, method, until, revoke) {
                (_, _, _, Some(id)) => take_back(&client, id, out).await,
                (Some(peer), Some(method), Some(until), _) => {
                    exempt(&client, (peer, method), until, *level, out).await
                }
                _ => exemptions(&client, out).await,
            }
        }
        Some(PeersCommand::Clear { files, since }) => {
            super::peers_clear::run(files, since.as_deref(), out)
        }
        Some(PeersCommand::Raise { peer, level, shadow, api }) => {
            raise(&connect(api)?, peer, *level, *shadow, out).await
        }
    }
}

async fn list(client: &Client, out: Output) -> Result<()> {
    let peers = client.peers().await?;
    out.result(&peers, |out| {
        if peers.is_empty() {
            return out.say("Nothing came from any peer yet.");
        }
        let head = ["PEER", "ACCEPTS", "SENDS", "LAST SEEN", "BELOW TARGET", "EXEMPTIONS"];
        out.table(&head, peers.iter().map(row).collect());
    })
}

fn row(peer: &Peer) -> Vec<String> {
    let accepts = match &peer.target {
        Some(target) => format!("{} (rehearses {target})", peer.accepts),
        None => peer.accepts.clone(),
    };
    vec![
        peer.principal.clone(),
        accepts,
        peer.sends.clone(),
        last_seen(peer),
        below(peer),
        lines(peer.exemptions.iter().map(|given| {
            let end = date(given.until_ms / 1000);
            let word = if given.live { "until" } else { "ended" };
            format!("{} {} {word} {end}", given.method, given.level)
        })),
    ]
}

/// When the last message of each level came.
fn last_seen(peer: &Peer) -> String {
    lines(["plaintext", "aes-cbc", "signed", "sealed"].iter().rev().filter_map(|level| {
        let of_level = peer.seen.iter().filter(|seen| seen.level == *level);
        let last = of_level.map(|seen| seen.last_ms).max()?;
        Some(format!("{level} {}", date(last / 1000)))
    }))
}

/// What came in below the floor that is rehearsed or under an exemption, by method.
fn below(peer: &Peer) -> String {
    lines(peer.seen.iter().filter_map(|seen| {
        let last = date(seen.last_below_ms? / 1000);
        Some(format!("{} {}: {}, last {last}", seen.method, seen.level, seen.below))
    }))
}

fn lines(parts: impl Iterator<Item = String>) -> String {
    let joined = parts.collect::<Vec<_>>().join("\n");
    if joined.is_empty() { "-".to_owned() } else { joined }
}

async fn exemptions(client: &Client, out: Output) -> Result<()> {
    let given: Vec<PeerExemption> =
        client.peers().await?.into_iter().flat_map(|peer| peer.exemptions).collect();
    out.result(&given, |out| {
        if given.is_empty() {
            return out.say("There are no exemptions: nothing comes in below a floor.");
        }
        let rows = given.iter().map(|given| {
            let live = if given.live { "" } else { "ended" };
            vec![
                given.id.clone(),
                given.principal.clone(),
                given.method.clone(),
                given.level.clone(),
                date(given.until_ms / 1000),
                live.to_owned(),
            ]
        });
        out.table(&["ID", "PEER", "METHOD", "LEVEL", "UNTIL", ""], rows.collect());
    })
}

async fn exempt(
    client: &Client,
    (peer, method): (&str, &str),
    until: &str,
    level: LevelArg,
    out: Output,
) -> Result<()> {
    let until = when::parse(until, SystemClock.now().secs()).map_err(Failure::usage)?;
    let request = ExemptRequest {
        principal: peer.to_owned(),
        method: method.to_owned(),
        level: level.level().to_string(),
        until_ms: until.saturating_mul(1000),
    };
    let given = client.exempt(&request).await?;
    out.result(&given, |out| {
        out.say(format!(
            "{peer} may send {method} at level {} until {}.",
            given.level,
            date(given.until_ms / 1000)
        ));
        out.say(format!(
            "Each use is logged and counted. Take it back with: bulla peers exempt --revoke {}",
            given.id
        ));
    })
}

async fn take_back(client: &Client, id: &str, out: Output) -> Result<()> {
    let taken = client.take_back(id).await?;
    out.result(&taken, |out| out.say(format!("Exemption {id} is taken back.")))
}

async fn raise(
    client: &Client,
    peer: &str,
    level: LevelArg,
    shadow: bool,
    out: Output,
) -> Result<()> {
    let level = level.level().to_string();
    let request = RaiseRequest { principal: peer.to_owned(), level: level.clone(), shadow };
    let raised = client.raise(&request).await?;
    out.result(&raised, |out| match &raised.target {
        Some(target) if shadow => out.say(format!(
            "What comes from {peer} below {target} is counted and not refused: see `bulla peers`."
        )),
        _ => out.say(format!(
            "{peer} has floor {}: what is below is refused, but for exemptions.",
            raised.accepts
        )),
    })
}
