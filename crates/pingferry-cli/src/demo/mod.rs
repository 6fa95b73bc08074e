//! `pingferry demo`: pings through a network of its own.
//!
//! ```text
//! client ── TUN ── pingferry ── veth ── router ── veth, MTU 1400 ── far host
//! ```
//!
//! All four are network namespaces of this process. The client's kernel sends real echo requests to the TUN device, the
//! proxy sends them on from a namespace without any privileges, and the other kernels reply.

mod client;
mod network;

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use pingferry::Config;
use pingferry_sys::namespace::unshare_as_root;

use self::client::{Pinger, Response};
use self::network::{LAST_MTU, Network};
use crate::error::{CliError, RUNTIME};
use crate::{proxy, stats};

/// How many echo requests each host gets.
const COUNT: usize = 3;
const HOP_LIMIT: u8 = 64;
const PAYLOAD: usize = 56;

pub(crate) fn demo() -> Result<ExitCode, CliError> {
    let failed = |what: &'static str| {
        let fix = "to see what is missing, run: pingferry check";
        move |error: io::Error| CliError::from_io(what, &error, fix)
    };
    unshare_as_root().map_err(failed("cannot create a network"))?;
    let network = Network::build().map_err(failed("cannot build the network"))?;
    println!("client -- TUN -- pingferry -- router -- MTU {LAST_MTU} -- far host");

    let proxy = network
        .proxy
        .run(|| proxy::open(Config::default()))
        .map_err(failed("cannot enter the namespace of the proxy"))??;
    let (tun, path_config) = network.open_tun().map_err(failed("cannot open the TUN device"))?;
    proxy.attach_tun(path_config, [tun]).map_err(failed("cannot serve the TUN device"))?;
    let tally = network.client.run(probe).and_then(|probed| probed).map_err(failed("cannot ping"))?;

    let stats = proxy.close()?;
    println!("\n{} probes sent, {} with the expected response\n{}", tally.sent, tally.expected, stats::text(&stats));
    Ok(if tally.sent == tally.expected { ExitCode::SUCCESS } else { ExitCode::from(RUNTIME) })
}

/// Counts probes, and those with the expected response.
#[derive(Default)]
struct Tally {
    sent: usize,
    expected: usize,
}

impl Tally {
    /// Counts and prints a response.
    fn add(&mut self, response: Option<Response>, is_expected: impl FnOnce(&Response) -> bool) {
        self.sent += 1;
        match response {
            Some(response) => {
                self.expected += usize::from(is_expected(&response));
                println!("  {response}");
            }
            None => println!("  no response"),
        }
    }
}

fn probe() -> io::Result<Tally> {
    let mut tally = Tally::default();
    for host in network::hosts() {
        println!("\nping {host}");
        let mut pinger = Pinger::new(host, false)?;
        for _ in 0..COUNT {
            tally.add(pinger.ping(HOP_LIMIT, PAYLOAD)?, |response| matches!(response, Response::Reply { .. }));
        }
    }
    for host in network::far() {
        trace(host, &mut tally)?;
        probe_mtu(host, &mut tally)?;
        ping_big(host, &mut tally)?;
    }
    Ok(tally)
}

/// The first two hops, pingferry and the router, report that the hop limit is used up. The third is the host.
fn trace(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    println!("\ntrace the route to {host}");
    let mut pinger = Pinger::new(host, false)?;
    for hop_limit in 1..=2 {
        tally.add(pinger.ping(hop_limit, PAYLOAD)?, |response| matches!(response, Response::TimeExceeded { .. }));
    }
    tally.add(pinger.ping(3, PAYLOAD)?, |response| matches!(response, Response::Reply { .. }));
    Ok(())
}

/// The largest packet that fits the TUN device is too large for the last link.
fn probe_mtu(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    println!("\nprobe the path MTU to {host} with 1500 bytes");
    let headers = if host.is_ipv4() { 28 } else { 48 };
    let response = Pinger::new(host, true)?.ping(HOP_LIMIT, 1500 - headers)?;
    tally.add(response, |response| matches!(response, Response::TooBig { mtu: LAST_MTU, .. }));
    Ok(())
}

/// The largest possible ping, in about fifty fragments in each direction.
fn ping_big(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    let payload = if host.is_ipv4() { 65_507 } else { 65_527 };
    println!("\nping {host} with {payload} bytes");
    let response = Pinger::new(host, false)?.ping(HOP_LIMIT, payload)?;
    tally.add(response, |response| matches!(response, Response::Reply { bytes, .. } if *bytes == payload + 8));
    Ok(())
}
