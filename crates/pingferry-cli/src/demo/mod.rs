//! `pingferry demo`: the main job on a network of its own.
//!
//! ```text
//! client ── TUN ── pingferry ── veth ── router ── veth, MTU 1400 ── far host
//! ```
//!
//! All four are network namespaces of this process. The client's kernel sends real echo requests into the TUN device,
//! the proxy sends them on from a namespace where it is nobody special, and the other kernels answer.

mod client;
mod lab;

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use pingferry::Config;
use pingferry_sys::namespace::unshare_as_root;

use self::client::{Answer, Pinger};
use self::lab::{Lab, NARROW};
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
    unshare_as_root().map_err(failed("cannot make the lab"))?;
    let lab = Lab::build().map_err(failed("cannot build the lab"))?;
    println!("client -- TUN -- pingferry -- router -- MTU {NARROW} -- far host");

    let proxy = lab.ferry.run(|| proxy::open(Config::default())).map_err(failed("cannot enter the lab"))??;
    let (tun, path_config) = lab.open_tun().map_err(failed("cannot open the TUN device"))?;
    proxy.attach_tun(path_config, [tun]).map_err(failed("cannot serve the TUN device"))?;
    let tally = lab.client.run(probe).and_then(|probed| probed).map_err(failed("cannot ping"))?;

    let stats = proxy.close()?;
    println!("\n{} probes sent, {} answered as they should be\n{}", tally.sent, tally.right, stats::text(&stats));
    Ok(if tally.sent == tally.right { ExitCode::SUCCESS } else { ExitCode::from(RUNTIME) })
}

/// Counts probes, and those whose answer was the right one.
#[derive(Default)]
struct Tally {
    sent: usize,
    right: usize,
}

impl Tally {
    /// Shows what came back.
    fn show(&mut self, answer: Option<Answer>, is_right: impl FnOnce(&Answer) -> bool) {
        self.sent += 1;
        match answer {
            Some(answer) => {
                self.right += usize::from(is_right(&answer));
                println!("  {answer}");
            }
            None => println!("  no answer"),
        }
    }
}

fn probe() -> io::Result<Tally> {
    let mut tally = Tally::default();
    for host in lab::hosts() {
        println!("\nping {host}");
        let mut pinger = Pinger::new(host, false)?;
        for _ in 0..COUNT {
            tally.show(pinger.ping(HOP_LIMIT, PAYLOAD)?, |answer| matches!(answer, Answer::Reply { .. }));
        }
    }
    for host in lab::far() {
        trace(host, &mut tally)?;
        probe_mtu(host, &mut tally)?;
        ping_big(host, &mut tally)?;
    }
    Ok(tally)
}

/// Two hops report the end of the hop limit, pingferry and the router; the third is the host.
fn trace(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    println!("\ntrace the route to {host}");
    let mut pinger = Pinger::new(host, false)?;
    for hop_limit in 1..=2 {
        tally.show(pinger.ping(hop_limit, PAYLOAD)?, |answer| matches!(answer, Answer::TimeExceeded { .. }));
    }
    tally.show(pinger.ping(3, PAYLOAD)?, |answer| matches!(answer, Answer::Reply { .. }));
    Ok(())
}

/// A packet as large as the TUN device takes is too large for the last link.
fn probe_mtu(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    println!("\nprobe the path MTU to {host} with 1500 bytes");
    let headers = if host.is_ipv4() { 28 } else { 48 };
    let answer = Pinger::new(host, true)?.ping(HOP_LIMIT, 1500 - headers)?;
    tally.show(answer, |answer| matches!(answer, Answer::TooBig { mtu: NARROW, .. }));
    Ok(())
}

/// The largest ping there is, in some fifty fragments each way.
fn ping_big(host: IpAddr, tally: &mut Tally) -> io::Result<()> {
    let payload = if host.is_ipv4() { 65_507 } else { 65_527 };
    println!("\nping {host} with {payload} bytes");
    let answer = Pinger::new(host, false)?.ping(HOP_LIMIT, payload)?;
    tally.show(answer, |answer| matches!(answer, Answer::Reply { bytes, .. } if *bytes == payload + 8));
    Ok(())
}
