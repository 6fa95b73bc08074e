use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pingferry::{PathConfig, Tun};
use pingferry_lab::{Host, link};
use pingferry_sys::tun::TunConfig;

/// The namespaces of the demo. Addresses are those set aside for documentation (RFC 5737, RFC 3849).
pub(super) struct Lab {
    pub(super) client: Host,
    pub(super) ferry: Host,
    _targets: [Host; 2],
}

impl Lab {
    pub(super) fn build() -> io::Result<Self> {
        let client = Host::new("client")?;
        let ferry = Host::new("pingferry")?;
        let first = Host::new("first host")?;
        let second = Host::new("second host")?;
        for (number, target) in [(1, &first), (2, &second)] {
            let [here, there] = [1, 2].map(|host| [host_v4(number, host), host_v6(number, host)]);
            link(&ferry, &format!("to-host{number}"), &here, target, "to-ferry", &there, None)?;
        }
        Ok(Self { client, ferry, _targets: [first, second] })
    }

    /// The TUN device of the client's namespace, through which all its packets go.
    pub(super) fn open_tun(&self) -> io::Result<(Tun, PathConfig)> {
        let config = TunConfig {
            name: "ping0".into(),
            addresses: vec![v4([198, 51, 100, 2], 32), v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 128)],
            routes: vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
            mtu: None,
            queue_length: None,
        };
        let (tun, mtu, _) = self.client.run(|| config.open())??;
        Ok((tun, PathConfig { mtu: mtu as usize, ..PathConfig::default() }))
    }

    /// The addresses of the target hosts.
    pub(super) fn hosts(&self) -> [IpAddr; 4] {
        let v4 = |number| host_v4(number, 2).addr();
        let v6 = |number| host_v6(number, 2).addr();
        [v4(1), v6(1), v4(2), v6(2)]
    }

    pub(super) fn describe(&self) -> String {
        self.hosts().map(|host| host.to_string()).join(", ")
    }
}

/// The address of a host in the network of target `number`.
fn host_v4(number: u8, host: u8) -> IpNet {
    v4([192, 0, 2, number * 16 + host], 28)
}

fn host_v6(number: u8, host: u8) -> IpNet {
    v6([0x2001, 0xdb8, 0, number.into(), 0, 0, 0, host.into()], 64)
}

fn v4(address: [u8; 4], len: u8) -> IpNet {
    Ipv4Net::new_assert(address.into(), len).into()
}

fn v6(address: [u16; 8], len: u8) -> IpNet {
    Ipv6Net::new_assert(address.into(), len).into()
}
