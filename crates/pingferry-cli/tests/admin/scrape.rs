//! The numbers of one scrape.

use std::collections::BTreeMap;

/// Samples by their names with labels, as they stand in the text.
#[derive(Clone, Debug)]
pub(crate) struct Scrape(pub(crate) BTreeMap<String, f64>);

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self(samples.collect())
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(&format!("pingferry_{name}")).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The sum of all samples whose names begin so.
    pub(crate) fn sum(&self, prefix: &str) -> f64 {
        let prefix = format!("pingferry_{prefix}");
        self.0.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| value).sum()
    }

    /// Every packet and every message is accounted for exactly once.
    pub(crate) fn assert_adds_up(&self) {
        let difference = |attempted: &str, failed: &str| self.sum(attempted) - self.get(failed);
        let forwarded = difference("requests_total", "requests_failed_total");
        let answered = difference("answers_total", "answers_failed_total");
        let held = difference("fragments_accepted_total", "fragments_discarded_total");
        let dropped = self.sum("drops_total{direction=\"request\"");
        assert_eq!(self.get("packets_total"), forwarded + answered + held + dropped, "{self:#?}");
        let received = self.get("replies_received_total") + self.get("icmp_errors_received_total");
        let returned = difference("replies_total", "replies_failed_total")
            + difference("icmp_errors_returned_total", "icmp_errors_failed_total");
        assert_eq!(received, returned + self.sum("drops_total{direction=\"reply\""), "{self:#?}");
    }
}
