//! What the admin server tells of an edge.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingferry::Control;
use pingferry_sys::netlink::Netlink;
use pingferry_tunnel::edge::{
    ConnectionState, DropReason, EdgeControl, EdgeStatus, RegisteredConnection, TunnelStatus,
};
use serde_json::{Map, Value, json};

use super::stats;
use crate::admin::{Labels, Page, Role};
use crate::run::ReloadResult;

/// How long the edge may take to respond.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many tunnels, and how many connectors, have metrics of their own: as many as a scrape carries easily. `/status` has all.
const MAX_TUNNELS: usize = 1000;
const MAX_CONNECTORS: usize = 1000;

pub(super) struct EdgeRole {
    pub(super) control: EdgeControl,
    /// The name of its TUN device.
    pub(super) device: String,
    /// Where connectors dial.
    pub(super) listen: Vec<String>,
    pub(super) reloads: Arc<ReloadResult>,
}

impl Role for EdgeRole {
    fn responds(&self) -> bool {
        self.control.status_within(PATIENCE).is_some()
    }

    /// The device is up. Whether a connector is there is another matter, which `/status` and the metrics tell.
    fn health(&self) -> (bool, Map<String, Value>) {
        let up = is_up(&self.device);
        let is_up = up.as_ref().is_ok_and(|up| *up);
        let device = match up {
            Ok(up) => json!({"name": self.device, "up": up}),
            Err(error) => json!({"name": self.device, "up": false, "why": error.to_string()}),
        };
        (is_up, Map::from_iter([("device".into(), device), ("listen".into(), self.listen.clone().into())]))
    }

    fn status(&self) -> Map<String, Value> {
        let Some(status) = self.control.status_within(PATIENCE) else { return Map::new() };
        let connections = status
            .tunnels
            .iter()
            .flat_map(|tunnel| tunnel.connections.iter().map(move |connection| to_json(tunnel, connection)));
        let connections: Vec<Value> = connections.collect();
        let tunnels: Vec<Value> = status.tunnels.iter().map(tunnel_to_json).collect();
        let stats = stats::to_json(&status.counters);
        Map::from_iter([
            ("stats".into(), stats),
            ("reload_success".into(), self.reloads.is_successful().into()),
            ("tunnels".into(), tunnels.into()),
            ("connections".into(), connections.into()),
        ])
    }

    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        // Without an answer there is nothing to tell, which a scrape sees as metrics that are missing.
        let Some(status) = self.control.status_within(PATIENCE) else { return Err(fmt::Error) };
        for counted in status.counters.iter() {
            page.counter(&format!("edge_{}", counted.name), counted.help, counted.value)?;
        }
        let reasons = DropReason::ALL.iter();
        let drops = reasons.map(|reason| (vec![("reason", reason.label())], status.counters.drops[*reason]));
        page.counters("edge_drops", "Packets and datagrams that were dropped, each by one reason", drops)?;
        tunnels(page, &status)?;
        connectors(page, &status)?;
        page.reload_success(self.reloads.is_successful())
    }

    fn proxy(&self) -> Option<&Control> {
        None
    }
}

fn is_up(device: &str) -> io::Result<bool> {
    let mut netlink = Netlink::open()?;
    let index = netlink.index(device)?;
    netlink.is_up(index)
}

fn tunnel_to_json(status: &TunnelStatus) -> Value {
    json!({
        "tunnel": status.tunnel.id.to_string(),
        "name": status.tunnel.name,
        "allowed": texts(&status.tunnel.allowed),
        "serving": serving(status),
    })
}

/// How many connections get packets of a tunnel.
fn serving(status: &TunnelStatus) -> usize {
    status.connections.iter().filter(|connection| connection.state == ConnectionState::Serving).count()
}

fn to_json(status: &TunnelStatus, connection: &RegisteredConnection) -> Value {
    let mut json = crate::tunnel::connection_to_json(&connection.connection);
    let more = [
        ("tunnel", json!(status.tunnel.id.to_string())),
        ("name", json!(status.tunnel.name)),
        ("connector", json!(connection.connector.to_string())),
        ("index", json!(connection.index)),
        ("address", json!(connection.address.to_string())),
        ("state", json!(connection.state.label())),
        ("prefixes", json!(texts(&connection.prefixes))),
    ];
    json.extend(more.map(|(key, value)| (key.to_owned(), value)));
    json.into()
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A tunnel without a connector is there too, so that its end can be seen.
fn tunnels(page: &mut Page<'_>, status: &EdgeStatus) -> fmt::Result {
    let tunnels: Vec<(String, &TunnelStatus)> =
        status.tunnels.iter().take(MAX_TUNNELS).map(|tunnel| (tunnel.tunnel.id.to_string(), tunnel)).collect();
    let samples = tunnels.iter().map(|(id, status)| {
        let labels: Labels<'_> = vec![("tunnel", id), ("name", status.tunnel.name.as_deref().unwrap_or_default())];
        (labels, serving(status) as f64)
    });
    page.gauges("edge_tunnel_connections", "Connections that get packets of a tunnel", samples)
}

/// The connections of each connector.
fn connectors(page: &mut Page<'_>, status: &EdgeStatus) -> fmt::Result {
    let mut connectors: BTreeMap<(String, String), Vec<&RegisteredConnection>> = BTreeMap::new();
    for tunnel in &status.tunnels {
        for connection in &tunnel.connections {
            let key = (tunnel.tunnel.id.to_string(), connection.connector.to_string());
            connectors.entry(key).or_default().push(connection);
        }
    }
    let samples = |value: fn(&[&RegisteredConnection]) -> f64| {
        connectors.iter().take(MAX_CONNECTORS).map(move |((tunnel, connector), connections)| {
            (vec![("tunnel", tunnel.as_str()), ("connector", connector.as_str())], value(connections))
        })
    };
    page.gauges(
        "edge_connector_connections",
        "Registered connections of a connector",
        samples(|all| all.len() as f64),
    )?;
    let slowest = |all: &[&RegisteredConnection]| {
        all.iter().map(|connection| connection.connection.round_trip).max().unwrap_or_default().as_secs_f64()
    };
    let help = "The round trip to a connector, on the slowest of its connections";
    page.gauges("edge_connector_rtt_seconds", help, samples(slowest))
}
