//! From what becomes of packets to spans.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::SystemTime;

use pingferry_proto::wire::{Echo, IpPacket};
use pingferry_proto::{DropReason, Tag};

use super::{Attribute, Span, TraceContext};
use crate::ingress::Sent;

/// How many traced packets can wait for a reply. A newer one takes the place of the oldest.
const PENDING: u32 = 4096;
/// How many finished spans can wait. Later ones are lost, and counted.
const FINISHED: usize = 4096;

/// Makes spans of traced packets. It belongs to one ingress, whose tags are all from it.
///
/// ```
/// use pingferry::DropReason;
/// use pingferry::trace::{TraceContext, Tracer};
/// # let packet = pingferry_proto::wire::echo_request("10.0.0.2".parse()?, "192.0.2.1".parse()?, 7, 1, b"");
///
/// let mut tracer = Tracer::new();
/// let tag = tracer.begin(TraceContext { trace_id: 1, span_id: 2, flags: 1 }, &packet).ok_or("no echo request")?;
/// tracer.dropped(tag, DropReason::NoRoute);
/// let spans = tracer.take_spans();
/// assert_eq!((spans[0].name, spans[0].error), ("icmp-echo-request", Some("no_route")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tracer {
    /// By the number of the tag, modulo [`PENDING`].
    pending: Vec<Option<Pending>>,
    next: NonZeroU32,
    finished: Vec<Span>,
    lost: u64,
    /// Makes random numbers of spans.
    random: RandomState,
    count: u64,
}

/// A traced packet.
#[derive(Clone, Debug)]
struct Pending {
    tag: Tag,
    context: TraceContext,
    start: SystemTime,
    source: IpAddr,
    destination: IpAddr,
    ident: u16,
    seq: u16,
    /// The identifier of the socket, once the packet was sent.
    socket_ident: Option<u16>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer {
    /// A tracer without packets.
    pub fn new() -> Self {
        Self {
            pending: Vec::new(),
            next: NonZeroU32::MIN,
            finished: Vec::new(),
            lost: 0,
            random: RandomState::new(),
            count: 0,
        }
    }

    /// The tag for a packet of a trace. `None` if the packet is not a whole echo request: then it has no spans.
    pub fn begin(&mut self, context: TraceContext, packet: &[u8]) -> Option<Tag> {
        let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
        if !header.is_icmp() || header.fragment.is_some() {
            return None;
        }
        let Echo { ident, seq, .. } = Echo::parse_request(header.family(), payload).ok()?;
        let tag = Tag(self.next);
        self.next = self.next.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let (source, destination, start) = (header.source, header.destination, SystemTime::now());
        let pending = Pending { tag, context, start, source, destination, ident, seq, socket_ident: None };
        let place = place(tag);
        if self.pending.len() <= place {
            self.pending.resize(place + 1, None);
        }
        *self.pending.get_mut(place)? = Some(pending);
        Some(tag)
    }

    /// The request was sent.
    pub fn sent(&mut self, sent: &Sent) {
        let Some(mut pending) = self.take(sent.tag) else { return };
        let mut attributes = request_attributes(&pending);
        if sent.opens_flow {
            attributes.push(("port", Attribute::Int(sent.socket_ident.into())));
            attributes.push(("newFlow", Attribute::Bool(true)));
        }
        self.finish("icmp-echo-request", &pending, attributes, None);
        if sent.opens_flow {
            pending.socket_ident = Some(sent.socket_ident);
            self.put(pending);
        }
    }

    /// The request was dropped.
    pub fn dropped(&mut self, tag: Tag, reason: DropReason) {
        let Some(pending) = self.take(tag) else { return };
        self.finish("icmp-echo-request", &pending, request_attributes(&pending), Some(reason.label()));
    }

    /// The first reply of the flow that this packet opened is delivered: see
    /// [`Delivery::opener`](pingferry_proto::Delivery::opener).
    pub fn replied(&mut self, opener: Tag, reply: &[u8]) {
        let Some(mut pending) = self.take(opener) else { return };
        let Ok(IpPacket { header, payload }) = IpPacket::parse(reply) else { return };
        // Of a reply in fragments this is the first one, which has the ICMP header.
        let seq = Echo::parse_reply(header.family(), payload).map_or(pending.seq, |echo| echo.seq);
        pending.start = SystemTime::now();
        let mut attributes = vec![("originalEchoID", Attribute::Int(pending.ident.into()))];
        attributes.extend(pending.socket_ident.map(|ident| ("echoID", Attribute::Int(ident.into()))));
        attributes.push(("dst", Attribute::Text(header.source.to_string())));
        attributes.push(("seq", Attribute::Int(seq.into())));
        self.finish("icmp-echo-reply", &pending, attributes, None);
    }

    /// The spans that were finished since the last call.
    pub fn take_spans(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.finished)
    }

