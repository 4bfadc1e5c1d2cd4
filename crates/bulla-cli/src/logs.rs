//! Logs, to standard error: as lines for people, or as JSON with stable names of fields.

use std::fmt;

use bulla_journal::{now_nanos, rfc3339};
use bulla_rpc::trace;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

use crate::failure::{Failure, Result};

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One object a line.
    Json,
}

impl LogFormat {
    /// By `BULLA_LOG_FORMAT`, if that is set.
    pub(crate) fn from_env() -> Result<Option<Self>> {
        match std::env::var("BULLA_LOG_FORMAT").as_deref() {
            Err(_) | Ok("") => Ok(None),
            Ok("text") => Ok(Some(Self::Text)),
            Ok("json") => Ok(Some(Self::Json)),
            Ok(_) => Err(Failure::usage("BULLA_LOG_FORMAT is `text` or `json`")),
        }
    }
}

/// What stands in every line. An event's own field of that name has `field_` before it.
const OWN: [&str; 6] = ["time", "level", "module", "message", "trace_id", "span_id"];

/// Warnings for short commands, what happens for services.
pub(crate) fn start(service: bool, format: LogFormat) {
    let default = if service { LevelFilter::INFO } else { LevelFilter::WARN };
    let asked = std::env::var("BULLA_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(default));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Json => registry.with(logs.event_format(Json).with_filter(filter)).init(),
        LogFormat::Text => registry.with(logs.with_target(false).with_filter(filter)).init(),
    }
}

/// One object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let meta = event.metadata();
        line.insert("time".to_owned(), rfc3339(now_nanos()).into());
        line.insert("level".to_owned(), meta.level().as_str().to_ascii_lowercase().into());
        line.insert("module".to_owned(), meta.target().into());
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        if let Some(message) = fields.0.remove("message") {
            line.insert("message".to_owned(), message);
        }
        if let Some(context) = trace::current() {
            line.insert("trace_id".to_owned(), context.trace_id_hex().into());
            line.insert("span_id".to_owned(), context.span_id_hex().into());
        }
        for (name, value) in fields.0 {
            let name = if OWN.contains(&name.as_str()) { format!("field_{name}") } else { name };
            line.insert(name, value);
        }
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let mut name = field.name().trim_start_matches("r#");
        if name == "message" && self.0.contains_key(name) {
            // The words come first; this is an event's own.
            name = "field_message";
        }
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use bulla_rpc::trace::TraceContext;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_is_an_object_with_its_trace() {
        let lines = Lines::default();
        let own = lines.clone();
        let layer =
            tracing_subscriber::fmt::layer().with_writer(move || own.clone()).event_format(Json);
        let subscriber = tracing_subscriber::registry().with(layer);
        let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], sampled: true };
        {
            let _guard = tracing::subscriber::set_default(subscriber);
            tracing::warn!(time = 3, message = %"id-7", target = "t", "a \"quoted\"\nline");
            trace::within(context, async { tracing::info!(ok = true, "traced") }).await;
        }
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [plain, traced] = &lines[..] else { panic!("{text}") };
        assert_eq!(plain["level"], "warn");
        assert_eq!(plain["message"], "a \"quoted\"\nline");
        assert_eq!((&plain["field_time"], &plain["target"]), (&3.into(), &"t".into()));
        assert_eq!(plain["field_message"], "id-7");
        assert!(plain["module"].as_str().unwrap().ends_with("logs::tests"));
        assert!(plain["time"].as_str().unwrap().ends_with('Z') && plain.get("trace_id").is_none());
        assert_eq!(traced["trace_id"], context.trace_id_hex());
        assert_eq!(traced["span_id"], context.span_id_hex());
    }
}
