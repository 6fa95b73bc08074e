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
#[cfg(feature = "tunnel")]
mod tunnel;

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use pingferry::Config;
use pingferry_sys::namespace::unshare_as_root;

use self::client::{Pinger, Response};
use self::network::{LAST_MTU, Network};
use crate::error::{CliError, RUNTIME};
use crate::{output, proxy, stats};

/// How many echo requests each host gets.
const COUNT: usize = 3;
const HOP_LIMIT: u8 = 64;
const PAYLOAD: usize = 56;

#[derive(Args, Clone)]
pub(crate) struct DemoArgs {
    /// Ping through an edge and a connector, and cut their connections under a running ping
    #[cfg(feature = "tunnel")]
    #[arg(long)]
    tunnel: bool,
}

#[cfg_attr(not(feature = "tunnel"), expect(unused_variables, reason = "the only option needs the feature"))]
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode, CliError> {
    #[cfg(feature = "tunnel")]
    if args.tunnel {
        return tunnel::demo();
    }
    run()
}

fn run() -> Result<ExitCode, CliError> {
    let failed = |what: &'static str| move |error: io::Error| CliError::from_io(what, &error);
    unshare_as_root().map_err(failed("cannot create a network"))?;
    let network = Network::build().map_err(failed("cannot build the network"))?;
    output::print(&format!("client -- TUN -- pingferry -- router -- MTU {LAST_MTU} -- far host\n"))?;

    let proxy = network
        .proxy
        .run(|| proxy::open(Config::default()))
        .map_err(failed("cannot enter the namespace of the proxy"))??;
    let (tun, path_config) = network.open_tun().map_err(failed("cannot open the TUN device"))?;
    let attached = proxy.attach_tun(path_config, [tun]);
    attached.map_err(|error| CliError::runtime(format!("cannot serve the TUN device: {error}")))?;
    let tally = network.client.run(probe).map_err(failed("cannot enter the namespace of the client"))??;

    let stats = proxy.close()?;
    let Tally { sent, expected } = tally;
    output::print(&format!("\n{sent} probes sent, {expected} with the expected response\n{}\n", stats::text(&stats)))?;
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
    fn add(
        &mut self,
        response: io::Result<Option<Response>>,
        is_expected: impl FnOnce(&Response) -> bool,
    ) -> Result<(), CliError> {
        self.sent += 1;
        match response.map_err(cannot_ping)? {
            Some(response) => {
                self.expected += usize::from(is_expected(&response));
                output::print(&format!("  {response}\n"))
            }
            None => output::print("  no response\n"),
        }
    }
}

fn cannot_ping(error: io::Error) -> CliError {
    CliError::from_io("cannot ping", &error)
}

fn probe() -> Result<Tally, CliError> {
    let mut tally = Tally::default();
    ping_all(&mut tally)?;
    for host in network::far() {
        trace(host, &mut tally)?;
        probe_mtu(host, &mut tally)?;
        ping_big(host, &mut tally)?;
    }
    Ok(tally)
}

fn ping_all(tally: &mut Tally) -> Result<(), CliError> {
    for host in network::hosts() {
        output::print(&format!("\nping {host}\n"))?;
        let mut pinger = Pinger::new(host, false).map_err(cannot_ping)?;
        for _ in 0..COUNT {
            tally.add(pinger.ping(HOP_LIMIT, PAYLOAD), |response| matches!(response, Response::Reply { .. }))?;
        }
    }
    Ok(())
}

/// The first two hops, pingferry and the router, report that the hop limit is used up. The third is the host.
fn trace(host: IpAddr, tally: &mut Tally) -> Result<(), CliError> {
    output::print(&format!("\ntrace the route to {host}\n"))?;
    let mut pinger = Pinger::new(host, false).map_err(cannot_ping)?;
    for hop_limit in 1..=2 {
        tally.add(pinger.ping(hop_limit, PAYLOAD), |response| matches!(response, Response::TimeExceeded { .. }))?;
    }
    tally.add(pinger.ping(3, PAYLOAD), |response| matches!(response, Response::Reply { .. }))
}

/// The largest packet that fits the TUN device is too large for the last link.
fn probe_mtu(host: IpAddr, tally: &mut Tally) -> Result<(), CliError> {
    output::print(&format!("\nprobe the path MTU to {host} with 1500 bytes\n"))?;
    let headers = if host.is_ipv4() { 28 } else { 48 };
    let response = Pinger::new(host, true).and_then(|mut pinger| pinger.ping(HOP_LIMIT, 1500 - headers));
    tally.add(response, |response| matches!(response, Response::TooBig { mtu: LAST_MTU, .. }))
}

/// The largest possible ping, in about fifty fragments in each direction.
fn ping_big(host: IpAddr, tally: &mut Tally) -> Result<(), CliError> {
    let payload = if host.is_ipv4() { 65_507 } else { 65_527 };
    output::print(&format!("\nping {host} with {payload} bytes\n"))?;
    let response = Pinger::new(host, false).and_then(|mut pinger| pinger.ping(HOP_LIMIT, payload));
    tally.add(response, |response| matches!(response, Response::Reply { bytes, .. } if *bytes == payload + 8))
}
