//! `pingferry demo`: the main job on a network of its own.
//!
//! ```text
//! client ── TUN ── pingferry ── veth ── two hosts
//! ```
//!
//! All three are network namespaces of this process. The client's kernel sends real echo requests into the TUN device,
//! the proxy sends them on from a namespace where it is nobody special, and the hosts' kernels answer.

mod client;
mod lab;

use std::io;
use std::process::ExitCode;

use pingferry::{Config, Proxy};
use pingferry_sys::namespace::unshare_as_root;

use self::client::Pinger;
use self::lab::Lab;
use crate::failure::Failure;
use crate::totals;

/// How many echo requests each host gets.
const COUNT: u16 = 3;

pub(crate) fn demo() -> Result<ExitCode, Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure::runtime(format!("{what}: {error}"));
    unshare_as_root().map_err(|error| {
        Failure::from_io("cannot make the lab", &error, "to see what is missing, run: pingferry check")
    })?;
    let lab = Lab::build().map_err(failed("cannot build the lab"))?;
    println!("The lab: client -- TUN ping0 -- pingferry -- veth -- hosts {}\n", lab.describe());

    let proxy = lab.ferry.run(|| Proxy::open(Config::default())).map_err(failed("cannot enter the lab"))??;
    let (tun, path_config) = lab.open_tun().map_err(failed("cannot open the TUN device"))?;
    proxy.attach_tun(path_config, tun).map_err(failed("cannot serve the TUN device"))?;
    let (sent, returned) = lab.client.run(|| ping_all(&lab)).and_then(|done| done).map_err(failed("cannot ping"))?;

    let totals = proxy.close()?;
    println!("\n{sent} echo requests sent, {returned} came back\n{}", totals::text(&totals));
    Ok(if sent == returned { ExitCode::SUCCESS } else { ExitCode::from(crate::failure::RUNTIME) })
}

fn ping_all(lab: &Lab) -> io::Result<(usize, usize)> {
    let (mut sent, mut returned) = (0, 0);
    for host in lab.hosts() {
        let mut pinger = Pinger::new(host)?;
        for seq in 1..=COUNT {
            sent += 1;
            match pinger.ping(seq)? {
                Some(reply) => {
                    returned += 1;
                    println!("{reply}");
                }
                None => println!("no answer from {host}: seq={seq}"),
            }
        }
    }
    Ok((sent, returned))
}
