//! A small ping that can also trace a route and discover a path's MTU.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pingferry::Family;
use pingferry_sys::ping::{
    ErrorBatch, ErrorOrigin, Outgoing, PingSocket, QueuedError, ReceiveBatch, SendBatch, SocketOptions,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long to wait for a reply.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Pings one host.
pub(super) struct Pinger {
    socket: PingSocket,
    host: IpAddr,
    seq: u16,
    sender: SendBatch,
    receiver: ReceiveBatch,
    errors: ErrorBatch,
}

/// What came back.
pub(super) enum Response {
    /// An echo reply with the right payload.
    Reply { from: IpAddr, bytes: usize, hop_limit: u8, time: Duration },
    /// Time Exceeded: the hop limit was used up.
    TimeExceeded { from: IpAddr, time: Duration },
    /// Packet Too Big, or Fragmentation Needed, with the MTU of the path in bytes.
    TooBig { from: IpAddr, mtu: u32 },
}

impl Pinger {
    /// With `dont_fragment`, no router fragments the requests.
    pub(super) fn new(host: IpAddr, dont_fragment: bool) -> io::Result<Self> {
        let socket = PingSocket::open(&SocketOptions::new(Family::of(host)).with_dont_fragment(dont_fragment))?;
        let (sender, receiver, errors) = (SendBatch::new(), ReceiveBatch::new(), ErrorBatch::new());
        Ok(Self { socket, host, seq: 0, sender, receiver, errors })
    }

    /// Sends an echo request with `len` bytes of payload and waits for the response.
    pub(super) fn ping(&mut self, hop_limit: u8, len: usize) -> io::Result<Option<Response>> {
        self.ping_within(TIMEOUT, hop_limit, len)
    }

    /// As [`ping`](Self::ping), and waits for no longer than `timeout`.
    pub(super) fn ping_within(&mut self, timeout: Duration, hop_limit: u8, len: usize) -> io::Result<Option<Response>> {
        self.seq += 1;
        let message = request(self.host, self.seq, len);
        let start = Instant::now();
        let request = Outgoing { destination: self.host, scope_id: 0, hop_limit, traffic_class: 0, message: &message };
        self.sender.send(&self.socket, [request])?;
        while let Some(left) = timeout.checked_sub(start.elapsed()) {
            wait(&self.socket, left)?;
            self.errors.receive(&self.socket)?;
            self.receiver.clear();
            self.receiver.receive(&self.socket)?;
            let time = start.elapsed();
            let error = self.errors.iter().find_map(|error| error_response(&error, time));
            let reply = self.receiver.iter().find(|reply| reply.message.get(6..) == message.get(6..));
            let reply = reply.map(|reply| Response::Reply {
                from: reply.from,
                bytes: reply.message.len(),
                hop_limit: reply.hop_limit.unwrap_or(0),
                time,
            });
            if let Some(response) = error.or(reply) {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }
}

fn error_response(error: &QueuedError<'_>, time: Duration) -> Option<Response> {
    let from = error.offender?;
    match (error.origin, error.kind, error.code) {
        (ErrorOrigin::Icmp, 11, 0) | (ErrorOrigin::Icmp6, 3, 0) => Some(Response::TimeExceeded { from, time }),
        (ErrorOrigin::Icmp, 3, 4) | (ErrorOrigin::Icmp6, 2, _) => Some(Response::TooBig { from, mtu: error.info }),
        _ => None,
    }
}

fn request(host: IpAddr, seq: u16, len: usize) -> Vec<u8> {
    let icmp_type = if host.is_ipv4() { 8 } else { 128 };
    let [high, low] = seq.to_be_bytes();
    let mut message = vec![icmp_type, 0, 0, 0, 0, 0, high, low];
    message.extend(b"across the ferry and back again. ".iter().cycle().take(len));
    message
}

fn wait(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).ok();
    poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref())?;
    Ok(())
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: &Duration| time.as_secs_f64() * 1e3;
        match self {
            Self::Reply { from, bytes, hop_limit, time } => {
                write!(f, "{bytes} bytes from {from}: hop limit {hop_limit}, {:.3} ms", millis(time))
            }
            Self::TimeExceeded { from, time } => write!(f, "{from}  {:.3} ms", millis(time)),
            Self::TooBig { from, mtu } => write!(f, "{from}: too big, the MTU is {mtu}"),
        }
    }
}
