//! The table of routes: from it come what a path is about, what may be done there, the home document
//! and the description.

use std::sync::LazyLock;

use Op::{
    ChangeFlavor, ChangePool, ChangeSubscription, Claim, ConfirmSubscription, CreateQueue,
    DeleteMessage, DeleteMessages, DeleteQueue, Describe, GetClaim, GetFlavor, GetMessage, GetPool,
    GetQueue, GetSubscription, Health, Home, ListFlavors, ListMessages, ListPools, ListQueues,
    ListSubscriptions, PatchQueue, Ping, PostMessages, Purge, PutFlavor, PutPool, Release,
    RemoveFlavor, RemovePool, Renew, RevokeShares, SeeQueue, Share, Stats, Subscribe, Unsubscribe,
    Versions,
};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Versions,
    Home,
    Describe,
    Ping,
    Health,
    ListQueues,
    CreateQueue,
    GetQueue,
    SeeQueue,
    PatchQueue,
    DeleteQueue,
    Stats,
    Purge,
    Share,
    RevokeShares,
    PostMessages,
    ListMessages,
    DeleteMessages,
    GetMessage,
    DeleteMessage,
    Claim,
    GetClaim,
    Renew,
    Release,
    Subscribe,
    ListSubscriptions,
    GetSubscription,
    ChangeSubscription,
    Unsubscribe,
    ConfirmSubscription,
    ListPools,
    PutPool,
    GetPool,
    ChangePool,
    RemovePool,
    ListFlavors,
    PutFlavor,
    GetFlavor,
    ChangeFlavor,
    RemoveFlavor,
}

/// One line: a method, and what it does.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) op: Op,
    /// In the description; of a topic's, `queue` in it is `topic`.
    pub(super) id: &'static str,
    pub(super) says: &'static str,
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    /// The schema of the request's body.
    pub(super) takes: Option<&'static str>,
    /// Statuses of success, each with the schema of its body.
    pub(super) answers: &'static [(u16, Option<&'static str>)],
}

/// A path with what can be done there.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// What of a queue it is, for rights.
    pub(super) resource: &'static str,
    /// Whether topics have it, too.
    pub(super) twin: bool,
    pub(super) operations: &'static [Operation],
}

const fn op(
    method: &'static str,
    (op, id, says): (Op, &'static str, &'static str),
    query: &'static [&'static str],
    takes: Option<&'static str>,
    answers: &'static [(u16, Option<&'static str>)],
) -> Operation {
    Operation { method, op, id, says, query, takes, answers }
}

