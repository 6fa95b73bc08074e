//! The statistics of a connector: those of its proxy, and those of the tunnel.

use pingferry::Stats;
use pingferry_tunnel::connector::CountersSnapshot;
use serde_json::{Map, Value};

use crate::config::values::LogFormat;
use crate::stats;

/// For the reader of a log in this format.
pub(super) fn render(stats: &Stats, tunnel: &CountersSnapshot, format: LogFormat) -> String {
    match format {
        LogFormat::Text => stats::text(stats) + &text(tunnel),
        LogFormat::Json => {
            let mut object = stats::json(stats);
            object.as_object_mut().into_iter().for_each(|object| _ = object.insert("tunnel".into(), to_json(tunnel)));
            stats::json_line(object)
        }
    }
}

fn text(tunnel: &CountersSnapshot) -> String {
    let counted = tunnel.iter().filter(|counted| counted.value > 0);
    let counted: Vec<String> =
        counted.map(|counted| format!("{} {}", counted.name.replace('_', " "), counted.value)).collect();
    format!("tunnel: {}\n", counted.join(", "))
}

pub(super) fn to_json(tunnel: &CountersSnapshot) -> Value {
    tunnel.iter().map(|counted| (counted.name.to_owned(), counted.value.into())).collect::<Map<String, Value>>().into()
}
