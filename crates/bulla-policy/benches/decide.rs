//! What a decision costs: with 50 rules and with 1,000, of which each looks at an argument.
//!
//!     cargo bench -p bulla-policy --features author --bench decide
//!
//! Printed are nanoseconds a decision: the median of 21 rounds. `named`: each rule names its
//! method in its scope. `first`: in its first condition. `general`: in a pattern, so that each request
//! meets all rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails like a test")]

use std::hint::black_box;
use std::time::Instant;

use bulla_policy::WhoKind::{Agent, Component};
use bulla_policy::{Action, MethodOf, Policy, Request, Source, Who};

const ROUNDS: usize = 21;
const DECISIONS: u32 = 2_000;

fn rules(count: usize, kind: &str) -> Policy {
    let mut text = String::from("// @argument instance_id: String\n// @argument size: Long\n");
    for n in 0..count {
        let (resource, condition) = match kind {
            "named" => (format!("resource == Method::\"m{n}\""), String::new()),
            "first" => ("resource".to_owned(), format!("resource.name == \"m{n}\" && ")),
            _ => ("resource".to_owned(), format!("resource.name like \"m{n}*-\" && ")),
        };
        text += &format!(
            "@id(\"r{n}\")\npermit (principal is Agent, action == Action::\"call\", {resource})\n\
             when {{ {condition}context.args has instance_id && context.args.instance_id == principal.id\n\
             && context.args has size && context.args.size < 100 }};\n"
        );
    }
    let policy = Source::parse(&text).unwrap().compile().unwrap();
    Policy::from_bytes(&policy.to_bytes()).unwrap()
}

fn main() {
    let args = b"\xa3\x64name\x63foo\x6binstance_id\x64db-1\x64size\x07";
    println!("{:>6} {:>8} {:>10}", "rules", "", "ns");
    for count in [50, 1000] {
        for kind in ["named", "first", "general"] {
            let policy = rules(count, kind);
            let end = if kind == "general" { "-" } else { "" };
            let name = format!("m{}{end}", count - 1);
            let request = Request {
                sender: Who { kind: Agent, id: "db-1" },
                roles: &[],
                projects: &[],
                groups: None,
                action: Action::Call,
                method: MethodOf {
                    receiver: Who { kind: Component, id: "conductor" },
                    exchange: "bulla.component.conductor",
                    topic: "conductor",
                    namespace: "",
                    name: &name,
                    version: (1, 0),
                    open_to_agents: true,
                    open_to_components: false,
                    read_only: false,
                },
                args,
                now: 1_900_000_000,
            };
            assert!(policy.decide(&request).allows());
            let mut took: Vec<u128> = (0..ROUNDS)
                .map(|_| {
                    let begun = Instant::now();
                    for _ in 0..DECISIONS {
                        black_box(policy.decide(black_box(&request)));
                    }
                    begun.elapsed().as_nanos() / u128::from(DECISIONS)
                })
                .collect();
            took.sort_unstable();
            println!("{count:>6} {kind:>8} {:>10}", took[ROUNDS / 2]);
        }
    }
}
