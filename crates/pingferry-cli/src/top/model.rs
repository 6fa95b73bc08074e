//! What the view shows, and what the keys change.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Instant;

use ratatui::crossterm::event::KeyCode;
use serde::Deserialize;
use serde_json::Value;

/// How many seconds the sparklines show at most.
const HISTORY: usize = 240;

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
        self.status = status;
        self.flows = flows;
        self.error = None;
        let (requests, replies) = (self.number("/stats/requests_sent"), self.number("/stats/replies_returned"));
        let drops = self.drop_reasons().iter().map(|(_, count)| count).sum();
        self.requests.add(requests, seconds);
        self.replies.add(replies, seconds);
        self.drops.add(drops, seconds);
    }

    pub(super) fn number(&self, pointer: &str) -> u64 {
        self.status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Why packets were dropped, the most frequent reason first.
    pub(super) fn drop_reasons(&self) -> Vec<(String, u64)> {
        let directions = ["/stats/request_drops", "/stats/reply_drops"].into_iter();
        let objects = directions.filter_map(|pointer| self.status.pointer(pointer)?.as_object()).flatten();
        let mut reasons: Vec<(String, u64)> =
            objects.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0))).collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    /// The flows that the filter leaves, sorted.
    pub(super) fn shown(&self) -> Vec<&Flow> {
        let matches = |flow: &&Flow| {
            let text = format!("{} {} {}", flow.source, flow.destination, flow.ident);
            text.contains(self.filter.as_str())
        };
        let mut shown: Vec<&Flow> = self.flows.iter().filter(matches).collect();
        shown.sort_by(|a, b| self.column.compare(a, b));
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

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;

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
        model.shown().iter().map(|flow| flow.destination.to_string()).collect()
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
}
