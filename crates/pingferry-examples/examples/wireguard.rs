//! A WireGuard peer without a TUN device: the pings of the other peer cross.
//!
//! ```text
//! wireguard 0.0.0.0:51820 SECRET-KEY PUBLIC-KEY-OF-THE-PEER
//! ```
//! Keys are hexadecimal.
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use pingferry::{Config, Offer, PathConfig, Proxy};

/// How often the timers of WireGuard are looked at.
const TICK: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, listen, secret, public] = args.as_slice() else { return Err("usage: wireguard ADDRESS KEY KEY".into()) };
    let socket = Arc::new(UdpSocket::bind(listen)?);
    socket.set_read_timeout(Some(TICK))?;
    let tunnel = Tunn::new(key(secret)?.into(), key(public)?.into(), None, None, 0, None);
    // With the address that the peer was heard from last. The callback takes this lock, and `offer` is called under it.
    let peer = Arc::new(Mutex::new((tunnel, None::<SocketAddr>)));

    let proxy = Proxy::open(Config::default())?;
    let (to_peer, back, mut buffer) = (Arc::clone(&socket), Arc::clone(&peer), vec![0; 65_536]);
    let path = proxy.attach(PathConfig::default().with_mtu(1420), move |packet: &[u8]| {
        let (tunnel, address) = &mut *back.lock().unwrap_or_else(PoisonError::into_inner);
        let TunnResult::WriteToNetwork(datagram) = tunnel.encapsulate(packet, &mut buffer) else { return false };
        address.is_some_and(|address| to_peer.send_to(datagram, address).is_ok())
    })?;

    let (mut datagram, mut buffer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let received = socket.recv_from(&mut datagram);
        let (tunnel, address) = &mut *peer.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok((length, from)) = received else {
            if let (TunnResult::WriteToNetwork(timed), Some(address)) = (tunnel.update_timers(&mut buffer), *address) {
                socket.send_to(timed, address)?;
            }
            continue;
        };
        let mut input = datagram.get(..length).unwrap_or_default();
        // After something to send there may be more, which an empty datagram asks for.
        while let TunnResult::WriteToNetwork(response) = match tunnel.decapsulate(Some(from.ip()), input, &mut buffer) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                *address = Some(from);
                if path.offer(packet) == Offer::NotMine { /* It is for the program's own stack. */ }
                TunnResult::Done
            }
            other => other,
        } {
            socket.send_to(response, from)?;
            input = &[];
        }
    }
}

fn key(hex: &str) -> Result<[u8; 32], Box<dyn Error>> {
    let byte = |number: usize| u8::from_str_radix(hex.get(2 * number..2 * number + 2).unwrap_or_default(), 16);
    let bytes = (0..32).map(byte).collect::<Result<Vec<u8>, _>>()?;
    bytes.try_into().map_err(|_| "a key has 64 digits".into())
}
