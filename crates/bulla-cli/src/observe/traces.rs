//! Spans of traces on their way to a collector (OTLP over HTTP, with the feature `otel`).

#[cfg(feature = "otel")]
mod otlp;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_rpc::trace::Tracer;
use serde::Deserialize;

use super::page::Page;
use super::table::SPANS;
use super::usage;
use crate::failure::Result;

/// Spans that were exported, dropped, and lost.
static EXPORTED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Where spans go, and how many.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TraceSettings {
    pub(crate) endpoint: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) sample: Option<f64>,
    pub(crate) service: Option<String>,
}

/// Who exports.
#[derive(Debug, Clone)]
pub(crate) struct Service<'a> {
    /// Unless the settings say otherwise.
    pub(crate) name: &'a str,
    /// Which process of it.
    pub(crate) instance: &'a str,
}

/// The exporter, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    #[cfg(feature = "otel")]
    exporter: Option<Arc<otlp::Exporter>>,
}

impl Traces {
    /// Starts exporting, if the settings name a collector.
    ///
    /// # Errors
    /// The settings make no sense, or this program was built without the feature `otel`.
    pub(crate) fn start(settings: &TraceSettings, service: &Service<'_>) -> Result<Self> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self::default()) };
        let sample = settings.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            return Err(usage("[traces] sample: give a share from 0.0 to 1.0"));
        }
        Self::export(settings, endpoint, sample, service)
    }

    #[cfg(feature = "otel")]
    fn export(
        settings: &TraceSettings,
        endpoint: &str,
        sample: f64,
        service: &Service<'_>,
    ) -> Result<Self> {
        let name = settings.service.as_deref().unwrap_or(service.name);
        let service = Service { name, ..service.clone() };
        let collector = otlp::Collector::new(endpoint, settings.ca.as_deref())?;
        let exporter = otlp::Exporter::start(collector, sample, &service);
        Ok(Self { exporter: Some(Arc::new(exporter)) })
    }

    #[cfg(not(feature = "otel"))]
    fn export(settings: &TraceSettings, _: &str, _: f64, service: &Service<'_>) -> Result<Self> {
        let _ = (&settings.ca, &settings.service, service.name, service.instance);
        Err(usage(
            "[traces] endpoint: this program was built without the feature `otel`; build it with \
             `cargo build --release --features otel`, or leave the setting out",
        ))
    }

    /// What endpoints give their spans to.
    pub(crate) fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            return Some(exporter.clone());
        }
        None
    }

    /// Sends what is left.
    pub(crate) async fn close(&self) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            exporter.close().await;
        }
    }
}

/// Adds what became of spans.
pub(super) fn add(page: &mut Page) {
    for (result, count) in [("exported", &EXPORTED), ("dropped", &DROPPED), ("lost", &LOST)] {
        page.whole(SPANS, &[result], count.load(Ordering::Relaxed));
    }
}
