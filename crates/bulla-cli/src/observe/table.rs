//! Every metric, declared once: what is served, `docs/observe.md`'s table, and what the dashboard and the
//! alerts may ask for come from here. Metrics of events come from the journal's schema instead.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises; served with `_total` after its name.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds; served with `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1: its labels are what it says. Served with `_info`.
    Info,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    /// Without what its kind puts after it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Labels of bounded sets of values: never an agent, a caller or a method.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
    /// Of control-plane processes only.
    pub(crate) control: bool,
}

impl Metric {
    /// The name of its samples, as a query has it.
    pub(crate) fn sample(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{end}", self.name)
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $id:ident = $kind:ident $name:literal
        $([$($label:literal),+])? $(@ $control:ident)?;)*) => {
        $(pub(crate) const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($($label),+)?],
            help: concat!($($help),+).trim_ascii(),
            control: metrics!(control $($control)?),
        };)*
        /// Every metric.
        pub(crate) const ALL: &[Metric] = &[$($id),*];
    };
    (control) => { false };
    (control control) => { true };
}

metrics! {
    /// The program: its version.
    BUILD = Info "bulla_build" ["version"];
    /// Who this process is: its principal, and the host of a component.
    PROCESS = Info "bulla_process" ["principal", "instance"];

    /// Methods that were run here, by what became of them; and requests that were denied, answered as
    /// repetitions, or put back because they could not be judged.
    REQUESTS = Counter "bulla_requests" ["outcome"];
    /// From when a message was taken from the bus until its reply was handed over and it was acknowledged.
    REQUEST_DURATION = Histogram "bulla_request_duration_seconds";
    /// Messages that were taken from the bus and are not dealt with.
    REQUESTS_IN_HAND = Gauge "bulla_requests_in_hand";
    /// Messages that hold a worker.
    REQUESTS_RUNNING = Gauge "bulla_requests_running";
    /// Workers: methods that may run at the same time.
    REQUESTS_CAPACITY = Gauge "bulla_requests_capacity";
    /// Messages that were refused, by the refusal's stable name. None of these was answered.
    REFUSALS = Counter "bulla_refusals" ["refusal"];
    /// Calls that this process made, by what became of them.
    CALLS = Counter "bulla_calls" ["outcome"];
    /// From when a call was sent until its outcome was there.
    CALL_DURATION = Histogram "bulla_call_duration_seconds";
    /// Calls that wait for their answer.
    CALLS_WAITING = Gauge "bulla_calls_waiting";
    /// Casts, notifications and fanouts that the bus took over.
    SENT = Counter "bulla_messages_sent";
    /// Replies that opened.
    REPLIES = Counter "bulla_replies_opened";
    /// Offers of sessions whose encapsulation was opened.
    OFFERS = Counter "bulla_offers_opened";
    /// Notices that asked a caller for its offer.
    NOTICES = Counter "bulla_offer_notices";
    /// Fanouts that are missing in their signers' sequences, less those that came late.
    GAPS = Gauge "bulla_fanouts_missing_now";
    /// Messages below their sender's floor that an exemption let through.
    EXEMPTED = Counter "bulla_messages_exempted";
    /// Messages below a floor that is rehearsed.
    BELOW_TARGET = Counter "bulla_messages_below_target";

    /// How long the claim store took for a claim, or to keep an outcome.
    CLAIM_DURATION = Histogram "bulla_claim_duration_seconds";
    /// Claims and outcomes that the claim store could not keep.
    CLAIM_ERRORS = Counter "bulla_claim_errors";
    /// Whether the claim store answers.
    CLAIMS_UP = Gauge "bulla_claims_up";
    /// Ids of messages that are held.
    CLAIMS_HELD = Gauge "bulla_claims_held";
    /// Claims that no worker completed yet.
    CLAIMS_IN_FLIGHT = Gauge "bulla_claims_in_flight";
    /// Senders with at least one id.
    CLAIM_SENDERS = Gauge "bulla_claim_senders";
    /// Bytes of stored replies.
    CLAIM_REPLY_BYTES = Gauge "bulla_claim_reply_bytes";
    /// What happened to claims.
    CLAIMS = Counter "bulla_claims" ["event"];
    /// Claims that were refused, by the reason's stable name.
    CLAIMS_REFUSED = Counter "bulla_claims_refused" ["reason"];
    /// What was issued at or before this time is refused, because what ran then is forgotten; absent
    /// otherwise.
    CLAIMS_BLIND = Gauge "bulla_claims_blind_until_timestamp_seconds";

    /// Whether the connection to the bus is up and the broker takes messages.
    BUS_UP = Gauge "bulla_bus_up";
    /// Losses of the connection to the bus.
    BUS_LOST = Counter "bulla_bus_losses";
    /// Reconnections to the bus.
    BUS_RECONNECTED = Counter "bulla_bus_reconnections";
    /// Messages that came back because nobody takes messages there.
    BUS_RETURNED = Counter "bulla_bus_returned";
    /// Messages that wait in this principal's own queue: the broker's word, asked for every ten seconds at
    /// the most.
    QUEUE_MESSAGES = Gauge "bulla_queue_messages";

    /// When this process's own keys end.
    OWN_KEY_END = Gauge "bulla_own_key_end_timestamp_seconds" ["purpose"];
    /// Principals in the keystore.
    PRINCIPALS = Gauge "bulla_principals" ["kind", "key_type"] @control;
    /// Keys in the keystore: each principal's newest, and each right's issuer.
    KEYS = Gauge "bulla_keys" ["purpose"] @control;
    /// Keys that are over. Their agents have to join again.
    KEYS_OVER = Gauge "bulla_keys_over" ["purpose"] @control;
    /// Keys that are over, or end within so many seconds.
    KEYS_ENDING = Gauge "bulla_keys_ending" ["purpose", "within"] @control;
    /// When the next key ends that is not over.
    NEXT_KEY_END = Gauge "bulla_next_key_end_timestamp_seconds" ["purpose"] @control;
    /// Whether the keystore answers.
    KEYSTORE_UP = Gauge "bulla_keystore_up" @control;
    /// When the keystore's sums (principals, keys, floors, census) were made: once a minute at the most.
    SUMMARY_AT = Gauge "bulla_keystore_summary_timestamp_seconds" @control;

    /// Peers by the lowest level that is taken from them.
    FLOORS = Gauge "bulla_floor_peers" ["level"];
    /// Of these, peers of which more is demanded in rehearsal.
    FLOORS_REHEARSED = Gauge "bulla_floor_peers_rehearsed" ["level"];
    /// Peers by the levels at which their messages came.
    CENSUS = Gauge "bulla_census_peers" ["level"];
    /// Of these, peers that were below what is demanded of them, in rehearsal or by an exemption.
    CENSUS_BELOW = Gauge "bulla_census_peers_below" ["level"];
    /// Exemptions that hold.
    EXEMPTIONS = Gauge "bulla_exemptions";

    /// The epoch of the statement of revocation that is held.
    STATEMENT_EPOCH = Gauge "bulla_statement_epoch";
    /// When it was made.
    STATEMENT_AT = Gauge "bulla_statement_issued_timestamp_seconds";
    /// When it stops being current.
    STATEMENT_END = Gauge "bulla_statement_end_timestamp_seconds";

    /// Whether the journal can be written.
    JOURNAL_UP = Gauge "bulla_journal_up";
    /// Events that wait for the journal's writer.
    JOURNAL_QUEUED = Gauge "bulla_journal_queued";
    /// Events that may wait.
    JOURNAL_CAPACITY = Gauge "bulla_journal_capacity";
    /// How old the oldest event is that is not on the disk.
    JOURNAL_LAG = Gauge "bulla_journal_lag_seconds";
    /// Events that were lost for want of room.
    JOURNAL_LOST = Counter "bulla_journal_lost";
    /// Records in the journal.
    JOURNAL_RECORDS = Gauge "bulla_journal_records";
    /// Records that no checkpoint covers yet.
    JOURNAL_UNSIGNED = Gauge "bulla_journal_unsigned";
    /// When the last checkpoint was made.
    JOURNAL_CHECKPOINT = Gauge "bulla_journal_checkpoint_timestamp_seconds";
    /// Bytes that are left on the journal's disk.
    JOURNAL_DISK = Gauge "bulla_journal_disk_free_bytes";

    /// Requests to the API, by the route's pattern.
    API_REQUESTS = Counter "bulla_api_requests" ["route", "method", "status"] @control;
    /// How long requests to the API took until their answer began.
    API_DURATION = Histogram "bulla_api_request_duration_seconds" @control;
    /// Requests to the API whose answer has not begun.
    API_IN_FLIGHT = Gauge "bulla_api_requests_in_flight" @control;

    /// Spans of traces that were exported, dropped because more came than may wait, or lost because the
    /// collector did not take them.
    SPANS = Counter "bulla_spans" ["result"];

    /// Tasks that are alive in the runtime.
    TASKS = Gauge "bulla_runtime_tasks";
    /// Threads that run tasks.
    WORKERS = Gauge "bulla_runtime_workers";
    /// User and system time.
    CPU = Counter "process_cpu_seconds";
    /// Memory in use.
    RESIDENT = Gauge "process_resident_memory_bytes";
    /// Address space in use.
    VIRTUAL = Gauge "process_virtual_memory_bytes";
    /// File descriptors in use.
    OPEN_FDS = Gauge "process_open_fds";
    /// File descriptors that may be in use.
    MAX_FDS = Gauge "process_max_fds";
    /// Threads.
    THREADS = Gauge "process_threads";
    /// When the process began.
    START_TIME = Gauge "process_start_time_seconds";
}

