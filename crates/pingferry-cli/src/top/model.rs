//! What the view shows, and what the keys change.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

use ratatui::crossterm::event::KeyCode;
use serde_json::Value;

use super::entry::{Connection, Entry, Flow};

/// How many seconds the sparklines show at most.
const HISTORY: usize = 240;

/// The columns that flows can be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
    Source,
    Destination,
    #[default]
    Sent,
    Loss,
    RoundTrip,
    Idle,
}

impl Column {
    const ALL: [Self; 6] = [Self::Source, Self::Destination, Self::Sent, Self::Loss, Self::RoundTrip, Self::Idle];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Sent => "sent",
            Self::Loss => "loss",
            Self::RoundTrip => "round trip",
            Self::Idle => "idle",
        }
    }

    fn next(self) -> Self {
        let mut after = Self::ALL.into_iter().cycle().skip_while(|column| *column != self).skip(1);
        after.next().unwrap_or_default()
    }

    /// Addresses from the lowest, numbers from the largest.
    fn compare(self, a: &Flow, b: &Flow) -> Ordering {
        let rtt = |flow: &Flow| flow.smoothed_rtt_seconds.unwrap_or(-1.0);
        match self {
            Self::Source => a.source.cmp(&b.source).then(a.ident.cmp(&b.ident)),
            Self::Destination => a.destination.cmp(&b.destination),
            Self::Sent => b.sent.cmp(&a.sent),
            Self::Loss => b.loss().total_cmp(&a.loss()),
            Self::RoundTrip => rtt(b).total_cmp(&rtt(a)),
            Self::Idle => a.idle_seconds.total_cmp(&b.idle_seconds),
        }
    }
}

/// Events a second, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    newest_total: Option<u64>,
    pub(super) rates: VecDeque<u64>,
}

impl History {
    fn add(&mut self, total: u64, seconds: f64) {
        if let Some(before) = self.newest_total.replace(total) {
            let rate = total.saturating_sub(before) as f64 / seconds.max(0.001);
            self.rates.push_back(rate.round() as u64);
            if self.rates.len() > HISTORY {
                self.rates.pop_front();
            }
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.rates.back().copied().unwrap_or(0)
    }
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) status: Value,
    flows: Vec<Flow>,
    /// Those of a tunnel, if the process is an end of one.
    connections: Option<Vec<Connection>>,
    /// The connections are shown instead of the flows.
    pub(super) shows_connections: bool,
    pub(super) requests: History,
    pub(super) replies: History,
    pub(super) drops: History,
    updated: Option<Instant>,
    pub(super) column: Column,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Keys go to the filter.
    pub(super) is_filtering: bool,
    pub(super) is_paused: bool,
    /// How many rows are above the first one that is shown.
    pub(super) scrolled: usize,
    /// Why there is nothing newer.
    pub(super) error: Option<String>,
}

impl Model {
    pub(super) fn update(&mut self, status: Value, flows: Vec<Flow>, now: Instant) {
        let seconds = self.updated.replace(now).map_or(1.0, |before| (now - before).as_secs_f64());
        let connections = status.get("connections").cloned();
        self.connections = connections.and_then(|connections| serde_json::from_value(connections).ok());
        self.shows_connections |= is_edge(&status);
        self.status = status;
        self.flows = flows;
        self.error = None;
        let (requests, replies) = (self.requests_sent(), self.replies_returned());
        let drops = self.drop_reasons().iter().map(|(_, count)| count).sum();
        self.requests.add(requests, seconds);
        self.replies.add(replies, seconds);
        self.drops.add(drops, seconds);
    }

