//! How long a traceroute of 30 hops takes through pingferry, and through a kernel router in its place.
//!
//! ```text
//! client ─── X ─── 28 routers ─── target        X is a router, or the host of pingferry
//! ```
//!
//! Both networks take turns. On a machine that does other work too, the ratio of the fastest says more than that of the medians.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pingferry_sys::namespace::unshare_as_root;
use pingferry_testnet::{Host, link};
use support::routed::hops_shown;
use support::{CLIENT, CLIENT_6, Running, all_output, net, netns_path, pingferry};

const ROUTERS: u8 = 28;
const TARGET: [&str; 2] = ["10.0.29.2", "2001:db8:ff29::2"];
const METHODS: [&str; 8] = ["-4", "-4 -U", "-4 -I", "-4 -T", "-6", "-6 -U", "-6 -I", "-6 -T"];

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20);
    // This must come first: it needs a process with a single thread.
    unshare_as_root().expect("user and network namespaces");
    let direct = Path::new(Host::router("x").unwrap());
    link(&direct.client, "ping0", &client_nets(), &direct.hosts[0], "to-client", &gateway_nets(), None).unwrap();
    for (all, gateway) in ALL.into_iter().zip(gateway_nets()) {
        direct.client.add_route(net(all), Some(gateway.addr()), "ping0").unwrap();
    }
    let proxied = Path::new(Host::new("x").unwrap());
    let running = proxied.serve();
    println!("| traceroute | kernel router: median, fastest | pingferry | ratios | CPU of pingferry |");
    println!("|---|---|---|---|---|");
    for method in METHODS {
        let mut times = [Vec::new(), Vec::new()];
        let used_before = cpu_of(running.id());
        for _ in 0..rounds {
            for (path, times) in [&direct, &proxied].into_iter().zip(&mut times) {
                times.push(path.trace(method));
            }
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let [direct, proxied] = times.map(|times| [times[times.len() / 2], times[0]]);
        let ratio = |at: usize| proxied[at].as_secs_f64() / direct[at].as_secs_f64();
        let used = (cpu_of(running.id()) - used_before) / rounds;
        println!("| `{method}` | {direct:.1?} | {proxied:.1?} | {:.2}, {:.2} | {used:.1?} |", ratio(0), ratio(1));
    }
    running.stop();
}

const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn client_nets() -> [ipnet::IpNet; 2] {
    [net(&format!("{CLIENT}/24")), net(&format!("{CLIENT_6}/64"))]
}

fn gateway_nets() -> [ipnet::IpNet; 2] {
    [net("198.51.100.1/24"), net("2001:db8:1::1/64")]
}

/// The time that the threads of a process have run (`/proc/PID/task/TID/schedstat`, the first field, in nanoseconds).
fn cpu_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = tasks.map(|task| {
        let fields = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        fields.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A client, and the hosts from X to the target.
struct Path {
    client: Host,
    hosts: Vec<Host>,
}

impl Path {
    fn new(x: Host) -> Self {
        let mut hosts = vec![x];
        hosts.extend((0..ROUTERS).map(|number| Host::router(&format!("router {number}")).unwrap()));
        hosts.push(Host::new("target").unwrap());
        let at = |network: u8, host: u8| {
            [net(&format!("10.0.{network}.{host}/24")), net(&format!("2001:db8:ff{network:02}::{host}/64"))]
        };
        for (network, pair) in (1..).zip(hosts.windows(2)) {
            link(&pair[0], "next", &at(network, 1), &pair[1], "previous", &at(network, 2), None).unwrap();
            // Without a limit on the rate of ICMP errors.
            pair[1].set_sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
            pair[1].set_sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
        }
        for (network, pair) in (1..).zip(hosts.windows(2)) {
            for family in [0, 1] {
                // Everything is ahead but the networks of the clients and of X.
                let (next, previous) = (at(network, 2)[family].addr(), at(network, 1)[family].addr());
                pair[0].add_route(net(ALL[family]), Some(next), "next").unwrap();
                for behind in [gateway_nets()[family].trunc(), at(1, 0)[family]] {
                    // Router 1 is on the network of X.
                    if !(network == 1 && behind == at(1, 0)[family]) {
                        pair[1].add_route(behind, Some(previous), "previous").unwrap();
                    }
                }
            }
        }
        Self { client: Host::new("client").unwrap(), hosts }
    }

    fn serve(&self) -> Running {
        let (netns, addresses) = (netns_path(&self.client), format!("{CLIENT}/32,{CLIENT_6}/128"));
        let args = ["run", "--tun", "ping0", "--netns", &netns, "--address", &addresses, "--route", "default"];
        Running::start(&self.hosts[0], pingferry().args(args).args(["--udp", "probes", "--tcp", "probes"]))
    }

    /// Traces the route, and returns how long that took.
    fn trace(&self, method: &str) -> Duration {
        let target = TARGET[usize::from(method.starts_with("-6"))];
        let mut command = Command::new("traceroute");
        command.args(["-n", "-w", "2"]).args(method.split(' ')).arg(target).env("LC_ALL", "C");
        let start = Instant::now();
        let shown = all_output(&self.client.output(&mut command).unwrap());
        let taken = start.elapsed();
        let hops = hops_shown(&shown);
        assert!(hops.len() == 30 && hops[29] == target && !shown.contains('*'), "{method}: {shown}");
        taken
    }
}
