//! The open flows as JSON.
//!
//! A page has at most the flows of a thousand places of the table, so that no packet waits for long. `next` is the cursor of the
//! page that follows, and null on the last one. A page can have fewer flows, or none.

use std::time::Duration;

use pingferry::{Control, FlowCursor, FlowInfo};
use serde_json::{Value, json};

pub(super) fn page(control: &Control, cursor: Option<FlowCursor>) -> Value {
    let (flows, next) = control.flows(cursor);
    let flows: Vec<Value> = flows.iter().map(flow).collect();
    json!({"flows": flows, "next": next.map(|cursor| cursor.to_string())})
}

fn flow(flow: &FlowInfo) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "source": flow.source,
        "destination": flow.destination,
        "ident": flow.ident,
        "socket_ident": flow.socket_ident,
        "path": flow.path.0,
        "age_seconds": flow.age.as_secs_f64(),
        "idle_seconds": flow.idle.as_secs_f64(),
        "sent": flow.sent,
        "received": flow.received,
        "lost": flow.lost,
        "last_rtt_seconds": seconds(flow.last_round_trip),
        "smoothed_rtt_seconds": seconds(flow.smoothed_round_trip),
        "last_error": flow.last_error.map(|(icmp_type, code)| json!({"type": icmp_type, "code": code})),
    })
}
