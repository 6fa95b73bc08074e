//! Spans of traced requests, which travel back to the edge in the framing of the tunnel.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pingferry::ingress::Sent;
use pingferry::trace::{self, Attribute, TraceContext, Tracer};
use pingferry::{DropReason, Tag};
use prost::Message;

use super::sender::Sender;
use crate::wire::spans::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status,
};
use crate::wire::{DatagramV2, TraceIdentity};

/// Spans wait in their turn as packets for this host.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The traced requests of a connection.
#[derive(Debug)]
pub(super) struct Traces {
    sender: Arc<Sender>,
    // Held to begin or to finish spans. Nothing is locked under it.
    tracer: Mutex<Tracer>,
}

impl Traces {
    pub(super) fn new(sender: Arc<Sender>) -> Arc<Self> {
        Arc::new(Self { sender, tracer: Mutex::default() })
    }

    /// The tag to send a request with. `None` if it is not sampled or no whole echo request.
    pub(super) fn begin(&self, packet: &[u8], identity: TraceIdentity) -> Option<Tag> {
        let TraceIdentity { trace_id, span_id, flags } = identity;
        let is_sampled = identity.is_sampled();
        is_sampled.then(|| self.lock().begin(TraceContext { trace_id, span_id, flags }, packet)).flatten()
    }

    pub(super) fn sent(&self, sent: &Sent) {
        self.finish(|tracer| tracer.sent(sent));
    }

    pub(super) fn dropped(&self, tag: Tag, reason: DropReason) {
        self.finish(|tracer| tracer.dropped(tag, reason));
    }

    /// The first reply of a flow that a traced request opened.
    pub(super) fn replied(&self, opener: Tag, reply: &[u8]) {
        self.finish(|tracer| tracer.replied(opener, reply));
    }

    /// Sends the spans that `event` finishes.
    fn finish(&self, event: impl FnOnce(&mut Tracer)) {
        let spans = {
            let mut tracer = self.lock();
            event(&mut tracer);
            tracer.take_spans()
        };
        for span in spans {
            let TraceContext { trace_id, span_id, flags } = span.context;
            let identity = TraceIdentity { trace_id, span_id, flags };
            let spans = export(span).encode_to_vec();
            let mut datagram = Vec::new();
            DatagramV2::Spans { spans: &spans, identity }.encode(&mut datagram);
            // What cannot be sent is counted there.
            self.sender.send(NOBODY, datagram.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tracer> {
        // Spans are finished whole or not at all, so a panic leaves nothing half changed.
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn export(span: trace::Span) -> ExportTraceServiceRequest {
    let attributes = vec![
        KeyValue::text("service.name", "pingferry"),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::text("host.arch", std::env::consts::ARCH),
    ];
    let scope = InstrumentationScope { name: "origin".into() };
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource { attributes }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![on_wire(span)] }],
        schema_url: String::new(),
    }];
    ExportTraceServiceRequest { resource_spans }
}

fn on_wire(span: trace::Span) -> Span {
    let attribute = |(key, value): (&str, Attribute)| match value {
        Attribute::Text(text) => KeyValue::text(key, text),
        Attribute::Int(number) => KeyValue::int(key, number),
        Attribute::Bool(is_true) => KeyValue::bool(key, is_true),
    };
    let message: String = span.error.unwrap_or_default().chars().take(Status::MAX_MESSAGE).collect();
    let code = if span.error.is_some() { Status::ERROR } else { Status::OK };
    Span {
        trace_id: span.context.trace_id.to_be_bytes().into(),
        span_id: span.id.to_be_bytes().into(),
        parent_span_id: span.context.span_id.to_be_bytes().into(),
        name: span.name.into(),
        kind: Span::KIND_INTERNAL,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        status: Some(Status { message, code }),
        flags: Span::SAMPLED_REMOTE,
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
