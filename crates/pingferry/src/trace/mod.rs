//! Spans of traced requests, as cloudflared makes them for the packets of its tunnels.
//!
//! # Theory of operation
//!
//! A packet may belong to a trace: a tunnel gives the [`TraceContext`] of each traced packet, or a [`Sampling`] begins traces of
//! its own. The ingress asks a [`Tracer`] for a [`Tag`](pingferry_proto::Tag) and gives it with the packet
//! ([`Tracer::begin`]). The proxy tells the ingress's sink what became of it, and the sink tells the tracer: it was
//! [sent](Tracer::sent), it was [dropped](Tracer::dropped), or the first reply of the flow that it opened
//! [came](Tracer::replied). Each of these finishes a span, which the ingress [takes](Tracer::take_spans) to export it.
//!
//! | span | attributes |
//! |---|---|
//! | `icmp-echo-request` | `src`, `dst`, `originalEchoID`, `seq`; if it opens a flow also `port`, the identifier of the socket, and `newFlow`; an error if it was dropped |
//! | `icmp-echo-reply`, of the first reply of a flow whose first packet was traced | `originalEchoID`, `echoID`, the identifier of the socket, `dst`, the host that replied, `seq` |
//!
//! Packets without a tag cost nothing.

#[cfg(feature = "otlp")]
pub mod otlp;
mod tracer;

use std::time::SystemTime;

pub use self::tracer::Tracer;
pub use crate::ingress::traced::Sampling;

/// The trace that a packet belongs to (W3C Trace Context §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace. Zero is not a valid one.
    pub trace_id: u128,
    /// The parent of the spans that the packet causes. Zero: they have none.
    pub span_id: u64,
    /// Bit 0: the trace is sampled.
    pub flags: u8,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Span {
    /// Its trace and its parent.
    pub context: TraceContext,
    /// Its own number, never zero.
    pub id: u64,
    /// `icmp-echo-request` or `icmp-echo-reply`.
    pub name: &'static str,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did: the label of a [`DropReason`](pingferry_proto::DropReason).
    pub error: Option<&'static str>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
}
