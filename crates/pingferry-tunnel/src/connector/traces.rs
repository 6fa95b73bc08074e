//! Spans of traced requests, which travel back to the edge in the framing of the tunnel.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pingferry::ingress::Sent;
use pingferry::trace::otlp::{ExportTraceServiceRequest, InstrumentationScope, KeyValue, ResourceSpans, Span};
use pingferry::trace::{self, TraceContext, Tracer};
use pingferry::{DropReason, Tag};

use super::sender::Sender;
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
            let spans = export(span).to_bytes();
            let mut datagram = Vec::new();
            DatagramV2::Spans { spans: &spans, identity }.encode(&mut datagram);
            // What cannot be sent is counted there.
            let _ = self.sender.send([(NOBODY, datagram.into())].into_iter());
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
    let scope = InstrumentationScope { name: "origin".into(), ..InstrumentationScope::default() };
    // The parent is the span of the identity, whatever that is.
    let parent_span_id = span.context.span_id.to_be_bytes().into();
    let span = Span { parent_span_id, flags: Span::SAMPLED_REMOTE, ..Span::from(span) };
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::new(attributes, scope, vec![span])] }
}
