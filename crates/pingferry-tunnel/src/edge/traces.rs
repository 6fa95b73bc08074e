//! Which packets are traced, and which spans of connectors are believed.
//!
//! # Theory of operation
//!
//! A packet that is traced carries a random trace id and span id. The connector returns spans of that trace as children of that
//! span. The edge takes only spans of traces that it started in the same tunnel lately, so that a connector cannot
//! put spans into traces of others. With the first ones it exports its own span, their parent.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::SystemTime;

use aws_lc_rs::rand;
use pingferry::trace::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, ResourceSpans, Span, Status, unix_nanos,
};
use uuid::Uuid;

use crate::wire::TraceIdentity;

/// The traces that are remembered. With more, the oldest are forgotten.
const MAX_TRACES: usize = 4096;
/// The processes whose spans a datagram may have.
const MAX_RESOURCES: usize = 20;
/// The spans that a datagram may have, and the bytes of the text in each.
const MAX_SPANS: usize = 64;

/// Starts traces and checks what comes back.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// The share of packets that are traced, as a 32-bit fraction. 0 traces nothing.
    share: u64,
    started: HashMap<u128, Trace>,
    /// The traces in the order in which they started.
    order: VecDeque<u128>,
}

#[derive(Clone, Copy, Debug)]
struct Trace {
    span: u64,
    tunnel: Uuid,
    source: IpAddr,
    destination: IpAddr,
    at: SystemTime,
    /// Whether the span of the edge was exported.
    is_exported: bool,
}

impl Tracer {
    /// Traces this share of packets, from 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
        let share = (ratio.clamp(0.0, 1.0) * (1u64 << 32) as f64) as u64;
        Self { share, started: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether any packet is traced.
    pub(crate) fn is_on(&self) -> bool {
        self.share > 0
    }

    /// Starts a trace of a packet, if this one is to be traced.
    pub(crate) fn start(
        &mut self,
        at: SystemTime,
        tunnel: Uuid,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<TraceIdentity> {
        // 4 bytes that decide, and the two identifiers.
        let mut random = [0; 28];
        rand::fill(&mut random).ok()?;
        let [d0, d1, d2, d3, trace @ .., s0, s1, s2, s3, s4, s5, s6, s7] = random;
        if u64::from(u32::from_be_bytes([d0, d1, d2, d3])) >= self.share {
            return None;
        }
        let (trace, span) = (u128::from_be_bytes(trace) | 1, u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]) | 1);
        if self.order.len() >= MAX_TRACES
            && let Some(oldest) = self.order.pop_front()
        {
            self.started.remove(&oldest);
        }
        self.started.insert(trace, Trace { span, tunnel, source, destination, at, is_exported: false });
        self.order.push_back(trace);
        Some(TraceIdentity { trace_id: trace, span_id: span, flags: 1 })
    }

    /// Checks spans that a connector of `tunnel` sent. Returns what to export.
    pub(crate) fn accept(
        &mut self,
        now: SystemTime,
        tunnel: Uuid,
        identity: TraceIdentity,
        spans: &[u8],
    ) -> Option<ExportTraceServiceRequest> {
        let trace = self.started.get_mut(&identity.trace_id)?;
        if trace.tunnel != tunnel || trace.span != identity.span_id {
            return None;
        }
        let mut request = ExportTraceServiceRequest::parse(spans).ok()?;
        let trace_id = identity.trace_id.to_be_bytes();
        let is_of_trace = |span: &Span| span.trace_id == trace_id && span.span_id != identity.span_id.to_be_bytes();
        let has_room = request.resource_spans.len() <= MAX_RESOURCES;
        if !has_room || request.spans().count() > MAX_SPANS || !request.spans().all(is_of_trace) {
            return None;
        }
        if !std::mem::replace(&mut trace.is_exported, true) {
            request.resource_spans.push(own_span(identity, trace, now));
        }
        Some(request)
    }
}