    pub(super) fn number(&self, pointer: &str) -> u64 {
        self.status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// An edge sends no requests itself.
    pub(super) fn requests_sent(&self) -> u64 {
        self.number("/stats/requests_sent").max(self.number("/stats/forwarded"))
    }

    pub(super) fn replies_returned(&self) -> u64 {
        self.number("/stats/replies_returned").max(self.number("/stats/returned"))
    }

    /// Whether there are both flows and connections.
    pub(super) fn has_both(&self) -> bool {
        self.connections.is_some() && !is_edge(&self.status)
    }

    /// Why packets were dropped, the most frequent reason first.
    pub(super) fn drop_reasons(&self) -> Vec<(String, u64)> {
        let directions = ["/stats/request_drops", "/stats/reply_drops", "/stats/drops"].into_iter();
        let objects = directions.filter_map(|pointer| self.status.pointer(pointer)?.as_object()).flatten();
        let mut reasons: Vec<(String, u64)> =
            objects.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0))).collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    /// What the filter leaves: flows, which are sorted, or connections.
    pub(super) fn shown(&self) -> Vec<Entry<'_>> {
        let matches = |entry: &Entry<'_>| entry.text().contains(self.filter.as_str());
        let mut shown: Vec<Entry<'_>> = match (self.shows_connections, &self.connections) {
            (true, Some(connections)) => connections.iter().map(Entry::Connection).filter(matches).collect(),
            _ => {
                let mut flows: Vec<&Flow> = self.flows.iter().collect();
                flows.sort_by(|a, b| self.column.compare(a, b));
                flows.into_iter().map(Entry::Flow).filter(matches).collect()
            }
        };
        if self.is_reversed {
            shown.reverse();
        }
        shown
    }

    /// Does what a key means. Breaks at the one that ends the view.
    pub(super) fn press(&mut self, key: KeyCode) -> ControlFlow<()> {
        match (self.is_filtering, key) {
            (true, KeyCode::Enter) => self.is_filtering = false,
            (true, KeyCode::Esc) => {
                self.is_filtering = false;
                self.filter.clear();
            }
            (true, KeyCode::Backspace) => drop(self.filter.pop()),
            (true, KeyCode::Char(character)) => self.filter.push(character),
            (false, KeyCode::Char('q') | KeyCode::Esc) => return ControlFlow::Break(()),
            (false, KeyCode::Char('s')) => self.column = self.column.next(),
            (false, KeyCode::Char('r')) => self.is_reversed = !self.is_reversed,
            (false, KeyCode::Char('c')) if self.has_both() => self.shows_connections = !self.shows_connections,
            (false, KeyCode::Char('p')) => self.is_paused = !self.is_paused,
            (false, KeyCode::Char('/')) => self.is_filtering = true,
            (false, KeyCode::Down) => self.scrolled += 1,
            (false, KeyCode::Up) => self.scrolled = self.scrolled.saturating_sub(1),
            (false, KeyCode::PageDown) => self.scrolled += 10,
            (false, KeyCode::PageUp) => self.scrolled = self.scrolled.saturating_sub(10),
            (false, KeyCode::Home) => self.scrolled = 0,
            _ => {}
        }
        let last = self.shown().len().saturating_sub(1);
        self.scrolled = self.scrolled.min(last);
        ControlFlow::Continue(())
    }
}

