//! The metrics, in the formats of OpenMetrics 1.0 and of Prometheus (text format 0.0.4).
//!
//! All numbers of one scrape come from one copy of the statistics, so they add up in each scrape, exactly.

mod proxy;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingferry::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::Observed;
use super::process::Usage;

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    PrometheusText,
}

impl Format {
    /// The one that a client accepts (`Accept` of RFC 9110 §12.5.1): OpenMetrics only for those that name it.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::PrometheusText }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::PrometheusText => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics as they are now.
pub(super) fn render(observed: &Arc<Observed>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Arc::clone(observed))));
    let mut page = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut page, &registry)?,
        Format::PrometheusText => prometheus_text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

struct Scrape(Arc<Observed>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let observed = &*self.0;
        let mut page = Page(encoder);
        observed.role.encode(&mut page)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("build_info", "The version of pingferry, always 1", [(version, 1.0)])?;
        page.process(&observed.process.usage(), observed.started)
    }
}

/// Names and values.
pub(crate) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Metrics on their way into a page.
pub(crate) struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    pub(crate) fn reload_success(&mut self, is_successful: bool) -> fmt::Result {
        let value = f64::from(u8::from(is_successful));
        self.gauge("config_reload_success", "Whether the newest reload succeeded, 1 or 0", value)
    }

    fn process(&mut self, usage: &Usage, started: SystemTime) -> fmt::Result {
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut cpu = self.0.encode_descriptor(
            "process_cpu",
            "Processor time of the process",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        cpu.encode_counter(&usage.cpu_seconds, NO_EXEMPLAR)?;
        for (name, help, value) in [
            ("process_start_time_seconds", "When the process started, since 1970", Some(started)),
            ("process_virtual_memory_bytes", "Virtual memory", usage.virtual_bytes.map(|bytes| bytes as f64)),
            ("process_resident_memory_bytes", "Resident memory", usage.resident_bytes.map(|bytes| bytes as f64)),
            ("process_open_fds", "Open descriptors", usage.descriptors.map(|count| count as f64)),
            ("process_max_fds", "The limit of descriptors", Some(usage.max_descriptors as f64)),
        ] {
            let Some(value) = value else { continue };
            self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

/// The kinds of metrics. Each name gets the prefix `pingferry_`, and the suffix of its kind.
impl Page<'_> {
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| metric.encode_counter(&value, NO_EXEMPLAR))
    }

    pub(crate) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| {
            all.into_iter()
                .try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR))
        })
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| metric.encode_gauge(&value))
    }

    pub(crate) fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| {
            all.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    pub(super) fn histograms<'l, 'h, const FIRST: u64>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'l>, &'h Histogram<FIRST>)>,
    ) -> fmt::Result {
        let name = format!("pingferry_{name}");
        let mut metric = self.0.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, histogram) in all {
            let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            let buckets: Vec<(f64, u64)> = histogram.buckets().map(|(end, count)| (bound(end), count)).collect();
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), histogram.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        encode: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("pingferry_{name}");
        encode(self.0.encode_descriptor(&name, help, None, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::PrometheusText);
    }
}
