//! The statistics of an edge.

use std::fmt::Write;

use pingferry_tunnel::edge::Counters;
use serde_json::{Map, Value, json};

use crate::config::values::LogFormat;

/// For the reader of a log in this format.
pub(super) fn render(counters: &Counters, format: LogFormat) -> String {
    match format {
        LogFormat::Text => text(counters),
        LogFormat::Json => format!("{}\n", to_json(counters)),
    }
}

fn text(counters: &Counters) -> String {
    let mut text = String::new();
    for (name, count) in counters.named() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {count}", name.replace('_', " "));
    }
    for (reason, count) in counters.drops.iter() {
        let _ = writeln!(text, "dropped, {}: {count}", reason.label().replace('_', " "));
    }
    text
}

fn to_json(counters: &Counters) -> Value {
    let mut object: Map<String, Value> =
        counters.named().into_iter().map(|(name, count)| (name.into(), count.into())).collect();
    let drops: Map<String, Value> =
        counters.drops.iter().map(|(reason, count)| (reason.label().into(), count.into())).collect();
    object.insert("drops".into(), drops.into());
    json!(object)
}
