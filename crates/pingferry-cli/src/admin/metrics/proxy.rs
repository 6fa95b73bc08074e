//! The metrics of a proxy:
//!
//! packets = (requests − requests failed) + (answers − answers failed) + (fragments accepted − fragments discarded) + Σ drops
//! with the direction `request`
//!
//! No address is a label. Destinations have metrics of their own only by the names that the operator gives them.

use std::fmt;

use pingferry::{ByFamily, Class, Counters, DropReason, ErrorCounts, ErrorType, Family, FamilyCounters, Stats};
use prometheus_client::metrics::MetricType;

use super::Page;
use crate::admin::ObservedProxy;

impl Page<'_> {
    /// All metrics of a proxy.
    pub(crate) fn proxy(&mut self, observed: &ObservedProxy) -> fmt::Result {
        let stats = observed.control.stats();
        self.packets(&stats.counters)?;
        self.families(&stats.counters.by_family)?;
        self.drops(&stats.counters)?;
        self.flows(&stats)?;
        self.times(&stats)?;
        self.targets(&stats, &observed.targets)?;
        if observed.cloudflared_names {
            self.cloudflared(&stats.counters)?;
        }
        Ok(())
    }
}

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
