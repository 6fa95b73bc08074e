//! The statistics of an edge.

use std::fmt::Write;

use pingferry_tunnel::edge::Counters;
use serde_json::{Map, Value, json};

use crate::config::values::LogFormat;
use crate::stats;

/// For the reader of a log in this format.
pub(super) fn render(counters: &Counters, format: LogFormat) -> String {
    match format {
        LogFormat::Text => text(counters),
        LogFormat::Json => stats::json_line(to_json(counters)),
    }
}

fn text(counters: &Counters) -> String {
    let mut text = String::new();
    for counted in counters.iter() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {}", counted.name.replace('_', " "), counted.value);
    }
    let _ = writeln!(text, "connections: {}", counters.connections);
    for (reason, count) in counters.drops.iter() {
        let _ = writeln!(text, "dropped, {}: {count}", reason.label().replace('_', " "));
    }
    text
}

/// For programs: without the drop reasons that did not occur.
pub(super) fn to_json(counters: &Counters) -> Value {
    let mut object: Map<String, Value> =
        counters.iter().map(|counted| (counted.name.into(), counted.value.into())).collect();
    object.insert("connections".into(), counters.connections.into());
    let drops: Map<String, Value> =
        counters.drops.iter().map(|(reason, count)| (reason.label().into(), count.into())).collect();
    object.insert("drops".into(), drops.into());
    json!(object)
}
