//! A small ping.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pingferry::Family;
use pingferry_sys::ping::{Outgoing, PingSocket, ReceiveBatch, SendBatch, SocketOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const PATIENCE: Duration = Duration::from_secs(2);
const PAYLOAD: &[u8] = b"across the ferry and back again, unchanged";

/// Pings one host.
pub(super) struct Pinger {
    socket: PingSocket,
    host: IpAddr,
    sender: SendBatch,
    receiver: ReceiveBatch,
}

/// An answer.
pub(super) struct Reply {
    from: IpAddr,
    bytes: usize,
    seq: u16,
    hop_limit: u8,
    time: Duration,
}

impl Pinger {
    pub(super) fn new(host: IpAddr) -> io::Result<Self> {
        let socket = PingSocket::open(&SocketOptions {
            family: Family::of(host),
            dont_fragment: false,
            source: None,
            scope_id: 0,
            interface: None,
            broadcast: false,
            receive_buffer: 1 << 20,
        })?;
        Ok(Self { socket, host, sender: SendBatch::new(), receiver: ReceiveBatch::new() })
    }

    /// Sends an echo request and waits for its reply.
    pub(super) fn ping(&mut self, seq: u16) -> io::Result<Option<Reply>> {
        let message = request(self.host, seq);
        let start = Instant::now();
        let request =
            Outgoing { destination: self.host, scope_id: 0, hop_limit: 64, traffic_class: 0, message: &message };
        self.sender.send(&self.socket, [request])?;
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            wait(&self.socket, left)?;
            self.receiver.receive(&self.socket)?;
            let time = start.elapsed();
            let answered = self.receiver.iter().find(|reply| reply.message.get(6..) == message.get(6..));
            if let Some(reply) = answered {
                let hop_limit = reply.hop_limit.unwrap_or(0);
                return Ok(Some(Reply { from: reply.from, bytes: reply.message.len(), seq, hop_limit, time }));
            }
        }
        Ok(None)
    }
}

fn request(host: IpAddr, seq: u16) -> Vec<u8> {
    let icmp_type = if host.is_ipv4() { 8 } else { 128 };
    let [high, low] = seq.to_be_bytes();
    [&[icmp_type, 0, 0, 0, 0, 0, high, low], PAYLOAD].concat()
}

fn wait(socket: impl AsFd, patience: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(patience).ok();
    poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref())?;
    Ok(())
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, bytes, seq, hop_limit, time } = self;
        write!(f, "{bytes} bytes from {from}: seq={seq} hop limit={hop_limit} time={:.3} ms", time.as_secs_f64() * 1e3)
    }
}
