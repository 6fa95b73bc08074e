//! `--pcap`: what clients send and receive, in a file that Wireshark and tcpdump read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use pingferry_testnet::isolated;
use support::client::echo;
use support::*;

/// The packets of a pcap file (draft-ietf-opsawg-pcap), which must begin with their IP header.
fn packets(file: &Path) -> Vec<Vec<u8>> {
    const LINKTYPE_RAW: u32 = 101;
    let bytes = fs::read(file).unwrap();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&word(0)), "no magic number: {:x}", word(0));
    assert_eq!((&bytes[4..8], word(20)), (&[2, 0, 4, 0][..], LINKTYPE_RAW));
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let (captured, length) = (word(at + 8) as usize, word(at + 12) as usize);
        assert_eq!(captured, length, "the packet is whole");
        packets.push(bytes[at + 16..at + 16 + captured].to_vec());
        at += 16 + captured;
    }
    packets
}

#[test]
fn a_capture_of_run_has_what_a_client_sends_and_receives() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clients.pcap");
        let served = Served::start(&["--pcap", file.to_str().unwrap()]);
        let client = served.client();
        let mut expected = Vec::new();
        // The second destination is refused, and pingferry generates an ICMP error.
        for (destination, payload) in [(TARGET, &b"hello"[..]), ("127.0.0.1", b"refused")] {
            let request = echo(CLIENT, destination, 1, payload);
            client.send(&request);
            expected.extend([request, client.receive()]);
        }
        served.running.stop();
        assert_eq!(packets(&file), expected);
    });
}

#[test]
fn a_capture_of_exec_can_be_read_by_tcpdump() {
    isolated(|| {
        if !can_run(&["ping", "tcpdump", "unshare"]) {
            return;
        }
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clients.pcap");
        for target in [TARGET, TARGET_6] {
            let mut command = pingferry();
            command.args(["exec", "--pcap"]).arg(&file).args(["--", "ping", "-n", "-c", "2", "-i", "0.1", target]);
            assert!(network.proxy.output(&mut command).unwrap().status.success());
            // As root, tcpdump changes its user, which is impossible here.
            let tcpdump = ["--map-user=1000", "tcpdump", "-n", "-r"];
            let read = Command::new("unshare").args(tcpdump).arg(&file).output().unwrap();
            let shown = stdout(&read);
            for line in ["echo request", "echo reply"] {
                assert_eq!(shown.matches(line).count(), 2, "{}", all_output(&read));
            }
        }
    });
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let output = pingferry().args(["run", "--unix", "/nowhere/s", "--pcap", "/nowhere/p"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write /nowhere/p"), "{}", all_output(&output));
}
