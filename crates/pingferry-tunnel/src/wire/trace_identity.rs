//! Which trace a packet belongs to.

use std::fmt;

/// The trace context of a packet: the parent of the spans that it causes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceIdentity {
    /// The trace. Zero is not a valid one (W3C Trace Context §3.2.2.3).
    pub trace_id: u128,
    /// The span that the new spans are children of. Zero is not a valid one.
    pub span_id: u64,
    /// Bit 0: the trace is sampled.
    pub flags: u8,
}

impl TraceIdentity {
    /// The length of an encoded identity, in bytes: trace id 16, span id 8, both big endian, flags 1.
    pub const LEN: usize = 25;
    const SAMPLED: u8 = 1;

    /// Reads an identity.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let [trace_id @ .., s0, s1, s2, s3, s4, s5, s6, s7, flags] = *bytes;
        Self {
            trace_id: u128::from_be_bytes(trace_id),
            span_id: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            flags,
        }
    }

    /// Adds it to `buffer`.
    pub fn encode(self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.trace_id.to_be_bytes());
        buffer.extend_from_slice(&self.span_id.to_be_bytes());
        buffer.push(self.flags);
    }

    /// Whether spans are to be recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0 && self.trace_id != 0 && self.span_id != 0
    }
}

impl fmt::Debug for TraceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{:016x}:{:x}", self.trace_id, self.span_id, self.flags)
    }
}
