//! The network that is measured in: a client with nothing, a ferry where the subject runs, a target one veth away.
//!
//! Each measurement has a network of its own, so that no flow, socket or connection of an earlier one is left in it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Stdio;

use ipnet::{IpNet, Ipv4Net};
use pingferry_testnet::{Host, link};

/// The ferry's device and addresses towards the target (RFC 5737).
pub(crate) const TO_RESPONDER: &str = "to-responder";
const PROXY: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 0, 2, 1), 24);
const RESPONDER: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 0, 2, 2), 24);
/// The target answers for all of this (RFC 2544).
const HOSTS: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 18, 0, 1), 15);
/// The client's address where the subject does not bring its own, and its router's.
pub(crate) const CLIENT: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 51, 100, 2), 24);
pub(crate) const ROUTER: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 51, 100, 1), 24);

/// The hosts.
pub(crate) struct Testbed {
    pub(crate) client: Host,
    pub(crate) proxy: Host,
    responder: Host,
}

impl Testbed {
    pub(crate) fn build() -> io::Result<Self> {
        let testbed =
            Self { client: Host::new("client")?, proxy: Host::new("proxy")?, responder: Host::new("responder")? };
        link(&testbed.proxy, TO_RESPONDER, &[PROXY.into()], &testbed.responder, "to-proxy", &[RESPONDER.into()], None)?;
        testbed.responder.add_address("lo", HOSTS.into())?;
        testbed.proxy.add_route(everywhere(), Some(RESPONDER.addr().into()), TO_RESPONDER)?;
        Ok(testbed)
    }

    /// The client's namespace as a standard input: a subject opens it as `/proc/self/fd/0`, which needs no right to
    /// look at other processes.
    pub(crate) fn client_as_stdin(&self) -> io::Result<Stdio> {
        Ok(File::from(self.client.netns.as_fd().try_clone_to_owned()?).into())
    }

    /// Sends all of the client's packets through `device`, to a neighbour if one is given.
    pub(crate) fn route_client(&self, via: Option<IpAddr>, device: &str) -> io::Result<()> {
        self.client.add_route(everywhere(), via, device)
    }
}

fn everywhere() -> IpNet {
    Ipv4Net::default().into()
}
