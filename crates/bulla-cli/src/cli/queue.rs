//! The queue service, on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Serve queues over HTTPS: for operators by certificate, for users by tokens of Keystone's.
    Serve(QueueServeArgs),
    /// List the queues of a project.
    List {
        /// Those alone whose names hold this.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        at: QueueWhere,
    },
    /// Make a queue.
    Create {
        #[command(flatten)]
        of: QueueOf,
        /// Take only messages that enrolled principals sign, or seal: signed, sealed.
        #[arg(long, value_name = "WHAT", value_parser = ["signed", "sealed"])]
        require: Option<String>,
        /// Something else about it (may be repeated); the value is JSON, or a text.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Show what is said about a queue.
    Show(QueueOf),
    /// Say something else about a queue.
    Set {
        #[command(flatten)]
        of: QueueOf,
        /// What: _default_message_ttl, _require, or anything of your own.
        key: String,
        /// JSON, or a text; nothing takes it away.
        value: Option<String>,
    },
    /// Count a queue's messages.
    Stats(QueueOf),
    /// Remove a queue's messages and subscriptions.
    Purge(QueueOf),
    /// Remove a queue with all that is in it.
    Delete(QueueOf),
    /// Make a pre-signed grant: who has it needs nothing else.
    Grant {
        #[command(flatten)]
        of: QueueOf,
        /// What of the queue: messages, claims, subscriptions.
        #[arg(long, value_delimiter = ',', default_value = "messages", value_name = "PATHS")]
        paths: Vec<String>,
        /// Methods, for all paths or for one: GET, POST:claims.
        #[arg(long, value_delimiter = ',', default_value = "GET", value_name = "METHODS")]
        methods: Vec<String>,
        /// When it ends: a time, or a while from now; 30d at the longest.
        #[arg(long = "for", default_value = "1d", value_name = "TIME")]
        lasts: String,
    },
    /// End all grants of a queue.
    Revoke(QueueOf),
    /// Print the API's description: OpenAPI 3.1, as JSON.
    Openapi,
}

/// Which queue service is asked, and for whom.
#[derive(Debug, Args)]
pub(crate) struct QueueWhere {
    /// The queue service [default: the one of this home folder].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The CA of its certificate [default: the one in the home folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// An access key to sign requests with, in the place of the operator's certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) access_key: Option<PathBuf>,
    /// Whose queues; a program's are its own.
    #[arg(long, default_value = "bulla", value_name = "ID")]
    pub(crate) project: String,
}

#[derive(Debug, Args)]
pub(crate) struct QueueOf {
    /// The queue.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) at: QueueWhere,
}

#[derive(Debug, Args)]
pub(crate) struct QueueServeArgs {
    /// Where the queue service listens [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the queues are: a SQLite file, rediss://…, or postgres://…, without password
    /// [default: queue.db in the home folder].
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Plain HTTP on a loopback address, believing what every request says of its project.
    #[arg(long)]
    pub(crate) noauth: bool,
}
