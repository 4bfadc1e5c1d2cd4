//! Names as others write them: what is taken is written the same again.

use bulla_rpc::Target;
use bulla_seal::{GroupName, Principal, TrustDomain};
use bulla_transport::ReplyName;

use crate::Saw;

/// Any text as each kind of name.
pub fn run(input: &[u8]) -> Saw {
    let Ok(text) = std::str::from_utf8(input) else { return "no text".into() };
    let principal = text.parse::<Principal>().ok();
    if let Some(principal) = &principal {
        assert_eq!(principal.as_str(), text);
        let reply = ReplyName::new(text, "9f3a").expect("every principal has a reply inbox");
        assert!(reply.belongs_to(text));
        assert_eq!(ReplyName::parse(reply.as_str()), Some(reply));
    }
    let reply = ReplyName::parse(text);
    if let Some(reply) = &reply {
        assert_eq!(reply.as_str(), text);
    }
    let target = text.parse::<Target>().ok();
    if let Some(target) = &target {
        assert_eq!(target.to_string(), text);
        let _ = (target.address("bulla"), target.inbox("bulla"));
    }
    let group = GroupName::new(text).is_ok();
    let domain = TrustDomain::new(text).is_ok();
    format!("{} {} {} {group} {domain}", principal.is_some(), reply.is_some(), target.is_some())
}