/// The table of the documentation. Those of events are in `docs/events.md`.
pub(crate) fn markdown() -> String {
    let mut out = String::from("| metric | kind | labels | what |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let control = if metric.control { " (Control-plane processes only.)" } else { "" };
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let (name, kind) = (metric.sample(), metric.kind.as_str());
        out += &format!("| `{name}` | {kind} | {labels} | {}{control} |\n", metric.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use bulla_journal::SCHEMA;

    use super::*;

    fn file(path: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
    }

    const BEGIN: &str = "<!-- The table of metrics, from the code. -->\n";
    const END: &str = "<!-- The table ends. -->\n";

    #[test]
    fn the_documentation_has_every_metric() {
        let path = file("docs/observe.md");
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let wanted = format!("{before}{BEGIN}{}{END}{after}", markdown());
        if std::env::var_os("BULLA_WRITE_METRICS").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap() == wanted,
            "docs/observe.md is out of date: BULLA_WRITE_METRICS=1 cargo test -p bulla-cli --bin bulla"
        );
    }

    /// The names in a text that look like metrics of ours.
    fn names(text: &str) -> BTreeSet<String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !word(c))
            .filter(|word| word.starts_with("bulla_") || word.starts_with("process_"))
            .map(str::to_owned)
            .collect()
    }

    fn known() -> BTreeSet<String> {
        let mut known: BTreeSet<_> = SCHEMA.iter().map(|info| info.metric.to_owned()).collect();
        for metric in ALL {
            match metric.kind {
                Kind::Histogram => {
                    known.extend(["bucket", "sum", "count"].map(|s| format!("{}_{s}", metric.name)))
                }
                _ => drop(known.insert(metric.sample())),
            }
        }
        known
    }

    #[test]
    fn the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
        let known = known();
        let dashboard = fs::read_to_string(file("packaging/grafana/bulla.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        let asked: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
        assert!(asked.len() > 50);
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let variables = variables.iter().filter_map(|variable| variable["query"].as_str());
        let rules = fs::read_to_string(file("packaging/prometheus/bulla.rules.yml")).unwrap();
        let rules = rules.lines().filter(|line| line.contains("expr:"));
        let mut used = 0;
        for query in asked.into_iter().chain(variables).chain(rules) {
            let names = names(query);
            used += names.len();
            let unknown: Vec<_> = names.difference(&known).collect();
            assert!(unknown.is_empty(), "{unknown:?} in {query}");
        }
        assert!(used > 80, "{used}");
    }

    #[test]
    fn prometheus_takes_the_alerts() {
        let rules = file("packaging/prometheus/bulla.rules.yml");
        match Command::new("promtool").args(["check", "rules"]).arg(rules).output() {
            Ok(checked) => {
                assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            }
            Err(_) => eprintln!("promtool is not installed: the rules' syntax was not checked"),
        }
    }

    #[test]
    fn names_are_unique_also_beside_the_events() {
        let events = SCHEMA.iter().map(|info| info.metric.to_owned());
        let own = ALL.iter().map(Metric::sample);
        let names: Vec<_> = events.collect::<BTreeSet<_>>().into_iter().chain(own).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:#?}");
        for metric in ALL {
            assert!(metric.help.ends_with('.') && !metric.name.ends_with("_total"), "{metric:?}");
        }
    }

    #[test]
    fn no_label_has_a_value_for_each_agent() {
        for metric in ALL {
            for label in metric.labels {
                assert!(!["agent", "sender", "caller", "target", "id"].contains(label));
                assert!(*label != "method" || metric.name == API_REQUESTS.name);
                // Its own process's name is one.
                assert!(*label != "principal" || metric.kind == Kind::Info);
            }
        }
    }
}
