//! Limits protect a modest client from a greedy one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_testnet::isolated;
use serde_json::Value;
use support::client::echo;
use support::*;

const GREEDY: &str = "198.51.100.66";

/// A modest client pings, a greedy one opens twenty flows, and the modest one pings again. Returns the stats.
fn stats_after_twenty_greedy_flows(options: &[&str]) -> Value {
    let served = Served::start(options);
    let client = served.client();
    let ping = |source, ident: u16| {
        let payload = ident.to_be_bytes();
        client.send(&echo(source, TARGET, ident, &payload));
        assert!(client.receive().ends_with(&payload));
    };
    ping(CLIENT, 1);
    (0..20).for_each(|ident| ping(GREEDY, ident));
    ping(CLIENT, 1);
    served.running.stop()
}

#[test]
fn a_source_at_its_limit_evicts_its_own_flows() {
    isolated(|| {
        let stats = stats_after_twenty_greedy_flows(&["--max-flows-per-source", "5"]);
        assert_eq!((&stats["flows_opened"], &stats["flows_evicted"]), (&21.into(), &15.into()), "{stats}");
    });
}

#[test]
fn at_the_common_limit_the_largest_source_evicts_a_flow() {
    isolated(|| {
        let stats = stats_after_twenty_greedy_flows(&["--max-flows", "5"]);
        assert_eq!((&stats["flows_opened"], &stats["flows_evicted"]), (&21.into(), &16.into()), "{stats}");
    });
}

#[test]
fn a_source_above_its_rate_loses_packets_and_others_do_not() {
    isolated(|| {
        let served = Served::start(&["--rate-per-source", "20"]);
        let (greedy, modest) = (served.client(), served.client());
        (0..1000).for_each(|_| greedy.send(&echo(GREEDY, TARGET, 1, b"greedy")));
        for ident in 0..10 {
            modest.send(&echo(CLIENT, TARGET, ident, b"modest"));
            assert!(modest.receive().ends_with(b"modest"));
        }
        let stats = served.running.stop();
        // The token bucket is refilled meanwhile, so some more of the greedy requests were sent.
        assert!(stats["request_drops"]["rate_exceeded"].as_u64().unwrap() > 500, "{stats}");
        assert!(stats["requests_sent"].as_u64().unwrap() >= 30, "{stats}");
    });
}
