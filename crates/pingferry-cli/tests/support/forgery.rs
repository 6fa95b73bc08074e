//! Forged messages from the target.

use std::fs;

use pingferry_proto::wire::write_checksum;
use pingferry_sys::ping::{Outgoing, RawSocket, SendBatch};

use super::client::echo;
use super::{Network, PROXY, TARGET};

/// The words of the line of `/proc/net/icmp` about the only ping socket in the proxy's namespace.
pub fn ping_socket(network: &Network) -> Vec<String> {
    let table = network.proxy.run(|| fs::read_to_string("/proc/thread-self/net/icmp")).unwrap().unwrap();
    let mut sockets = table.lines().skip(1);
    let (only, None) = (sockets.next().unwrap(), sockets.next()) else { panic!("several sockets:\n{table}") };
    only.split_whitespace().map(str::to_owned).collect()
}

/// The identifier of that socket.
pub fn ping_ident(network: &Network) -> u16 {
    let address = &ping_socket(network)[1];
    u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap()
}

/// An echo reply.
pub fn reply(ident: u16, seq: u16) -> Vec<u8> {
    let mut message = echo(TARGET, PROXY, ident, b"forged")[20..].to_vec();
    message[0] = 0;
    message[6..8].copy_from_slice(&seq.to_be_bytes());
    write_checksum(TARGET.parse().unwrap(), PROXY.parse().unwrap(), &mut message);
    message
}

/// Host Unreachable, which quotes an echo request to `destination`.
pub fn unreachable(ident: u16, destination: &str) -> Vec<u8> {
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
    message.extend(echo(PROXY, destination, ident, b"forged"));
    write_checksum(TARGET.parse().unwrap(), PROXY.parse().unwrap(), &mut message);
    message
}

/// Sends `message` from the target to the proxy, `times` times.
pub fn send(network: &Network, message: &[u8], times: usize) {
    let destination = PROXY.parse().unwrap();
    let outgoing = Outgoing { destination, scope_id: 0, hop_limit: 64, traffic_class: 0, message };
    let sent = network.target.run(|| RawSocket::open(0)?.send(&mut SendBatch::new(), vec![outgoing; times]));
    assert_eq!(sent.unwrap().unwrap(), times);
}
