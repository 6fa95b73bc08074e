//! Messages of the target's that nobody asked for.

use std::fs;

use pingferry_proto::wire::write_checksum;
use pingferry_sys::ping::{Outgoing, RawSocket, SendBatch};

use super::client::echo;
use super::{FERRY, Lab, TARGET};

/// The line of the only ping socket in the ferry's namespace, as words.
pub fn ping_socket(lab: &Lab) -> Vec<String> {
    let table = lab.ferry.run(|| fs::read_to_string("/proc/thread-self/net/icmp")).unwrap().unwrap();
    let mut sockets = table.lines().skip(1);
    let (only, None) = (sockets.next().unwrap(), sockets.next()) else { panic!("several sockets:\n{table}") };
    only.split_whitespace().map(str::to_owned).collect()
}

/// The identifier of that socket.
pub fn ping_ident(lab: &Lab) -> u16 {
    let address = &ping_socket(lab)[1];
    u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap()
}

/// An echo reply.
pub fn reply(ident: u16, seq: u16) -> Vec<u8> {
    let mut message = echo(TARGET, FERRY, ident, b"forged")[20..].to_vec();
    message[0] = 0;
    message[6..8].copy_from_slice(&seq.to_be_bytes());
    write_checksum(TARGET.parse().unwrap(), FERRY.parse().unwrap(), &mut message);
    message
}

/// Host Unreachable, which quotes an echo request to `destination`.
pub fn unreachable(ident: u16, destination: &str) -> Vec<u8> {
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
    message.extend(echo(FERRY, destination, ident, b"forged"));
    write_checksum(TARGET.parse().unwrap(), FERRY.parse().unwrap(), &mut message);
    message
}

/// Sends `message` from the target to the ferry, so often.
pub fn send(lab: &Lab, message: &[u8], times: usize) {
    let destination = FERRY.parse().unwrap();
    let outgoing = Outgoing { destination, scope_id: 0, hop_limit: 64, traffic_class: 0, message };
    let sent = lab.target.run(|| RawSocket::open(0)?.send(&mut SendBatch::new(), vec![outgoing; times]));
    assert_eq!(sent.unwrap().unwrap(), times);
}
