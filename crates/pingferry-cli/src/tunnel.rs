//! What both ends of a tunnel tell in the same way.

use pingferry_tunnel::status::ConnectionStatus;
use pingferry_tunnel::wire::DatagramVersion;
use serde_json::{Map, Value, json};

/// A connection for `/status`.
pub(crate) fn connection_to_json(connection: &ConnectionStatus) -> Map<String, Value> {
    let version = match connection.version {
        DatagramVersion::V2 => 2,
        DatagramVersion::V3 => 3,
    };
    Map::from_iter([
        ("datagrams".into(), json!(version)),
        ("age_seconds".into(), json!(connection.age.as_secs_f64())),
        ("rtt_seconds".into(), json!(connection.round_trip.as_secs_f64())),
        ("max_packet".into(), json!(connection.max_packet)),
        ("sent".into(), json!(connection.sent)),
        ("received".into(), json!(connection.received)),
        ("lost".into(), json!(connection.lost)),
    ])
}
