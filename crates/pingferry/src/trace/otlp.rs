//! Spans as OpenTelemetry collectors and the edges of tunnels take them: OTLP, the messages of
//! `opentelemetry.proto.collector.trace.v1` with the fields that are used.
//!
//! The field numbers are those of opentelemetry-proto. Fields that are not listed are skipped when a message is read.
//!
//! ```
//! use pingferry::trace::otlp::{ExportTraceServiceRequest, InstrumentationScope, KeyValue, ResourceSpans, Span};
//!
//! let span = Span { name: "icmp-echo-request".into(), ..Span::default() };
//! let scope = InstrumentationScope { name: "my-vpn".into(), ..InstrumentationScope::default() };
//! let spans = ResourceSpans::new(vec![KeyValue::text("service.name", "my-vpn")], scope, vec![span]);
//! let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
//! assert_eq!(ExportTraceServiceRequest::parse(&request.to_bytes()), Ok(request));
//! ```

use std::time::SystemTime;

use prost::{DecodeError, Message};

use super::Attribute;

/// All spans of a message.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceRequest {
    /// Spans by the process that made them.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// The spans of a process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// The process.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
    /// The schema of the attributes.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// A process.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What is known of it, such as `service.name`.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// The spans of a part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// The part.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes; empty for the first span of a trace.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What happened.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`KIND_INTERNAL`](Self::KIND_INTERNAL).
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// Flags of the trace context (bits 0 to 7), and whether the parent is remote (bits 8 and 9).
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// How a span ended.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Why, if it is an error.
    #[prost(string, tag = "2")]
    pub message: String,
    /// [`OK`](Self::OK) or [`ERROR`](Self::ERROR).
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// The value; `None` if it is of another type.
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub value: Option<Value>,
}

/// A value of one of the types that are used.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A truth value.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A number.
    #[prost(int64, tag = "3")]
    Int(i64),
}

impl ExportTraceServiceRequest {
    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are not such a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(bytes)
    }

    /// The message as it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// All spans of all processes.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
    }
}

impl ResourceSpans {
    /// The spans of one part of a process.
    pub fn new(attributes: Vec<KeyValue>, scope: InstrumentationScope, spans: Vec<Span>) -> Self {
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        Self { resource: Some(Resource { attributes }), scope_spans, schema_url: String::new() }
    }
}

impl Span {
    /// The kind of a span inside a program.
    pub const KIND_INTERNAL: i32 = 1;
    /// The flags of a sampled span whose parent is in another process.
    pub const SAMPLED_REMOTE: u32 = 0x301;
}

impl Status {
    /// It succeeded.
    pub const OK: i32 = 1;
    /// It failed.
    pub const ERROR: i32 = 2;

    /// That of a span that failed for this reason, if there is one.
    fn new(error: Option<&str>) -> Self {
        match error {
            None => Self { message: String::new(), code: Self::OK },
            Some(reason) => Self { message: reason.into(), code: Self::ERROR },
        }
    }
}

impl From<super::Span> for Span {
    fn from(span: super::Span) -> Self {
        let super::TraceContext { trace_id, span_id: parent, flags } = span.context;
        Self {
            trace_id: trace_id.to_be_bytes().into(),
            span_id: span.id.to_be_bytes().into(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().into() },
            name: span.name.into(),
            kind: Self::KIND_INTERNAL,
            start_time_unix_nano: unix_nanos(span.start),
            end_time_unix_nano: unix_nanos(span.end),
            attributes: span.attributes.into_iter().map(KeyValue::from).collect(),
            status: Some(Status::new(span.error)),
            flags: flags.into(),
        }
    }
}

impl From<(&str, Attribute)> for KeyValue {
    fn from((key, value): (&str, Attribute)) -> Self {
        match value {
            Attribute::Text(text) => Self::text(key, text),
            Attribute::Int(number) => Self::int(key, number),
            Attribute::Bool(truth) => Self::bool(key, truth),
        }
    }
}

/// Nanoseconds since 1970; 0 before.
pub fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl KeyValue {
    /// An attribute with a text.
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self::new(key, Value::Text(value.into()))
    }

    /// An attribute with a number.
    pub fn int(key: &str, value: impl Into<i64>) -> Self {
        Self::new(key, Value::Int(value.into()))
    }

    /// An attribute with a truth value.
    pub fn bool(key: &str, value: bool) -> Self {
        Self::new(key, Value::Bool(value))
    }

    fn new(key: &str, value: Value) -> Self {
        Self { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_numbers_of_otlp() {
        let span = Span {
            trace_id: vec![1],
            span_id: vec![2],
            parent_span_id: vec![3],
            name: "n".into(),
            kind: Span::KIND_INTERNAL,
            start_time_unix_nano: 4,
            end_time_unix_nano: 5,
            attributes: vec![KeyValue::int("s", 7)],
            status: Some(Status { message: String::new(), code: Status::OK }),
            flags: Span::SAMPLED_REMOTE,
        };
        // A key is the number shifted left by 3, and the wire type: 0 varint, 1 fixed64, 2 with length, 5 fixed32.
        let expected = [
            b"\x0a\x01\x01".as_slice(),
            b"\x12\x01\x02",
            b"\x22\x01\x03",
            b"\x2a\x01n",
            b"\x30\x01",
            b"\x39\x04\0\0\0\0\0\0\0",
            b"\x41\x05\0\0\0\0\0\0\0",
            b"\x4a\x07\x0a\x01s\x12\x02\x18\x07",
            b"\x7a\x02\x18\x01",
            b"\x85\x01\x01\x03\0\0",
        ]
        .concat();
        assert_eq!(span.encode_to_vec(), expected);
        assert_eq!(Span::decode(expected.as_slice()), Ok(span));
    }

    #[test]
    fn spans_of_all_processes_are_found() {
        let scope = |name: &str| ScopeSpans { scope: None, spans: vec![Span { name: name.into(), ..Span::default() }] };
        let resource =
            |name| ResourceSpans { resource: None, scope_spans: vec![scope(name)], schema_url: String::new() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource("a"), resource("b")] };
        let parsed = ExportTraceServiceRequest::parse(&request.encode_to_vec()).unwrap();
        let names: Vec<&str> = parsed.spans().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(ExportTraceServiceRequest::parse(b"\x0a\xff").is_err());
    }
}
