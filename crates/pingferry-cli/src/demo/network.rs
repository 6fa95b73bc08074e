//! The network of the demo.

use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pingferry::{PathConfig, Tun};
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::{Host, link};

/// The MTU between the router and the far host, in bytes.
pub(super) const LAST_MTU: u32 = 1400;

/// The namespaces of the demo. Their addresses are reserved for documentation (RFC 5737, RFC 3849).
pub(super) struct Network {
    pub(super) client: Host,
    pub(super) proxy: Host,
    /// Kept because a namespace ends when its `Host` is dropped.
    _others: [Host; 2],
}

impl Network {
    pub(super) fn build() -> io::Result<Self> {
        let (client, proxy) = (Host::new("client")?, Host::new("pingferry")?);
        let (router, far) = (Host::router("router")?, Host::new("far host")?);
        link(&proxy, "to-router", &net(1, 1), &router, "to-proxy", &net(1, 2), None)?;
        link(&router, "to-far", &net(2, 1), &far, "to-router", &net(2, 2), Some(LAST_MTU))?;
        for (network, gateway) in net(2, 0).into_iter().zip(net(1, 2)) {
            proxy.add_route(network, Some(gateway.addr()), "to-router")?;
        }
        for (network, gateway) in net(1, 0).into_iter().zip(net(2, 1)) {
            far.add_route(network, Some(gateway.addr()), "to-router")?;
        }
        Ok(Self { client, proxy, _others: [router, far] })
    }

    /// The TUN device of the client's namespace. All packets of the client are routed to it.
    pub(super) fn open_tun(&self) -> io::Result<(Tun, PathConfig)> {
        let config = TunConfig::new("ping0")
            .with_addresses(client_addresses().into())
            .with_routes(vec![Ipv4Net::default().into(), Ipv6Net::default().into()]);
        let (tun, mtu, _) = self.client.run(|| config.open())??;
        Ok((tun, PathConfig::default().with_mtu(mtu as usize)))
    }
}

/// The router and the far host, each by IPv4 and IPv6.
pub(super) fn hosts() -> [IpAddr; 4] {
    let [near_v4, near_v6] = net(1, 2);
    let [far_v4, far_v6] = far();
    [near_v4.addr(), near_v6.addr(), far_v4, far_v6]
}

/// The addresses of the client.
pub(super) fn client_addresses() -> [IpNet; 2] {
    [v4([203, 0, 113, 2], 32), v6([0x2001, 0xdb8, 3, 0, 0, 0, 0, 2], 128)]
}

/// The networks behind the proxy.
#[cfg(feature = "tunnel")]
pub(super) fn networks() -> [IpNet; 4] {
    let ([near_v4, near_v6], [far_v4, far_v6]) = (net(1, 0), net(2, 0));
    [near_v4, near_v6, far_v4, far_v6]
}

/// The far host.
pub(super) fn far() -> [IpAddr; 2] {
    net(2, 2).map(|address| address.addr())
}

/// The addresses of a host in network 1 or 2.
fn net(network: u8, host: u8) -> [IpNet; 2] {
    let prefix_v4 = if network == 1 { [192, 0, 2] } else { [198, 51, 100] };
    let [a, b, c] = prefix_v4;
    [v4([a, b, c, host], 24), v6([0x2001, 0xdb8, network.into(), 0, 0, 0, 0, host.into()], 64)]
}

fn v4(address: [u8; 4], len: u8) -> IpNet {
    Ipv4Net::new_assert(address.into(), len).into()
}

fn v6(address: [u16; 8], len: u8) -> IpNet {
    Ipv6Net::new_assert(address.into(), len).into()
}