/// The span of the edge: from the packet to the first answer about it.
fn own_span(identity: TraceIdentity, trace: &Trace, now: SystemTime) -> ResourceSpans {
    let span = Span {
        trace_id: identity.trace_id.to_be_bytes().into(),
        span_id: identity.span_id.to_be_bytes().into(),
        name: "icmp-echo".into(),
        kind: Span::KIND_INTERNAL,
        start_time_unix_nano: unix_nanos(trace.at),
        end_time_unix_nano: unix_nanos(now),
        attributes: vec![
            KeyValue::text("src", trace.source.to_string()),
            KeyValue::text("dst", trace.destination.to_string()),
        ],
        status: Some(Status { message: String::new(), code: Status::OK }),
        flags: 1,
        ..Span::default()
    };
    let scope = InstrumentationScope { name: "edge".into(), ..InstrumentationScope::default() };
    ResourceSpans::new(vec![KeyValue::text("service.name", "pingferry-edge")], scope, vec![span])
}

#[cfg(test)]
mod tests {
    use pingferry::trace::otlp::ScopeSpans;

    use super::*;

    const TUNNEL: Uuid = Uuid::from_u128(1);

    fn start(tracer: &mut Tracer) -> Option<TraceIdentity> {
        let [source, destination] = ["192.0.2.1", "10.0.0.1"].map(|text| text.parse().unwrap());
        tracer.start(SystemTime::now(), TUNNEL, source, destination)
    }

    fn spans_of(trace_id: u128, span_id: u64) -> Vec<u8> {
        let (trace_id, span_id) = (trace_id.to_be_bytes().into(), span_id.to_be_bytes().into());
        let spans = vec![Span { trace_id, span_id, ..Span::default() }];
        let scope_spans = vec![ScopeSpans { scope: None, spans }];
        let resource = ResourceSpans { resource: None, scope_spans, schema_url: String::new() };
        ExportTraceServiceRequest { resource_spans: vec![resource] }.to_bytes()
    }

    #[test]
    fn a_share_of_the_packets_is_traced() {
        for (ratio, expected) in [(0.0, 0..=0), (1.0, 10_000..=10_000), (0.1, 800..=1200)] {
            let mut tracer = Tracer::new(ratio);
            let traced = (0..10_000).filter(|_| start(&mut tracer).is_some()).count();
            assert!(expected.contains(&traced), "{traced} at {ratio}");
            assert!(tracer.started.len() <= MAX_TRACES && tracer.started.len() == tracer.order.len());
        }
    }

    #[test]
    fn spans_of_a_trace_are_taken_with_their_parent_once() {
        let mut tracer = Tracer::new(1.0);
        let identity = start(&mut tracer).unwrap();
        let mut accept = || tracer.accept(SystemTime::now(), TUNNEL, identity, &spans_of(identity.trace_id, 7));
        let names = |request: ExportTraceServiceRequest| -> Vec<String> {
            request.spans().map(|span| span.name.clone()).collect()
        };
        assert_eq!(accept().map(names), Some(vec![String::new(), "icmp-echo".into()]));
        assert_eq!(accept().map(names), Some(vec![String::new()]));
    }

    #[test]
    fn spans_of_anything_else_are_not_taken() {
        let mut tracer = Tracer::new(1.0);
        let [identity, other] = [start(&mut tracer).unwrap(), start(&mut tracer).unwrap()];
        let mut is_taken = |tunnel, identity: TraceIdentity, spans: &[u8]| {
            tracer.accept(SystemTime::now(), tunnel, identity, spans).is_some()
        };
        let spans = spans_of(identity.trace_id, 7);
        assert!(!is_taken(Uuid::from_u128(2), identity, &spans), "of another tunnel");
        assert!(!is_taken(TUNNEL, TraceIdentity { span_id: 9, ..identity }, &spans), "of another span");
        assert!(!is_taken(TUNNEL, TraceIdentity { trace_id: 9, ..identity }, &spans), "of no trace");
        assert!(!is_taken(TUNNEL, identity, &spans_of(other.trace_id, 7)), "of another trace");
        assert!(!is_taken(TUNNEL, identity, &spans_of(identity.trace_id, identity.span_id)), "the edge's own span");
        assert!(!is_taken(TUNNEL, identity, b"\x0a\xff"), "no spans");
        let many = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::default(); 21] };
        assert!(!is_taken(TUNNEL, identity, &many.to_bytes()), "too many");
        assert!(is_taken(TUNNEL, identity, &spans));
    }
}
