//! A page of metrics in the OpenMetrics text format.

use std::collections::BTreeMap;
use std::fmt;

use bulla_journal::{Events, SCHEMA};
use bulla_rpc::histogram::{BOUNDS, Durations};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::table::{Kind, Metric};

/// What a reader is told that it gets.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What was measured at one moment.
#[derive(Debug, Default)]
pub(crate) struct Page {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: String,
    labels: &'static [&'static str],
    samples: Vec<(Vec<String>, Value)>,
}

#[derive(Debug)]
enum Value {
    Whole(u64),
    Number(f64),
    Durations(Durations),
}

impl Page {
    /// A whole number.
    pub(crate) fn whole(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, Value::Whole(value));
    }

    /// The same of what is counted here by `usize`.
    pub(crate) fn count(&mut self, metric: Metric, value: usize) {
        self.whole(metric, &[], value as u64);
    }

    /// 1 or 0.
    pub(crate) fn flag(&mut self, metric: Metric, value: bool) {
        self.whole(metric, &[], value.into());
    }

    /// Any number.
    pub(crate) fn number(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Number(value));
    }

    /// A histogram.
    pub(crate) fn durations(&mut self, metric: Metric, durations: Durations) {
        self.add(metric, &[], Value::Durations(durations));
    }

    /// What it always is.
    pub(crate) fn info(&mut self, metric: Metric, labels: &[&str]) {
        self.add(metric, labels, Value::Whole(1));
    }

    fn add(&mut self, metric: Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let family = self.families.entry(metric.name).or_insert_with(|| Family {
            kind: metric.kind,
            help: metric.help.to_owned(),
            labels: metric.labels,
            samples: Vec::new(),
        });
        family.samples.push((labels.iter().map(|label| (*label).to_owned()).collect(), value));
    }

    /// What was counted of events: every metric of the schema, those without a label also at zero.
    pub(crate) fn events(&mut self, events: &Events) {
        let mut counted: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for (metric, label, count) in events.counted() {
            *counted.entry(metric).or_default().entry(label).or_default() += count;
        }
        for info in SCHEMA {
            let name = info.metric.trim_end_matches("_total");
            let counts = counted.remove(info.metric).unwrap_or_default();
            let labels = info.label.map_or(&[][..], label_of);
            let family = self.families.entry(name).or_insert_with(|| Family {
                kind: Kind::Counter,
                help: info.meaning.trim().to_owned(),
                labels,
                samples: Vec::new(),
            });
            if labels.is_empty() {
                let count = counts.values().sum();
                family.samples.push((Vec::new(), Value::Whole(count)));
                continue;
            }
            let labelled = counts.iter().filter(|(label, _)| !label.is_empty());
            let sample =
                |(label, count): (&&str, &u64)| (vec![(*label).to_owned()], Value::Whole(*count));
            family.samples.extend(labelled.map(sample));
        }
    }

    /// The text.
    ///
    /// # Errors
    /// Never, unless the encoder changed.
    pub(crate) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Once(Mutex::new(self))));
        let mut out = String::with_capacity(32 << 10);
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// The schema's label as a list of one.
fn label_of(label: &'static str) -> &'static [&'static str] {
    SCHEMA
        .iter()
        .filter_map(|info| info.label.as_ref())
        .find(|own| **own == label)
        .map_or(&[], std::slice::from_ref)
}

/// Collects one page.
#[derive(Debug)]
struct Once(Mutex<Page>);

impl Collector for Once {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let page = std::mem::take(&mut *self.0.lock());
        for (name, family) in page.families.iter().filter(|(_, family)| !family.samples.is_empty())
        {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(name, &family.help, None, kind)?;
            for (values, value) in &family.samples {
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if family.kind == Kind::Info {
                    metric.encode_info(&labels)?;
                } else if labels.is_empty() {
                    sample(&mut metric, family.kind, value)?;
                } else {
                    sample(&mut metric.encode_family(&labels)?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(out: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(count)) => {
            out.encode_counter::<NoLabelSet, _, u64>(count, None)
        }
        (Kind::Counter, Value::Number(count)) => {
            out.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        (_, Value::Whole(value)) => out.encode_gauge(value),
        (_, Value::Number(value)) => out.encode_gauge(value),
        (_, Value::Durations(durations)) => {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
            out.encode_histogram::<NoLabelSet>(durations.sum, durations.count(), &buckets, None)
        }
    }
}
