//! Spans of traced requests, which travel back to the edge.
//!
//! # Theory of operation
//!
//! A traced request has a tag, which the proxy returns with what becomes of it. The request's span is finished by the first of
//! three events: the proxy drops the request, a reply comes, or [`SENT_AFTER`] has passed without either. The first reply of a flow
//! after its first traced request has a span too. Requests are forgotten in the order they came, when there are too many.
//!
//! Only traced requests cost anything.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pingferry::{DropReason, Tag};
use pingferry_proto::wire::{Echo, IpPacket};
use prost::Message;

use super::sender::Sender;
use crate::wire::spans::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status,
};
use crate::wire::{DatagramV2, TraceIdentity};

/// How many traced requests are remembered.
const MAX_REQUESTS: usize = 1024;
/// A request that was not dropped until then was sent.
const SENT_AFTER: Duration = Duration::from_millis(200);

/// The traced requests of a connection.
#[derive(Debug)]
pub(super) struct Traces {
    sender: Arc<Sender>,
    // Held to look one request up. Nothing is locked under it.
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    by_tag: HashMap<NonZeroU32, Request>,
    /// Their tags, the oldest first.
    order: VecDeque<NonZeroU32>,
    last_tag: u32,
}

#[derive(Clone, Debug)]
struct Request {
    identity: TraceIdentity,
    flow: Flow,
    seq: u16,
    received: (Instant, SystemTime),
    /// Its span was sent.
    is_reported: bool,
    /// The next reply has a span: no earlier request of its flow is remembered, and none was replied to.
    wants_reply: bool,
}

/// What distinguishes a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    source: IpAddr,
    destination: IpAddr,
    ident: u16,
}

impl Traces {
    pub(super) fn new(sender: Arc<Sender>) -> Arc<Self> {
        Arc::new(Self { sender, requests: Mutex::default() })
    }

    /// Remembers a request, and returns the tag to send it with. `None` if it is not sampled or no echo request.
    pub(super) fn request(&self, packet: &[u8], identity: TraceIdentity) -> Option<Tag> {
        let parsed = IpPacket::parse(packet).ok().filter(|_| identity.is_sampled())?;
        let echo = Echo::parse_request(parsed.header.family(), parsed.payload).ok()?;
        let (source, destination) = (parsed.header.source, parsed.header.destination);
        let flow = Flow { source, destination, ident: echo.ident };
        Some(self.lock().add(identity, flow, echo.seq))
    }

    /// The proxy dropped a request.
    pub(super) fn dropped(&self, Tag(tag): Tag, reason: DropReason) {
        let request = self.lock().by_tag.remove(&tag);
        if let Some(request) = request {
            self.send(&request, request.span(&format!("{reason:?}")));
        }
    }

    /// A reply to the newest request of a flow came.
    pub(super) fn replied(&self, Tag(tag): Tag, seq: u16) {
        let Some((request, is_first)) = self.lock().take_reply(tag) else { return };
        if !request.is_reported {
            self.send(&request, request.span(""));
        }
        if is_first {
            self.send(&request, request.reply_span(seq));
        }
    }

    /// Sends the spans of requests that were sent a while ago. To be called from time to time.
    pub(super) fn tick(&self, now: Instant) {
        let sent = self.lock().take_sent(now);
        for request in sent {
            self.send(&request, request.span(""));
        }
    }

    fn send(&self, request: &Request, span: Span) {
        let spans = export(span).encode_to_vec();
        let mut datagram = Vec::new();
        DatagramV2::Spans { spans: &spans, identity: request.identity }.encode(&mut datagram);
        // What cannot be sent is counted there.
        self.sender.send(request.flow.source, datagram.into());
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        // Nothing panics with the lock.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    fn add(&mut self, identity: TraceIdentity, flow: Flow, seq: u16) -> Tag {
        while self.order.len() >= MAX_REQUESTS {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.by_tag.remove(&oldest));
        }
        self.last_tag = self.last_tag.wrapping_add(1);
        let tag = NonZeroU32::new(self.last_tag).unwrap_or(NonZeroU32::MIN);
        self.last_tag = tag.get();
        let wants_reply = !self.by_tag.values().any(|other| other.flow == flow);
        let received = (Instant::now(), SystemTime::now());
        self.by_tag.insert(tag, Request { identity, flow, seq, received, is_reported: false, wants_reply });
        self.order.push_back(tag);
        Tag(tag)
    }

    /// The request that a reply belongs to, as it was before, and whether the reply has a span.
    fn take_reply(&mut self, tag: NonZeroU32) -> Option<(Request, bool)> {
        let request = self.by_tag.get_mut(&tag)?;
        let before = request.clone();
        request.is_reported = true;
        let flow = request.flow;
        // The reply may be to an earlier request than the newest one.
        let mut is_first = false;
        for other in self.by_tag.values_mut().filter(|other| other.flow == flow) {
            is_first |= std::mem::take(&mut other.wants_reply);
        }
        Some((before, is_first))
    }

    fn take_sent(&mut self, now: Instant) -> Vec<Request> {
        let is_sent =
            |request: &&mut Request| !request.is_reported && now.duration_since(request.received.0) >= SENT_AFTER;
        let report = |request: &mut Request| {
            request.is_reported = true;
            request.clone()
        };
        self.by_tag.values_mut().filter(is_sent).map(report).collect()
    }
}

impl Request {
    /// The span of the request. It failed if there is a reason.
    fn span(&self, failure: &str) -> Span {
        let code = if failure.is_empty() { Status::OK } else { Status::ERROR };
        let attributes = vec![
            KeyValue::text("src", self.flow.source.to_string()),
            KeyValue::text("dst", self.flow.destination.to_string()),
            KeyValue::int("originalEchoID", self.flow.ident),
            KeyValue::int("seq", self.seq),
        ];
        let message = failure.chars().take(Status::MAX_MESSAGE).collect();
        self.new_span("icmp-echo-request", attributes, Status { message, code })
    }

    fn reply_span(&self, seq: u16) -> Span {
        let attributes = vec![
            KeyValue::text("dst", self.flow.source.to_string()),
            KeyValue::int("originalEchoID", self.flow.ident),
            KeyValue::int("seq", seq),
        ];
        self.new_span("icmp-echo-reply", attributes, Status { message: String::new(), code: Status::OK })
    }

    fn new_span(&self, name: &str, attributes: Vec<KeyValue>, status: Status) -> Span {
        Span {
            trace_id: self.identity.trace_id.to_be_bytes().into(),
            span_id: random_id().into(),
            parent_span_id: self.identity.span_id.to_be_bytes().into(),
            name: name.into(),
            kind: Span::KIND_INTERNAL,
            start_time_unix_nano: nanos(self.received.1),
            end_time_unix_nano: nanos(SystemTime::now()),
            attributes,
            status: Some(status),
            flags: Span::SAMPLED_REMOTE,
        }
    }
}

fn export(span: Span) -> ExportTraceServiceRequest {
    let attributes = vec![
        KeyValue::text("service.name", "pingferry"),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::text("host.arch", std::env::consts::ARCH),
    ];
    let scope = InstrumentationScope { name: "origin".into() };
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource { attributes }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span] }],
        schema_url: String::new(),
    }];
    ExportTraceServiceRequest { resource_spans }
}

fn random_id() -> [u8; 8] {
    // A zero would not be a valid identifier. If there are no random numbers, there is no TLS either.
    let mut id = [1; 8];
    let _ = aws_lc_rs::rand::fill(&mut id);
    id
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