    /// How many finished spans were lost, because nobody took them in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn finish(
        &mut self,
        name: &'static str,
        pending: &Pending,
        attributes: Vec<(&'static str, Attribute)>,
        error: Option<&'static str>,
    ) {
        if self.finished.len() >= FINISHED {
            self.lost += 1;
            return;
        }
        self.count += 1;
        let (id, end) = (self.random.hash_one(self.count).max(1), SystemTime::now());
        self.finished.push(Span { context: pending.context, id, name, start: pending.start, end, attributes, error });
    }

    fn take(&mut self, tag: Tag) -> Option<Pending> {
        self.pending.get_mut(place(tag))?.take_if(|pending| pending.tag == tag)
    }

    fn put(&mut self, pending: Pending) {
        if let Some(place) = self.pending.get_mut(place(pending.tag)) {
            *place = Some(pending);
        }
    }
}

fn request_attributes(pending: &Pending) -> Vec<(&'static str, Attribute)> {
    vec![
        ("src", Attribute::Text(pending.source.to_string())),
        ("dst", Attribute::Text(pending.destination.to_string())),
        ("originalEchoID", Attribute::Int(pending.ident.into())),
        ("seq", Attribute::Int(pending.seq.into())),
    ]
}

fn place(tag: Tag) -> usize {
    (tag.0.get() % PENDING) as usize
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use pingferry_proto::wire::echo_request;

    use super::*;

    const CONTEXT: TraceContext = TraceContext { trace_id: 7, span_id: 8, flags: 1 };

    fn request(seq: u16) -> Vec<u8> {
        echo_request([10, 0, 0, 1].into(), [192, 0, 2, 1].into(), 4711, seq, b"")
    }

    #[test]
    fn a_tag_is_for_one_packet_and_what_has_no_spans_gets_none() {
        let mut tracer = Tracer::new();
        assert_eq!(tracer.begin(CONTEXT, &[0x45; 10]), None);
        let (first, second) = (tracer.begin(CONTEXT, &request(1)), tracer.begin(CONTEXT, &request(2)));
        assert!(first.is_some() && first != second);
        tracer.dropped(first.unwrap(), DropReason::NoRoute);
        tracer.dropped(first.unwrap(), DropReason::NoRoute);
        assert_eq!(tracer.take_spans().len(), 1, "one span for one packet");
    }

    #[test]
    fn only_a_packet_that_opened_a_flow_waits_for_a_reply() {
        let mut tracer = Tracer::new();
        let reply = request(1);
        for (opens_flow, spans) in [(false, 1), (true, 2)] {
            let tag = tracer.begin(CONTEXT, &request(1)).unwrap();
            tracer.sent(&Sent { tag, opens_flow, socket_ident: 99 });
            tracer.replied(tag, &reply);
            tracer.replied(tag, &reply);
            assert_eq!(tracer.take_spans().len(), spans);
        }
    }

    #[test]
    fn packets_and_spans_that_nobody_takes_are_bounded() {
        let mut tracer = Tracer::new();
        for seq in 0..10_000u16 {
            let tag = tracer.begin(CONTEXT, &request(seq)).unwrap();
            tracer.sent(&Sent { tag, opens_flow: true, socket_ident: 99 });
        }
        assert_eq!((tracer.pending.len(), tracer.finished.len()), (PENDING as usize, FINISHED));
        assert_eq!(tracer.lost(), 10_000 - FINISHED as u64);
    }
}
