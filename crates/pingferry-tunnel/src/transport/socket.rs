//! The UDP socket under QUIC.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size, socket_send_buffer_size,
};

/// What each buffer should hold: a few thousand packets, for when this process does not run for a while.
const WANTED: usize = 4 << 20;

/// What the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes {
    /// For packets that wait to be read, in bytes.
    pub receive: usize,
    /// For packets that wait to be sent, in bytes.
    pub send: usize,
}

impl BufferSizes {
    /// What to tell the operator if the buffers are smaller than they should be.
    ///
    /// ```
    /// use pingferry_tunnel::transport::BufferSizes;
    ///
    /// assert_eq!(BufferSizes { receive: 4 << 20, send: 4 << 20 }.advice(), None);
    /// let advice = BufferSizes { receive: 212_992, send: 4 << 20 }.advice();
    /// assert!(advice.is_some_and(|advice| advice.ends_with("run: sudo sysctl -w net.core.rmem_max=4194304")));
    /// ```
    pub fn advice(self) -> Option<String> {
        let settings = [("rmem_max", self.receive), ("wmem_max", self.send)];
        let small = settings.into_iter().filter(|(_, size)| *size < WANTED);
        let settings: Vec<String> = small.map(|(name, _)| format!("net.core.{name}={WANTED}")).collect();
        (!settings.is_empty()).then(|| {
            let (receive, send) = (self.receive >> 10, self.send >> 10);
            let settings = settings.join(" ");
            format!(
                "the UDP buffers hold {receive} KiB in and {send} KiB out, so bursts may be lost; run: sudo sysctl -w {settings}"
            )
        })
    }
}

pub(super) fn open(address: SocketAddr) -> io::Result<(UdpSocket, BufferSizes)> {
    let socket = UdpSocket::bind(address)?;
    // The kernel grants at most the limit of its settings, without an error.
    set_socket_recv_buffer_size(&socket, WANTED)?;
    set_socket_send_buffer_size(&socket, WANTED)?;
    // It reports twice of what it was asked for (socket(7), SO_RCVBUF).
    let sizes =
        BufferSizes { receive: socket_recv_buffer_size(&socket)? / 2, send: socket_send_buffer_size(&socket)? / 2 };
    Ok((socket, sizes))
}
