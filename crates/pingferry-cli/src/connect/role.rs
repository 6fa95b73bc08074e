//! What the admin server tells of a connector.

use std::fmt;

use pingferry::Control;
use pingferry_tunnel::connector::{ConnectorControl, SlotStatus};
use pingferry_tunnel::status::ConnectionStatus;
use serde_json::{Map, Value, json};

use super::stats;
use crate::admin::{Labels, ObservedProxy, Page, Role, responds};
use crate::tunnel::connection_to_json;

pub(super) struct ConnectRole {
    pub(super) proxy: ObservedProxy,
    pub(super) connector: ConnectorControl,
    /// The edges as the operator named them, in the order of their numbers.
    pub(super) edges: Vec<String>,
}

impl ConnectRole {
    fn edge(&self, slot: &SlotStatus) -> &str {
        self.edges.get(slot.edge).map_or("", String::as_str)
    }

    fn connections(&self, slots: &[SlotStatus]) -> Vec<Value> {
        let to_json = |(index, slot): (usize, &SlotStatus)| {
            let mut json = slot.connection.as_ref().map(connection_to_json).unwrap_or_default();
            let state = if slot.connection.is_some() { "up" } else { "down" };
            let more = [
                ("edge", json!(self.edge(slot))),
                ("index", json!(index)),
                ("address", json!(slot.address.to_string())),
                ("state", json!(state)),
                ("last_failure", json!(slot.failure)),
            ];
            json.extend(more.map(|(key, value)| (key.to_owned(), value)));
            json.into()
        };
        slots.iter().enumerate().map(to_json).collect()
    }
}

impl Role for ConnectRole {
    fn responds(&self) -> bool {
        responds(&self.proxy.control)
    }

    /// At least one family works, and at least one connection is registered.
    fn health(&self) -> (bool, Map<String, Value>) {
        let (can_ping, families) = self.proxy.families();
        let slots = self.connector.status().slots;
        let edge = |(number, name): (usize, &String)| {
            let slots = slots_of(&slots, number);
            (name.clone(), json!({"connections": slots.len(), "registered": connections(&slots).count()}))
        };
        let edges: Map<String, Value> = self.edges.iter().enumerate().map(edge).collect();
        let is_registered = slots.iter().any(|slot| slot.connection.is_some());
        (can_ping && is_registered, Map::from_iter([("families".into(), families), ("edges".into(), edges.into())]))
    }

    fn status(&self) -> Map<String, Value> {
        let connector = self.connector.status();
        let mut status = self.proxy.status();
        status.insert("tunnel".into(), stats::to_json(&connector.counters));
        status.insert("connections".into(), self.connections(&connector.slots).into());
        status
    }

    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.proxy(&self.proxy)?;
        let status = self.connector.status();
        for counted in status.counters.iter() {
            page.counter(&format!("connector_{}", counted.name), counted.help, counted.value)?;
        }
        // As many as the operator has given.
        let (edges, slots) = (&self.edges, &status.slots);
        let of_edge = |value: fn(&[&SlotStatus]) -> f64| {
            edges.iter().enumerate().map(move |(number, name)| {
                let labels: Labels<'_> = vec![("edge", name)];
                (labels, value(&slots_of(slots, number)))
            })
        };
        let registered = |slots: &[&SlotStatus]| connections(slots).count() as f64;
        let slowest = |slots: &[&SlotStatus]| {
            connections(slots).map(|connection| connection.round_trip).max().unwrap_or_default().as_secs_f64()
        };
        page.gauges("connector_connections", "Registered connections to an edge", of_edge(registered))?;
        page.gauges("connector_rtt_seconds", "The round trip to an edge, on the slowest connection", of_edge(slowest))
    }

    fn proxy(&self) -> Option<&Control> {
        Some(&self.proxy.control)
    }
}

fn slots_of(slots: &[SlotStatus], edge: usize) -> Vec<&SlotStatus> {
    slots.iter().filter(|slot| slot.edge == edge).collect()
}

/// The connections that are registered.
fn connections(slots: &[&SlotStatus]) -> impl Iterator<Item = ConnectionStatus> {
    slots.iter().filter_map(|slot| slot.connection)
}
