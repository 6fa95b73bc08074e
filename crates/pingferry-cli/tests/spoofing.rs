//! Spoofed packets, from targets and from clients, are dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_testnet::isolated;
use support::client::{Client, echo};
use support::*;

#[test]
fn forged_replies_and_errors_are_dropped() {
    isolated(|| {
        let served = Served::start(&[]);
        let client = served.client();
        let ping = |host, payload: &[u8]| {
            client.send(&echo(CLIENT, host, 1, payload));
            assert!(client.receive().ends_with(payload));
        };
        ping("198.18.0.1", b"first");
        let ident = forgery::ping_ident(&served.network);
        // The right sequence number, from a host that was not pinged.
        forgery::send(&served.network, &forgery::reply(ident, 1), 1);
        ping("198.18.0.1", b"second");
        ping(TARGET, b"third");
        // From a host that was pinged, with a sequence number that was not sent.
        forgery::send(&served.network, &forgery::reply(ident, 0x7777), 2);
        // With an identifier of no socket: the kernel drops it.
        forgery::send(&served.network, &forgery::reply(ident ^ 1, 1), 3);
        // An error about a request to a host that was not pinged.
        forgery::send(&served.network, &forgery::unreachable(ident, "192.0.2.77"), 4);
        ping(TARGET, b"fourth");
        let stats = served.running.stop();
        assert_eq!(stats["replies_returned"], 4, "{stats}");
        let drops = &stats["reply_drops"];
        assert_eq!(drops["unexpected_peer"], 1 + 4, "{stats}");
        assert_eq!(drops["unexpected_seq"], 2, "{stats}");
    });
}

#[test]
fn the_same_addresses_and_identifiers_in_two_domains_are_two_flows() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.sock");
        let served = Served::start(&["--unix", other.to_str().unwrap()]);
        let clients = [served.client(), Client::connect(&other)];
        for round in 0..20u8 {
            let payloads = [[b'a', round], [b'b', round]];
            for (client, payload) in clients.iter().zip(&payloads) {
                client.send(&echo(CLIENT, TARGET, 1, payload));
            }
            for (client, payload) in clients.iter().zip(&payloads) {
                assert!(client.receive().ends_with(payload), "round {round}");
            }
        }
        let stats = served.running.stop();
        assert_eq!((&stats["flows_opened"], &stats["replies_returned"]), (&2.into(), &40.into()));
    });
}

#[test]
fn a_client_cannot_use_a_source_it_may_not_have() {
    isolated(|| {
        let served = Served::start(&["--source", "198.51.100.0/24"]);
        let client = served.client();
        client.send(&echo("203.0.113.5", TARGET, 1, b"forged"));
        client.send(&echo(CLIENT, TARGET, 1, b"honest"));
        assert!(client.receive().ends_with(b"honest"));
        let stats = served.running.stop();
        assert_eq!((&stats["requests_sent"], &stats["request_drops"]["spoofed_source"]), (&1.into(), &1.into()));
    });
}
