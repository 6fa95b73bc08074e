//! The client of a network: a TUN device of X, or a connection to pingferry.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use pingferry_sys::tun::{Tun, TunConfig};
use pingferry_testnet::Host;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::network::{CLIENT_MTU, GATEWAY};
use super::support::net;

pub enum Client {
    Direct(Tun),
    Proxied(OwnedFd),
}

impl Client {
    pub fn direct(x: &Host) -> Self {
        let config = TunConfig::new("client")
            .with_addresses(vec![net(&format!("{}/24", GATEWAY[0])), net(&format!("{}/64", GATEWAY[1]))])
            .with_mtu(Some(u32::try_from(CLIENT_MTU).unwrap()))
            .with_queue_length(Some(1000));
        Self::Direct(x.run(|| config.open()).unwrap().unwrap().0)
    }

    pub fn proxied(socket: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&connection, &SocketAddrUnix::new(socket).unwrap()).unwrap();
        Self::Proxied(connection)
    }

    pub fn send(&self, packet: &[u8]) {
        match self {
            Self::Direct(tun) => tun.send(packet).unwrap(),
            Self::Proxied(connection) => {
                send(connection, packet, SendFlags::NOSIGNAL).unwrap();
            }
        }
    }

    /// The next packet, if there is one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let received = match self {
            Self::Direct(tun) => tun.receive(&mut buffer),
            Self::Proxied(connection) => {
                recv(connection, &mut buffer[..], RecvFlags::empty()).map(|(len, _)| len).map_err(Into::into)
            }
        };
        match received {
            Ok(0) => panic!("pingferry closed the connection"),
            Ok(len) => Some(buffer[..len].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive: {error}"),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Direct(tun) => tun.as_fd(),
            Self::Proxied(connection) => connection.as_fd(),
        }
    }
}
