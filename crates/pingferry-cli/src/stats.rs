//! What a proxy did, as the last thing it says.

use std::fmt::Write;

use pingferry::{Drops, Stats};
use serde_json::{Map, Value, json};

/// For people: a line for each count, drops with their reasons.
pub(crate) fn text(stats: &Stats) -> String {
    let c = &stats.counters;
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "packets in {}, requests sent {}, answers in {}, answers returned {}, own errors {}\n\
         flows opened {}, expired {}, evicted {}, alive {}; sockets open {}; fragments held {}; receive overflows {}\n",
        c.packets,
        c.requests_sent(),
        c.replies_received + c.icmp_errors_received,
        c.replies_returned() + c.icmp_errors_returned(),
        c.errors_generated(),
        c.flows_opened,
        c.flows_expired,
        c.flows_evicted,
        stats.flows,
        stats.sockets,
        c.fragments_held(),
        stats.receive_overflows,
    );
    for (what, drops) in [("requests", &c.request_drops), ("answers", &c.reply_drops)] {
        let _ = write!(text, "{what} dropped {}", drops.total());
        for (number, (reason, count)) in drops.iter().enumerate() {
            let _ = write!(text, "{} {reason} {count}", if number == 0 { ":" } else { "," });
        }
        text.push('\n');
    }
    text
}

/// For programs: one object, reasons that did not occur left out.
pub(crate) fn json(stats: &Stats) -> Value {
    let c = &stats.counters;
    let drops = |drops: &Drops| -> Map<String, Value> {
        drops.iter().map(|(reason, count)| (reason.label().to_owned(), count.into())).collect()
    };
    json!({
        "packets": c.packets,
        "requests_sent": c.requests_sent(),
        "answers": c.replies_received + c.icmp_errors_received,
        "answers_returned": c.replies_returned() + c.icmp_errors_returned(),
        "errors_originated": c.errors_generated(),
        "flows_opened": c.flows_opened,
        "flows_expired": c.flows_expired,
        "flows_evicted": c.flows_evicted,
        "flows_alive": stats.flows,
        "sockets_open": stats.sockets,
        "fragments_held": c.fragments_held(),
        "receive_overflows": stats.receive_overflows,
        "request_drops": drops(&c.request_drops),
        "answer_drops": drops(&c.reply_drops),
    })
}

#[cfg(test)]
mod tests {
    use pingferry::DropReason;

    use super::*;

    fn stats() -> Stats {
        let mut stats = Stats::default();
        stats.counters.packets = 9;
        stats.counters.request_drops[DropReason::NotIcmp] = 2;
        stats.counters.request_drops[DropReason::BadVersion] = 1;
        stats
    }

    #[test]
    fn every_reason_is_said_with_its_count() {
        let text = text(&stats());
        assert!(text.starts_with("packets in 9, requests sent 0,"), "{text}");
        assert!(text.contains("requests dropped 3: bad_version 1, not_icmp 2\nanswers dropped 0\n"), "{text}");
    }

    #[test]
    fn json_has_the_same() {
        let json = json(&stats());
        assert_eq!(json["packets"], 9);
        assert_eq!(json["request_drops"], json!({"bad_version": 1, "not_icmp": 2}));
    }
}
