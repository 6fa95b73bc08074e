//! The metrics, in the formats of OpenMetrics 1.0 and of Prometheus (text format 0.0.4).
//!
//! All numbers of one scrape come from one copy of the statistics. So they add up in each scrape, exactly:
//!
//! packets = (requests − requests failed) + (answers − answers failed) + (fragments accepted − fragments discarded) + Σ drops
//! with the direction `request`
//!
//! No address is a label. Destinations have metrics of their own only by the names that the operator gives them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingferry::{
    ByFamily, Class, Counters, DropReason, ErrorCounts, ErrorType, Family, FamilyCounters, Histogram, Stats,
};
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
        let stats = observed.control.stats();
        let mut page = Page(encoder);
        page.packets(&stats.counters)?;
        page.families(&stats.counters.by_family)?;
        page.drops(&stats.counters)?;
        page.flows(&stats)?;
        page.times(&stats)?;
        page.targets(&stats, &observed.targets)?;
        if observed.cloudflared_names {
            page.cloudflared(&stats.counters)?;
        }
        page.configuration(observed)?;
        page.process(&observed.process.usage(), observed.started)
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Metrics on their way into a page.
struct Page<'a>(DescriptorEncoder<'a>);

/// The metrics, by what they are about.
impl Page<'_> {
    fn packets(&mut self, c: &Counters) -> fmt::Result {
        for (name, help, value) in [
            ("packets", "Packets received from clients", c.packets),
            (
                "requests_failed",
                "Requests that the kernel did not send; they are among the drops too",
                c.requests_failed,
            ),
            ("answers", "Packets to pingferry itself that it answered", c.answers_attempted),
            (
                "answers_failed",
                "Answers that were not delivered; their packets are among the drops too",
                c.answers_failed,
            ),
            (
                "fragments_accepted",
                "Fragments that were stored until the others of their packet came",
                c.fragments_accepted,
            ),
            (
                "fragments_discarded",
                "Stored fragments that were dropped later; they are among the drops too",
                c.fragments_discarded,
            ),
            ("replies_received", "Messages received from ping sockets", c.replies_received),
            ("replies_failed", "Replies that were not delivered; they are among the drops too", c.replies_failed),
            ("icmp_errors_received", "ICMP errors of routers and hosts received", c.icmp_errors_received),
            (
                "icmp_errors_failed",
                "ICMP errors that were not delivered; they are among the drops too",
                c.icmp_errors_failed,
            ),
            (
                "errors_originated_failed",
                "ICMP errors of pingferry itself that were not delivered",
                c.errors_generated_failed,
            ),
            (
                "errors_withheld",
                "ICMP errors of pingferry itself that were due but exceeded the limit on their rate",
                c.errors_withheld,
            ),
            (
                "unanswered",
                "Requests without reply and ICMP error when their flow was closed: loss as the proxy sees it",
                c.unanswered,
            ),
        ] {
            self.counter(name, help, value)?;
        }
        Ok(())
    }

    fn families(&mut self, families: &ByFamily<FamilyCounters>) -> fmt::Result {
        let of_each = |count: fn(&FamilyCounters) -> u64| {
            FAMILIES.map(|(family, label)| (vec![("family", label)], count(&families[family])))
        };
        self.counters(
            "requests",
            "Echo requests and probes sent, with those that failed",
            of_each(|c| c.requests_attempted),
        )?;
        self.counters(
            "replies",
            "Replies returned to clients, with those that failed",
            of_each(|c| c.replies_attempted),
        )?;
        let of_each = |errors: fn(&FamilyCounters) -> &ErrorCounts| {
            let types = |(family, label)| {
                ErrorType::ALL
                    .map(|kind| (vec![("family", label), ("type", kind.label())], errors(&families[family])[kind]))
            };
            FAMILIES.map(types).into_iter().flatten()
        };
        let returned = "ICMP errors of routers and hosts returned to clients, with those that failed";
        self.counters("icmp_errors_returned", returned, of_each(|c| &c.icmp_errors_attempted))?;
        let originated = "ICMP errors of pingferry itself, with those that failed";
        self.counters("errors_originated", originated, of_each(|c| &c.errors_generated_attempted))
    }

    /// Every reason is there from the start, so that a first drop is an increase.
    fn drops(&mut self, c: &Counters) -> fmt::Result {
        let directions = [("request", &c.request_drops), ("reply", &c.reply_drops)];
        let drops = directions.into_iter().flat_map(|(direction, drops)| {
            let labels = move |reason: DropReason| vec![("direction", direction), ("reason", reason.label())];
            DropReason::ALL.iter().map(move |reason| (labels(*reason), drops[*reason]))
        });
        self.counters("drops", "Packets that were not forwarded, each by one reason", drops)
    }

    fn flows(&mut self, stats: &Stats) -> fmt::Result {
        let c = &stats.counters;
        self.gauge("flows", "Open flows", stats.flows as f64)?;
        self.counter("flows_opened", "Flows opened", c.flows_opened)?;
        let closed = [("idle", c.flows_expired), ("evicted", c.flows_evicted)];
        let closed = closed.map(|(cause, count)| (vec![("cause", cause)], count));
        self.counters("flows_closed", "Flows closed: they were idle, or were evicted for new ones", closed)?;
        let sockets =
            stats.sockets_by_class.iter().map(|(class, count)| (vec![("class", label(*class))], *count as f64));
        self.gauges("sockets", "Open ping sockets: DF is set on their packets, or each has one flow", sockets)?;
        let lost = "Replies and errors that the kernel dropped because a receive buffer was full";
        self.counter("receive_overflows", lost, stats.receive_overflows)?;
        self.counter("connections_refused", "Connections of Unix sockets closed at once", stats.connections_refused)
    }

    fn times(&mut self, stats: &Stats) -> fmt::Result {
        let rtt =
            FAMILIES.map(|(family, label)| (vec![("family", label)], &stats.counters.by_family[family].round_trips));
        self.histograms("rtt", "From taking a request to the arrival of its reply at the socket", rtt)?;
        let transit = [("request", &stats.request_transit), ("reply", &stats.reply_transit)];
        let transit = transit.map(|(direction, times)| (vec![("direction", direction)], times));
        self.histograms("transit", "How long packets were in pingferry", transit)
    }

    fn targets(&mut self, stats: &Stats, names: &[String]) -> fmt::Result {
        let targets: Vec<_> = names.iter().map(String::as_str).zip(&stats.targets).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let of_each = |count: fn(&pingferry::TargetCounters) -> u64| {
            targets.iter().map(move |(name, counters)| (vec![("target", *name)], count(counters))).collect::<Vec<_>>()
        };
        self.counters("target_requests", "Echo requests to a target", of_each(|c| c.requests))?;
        self.counters("target_replies", "Replies of a target", of_each(|c| c.replies))?;
        self.counters("target_unanswered", "As unanswered, for a target", of_each(|c| c.unanswered))?;
        let rtt = targets.iter().map(|(name, counters)| (vec![("target", *name)], &counters.round_trips));
        self.histograms("target_rtt", "As rtt, for a target", rtt)
    }

    /// The names of cloudflared's counters.
    fn cloudflared(&mut self, c: &Counters) -> fmt::Result {
        let names = [
            ("cloudflared_icmp_total_requests", c.requests_attempted),
            ("cloudflared_icmp_total_replies", c.replies_attempted),
        ];
        for (name, value) in names {
            // They lack the suffix `_total` of counters.
            self.0.encode_descriptor(name, "As in cloudflared", None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn configuration(&mut self, observed: &Observed) -> fmt::Result {
        let successful = f64::from(u8::from(observed.reloads.is_successful()));
        self.gauge("config_reload_success", "Whether the newest reload succeeded, 1 or 0", successful)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        self.gauges("build_info", "The version of pingferry, always 1", [(version, 1.0)])
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
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| metric.encode_counter(&value, NO_EXEMPLAR))
    }

    fn counters<'l>(
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

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| metric.encode_gauge(&value))
    }

    fn gauges<'l>(&mut self, name: &str, help: &str, all: impl IntoIterator<Item = (Labels<'l>, f64)>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| {
            all.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    fn histograms<'l, 'h, const FIRST: u64>(
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

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];

/// The name of a class of sockets.
fn label(class: Class) -> &'static str {
    match (class.family, class.dont_fragment, class.dedicated) {
        (Family::V4, false, false) => "ipv4",
        (Family::V4, true, false) => "ipv4_df",
        (Family::V4, false, true) => "ipv4_dedicated",
        (Family::V4, true, true) => "ipv4_df_dedicated",
        (Family::V6, false, false) => "ipv6",
        (Family::V6, true, false) => "ipv6_df",
        (Family::V6, false, true) => "ipv6_dedicated",
        (Family::V6, true, true) => "ipv6_df_dedicated",
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
