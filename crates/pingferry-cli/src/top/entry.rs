//! The rows of the table: flows, or the connections of a tunnel.

use std::net::IpAddr;

use serde::Deserialize;

use crate::status::short;

/// A flow, as `/flows` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ident: u16,
    pub(super) idle_seconds: f64,
    pub(super) sent: u32,
    pub(super) lost: u32,
    pub(super) last_rtt_seconds: Option<f64>,
    pub(super) smoothed_rtt_seconds: Option<f64>,
    pub(super) last_error: Option<LastError>,
}

/// An ICMP error.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct LastError {
    #[serde(rename = "type")]
    pub(super) icmp_type: u8,
    pub(super) code: u8,
}

impl Flow {
    /// Lost requests, in percent of those that were sent.
    pub(super) fn loss(&self) -> f64 {
        f64::from(self.lost) * 100.0 / f64::from(self.sent.max(1))
    }
}

/// A connection of a tunnel, as `/status` tells it. One that is down has no numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connection {
    tunnel: String,
    name: Option<String>,
    edge: Option<String>,
    index: u8,
    address: String,
    pub(super) state: String,
    age_seconds: Option<f64>,
    pub(super) rtt_seconds: Option<f64>,
    sent: Option<u64>,
    received: Option<u64>,
    lost: Option<u64>,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    Flow(&'a Flow),
    Connection(&'a Connection),
}

/// Columns, with their widths in 80 characters. The first two share what the others leave.
pub(super) type Columns = [(&'static str, u16); 9];

pub(super) const FLOWS: Columns = [
    ("source", 15),
    ("destination", 15),
    ("ident", 5),
    ("sent", 6),
    ("loss", 6),
    ("last", 7),
    ("smooth", 7),
    ("idle", 5),
    ("error", 5),
];

pub(super) const CONNECTIONS: Columns = [
    ("peer", 12),
    ("address", 21),
    ("#", 2),
    ("state", 7),
    ("rtt", 7),
    ("sent", 7),
    ("recv", 7),
    ("lost", 4),
    ("age", 4),
];

impl Entry<'_> {
    /// What a filter looks at.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Flow(flow) => format!("{} {} {}", flow.source, flow.destination, flow.ident),
            Self::Connection(connection) => {
                format!("{} {} {} {}", connection.peer(), connection.tunnel, connection.address, connection.state)
            }
        }
    }

    /// The text of each column.
    pub(super) fn cells(&self) -> [String; 9] {
        match self {
            Self::Flow(flow) => flow.cells(),
            Self::Connection(connection) => connection.cells(),
        }
    }
}

impl Flow {
    fn cells(&self) -> [String; 9] {
        let error = self.last_error.as_ref().map(|error| format!("{}/{}", error.icmp_type, error.code));
        [
            self.source.to_string(),
            self.destination.to_string(),
            self.ident.to_string(),
            self.sent.to_string(),
            format!("{:.1}%", self.loss()),
            time(self.last_rtt_seconds),
            time(self.smoothed_rtt_seconds),
            format!("{:.0}s", self.idle_seconds),
            or_none(error),
        ]
    }
}

impl Connection {
    /// The edge of a connector, or the tunnel of an edge.
    fn peer(&self) -> &str {
        self.edge.as_ref().or(self.name.as_ref()).unwrap_or(&self.tunnel)
    }

    fn cells(&self) -> [String; 9] {
        let number = |number: Option<u64>| or_none(number.map(|number| number.to_string()));
        [
            self.peer().to_owned(),
            self.address.clone(),
            self.index.to_string(),
            self.state.clone(),
            time(self.rtt_seconds),
            number(self.sent),
            number(self.received),
            number(self.lost),
            or_none(self.age_seconds.map(age)),
        ]
    }
}

fn time(seconds: Option<f64>) -> String {
    or_none(seconds.map(short))
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// A time in its largest unit.
fn age(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0}s"),
        _ if seconds < 7200.0 => format!("{:.0}m", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0}h", seconds / 3600.0),
        _ => format!("{:.0}d", seconds / 86400.0),
    }
}
