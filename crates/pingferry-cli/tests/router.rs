//! pingferry as a router, seen by the programs of a client: what fails at once, and what the gateway answers itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use pingferry_proto::wire::{IpHeader, IpPacket};
use pingferry_testnet::isolated;
use rustix::io::Errno;
use support::*;

const GATEWAY: &str = "203.0.113.1";
const GATEWAY_6: &str = "2001:db8:9::1";
/// A test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves the client of `network`, with a gateway that is no address of the proxy's host.
fn run(network: &Network) -> Running {
    network.run(&["--gateway", GATEWAY, "--gateway", GATEWAY_6])
}

/// The error that a connected UDP socket of the client gets after it has sent a datagram.
fn error_of_datagram(network: &Network, destination: &str, port: u16) -> Option<Errno> {
    let destination: IpAddr = destination.parse().unwrap();
    let received = network.client.run(|| {
        let socket = UdpSocket::bind(if destination.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((destination, port))?;
        socket.send(b"a question")?;
        socket.recv(&mut [0; 100])
    });
    Errno::from_io_error(&received.unwrap().unwrap_err())
}

/// The errors are those of Linux for administratively prohibited (`icmp_err_convert`, `icmpv6_err_convert`).
#[test]
fn a_query_to_a_name_server_fails_with_an_icmp_error() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let running = run(&network);
        assert_eq!(error_of_datagram(&network, TARGET, 53), Some(Errno::HOSTUNREACH));
        assert_eq!(error_of_datagram(&network, TARGET_6, 53), Some(Errno::ACCESS));
        assert_eq!(running.stop()["request_drops"]["not_icmp"], 2);
    });
}

/// The resolver would wait for five minutes for answers that do not come.
#[test]
fn a_name_that_cannot_be_resolved_is_known_at_once() {
    isolated(|| {
        if !can_run(&["fping", "unshare", "mount"]) {
            return;
        }
        let network = Network::new();
        let running = run(&network);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("resolv.conf"),
            format!("nameserver {TARGET}\noptions timeout:30 attempts:5\n"),
        )
        .unwrap();
        std::fs::write(folder.path().join("nsswitch.conf"), "hosts: dns\n").unwrap();
        let script = "for file in resolv.conf nsswitch.conf; do mount --bind $0/$file /etc/$file || exit 99; done
            exec timeout 60 fping nosuchname.example";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(folder.path());
        let output = network.client.output(&mut command).unwrap();
        assert!(matches!(output.status.code(), Some(1..=4)), "{:?}: {}", output.status, all_output(&output));
        assert!(running.stop()["request_drops"]["not_icmp"].as_u64().unwrap() >= 1);
    });
}

#[test]
fn the_gateway_is_a_host_that_can_be_pinged_and_has_no_open_port() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = run(&network);
        for gateway in [GATEWAY, GATEWAY_6] {
            let output = network.client.ping(&["-n", "-c", "3", "-i", "0.01", "-s", "3000", gateway]).unwrap();
            assert!(all_output(&output).contains("3 received"), "{}", all_output(&output));
            assert_eq!(error_of_datagram(&network, gateway, 33_434), Some(Errno::CONNREFUSED));
            let address: IpAddr = gateway.parse().unwrap();
            let connected = network.client.run(|| TcpStream::connect_timeout(&(address, 80).into(), PATIENCE)).unwrap();
            assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
        let stats = running.stop();
        // Three pings and one RST of each family.
        assert_eq!((&stats["answers"], &stats["requests_sent"]), (&8.into(), &0.into()), "{stats}");
        assert_counters_add_up(&stats);
    });
}

#[test]
fn a_traceroute_to_the_gateway_ends_there() {
    isolated(|| {
        if !can_run(&["traceroute"]) {
            return;
        }
        let network = Network::new();
        let running = run(&network);
        for gateway in [GATEWAY, GATEWAY_6] {
            for method in ["-U", "-I", "-T"] {
                let mut command = Command::new("traceroute");
                command.args([method, "-n", "-q", "1", "-m", "5", gateway]);
                let output = network.client.output(&mut command).unwrap();
                let hops: Vec<_> = stdout(&output).lines().skip(1).map(str::to_owned).collect();
                assert!(hops.len() == 1 && hops[0].contains(gateway), "{method}: {}", all_output(&output));
            }
        }
        assert_eq!(running.stop()["requests_sent"], 0);
    });
}

/// Of a thousand errors within milliseconds most are withheld, and one line says so.
#[test]
fn withheld_errors_are_counted_and_logged_once() {
    isolated(|| {
        let mut served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(socket).stderr(Stdio::piped());
            command
        });
        let log = served.running.stderr();
        let client = served.client();
        let header = IpHeader { hop_limit: 1, ..IpHeader::icmp(CLIENT.parse().unwrap(), TARGET.parse().unwrap()) };
        let echo = client::echo(CLIENT, TARGET, 1, b"");
        let expired = IpPacket { header, payload: IpPacket::parse(&echo).unwrap().payload }.to_bytes();
        (0..1000).for_each(|_| client.send(&expired));
        client.send(&echo);
        // The reply is last.
        while IpPacket::parse(&client.receive()).unwrap().payload[0] != 0 {}
        let stats = served.running.stop();
        assert!(stats["errors_withheld"].as_u64().unwrap() > 100, "{stats}");
        let lines = BufReader::new(log).lines().map(Result::unwrap);
        assert_eq!(lines.filter(|line| line.contains("ICMP errors withheld")).count(), 1);
    });
}
