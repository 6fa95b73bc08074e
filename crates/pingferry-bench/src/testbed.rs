//! The network of a measurement: a client, a proxy host where the subject runs, and a responder one veth away.
//!
//! The ends of a tunnel run on the client and on the proxy host, with a second link between them.
//!
//! Each measurement builds its own, so no flow, socket or conntrack entry of an earlier one remains.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;
use pingferry_testnet::{Host, link};

use crate::load::Wan;

/// The proxy's device towards the responder, and the addresses of both (RFC 5737).
pub(crate) const TO_RESPONDER: &str = "to-responder";
const PROXY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 1), 24);
const RESPONDER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 2), 24);
/// The responder replies for every address of this prefix (RFC 2544).
pub(crate) const HOSTS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 1), 15);
/// The address of the client, unless the subject assigns one, and that of its router (RFC 5737).
pub(crate) const CLIENT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 2), 24);
pub(crate) const ROUTER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 1), 24);
/// The addresses of the client and of the proxy host on the link that a tunnel takes (RFC 5737).
pub(crate) const NEAR_END: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 1), 24);
pub(crate) const FAR_END: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 2), 24);
/// The device of that link, at both ends.
const WAN: &str = "wan";
/// 10 Mbit/s, after bursts of a full packet, and a queue of two of them (tc-tbf(8)). What is longer would hide in the queue of
/// the path what waits in the subject.
const SLOW: &str = "rate 10mbit burst 1600 limit 3200";
pub(crate) const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// The hosts.
pub(crate) struct Testbed {
    pub(crate) client: Host,
    pub(crate) proxy: Host,
    responder: Host,
}

impl Testbed {
    /// Builds the network. The client has no device and no route yet.
    pub(crate) fn build() -> io::Result<Self> {
        let testbed =
            Self { client: Host::new("client")?, proxy: Host::new("proxy")?, responder: Host::new("responder")? };
        link(&testbed.proxy, TO_RESPONDER, &[PROXY.into()], &testbed.responder, "to-proxy", &[RESPONDER.into()], None)?;
        testbed.responder.add_address("lo", HOSTS.into())?;
        testbed.proxy.add_route(DEFAULT_ROUTE.into(), Some(RESPONDER.addr().into()), TO_RESPONDER)?;
        Ok(testbed)
    }

    /// Links the ends of a tunnel.
    pub(crate) fn link_ends(&self, wan: Wan) -> io::Result<()> {
        link(&self.client, WAN, &[NEAR_END.into()], &self.proxy, WAN, &[FAR_END.into()], None)?;
        if wan != Wan::Fast {
            limit_rate(&self.client)?;
            limit_rate(&self.proxy)?;
        }
        Ok(())
    }

    /// The client's network namespace, to be the standard input of a subject. The subject opens it as
    /// `/proc/self/fd/0`, which needs no permission to inspect other processes.
    pub(crate) fn client_as_stdin(&self) -> io::Result<Stdio> {
        Ok(File::from(self.client.netns.as_fd().try_clone_to_owned()?).into())
    }

    /// Gives the client a default route through `device`, via the neighbour `via` if one is given.
    pub(crate) fn route_client(&self, via: Option<IpAddr>, device: &str) -> io::Result<()> {
        self.client.add_route(DEFAULT_ROUTE.into(), via, device)
    }
}

fn limit_rate(host: &Host) -> io::Result<()> {
    let mut tc = Command::new("tc");
    tc.args(["qdisc", "replace", "dev", WAN, "root", "tbf"]).args(SLOW.split(" "));
    let output = host.output(&mut tc)?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("tc: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
