//! What pingferry, kernel NAT, pasta and slirp4netns keep of what the RFCs require of a device that forwards ICMP.
//!
//! `./dev table --peers` prints the table of docs/conformance.md. The test fails if pingferry does not keep a requirement. What
//! the others do is measured, not required, so the test is ignored otherwise: most of its time it waits for answers that do not come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pingferry_proto::wire::{Echo, IpPacket};
use pingferry_testnet::{Host, eventually, has_program, isolated};
use support::routed::{DEAD, FILTERED, GATEWAY, ROUTER_1, ROUTER_2, RoutedNetwork, TARGET, hops_shown};
use support::{Running, all_output, can_run, netns_path};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Pingferry,
    KernelNat,
    Pasta,
    Slirp4netns,
}

const SUBJECTS: [Subject; 4] = [Subject::Pingferry, Subject::KernelNat, Subject::Pasta, Subject::Slirp4netns];
const FAMILIES: [&str; 2] = ["-4", "-6"];

/// A network whose client is served by a subject.
struct Served {
    network: RoutedNetwork,
    _running: Option<Running>,
    _process: Option<Process>,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Subject {
    fn is_installed(self) -> bool {
        match self {
            Self::Pingferry | Self::KernelNat => true,
            Self::Pasta => has_program("pasta"),
            Self::Slirp4netns => has_program("slirp4netns"),
        }
    }

    fn serve(self) -> Served {
        let network = if self == Self::KernelNat { RoutedNetwork::direct() } else { RoutedNetwork::new() };
        let (mut running, mut process) = (None, None);
        match self {
            Self::Pingferry => {
                running = Some(network.run(&["--gateway", &GATEWAY.join(","), "--udp", "probes", "--tcp", "probes"]));
            }
            Self::KernelNat => {
                let chain = "type nat hook postrouting priority 100; oifname to-r1 masquerade;";
                let table = format!("table inet nat {{ chain out {{ {chain} }}; }}");
                let output = network.x.output(Command::new("nft").arg(&table)).unwrap();
                assert!(output.status.success(), "{}", all_output(&output));
            }
            Self::Pasta => {
                process = Some(start(
                    &network,
                    "pasta --foreground --config-net --runas 0:0 --no-netns-quit --ns-ifname eth0 --netns /proc/self/fd/0",
                ));
            }
            Self::Slirp4netns => {
                let command = "slirp4netns --configure --enable-ipv6 --mtu=1500 --netns-type=path /proc/self/fd/0 eth0";
                process = Some(start(&network, command));
            }
        }
        network.filter();
        Served { network, _running: running, _process: process }
    }
}

/// Starts a program that is given the client's namespace as its standard input, and waits for the client's addresses.
fn start(network: &RoutedNetwork, command: &str) -> Process {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap());
    program.args(words).stderr(Stdio::null()).stdin(File::open(netns_path(&network.client)).unwrap());
    let process = Process(network.x.spawn(&mut program).unwrap());
    // Not each peer gives a route for IPv6.
    eventually("the client's routes", || {
        let route = run(&network.client, "ip -4 route show default");
        let tentative = run(&network.client, "ip address show tentative");
        Ok(route.contains("dev eth0") && !tentative.contains("inet"))
    })
    .unwrap();
    process
}

fn run(host: &Host, command: &str) -> String {
    let output = host.output(Command::new("sh").args(["-c", command]).env("LC_ALL", "C")).unwrap();
    all_output(&output)
}

fn ping(network: &RoutedNetwork, family: usize, options: &str, destination: &str) -> String {
    run(&network.client, &format!("ping {} -n -c 1 -W 5 {options} {destination}", FAMILIES[family]))
}

/// The hops that traceroute shows, but the first one, whose address is the subject's own.
fn hops_beyond(network: &RoutedNetwork, family: usize, method: &str) -> Vec<String> {
    let options = format!("{} -n -q 1 -w 2 -m 6 {method}", FAMILIES[family]);
    let shown = run(&network.client, &format!("traceroute {options} {}", TARGET[family]));
    hops_shown(&shown).into_iter().skip(1).map(str::to_owned).collect()
}

/// Whether a traceroute shows each router at its distance.
fn shows_every_hop(network: &RoutedNetwork, family: usize, method: &str) -> bool {
    hops_beyond(network, family, method) == [ROUTER_1[family], ROUTER_2[family], TARGET[family]]
}

/// The identifiers of two pings with the same one, as they leave X.
fn idents_at_two_hosts(network: &RoutedNetwork, family: usize) -> Vec<u16> {
    let capture = network.x.capture("to-r1").unwrap();
    for host in [TARGET, ROUTER_2] {
        ping(network, family, "-e 4242", host[family]);
    }
    let mut idents = Vec::new();
    while let Some(captured) = capture.receive(Duration::from_millis(200)).unwrap() {
        let Ok(packet) = IpPacket::parse(&captured.packet) else { continue };
        if let Ok(echo) = Echo::parse_request(packet.header.family(), packet.payload) {
            idents.push(echo.ident);
        }
    }
    idents
}

