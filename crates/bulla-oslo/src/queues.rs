//! Names and flags of exchanges and queues, as oslo.messaging's options make them.

use std::sync::Arc;

use bulla_transport::foreign::{Argument, ForeignExchange, ForeignQueue};
use bulla_transport::{Address, Inbox, ReplyName};

/// oslo.messaging's options that change exchanges and queues; the same as the peers' on this bus, by
/// their names there. All off is oslo.messaging's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    /// `amqp_durable_queues`: control exchange, topic and server queues survive the broker's restart.
    pub durable: bool,
    /// `amqp_auto_delete`: the same ones go with their last user.
    pub auto_delete: bool,
    /// `rabbit_quorum_queue`: topic and server queues are replicated.
    pub quorum: bool,
    /// `rabbit_transient_quorum_queue`: reply and fanout queues are replicated too.
    pub transient_quorum: bool,
    /// `rabbit_stream_fanout`: one stream in place of the fanout queues of a topic.
    pub stream_fanout: bool,
    /// `rabbit_ha_queues`: mirrored, as brokers before 3.0 wanted it said.
    pub mirrored: bool,
    /// `rabbit_quorum_delivery_limit`; 0 is none.
    pub delivery_limit: i32,
    /// `rabbit_quorum_max_memory_length`; 0 is none.
    pub max_in_memory_length: i32,
    /// `rabbit_quorum_max_memory_bytes`; 0 is none.
    pub max_in_memory_bytes: i32,
    /// `rabbit_transient_queues_ttl`, in seconds: how long a reply or fanout queue that nobody uses
    /// stays.
    pub transient_ttl: i32,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            durable: false,
            auto_delete: false,
            quorum: false,
            transient_quorum: false,
            stream_fanout: false,
            mirrored: false,
            delivery_limit: 0,
            max_in_memory_length: 0,
            max_in_memory_bytes: 0,
            transient_ttl: 1800,
        }
    }
}

impl Queues {
    /// The control exchange.
    pub fn control(&self, name: &str) -> Arc<ForeignExchange> {
        Arc::new(ForeignExchange {
            name: name.to_owned(),
            fanout: false,
            durable: self.durable || self.quorum,
            auto_delete: self.auto_delete,
        })
    }

    fn fanout(&self, topic: &str) -> Arc<ForeignExchange> {
        Arc::new(ForeignExchange {
            name: format!("{topic}_fanout"),
            fanout: true,
            durable: self.transient_quorum,
            auto_delete: true,
        })
    }

    /// Where a message to `to` is published.
    pub fn address(&self, to: &Address) -> Address {
        let (exchange, key) = match to {
            Address::Topic { exchange, topic } => (Some(self.control(exchange)), topic.clone()),
            Address::Server { exchange, topic, server } => {
                (Some(self.control(exchange)), format!("{topic}.{server}"))
            }
            Address::Fanout { topic, .. } => (Some(self.fanout(topic)), String::new()),
            Address::Reply { to, .. } => (None, reply_queue(to)),
            Address::Foreign { .. } => return to.clone(),
        };
        Address::Foreign { exchange, key }
    }

    /// What is consumed for `inbox`.
    pub fn inbox(&self, inbox: &Inbox) -> Arc<ForeignQueue> {
        match inbox {
            Inbox::Topic { exchange, topic } => self.named(exchange, topic.clone()),
            Inbox::Server { exchange, topic, server } => {
                self.named(exchange, format!("{topic}.{server}"))
            }
            Inbox::Fanout { topic, member, .. } => self.member(topic, member),
            Inbox::Reply { name, .. } => self.reply(&reply_queue(name)),
            Inbox::Foreign(queue) => Arc::clone(queue),
        }
    }

    /// A queue of the control exchange that is bound with its own name: of a topic, of a server, of
    /// notifications.
    pub fn named(&self, exchange: &str, name: String) -> Arc<ForeignQueue> {
        Arc::new(ForeignQueue {
            bound: Some((self.control(exchange), name.clone())),
            name,
            durable: self.durable || self.quorum,
            auto_delete: self.auto_delete,
            own: false,
            arguments: self.arguments(self.quorum),
            consume: Vec::new(),
        })
    }

    fn member(&self, topic: &str, member: &str) -> Arc<ForeignQueue> {
        let fanout = self.fanout(topic);
        let (name, mut arguments, mut consume) =
            (format!("{topic}_fanout_{member}"), self.transient(), Vec::new());
        let name = if self.stream_fanout {
            arguments = vec![
                ("x-queue-type".into(), Argument::Text("stream".into())),
                ("x-max-age".into(), Argument::Text(format!("{}s", self.transient_ttl))),
            ];
            consume.push(("x-stream-offset".into(), Argument::Text("last".into())));
            fanout.name.clone()
        } else {
            name
        };
        Arc::new(ForeignQueue {
            name,
            bound: Some((fanout, topic.to_owned())),
            durable: self.transient_quorum || self.stream_fanout,
            auto_delete: false,
            own: false,
            arguments,
            consume,
        })
    }

