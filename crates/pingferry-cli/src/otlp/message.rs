//! The messages of OTLP for traces (opentelemetry-proto, `collector/trace/v1`), with the fields that are used.

use std::time::SystemTime;

use pingferry::trace::{Attribute, Span};
use prost::Message;

/// The body of a request to export spans.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let resource = Resource { attributes: vec![text("service.name", "pingferry"), text("service.version", VERSION)] };
    let scope = Scope { name: "pingferry".into(), version: VERSION.into() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: spans.iter().map(OtlpSpan::from).collect() };
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans] };
    ExportRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A span inside a program.
const KIND_INTERNAL: i32 = 1;
const STATUS_OK: i32 = 1;
const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
}

impl From<&Span> for OtlpSpan {
    fn from(span: &Span) -> Self {
        let nanos = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        // A span without parent has an empty field.
        let parent = Some(span.context.span_id).filter(|id| *id != 0);
        Self {
            trace_id: span.context.trace_id.to_be_bytes().to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            name: span.name.into(),
            kind: KIND_INTERNAL,
            start_time_unix_nano: nanos(span.start),
            end_time_unix_nano: nanos(span.end),
            attributes: span.attributes.iter().map(KeyValue::from).collect(),
            status: Some(match span.error {
                None => Status { message: String::new(), code: STATUS_OK },
                Some(reason) => Status { message: reason.into(), code: STATUS_ERROR },
            }),
            flags: span.context.flags.into(),
        }
    }
}

impl From<&(&'static str, Attribute)> for KeyValue {
    fn from((key, value): &(&'static str, Attribute)) -> Self {
        let value = match value {
            Attribute::Text(text) => Value::Text(text.clone()),
            Attribute::Int(number) => Value::Int(*number),
            Attribute::Bool(truth) => Value::Bool(*truth),
        };
        Self { key: (*key).into(), value: Some(AnyValue { value: Some(value) }) }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::Text(value.into())) }) }
}