const DONE: &[(u16, Option<&str>)] = &[(204, None)];
const MADE: &[(u16, Option<&str>)] = &[(201, None), (204, None)];

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (Versions, "list-versions", "Shows which versions of the API there are."),
            &[],
            None,
            &[(300, Some("Versions"))],
        )],
    },
    Route {
        path: "/v2/",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (Home, "get-home", "Shows the home document."),
            &[],
            None,
            &[(200, Some("Home"))],
        )],
    },
    Route {
        path: "/v2/openapi.json",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (Describe, "openapi", "Shows this description."),
            &[],
            None,
            &[(200, Some("Any"))],
        )],
    },
    Route {
        path: "/v2/ping",
        resource: "",
        twin: false,
        operations: &[
            op("GET", (Ping, "ping", "Says whether the store answers."), &[], None, DONE),
            op("HEAD", (Ping, "see-ping", "Says whether the store answers."), &[], None, DONE),
        ],
    },
    Route {
        path: "/v2/health",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (Health, "get-health", "Shows how the stores are. For operators."),
            &[],
            None,
            &[(200, Some("Health"))],
        )],
    },
    Route {
        path: "/v2/queues",
        resource: "",
        twin: true,
        operations: &[op(
            "GET",
            (ListQueues, "list-queues", "Lists queues by name. Other parameters are of metadata."),
            &["marker", "limit", "detailed", "name", "with_count"],
            None,
            &[(200, Some("Queues"))],
        )],
    },
    Route {
        path: "/v2/queues/{queue_name}",
        resource: "queue",
        twin: true,
        operations: &[
            op(
                "PUT",
                (CreateQueue, "create-queue", "Makes a queue. One that is there stays as it is."),
                &[],
                Some("Metadata"),
                MADE,
            ),
            op(
                "GET",
                (GetQueue, "get-queue", "Shows a queue's metadata, with defaults."),
                &[],
                None,
                &[(200, Some("Metadata"))],
            ),
            op(
                "HEAD",
                (SeeQueue, "see-queue", "Says whether there is such a queue."),
                &[],
                None,
                &[(200, None)],
            ),
            op(
                "PATCH",
                (PatchQueue, "patch-queue", "Changes a queue's metadata."),
                &[],
                Some("Patch"),
                &[(200, Some("Metadata"))],
            ),
            op(
                "DELETE",
                (DeleteQueue, "delete-queue", "Removes a queue with all that is in it."),
                &[],
                None,
                DONE,
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/stats",
        resource: "stats",
        twin: true,
        operations: &[op(
            "GET",
            (Stats, "get-queue-stats", "Counts a queue's messages."),
            &[],
            None,
            &[(200, Some("Stats"))],
        )],
    },
    Route {
        path: "/v2/queues/{queue_name}/purge",
        resource: "purge",
        twin: true,
        operations: &[op(
            "POST",
            (Purge, "purge-queue", "Removes a queue's messages, subscriptions, or both."),
            &[],
            Some("Purge"),
            DONE,
        )],
    },
    Route {
        path: "/v2/queues/{queue_name}/share",
        resource: "share",
        twin: false,
        operations: &[
            op(
                "POST",
                (Share, "share-queue", "Makes a pre-signed grant."),
                &[],
                Some("Share"),
                &[(200, Some("Grant"))],
            ),
            op(
                "DELETE",
                (RevokeShares, "revoke-shares", "Ends all grants of a queue."),
                &[],
                None,
                DONE,
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/messages",
        resource: "messages",
        twin: true,
        operations: &[
            op(
                "POST",
                (PostMessages, "post-queue-messages", "Posts messages, all or none."),
                &[],
                Some("NewMessages"),
                &[(201, Some("Posted"))],
            ),
            op(
                "GET",
                (
                    ListMessages,
                    "list-queue-messages",
                    "Lists messages in their order, or those of `ids`. With `Accept: \
                     text/event-stream`, as events, as they come.",
                ),
                &["marker", "limit", "echo", "include_claimed", "include_delayed", "ids", "wait"],
                None,
                &[(200, Some("Messages"))],
            ),
            op(
                "DELETE",
                (
                    DeleteMessages,
                    "delete-queue-messages",
                    "Deletes the messages of `ids`, or takes `pop` of them out.",
                ),
                &["ids", "claim_ids", "pop", "wait"],
                None,
                &[(200, Some("Popped")), (204, None)],
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/messages/{message_id}",
        resource: "message",
        twin: true,
        operations: &[
            op(
                "GET",
                (GetMessage, "get-queue-message", "Shows a message."),
                &[],
                None,
                &[(200, Some("Message"))],
            ),
            op(
                "DELETE",
                (DeleteMessage, "delete-queue-message", "Deletes a message."),
                &["claim_id"],
                None,
                DONE,
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/claims",
        resource: "claims",
        twin: false,
        operations: &[op(
            "POST",
            (Claim, "claim", "Takes messages, for a while nobody else's."),
            &["limit", "wait"],
            Some("Terms"),
            &[(201, Some("Claimed")), (204, None)],
        )],
    },
    Route {
        path: "/v2/queues/{queue_name}/claims/{claim_id}",
        resource: "claim",
        twin: false,
        operations: &[
            op(
                "GET",
                (GetClaim, "get-claim", "Shows a claim and what it holds."),
                &[],
                None,
                &[(200, Some("Claim"))],
            ),
            op("PATCH", (Renew, "renew-claim", "Begins a claim anew."), &[], Some("Terms"), DONE),
            op("DELETE", (Release, "release-claim", "Ends a claim."), &[], None, DONE),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/subscriptions",
        resource: "subscriptions",
        twin: true,
        operations: &[
            op(
                "POST",
                (
                    Subscribe,
                    "subscribe-queue",
                    "Has messages sent to an address, once that was confirmed from there.",
                ),
                &[],
                Some("NewSubscription"),
                &[(201, Some("Subscribed"))],
            ),
            op(
                "GET",
                (ListSubscriptions, "list-queue-subscriptions", "Lists a queue's subscriptions."),
                &["marker", "limit"],
                None,
                &[(200, Some("Subscriptions"))],
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/subscriptions/{subscription_id}",
        resource: "subscription",
        twin: true,
        operations: &[
            op(
                "GET",
                (GetSubscription, "get-queue-subscription", "Shows a subscription."),
                &[],
                None,
                &[(200, Some("Subscription"))],
            ),
            op(
                "PATCH",
                (ChangeSubscription, "change-queue-subscription", "Changes a subscription."),
                &[],
                Some("SubscriptionChange"),
                DONE,
            ),
            op(
                "DELETE",
                (Unsubscribe, "delete-queue-subscription", "Ends a subscription."),
                &[],
                None,
                DONE,
            ),
        ],
    },
    Route {
        path: "/v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm",
        resource: "confirm",
        twin: true,
        operations: &[op(
            "PUT",
            (
                ConfirmSubscription,
                "confirm-queue-subscription",
                "Confirms a subscription, with what was sent to its address; or stops it.",
            ),
            &[],
            Some("Confirmation"),
            DONE,
        )],
    },
    Route {
        path: "/v2/pools",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (ListPools, "list-pools", "Lists pools. For operators."),
            &["marker", "limit", "detailed"],
            None,
            &[(200, Some("Pools"))],
        )],
    },
    Route {
        path: "/v2/pools/{pool_name}",
        resource: "",
        twin: false,
        operations: &[
            op(
                "PUT",
                (PutPool, "put-pool", "Registers a pool. For operators."),
                &[],
                Some("NewPool"),
                &[(201, None)],
            ),
            op(
                "GET",
                (GetPool, "get-pool", "Shows a pool. For operators."),
                &["detailed"],
                None,
                &[(200, Some("Pool"))],
            ),
            op(
                "PATCH",
                (ChangePool, "change-pool", "Changes a pool. For operators."),
                &[],
                Some("PoolChange"),
                &[(200, Some("Pool"))],
            ),
            op(
                "DELETE",
                (RemovePool, "remove-pool", "Removes a pool that no flavor has. For operators."),
                &[],
                None,
                DONE,
            ),
        ],
    },
    Route {
        path: "/v2/flavors",
        resource: "",
        twin: false,
        operations: &[op(
            "GET",
            (ListFlavors, "list-flavors", "Lists a project's flavors."),
            &["marker", "limit", "detailed"],
            None,
            &[(200, Some("Flavors"))],
        )],
    },
    Route {
        path: "/v2/flavors/{flavor_name}",
        resource: "",
        twin: false,
        operations: &[
            op(
                "PUT",
                (PutFlavor, "put-flavor", "Makes a flavor of pools. For operators."),
                &[],
                Some("NewFlavor"),
                &[(201, None)],
            ),
            op(
                "GET",
                (GetFlavor, "get-flavor", "Shows a flavor."),
                &[],
                None,
                &[(200, Some("Flavor"))],
            ),
            op(
                "PATCH",
                (ChangeFlavor, "change-flavor", "Gives a flavor other pools. For operators."),
                &[],
                Some("NewFlavor"),
                &[(200, Some("Flavor"))],
            ),
            op(
                "DELETE",
                (RemoveFlavor, "remove-flavor", "Removes a flavor. For operators."),
                &[],
                None,
                DONE,
            ),
        ],
    },
];

/// What a path is about.
#[derive(Clone, Copy)]
pub(super) struct Found<'p> {
    pub(super) route: &'static Route,
    /// The methods, as `Allow` has them.
    pub(super) allow: &'static str,
    /// Whether it is a topic's.
    pub(super) is_topic: bool,
    /// What stands in the first braces: a queue, a pool.
    pub(super) name: &'p str,
    /// What stands in the second.
    pub(super) id: &'p str,
}

impl<'p> Found<'p> {
    pub(super) fn at(path: &'p str) -> Option<Self> {
        static ALLOWED: LazyLock<Vec<String>> =
            LazyLock::new(|| ROUTES.iter().map(Route::allowed).collect());
        let is_topic = path.starts_with("/v2/topics");
        let (route, allow, words) =
            ROUTES.iter().zip(ALLOWED.iter()).find_map(|(route, allow)| {
                route.words(path, is_topic).map(|words| (route, allow, words))
            })?;
        Some(Self { route, allow, is_topic, name: words[0], id: words[1] })
    }

    pub(super) fn operation(&self, method: &str) -> Option<&'static Operation> {
        self.route.operations.iter().find(|operation| operation.method == method)
    }

    /// The queue or topic that it is about, or that something of it.
    pub(super) fn queue(&self) -> Option<&'p str> {
        (!self.route.resource.is_empty()).then_some(self.name)
    }
}

impl Route {
    /// What stands where the template has braces, if the path fits.
    fn words<'p>(&self, path: &'p str, is_topic: bool) -> Option<[&'p str; 2]> {
        if is_topic && !self.twin {
            return None;
        }
        let (mut words, mut filled) = ([""; 2], 0);
        let mut given = path.split('/');
        for wanted in self.path.split('/') {
            let word = given.next()?;
            if wanted.starts_with('{') {
                *words.get_mut(filled)? = word;
                filled += 1;
            } else if wanted != word && !(is_topic && wanted == "queues" && word == "topics") {
                return None;
            }
        }
        given.next().is_none().then_some(words)
    }

    fn allowed(&self) -> String {
        let mut methods: Vec<_> = self.operations.iter().map(|one| one.method).collect();
        methods.sort_unstable();
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_whole() {
        let found = |path: &'static str| {
            Found::at(path).map(|found| (found.route.path, found.is_topic, found.name, found.id))
        };
        assert_eq!(found("/v2/"), Some(("/v2/", false, "", "")));
        let message = "/v2/queues/{queue_name}/messages/{message_id}";
        assert_eq!(found("/v2/queues/q/messages/1"), Some((message, false, "q", "1")));
        assert_eq!(found("/v2/topics/q/messages/1"), Some((message, true, "q", "1")));
        assert_eq!(found("/v2/pools/p"), Some(("/v2/pools/{pool_name}", false, "p", "")));
        for bad in [
            "",
            "/v2",
            "/v2/nope",
            "/v2/queues/q/nope",
            "/v2/queues/q/messages/1/2",
            "/v1/",
            "/v2/topics/t/claims",
            "/v2/topics/t/share",
            "/v2/topicsx",
            "/v2/topics/topics/queues",
        ] {
            assert_eq!(found(bad), None, "{bad}");
        }
        assert_eq!(Found::at("/v2/queues/q/share").unwrap().allow, "DELETE, POST, OPTIONS");
    }

    #[test]
    fn ids_of_operations_are_their_own() {
        let mut ids: Vec<_> =
            ROUTES.iter().flat_map(|route| route.operations).map(|one| one.id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        // A topic's are told from a queue's.
        let twins = ROUTES.iter().filter(|route| route.twin);
        for operation in twins.flat_map(|route| route.operations) {
            assert!(operation.id.contains("queue"), "{}", operation.id);
        }
    }
}
