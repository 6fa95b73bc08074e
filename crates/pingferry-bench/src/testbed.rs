//! The network of a measurement: a client, a proxy host where the subject runs, and a responder one veth away.
//!
//! Each measurement builds its own, so no flow, socket or conntrack entry of an earlier one remains.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Stdio;

use ipnet::Ipv4Net;
use pingferry_testnet::{Host, link};

/// The proxy's device towards the responder, and the addresses of both (RFC 5737).
pub(crate) const TO_RESPONDER: &str = "to-responder";
const PROXY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 1), 24);
const RESPONDER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 2), 24);
/// The responder replies for every address of this prefix (RFC 2544).
pub(crate) const HOSTS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 1), 15);
/// The address of the client, unless the subject assigns one, and that of its router (RFC 5737).
pub(crate) const CLIENT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 2), 24);
pub(crate) const ROUTER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 1), 24);
const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

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
