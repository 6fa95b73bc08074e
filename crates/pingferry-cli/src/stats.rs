//! The statistics that `run` and `demo` print at the end, and `run` at SIGUSR1.

use std::fmt::Write;
use std::time::SystemTime;

use pingferry::{Drops, Stats};
use serde_json::{Map, Value, json};

use crate::config::values::LogFormat;

/// For the reader of a log in this format.
pub(crate) fn render(stats: &Stats, format: LogFormat) -> String {
    match format {
        LogFormat::Text => text(stats),
        LogFormat::Json => json_line(json(stats)),
    }
}

/// An object as a line of the log.
pub(crate) fn json_line(mut object: Value) -> String {
    if let Some(object) = object.as_object_mut() {
        object.insert("timestamp".into(), timestamp().into());
    }
    format!("{object}\n")
}

/// The time of a line of the log.
fn timestamp() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// The line that says what is served, once it is.
pub(crate) fn render_ready(what: &str, format: LogFormat) -> String {
    match format {
        LogFormat::Text => format!("pingferry: ready: {what}\n"),
        LogFormat::Json => {
            let line =
                json!({"timestamp": timestamp(), "level": "INFO", "fields": {"message": format!("ready: {what}")}});
            format!("{line}\n")
        }
    }
}

/// For people: what happened, and drops with their reasons.
pub(crate) fn text(stats: &Stats) -> String {
    let Stats { counters: c, flows, sockets, receive_overflows, connections_refused, .. } = stats;
    let mut text = format!(
        "requests: packets received {}, sent {}, failed {}, code cleared {}, answered {}, fragments held {}\n\
         replies: received {}, returned {}, failed {}\n\
         ICMP errors: received {}, returned {}, failed {}; generated {}, failed {}, withheld {}\n\
         flows: opened {}, expired {}, evicted {}, open {flows}\n\
         sockets: open {sockets}, receive overflows {receive_overflows}\n\
         connections: refused {connections_refused}\n",
        c.packets,
        c.requests_sent(),
        c.requests_failed,
        c.codes_cleared,
        c.answers(),
        c.fragments_held(),
        c.replies_received,
        c.replies_returned(),
        c.replies_failed,
        c.icmp_errors_received,
        c.icmp_errors_returned(),
        c.icmp_errors_failed,
        c.errors_generated(),
        c.errors_generated_failed,
        c.errors_withheld,
        c.flows_opened,
        c.flows_expired,
        c.flows_evicted,
    );
    for (what, drops) in [("requests", &c.request_drops), ("replies", &c.reply_drops)] {
        // Writing to a string does not fail.
        let _ = write!(text, "{what} dropped {}", drops.total());
        for (number, (reason, count)) in drops.iter().enumerate() {
            let _ = write!(text, "{} {reason} {count}", if number == 0 { ":" } else { "," });
        }
        text.push('\n');
    }
    text
}

/// For programs: one object, without the drop reasons that did not occur. Keys are stable; more can be added.
///
/// Each key with `attempted` or `received` counts events, and the one with `failed` those of them that did not succeed.
pub(crate) fn json(stats: &Stats) -> Value {
    let c = &stats.counters;
    json!({
        "packets": c.packets,
        "requests_attempted": c.requests_attempted,
        "requests_failed": c.requests_failed,
        "requests_sent": c.requests_sent(),
        "codes_cleared": c.codes_cleared,
        "answers_attempted": c.answers_attempted,
        "answers_failed": c.answers_failed,
        "answers": c.answers(),
        "fragments_accepted": c.fragments_accepted,
        "fragments_discarded": c.fragments_discarded,
        "fragments_held": c.fragments_held(),
        "replies_received": c.replies_received,
        "replies_attempted": c.replies_attempted,
        "replies_failed": c.replies_failed,
        "replies_returned": c.replies_returned(),
        "icmp_errors_received": c.icmp_errors_received,
        "icmp_errors_attempted": c.icmp_errors_attempted,
        "icmp_errors_failed": c.icmp_errors_failed,
        "icmp_errors_returned": c.icmp_errors_returned(),
        "errors_generated_attempted": c.errors_generated_attempted,
        "errors_generated_failed": c.errors_generated_failed,
        "errors_generated": c.errors_generated(),
        "errors_withheld": c.errors_withheld,
        "flows_opened": c.flows_opened,
        "flows_expired": c.flows_expired,
        "flows_evicted": c.flows_evicted,
        "unanswered": c.unanswered,
        "flows_alive": stats.flows,
        "sockets_open": stats.sockets,
        "receive_overflows": stats.receive_overflows,
        "connections_refused": stats.connections_refused,
        "request_drops": by_reason(&c.request_drops),
        "reply_drops": by_reason(&c.reply_drops),
    })
}

fn by_reason(drops: &Drops) -> Map<String, Value> {
    drops.iter().map(|(reason, count)| (reason.label().to_owned(), count.into())).collect()
}

#[cfg(test)]
mod tests {
    use pingferry::DropReason;

    use super::*;

    fn stats() -> Stats {
        let mut stats = Stats::default();
        stats.counters.packets = 9;
        stats.counters.requests_attempted = 6;
        stats.counters.requests_failed = 1;
        stats.counters.request_drops[DropReason::NotIcmp] = 2;
        stats.counters.request_drops[DropReason::BadVersion] = 1;
        stats
    }

    #[test]
    fn the_text_has_each_reason_with_its_count() {
        let text = text(&stats());
        assert!(text.starts_with("requests: packets received 9, sent 5, failed 1,"), "{text}");
        assert!(text.ends_with("requests dropped 3: bad_version 1, not_icmp 2\nreplies dropped 0\n"), "{text}");
    }

    #[test]
    fn the_json_has_attempts_and_failures_apart() {
        let json = json(&stats());
        assert_eq!((&json["packets"], &json["request_drops"]), (&9.into(), &json!({"bad_version": 1, "not_icmp": 2})));
        let requests = ["requests_attempted", "requests_failed", "requests_sent"].map(|key| json[key].as_u64());
        assert_eq!(requests, [Some(6), Some(1), Some(5)]);
    }
}