/// A requirement, and whether a subject keeps it in a family.
type Requirement = (&'static str, fn(&RoutedNetwork, usize) -> bool);

const REQUIREMENTS: [Requirement; 15] = [
    ("RFC 5508 REQ-1: queries and their replies pass", |network, family| {
        ping(network, family, "-p a5 -s 1000", TARGET[family]).contains("1 received")
    }),
    ("RFC 5508 REQ-1a: the identifier is mapped alike for all hosts", |network, family| {
        let idents = idents_at_two_hosts(network, family);
        idents.len() == 2 && idents[0] == idents[1]
    }),
    ("RFC 5508 REQ-4, RFC 1812 §4.3.3.1: prohibited, from its router", |network, family| {
        let shown = ping(network, family, "", FILTERED[family]);
        shown.contains(&format!("From {}", ROUTER_2[family]))
            && (shown.contains("Packet filtered") || shown.contains("Administratively prohibited"))
    }),
    ("RFC 5508 REQ-4: host unreachable, from its router", |network, family| {
        let shown = ping(network, family, "", DEAD[family]);
        shown.contains(&format!("From {}", ROUTER_2[family]))
            && (shown.contains("Destination Host Unreachable") || shown.contains("Address unreachable"))
    }),
    ("RFC 5508 REQ-4: Time Exceeded of routers, about echo requests", |network, family| {
        shows_every_hop(network, family, "-I")
    }),
    ("the same about UDP", |network, family| shows_every_hop(network, family, "-U")),
    ("the same about TCP", |network, family| shows_every_hop(network, family, "-T")),
    ("RFC 5508 REQ-6: an error does not end its session", |network, family| {
        ping(network, family, "-e 77 -t 2", TARGET[family]).contains("exceeded")
            && ping(network, family, "-e 77", TARGET[family]).contains("1 received")
    }),
    ("RFC 1812 §5.3.1: Time Exceeded of its own, about echo requests", |network, family| {
        let shown = ping(network, family, "-t 1", TARGET[family]);
        shown.contains("Time to live exceeded") || shown.contains("Time exceeded: Hop limit")
    }),
    ("the same about UDP", |network, family| {
        let shown = run(&network.client, &format!("traceroute {} -n -m 1 -q 1 {}", FAMILIES[family], TARGET[family]));
        hops_shown(&shown).first().is_some_and(|hop| *hop != "*")
    }),
    ("RFC 1812 §5.3.1: the TTL of replies is decremented", |network, family| {
        ping(network, family, "", TARGET[family]).contains("ttl=61")
    }),
    ("RFC 1812 §5.2.7.1, RFC 4443 §3.2: Fragmentation Needed, Packet Too Big", |network, family| {
        let shown = ping(network, family, "-M do -s 1400", TARGET[family]);
        shown.contains("mtu = 1400") || shown.contains("mtu=1400")
    }),
    ("RFC 791, RFC 8200 §4.5: queries and replies of 4000 bytes, in fragments", |network, family| {
        ping(network, family, "-s 4000", TARGET[family]).contains("1 received")
    }),
    ("RFC 791, RFC 8200 §4.5: queries and replies of 60,000 bytes", |network, family| {
        ping(network, family, "-s 60000", TARGET[family]).contains("1 received")
    }),
    ("RFC 1812 §4.3.3.6, RFC 4443 §4.2: it answers echo requests to its own address", |network, family| {
        let shown = run(&network.client, &format!("traceroute {} -n -I -m 1 {}", FAMILIES[family], TARGET[family]));
        let hop = hops_shown(&shown).first().copied().unwrap_or("*").to_owned();
        let gateways = [GATEWAY[family], hop.as_str()];
        gateways.iter().any(|gateway| *gateway != "*" && ping(network, family, "-W 1", gateway).contains("1 received"))
    }),
];

fn cell(kept: [bool; 2]) -> &'static str {
    match kept {
        [true, true] => "yes",
        [true, false] => "IPv4 only",
        [false, true] => "IPv6 only",
        [false, false] => "no",
    }
}

/// What a subject keeps, in the order of the requirements.
fn measure(subject: Subject) -> Vec<&'static str> {
    if !subject.is_installed() {
        return vec!["not installed"; REQUIREMENTS.len()];
    }
    let served = subject.serve();
    let target = &served.network.target;
    let (_tcp, _udp) =
        target.run(|| (TcpListener::bind("[::]:80").unwrap(), UdpSocket::bind("[::]:9").unwrap())).unwrap();
    REQUIREMENTS.iter().map(|(_, check)| cell([0, 1].map(|family| check(&served.network, family)))).collect()
}

#[test]
#[ignore = "measures the peers, and waits for what they do not answer: ./dev table --peers"]
fn what_peers_keep_of_the_requirements() {
    isolated(|| {
        if !can_run(&["ping", "traceroute", "ip", "nft"]) {
            return;
        }
        let columns = thread::scope(|scope| {
            let threads = SUBJECTS.map(|subject| scope.spawn(move || measure(subject)));
            threads.map(|thread| thread.join().unwrap())
        });
        println!("| requirement | pingferry | kernel NAT | pasta | slirp4netns |\n|---|---|---|---|---|");
        for (row, (name, _)) in REQUIREMENTS.iter().enumerate() {
            println!("| {name} | {} |", columns.each_ref().map(|column| column[row]).join(" | "));
        }
        // Only the destination can reply, so the identifier is mapped for each (docs/conformance.md).
        let kept = columns[0].iter().zip(REQUIREMENTS);
        let lost: Vec<_> = kept.filter(|(cell, (name, _))| **cell != "yes" && !name.contains("REQ-1a")).collect();
        assert!(
            lost.is_empty(),
            "pingferry does not keep: {:?}",
            lost.iter().map(|(_, (name, _))| name).collect::<Vec<_>>()
        );
    });
}
