//! What an edge opens and reads before it is confined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use ipnet::IpNet;
use pingferry::Tun;
use pingferry_sys::diagnosis::Operation;
use pingferry_sys::tun::TunConfig;
use pingferry_tunnel::edge::Tunnels;
use pingferry_tunnel::transport::{ServerConfig, bind, load_certificates, load_key, server_config};
use tracing::warn;

use crate::error::CliError;
use crate::run::no_tun;

/// The queue of a new device, in packets: room for a burst of a few thousand that comes faster than it is read.
const QUEUE_LENGTH: u32 = 10_000;

/// The files that say who may connect, and to whom.
pub(super) struct Certificate {
    pub(super) tunnels: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    /// Reads them.
    pub(super) fn load(&self) -> Result<(Tunnels, ServerConfig), String> {
        let tunnels = Tunnels::read(&self.tunnels).map_err(|error| error.to_string())?;
        let chain = load_certificates(&self.cert).map_err(|error| error.to_string())?;
        let key = load_key(&self.key).map_err(|error| error.to_string())?;
        let quic = server_config(chain, key).map_err(|error| error.to_string())?;
        Ok((tunnels, quic))
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        [&self.tunnels, &self.cert, &self.key].map(Clone::clone).into()
    }
}

/// The device, and the addresses that sign the errors of the edge.
pub(super) struct Device {
    pub(super) tun: Tun,
    pub(super) gateway: (Option<Ipv4Addr>, Option<Ipv6Addr>),
}

impl Device {
    pub(super) fn open(
        name: &str,
        addresses: Vec<IpNet>,
        routes: Vec<IpNet>,
        metric: Option<u32>,
        mtu: u32,
    ) -> Result<Self, CliError> {
        let gateway = gateway(&addresses);
        let config = TunConfig::new(name)
            .with_addresses(addresses)
            .with_routes(routes)
            .with_metric(metric)
            .with_mtu(Some(mtu))
            .with_queue_length(Some(QUEUE_LENGTH));
        let (tun, _, _) = config.open().map_err(|error| no_tun(name, &error))?;
        if gateway.0.is_some()
            && let Err(error) = tun.accept_own_addresses()
        {
            let name = tun.name();
            warn!(
                "the kernel will drop the ICMP errors of the edge: {error}; run: sudo sysctl -w net.ipv4.conf.{name}.accept_local=1"
            );
        }
        Ok(Self { tun, gateway })
    }
}

/// The first address of each family.
fn gateway(addresses: &[IpNet]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let mut v4 = None;
    let mut v6 = None;
    for address in addresses.iter().map(IpNet::addr) {
        match address {
            IpAddr::V4(address) => v4 = v4.or(Some(address)),
            IpAddr::V6(address) => v6 = v6.or(Some(address)),
        }
    }
    (v4, v6)
}

pub(super) fn listen(address: SocketAddr) -> Result<UdpSocket, CliError> {
    let opened = bind(address);
    let failed = |error| CliError::of(&Operation::Listen(address), format!("cannot listen at {address}"), &error);
    let (socket, sizes) = opened.map_err(failed)?;
    if let Some(advice) = sizes.advice() {
        warn!("{advice}");
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_family_signs() {
        let addresses = ["198.51.100.1/24", "198.51.100.2/24", "2001:db8::1/64"].map(|text| text.parse().unwrap());
        let expected = (Some("198.51.100.1".parse().unwrap()), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(gateway(&addresses), expected);
        assert_eq!(gateway(&[]), (None, None));
    }
}
