//! One client takes all it can get, and another one does not notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_testnet::isolated;
use serde_json::Value;
use support::client::echo;
use support::*;

const GREEDY: &str = "198.51.100.66";

/// A modest client pings, a greedy one begins twenty flows, the modest one pings again. Returns the stats.
fn twenty_flows_of_another(options: &[&str]) -> Value {
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
fn a_source_at_its_cap_gives_up_its_own_flows() {
    isolated(|| {
        let stats = twenty_flows_of_another(&["--max-flows-per-source", "5"]);
        assert_eq!((&stats["flows_opened"], &stats["flows_evicted"]), (&21.into(), &15.into()), "{stats}");
    });
}

#[test]
fn at_the_common_cap_who_has_the_most_gives_way() {
    isolated(|| {
        let stats = twenty_flows_of_another(&["--max-flows", "5"]);
        assert_eq!((&stats["flows_opened"], &stats["flows_evicted"]), (&21.into(), &16.into()), "{stats}");
    });
}

#[test]
fn who_exceeds_a_rate_loses_packets_and_nobody_else_does() {
    isolated(|| {
        let served = Served::start(&["--rate-per-source", "20"]);
        let (greedy, modest) = (served.client(), served.client());
        (0..1000).for_each(|_| greedy.send(&echo(GREEDY, TARGET, 1, b"greedy")));
        for ident in 0..10 {
            modest.send(&echo(CLIENT, TARGET, ident, b"modest"));
            assert!(modest.receive().ends_with(b"modest"));
        }
        let stats = served.running.stop();
        // The rest is what the bucket is filled up with meanwhile.
        assert!(stats["request_drops"]["rate_exceeded"].as_u64().unwrap() > 500, "{stats}");
        assert!(stats["requests_sent"].as_u64().unwrap() >= 30, "{stats}");
    });
}