/// Whether the status is that of an edge, which has tunnels and no flows.
pub(super) fn is_edge(status: &Value) -> bool {
    status.get("tunnels").is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::entry::LastError;
    use super::*;

    pub(crate) fn flow(destination: &str, sent: u32, lost: u32, rtt: Option<f64>) -> Flow {
        Flow {
            source: [10, 0, 0, 2].into(),
            destination: destination.parse().unwrap(),
            ident: 7,
            idle_seconds: 0.5,
            sent,
            lost,
            last_rtt_seconds: rtt,
            smoothed_rtt_seconds: rtt,
            last_error: (lost > 0).then_some(LastError { icmp_type: 3, code: 1 }),
        }
    }

    /// After a second in which 100 requests were sent.
    pub(crate) fn model() -> Model {
        let status = |requests: u64| {
            json!({
                "version": "1.2.3",
                "uptime_seconds": 3723.4,
                "health": {"ready": true, "ingresses": ["TUN device ping0 with MTU 1500"]},
                "rtt": {"ipv4": {"p50_seconds": 0.0004, "p99_seconds": 0.0128}},
                "stats": {
                    "requests_sent": requests, "replies_returned": requests - 3, "unanswered": 2, "flows_alive": 3,
                    "sockets_open": 4, "request_drops": {"not_icmp": 5}, "reply_drops": {"unexpected_seq": 9},
                },
            })
        };
        let flows = vec![
            flow("192.0.2.1", 10, 0, Some(0.0123)),
            flow("192.0.2.200", 400, 40, Some(0.3)),
            flow("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 20, 20, None),
        ];
        let (mut model, start) = (Model::default(), Instant::now());
        model.update(status(1000), flows.clone(), start);
        model.update(status(1100), flows, start + Duration::from_secs(1));
        model
    }

    fn destinations(model: &Model) -> Vec<String> {
        let destination = |entry: &Entry<'_>| entry.cells()[1].clone();
        model.shown().iter().map(destination).collect()
    }

    #[test]
    fn rates_are_the_difference_of_two_readings() {
        let model = model();
        assert_eq!((model.requests.newest(), model.replies.newest(), model.drops.newest()), (100, 100, 0));
        assert_eq!(model.drop_reasons()[0], ("unexpected_seq".to_owned(), 9));
    }

    #[test]
    fn keys_sort_reverse_filter_and_end() {
        let mut model = model();
        assert_eq!(destinations(&model)[0], "192.0.2.200");
        assert!(model.press(KeyCode::Char('s')).is_continue());
        assert_eq!((model.column, destinations(&model)[0].starts_with("2001")), (Column::Loss, true));
        let _ = model.press(KeyCode::Char('r'));
        assert_eq!(destinations(&model)[0], "192.0.2.1");
        for key in ['/', '.', '2', '0', '0', 'q'] {
            assert!(model.press(KeyCode::Char(key)).is_continue());
        }
        let _ = model.press(KeyCode::Backspace);
        let _ = model.press(KeyCode::Enter);
        assert_eq!(destinations(&model), ["192.0.2.200"]);
        let _ = model.press(KeyCode::PageDown);
        assert_eq!(model.scrolled, 0);
        assert!(model.press(KeyCode::Char('q')).is_break());
    }

    /// An edge with one connection, and a connector with one that is down.
    pub(crate) fn ends_of_a_tunnel() -> [Model; 2] {
        let edge = json!({
            "stats": {"forwarded": 5, "returned": 4, "drops": {"no_prefix": 2}},
            "tunnels": [],
            "connections": [{
                "tunnel": "6ff42ae2-765d-4adf-8112-31c55c1551ef", "name": "office", "index": 3, "state": "serving",
                "address": "192.0.2.1:4000", "age_seconds": 61.0, "rtt_seconds": 0.0123, "sent": 5, "received": 4, "lost": 1,
            }],
        });
        let connector = json!({
            "stats": {"requests_sent": 5},
            "connections": [{
                "edge": "edge.example:7844", "index": 0, "state": "down", "address": "192.0.2.9:7844",
                "last_failure": "no answer within 5 s",
            }],
        });
        [edge, connector].map(|status| {
            let mut model = Model::default();
            model.update(status, Vec::new(), Instant::now());
            model
        })
    }

    #[test]
    fn an_edge_has_connections_and_a_connector_both() {
        let [mut edge, mut connector] = ends_of_a_tunnel();
        assert_eq!((edge.requests_sent(), edge.replies_returned(), edge.drop_reasons().len()), (5, 4, 1));
        let _ = edge.press(KeyCode::Char('c'));
        assert_eq!(edge.shown()[0].cells()[0], "office", "there is nothing else");
        assert!(connector.shown().is_empty(), "it has no flows now");
        let _ = connector.press(KeyCode::Char('c'));
        assert_eq!(connector.shown()[0].cells()[..4], ["edge.example:7844", "192.0.2.9:7844", "0", "down"]);
        connector.filter = "office".into();
        assert!(connector.shown().is_empty());
    }
}
