//! One file a target, or a few that are alike.

pub mod body;
pub mod enrol;
pub mod frame;
pub mod names;
pub mod offer;
pub mod records;
pub mod reply;
pub mod signed;
pub mod tamper;

use std::sync::{Arc, LazyLock};

use bulla_seal::*;

use crate::Saw;

/// All that is fixed: keys, times, one session.
pub struct Fixed {
    /// Its issuers are those below.
    pub trust: TrustStore,
    /// Issues agents.
    pub agents: Issuer,
    /// Issues statements.
    pub revocation: Issuer,
    /// Issues exemptions.
    pub operator: Issuer,
    /// The keys of the three.
    pub keys: [SigningKey; 3],
    /// A shared-key session between a component and an agent.
    pub session: Arc<Session>,
    /// Where its requests go.
    pub route: Route,
}

/// All signatures and messages are of then.
pub const NOW: UnixTime = UnixTime::from_secs(1_800_000_100);

/// Made once.
pub static FIXED: LazyLock<Fixed> = LazyLock::new(fixed);

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(Secret::new([n; 32])).expect("any 32 bytes are a seed")
}

fn fixed() -> Fixed {
    let domain = TrustDomain::new("bulla.example").expect("a name");
    let root = key(1);
    let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
    let mut issuer = |right, n: u8| {
        let key = key(n);
        let credential = IssuerCredential {
            kid: Kid([n; 8]),
            domain: domain.clone(),
            right,
            key: key.verifying_key(),
            validity: Validity { not_before: 0, not_after: 4_000_000_000 },
        };
        trust.add_issuer(&credential.sign(&root)).expect("it is signed by the root");
        Issuer::new(key, credential).expect("key and credential belong together")
    };
    let agents = issuer(IssuerRight::Agents, 0xa1);
    let revocation = issuer(IssuerRight::Revocation, 0xe1);
    let operator = issuer(IssuerRight::Exemptions, 0xf1);
    let control = Party::new(Principal::component("control").expect("a name"), 1);
    let agent = Party::new(Principal::agent("db-1").expect("a name"), 1);
    let pair = Secret::new([7; 32]);
    let route = Route::new("bulla", "agent.db-1", None, Audience::Party(agent.clone()));
    Fixed {
        trust,
        agents,
        revocation,
        operator,
        keys: [key(0xa1), key(0xe1), key(0xf1)],
        session: Arc::new(shared::session(Kid([7; 8]), &pair, control, agent)),
        route: route.expect("names"),
    }
}

/// The hedge of message `n`.
pub fn hedge(n: u64) -> Hedge {
    Hedge { random: [n as u8; 16], now: NOW, counter: n, boot: [0; 16] }
}

/// A name for a refusal.
pub fn refused(refusal: Refusal) -> Saw {
    refusal.as_str().to_owned()
}
