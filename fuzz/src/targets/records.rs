//! What claim stores read back: keys of claims, from a file or a server that may be damaged.

use bulla_guard::fuzzing::claim_key;
use bulla_guard::{ClaimKey, Scope};
use bulla_seal::{GroupName, MessageId, Party, Principal};

use crate::Saw;
use crate::cbor::Item;

/// Any bytes as a stored key.
pub fn run(input: &[u8]) -> Saw {
    let Some((key, again)) = claim_key(input) else { return "nothing".into() };
    let item = Item::read(input).expect("a key is CBOR");
    assert_eq!(item.items().len(), 5);
    // A store compares keys by their bytes: two ways to write one key would be two keys.
    assert_eq!(again, input, "a key is written one way");
    let shown = format!("{key:?}");
    assert!(shown.len() < 1000 + 8 * input.len());
    format!("{}", shown.len().min(256) / 16)
}

/// Keys of each kind of scope.
pub fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let me = Party::new(Principal::component("svc").expect("a name"), 1);
    let sender = Party::new(Principal::agent("db-1").expect("a name"), 70_000);
    let group = GroupName::new("all").expect("a name");
    let scopes = [
        ("shared", Scope::shared(&me, "component.svc")),
        ("server", Scope::server(&me, "component.svc", "h1")),
        ("fanout", Scope::fanout(&me, "group.all", "component.svc.h1", &group)),
    ];
    let encoded = |scope| {
        let key = ClaimKey::new(scope, sender.clone(), MessageId([7; 16]));
        bulla_guard::fuzzing::claim_key_bytes(&key)
    };
    scopes.into_iter().map(|(name, scope)| (name, encoded(scope))).collect()
}
