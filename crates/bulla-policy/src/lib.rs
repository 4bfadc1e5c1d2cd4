//! Who may call what: rules written in Cedar, compiled to a table that every receiver can judge by.
//!
//! What it is not: a store of policies, or the place where they are enforced. `bulla-rpc` asks this
//! crate once for each message, after its sender was proven and before it runs.
//!
//! People write rules in [Cedar](https://www.cedarpolicy.com). With the feature `author`, this crate
//! parses them, validates them against a schema of ours, and compiles them. Receivers hold the
//! compiled form and judge by it alone: they need no Cedar, and a decision takes well under a
//! microsecond. What Cedar would decide is what is decided here; a test holds the two against each
//! other. Two differences, both for safety: a condition that can't be judged denies (Cedar passes
//! the rule over, be it a `forbid`), and an argument is never looked at unless the policy declares
//! its type.
//!
//! ```
//! # #[cfg(feature = "author")] {
//! use bulla_policy::WhoKind::{Agent, Component};
//! use bulla_policy::{Action, MethodOf, Request, Source, Who};
//!
//! let source = Source::parse(
//!     r#"
//!     // @argument instance_id: String
//!
//!     @id("agents-report-on-themselves")
//!     permit (principal is Agent, action == Action::"cast", resource == Method::"conductor.report")
//!     when { context.args has instance_id && context.args.instance_id == principal.id };
//!     "#,
//! );
//! let policy = source.and_then(|source| source.compile()).unwrap();
//! let report = |args: &'static [u8]| Request {
//!     sender: Who { kind: Agent, id: "db-1" },
//!     roles: &[],
//!     projects: &[],
//!     groups: None,
//!     action: Action::Cast,
//!     method: MethodOf {
//!         receiver: Who { kind: Component, id: "conductor" },
//!         exchange: "bulla.component.conductor",
//!         topic: "conductor",
//!         namespace: "conductor",
//!         name: "report",
//!         version: (1, 0),
//!         open_to_agents: true,
//!         open_to_components: false,
//!         read_only: false,
//!     },
//!     args,
//!     now: 1_900_000_000,
//! };
//! assert!(policy.decide(&report(b"\xa1\x6binstance_id\x64db-1")).allows());
//! assert!(!policy.decide(&report(b"\xa1\x6binstance_id\x64db-2")).allows());
//! # }
//! ```

#[cfg(feature = "author")]
mod author;
mod expr;
mod policy;
mod reach;
mod request;
mod rule;
mod table;

#[cfg(feature = "author")]
pub use author::{Mistake, Source, starter};
pub use policy::{Decision, Explanation, FAULT, NO_GROUPS, NO_RULE, Policy};
pub use reach::{Peer, Reach};
pub use request::{Action, ArgType, EntityKind, EntityRef, MethodOf, Request, Value, Who, WhoKind};
pub use rule::{Effect, Rule, Standing};
pub use table::NotAPolicy;