    fn reply(&self, name: &str) -> Arc<ForeignQueue> {
        Arc::new(ForeignQueue {
            name: name.to_owned(),
            bound: None,
            durable: self.transient_quorum,
            auto_delete: false,
            own: true,
            arguments: self.transient(),
            consume: Vec::new(),
        })
    }

    fn transient(&self) -> Vec<(String, Argument)> {
        let mut arguments = self.arguments(self.transient_quorum);
        if self.transient_ttl > 0 {
            let ttl = self.transient_ttl.saturating_mul(1000);
            arguments.push(("x-expires".into(), Argument::Number(ttl)));
        }
        arguments
    }

    fn arguments(&self, quorum: bool) -> Vec<(String, Argument)> {
        let mut arguments = Vec::new();
        if self.mirrored && !quorum {
            arguments.push(("x-ha-policy".into(), Argument::Text("all".into())));
        }
        if !quorum {
            return arguments;
        }
        arguments.push(("x-queue-type".into(), Argument::Text("quorum".into())));
        let limits = [
            ("x-delivery-limit", self.delivery_limit),
            ("x-max-in-memory-length", self.max_in_memory_length),
            ("x-max-in-memory-bytes", self.max_in_memory_bytes),
        ];
        let set = limits.into_iter().filter(|(_, limit)| *limit > 0);
        arguments.extend(set.map(|(name, limit)| (name.to_owned(), Argument::Number(limit))));
        arguments
    }
}

/// The queue of a reply name, of whichever form.
fn reply_queue(name: &ReplyName) -> String {
    if name.is_queue() { name.as_str().to_owned() } else { format!("reply_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn flags(queue: &ForeignQueue) -> Value {
        let mut arguments = serde_json::Map::new();
        for (name, value) in &queue.arguments {
            let value = match value {
                Argument::Number(number) => json!(number),
                Argument::Text(text) => json!(text),
            };
            arguments.insert(name.clone(), value);
        }
        json!({"durable": queue.durable, "auto_delete": queue.auto_delete, "arguments": arguments})
    }

    fn options(set: &Value) -> Queues {
        let on = |name: &str| set[name].as_bool().unwrap_or_default();
        Queues {
            durable: on("amqp_durable_queues"),
            auto_delete: on("amqp_auto_delete"),
            quorum: on("rabbit_quorum_queue"),
            transient_quorum: on("rabbit_transient_quorum_queue"),
            stream_fanout: on("rabbit_stream_fanout"),
            ..Queues::default()
        }
    }

    /// What oslo.messaging 18.3.1 declares under seven sets of options.
    #[test]
    fn flags_are_those_of_oslo_messaging() {
        let sample = include_str!("../tests/samples/topology-oslo18.json");
        let sample: Value = serde_json::from_str(sample).unwrap();
        let sets = sample["sets"].as_object().unwrap();
        assert_eq!(sets.len(), 7);
        for (label, set) in sets {
            let queues = options(&set["options"]);
            let exchange = set["exchanges"][0]["name"].as_str().unwrap().to_owned();
            let topic = format!("{exchange}-topic");
            let server = Inbox::Server {
                exchange: exchange.clone(),
                topic: topic.clone(),
                server: "h1".into(),
            };
            let own = [
                Inbox::Topic { exchange: exchange.clone(), topic: topic.clone() },
                server,
                Inbox::Fanout {
                    exchange: exchange.clone(),
                    topic: topic.clone(),
                    member: "m".into(),
                },
                Inbox::Reply {
                    exchange: exchange.clone(),
                    name: ReplyName::queue("reply_x").unwrap(),
                },
            ];
            for queue in set["queues"].as_array().unwrap() {
                let name = queue["name"].as_str().unwrap();
                let ours = own
                    .iter()
                    .map(|inbox| queues.inbox(inbox))
                    .find(|ours| {
                        let name = name.split(&['_'][..]).next().unwrap_or_default();
                        ours.name == queue["name"]
                            || (queue["name"].as_str().unwrap().contains("_fanout")
                                && ours.name.contains("_fanout"))
                            || (name == "reply" && ours.own)
                    })
                    .unwrap_or_else(|| panic!("{label}: {name}"));
                let theirs = json!({"durable": queue["durable"], "auto_delete": queue["auto_delete"], "arguments": queue["arguments"]});
                assert_eq!(flags(&ours), theirs, "{label}: {name}");
                for binding in set["bindings"].as_array().unwrap() {
                    if binding["destination"] == queue["name"] {
                        let (from, key) = ours.route();
                        assert_eq!(binding["source"], from.unwrap().name, "{label}");
                        assert_eq!(binding["routing_key"], key, "{label}");
                    }
                }
            }
            for (exchange, ours) in set["exchanges"]
                .as_array()
                .unwrap()
                .iter()
                .zip([queues.control(&exchange), queues.fanout(&topic)])
            {
                assert_eq!(exchange["name"], ours.name);
                assert_eq!(exchange["durable"], ours.durable, "{label}");
                assert_eq!(exchange["auto_delete"], ours.auto_delete, "{label}");
                assert_eq!(exchange["type"], if ours.fanout { "fanout" } else { "topic" });
            }
        }
    }
}
