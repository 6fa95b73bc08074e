use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use pingferry_proto::{Class, Family};
use pingferry_sys::ping::SocketOptions;

/// How long to look where it pays.
const BUSY_POLL: Duration = Duration::from_micros(50);

/// How a proxy behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Flows, limits and policy.
    pub core: pingferry_proto::Config,
    /// Source of what leaves on IPv4. `None` lets the kernel's routing choose for each destination.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of what leaves on IPv6. `None` lets the kernel's routing choose for each destination.
    pub source_v6: Option<Ipv6Addr>,
    /// Index of the interface that link-local IPv6 addresses belong to, `source_v6` and destinations alike; 0 for none.
    pub scope_id: u32,
    /// Send and receive on this interface only. Also keeps own probes from being routed back into an ingress.
    pub interface: Option<String>,
    /// Room for answers that wait at one socket, in bytes; at most `net.core.rmem_max` is granted.
    pub receive_buffer: usize,
    /// How many workers serve, each with its own flows and sockets; at least 1. Limits of `core` are those of each.
    pub workers: usize,
    /// How many processors may be used, by default as many as the process may use now (affinity, and a control group's
    /// quota, which a confined process can no longer see). Where there is another one for each worker, it has a second
    /// thread for when there is much to do; with some to spare, workers without a fixed `busy_poll` look for packets.
    pub processors: usize,
    /// How long a worker keeps looking for the next packet before it sleeps. Saves the time of a wake-up, costs a
    /// processor while there is traffic. Zero sleeps at once; `None` looks for 50 µs where packets come that fast.
    pub busy_poll: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            core: pingferry_proto::Config::default(),
            source_v4: None,
            source_v6: None,
            scope_id: 0,
            interface: None,
            receive_buffer: 4 << 20,
            workers: 1,
            processors: available_parallelism().map_or(1, NonZeroUsize::get),
            busy_poll: None,
        }
    }
}

impl Config {
    /// How many processors are left when each worker has one.
    pub(crate) fn spare_processors(&self) -> usize {
        self.processors.saturating_sub(self.workers)
    }

    /// How many threads each worker has.
    pub(crate) fn hands(&self) -> usize {
        if self.spare_processors() >= self.workers { 2 } else { 1 }
    }

    /// How long workers look for packets, where they do. Without a fixed length and without a processor to spare they never
    /// do: what they look for would have to wait for them.
    pub(crate) fn busy_poll_length(&self) -> Duration {
        let adaptive = if self.spare_processors() > 0 { BUSY_POLL } else { Duration::ZERO };
        self.busy_poll.unwrap_or(adaptive)
    }

    pub(crate) fn source(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.source_v4.map(IpAddr::V4),
            Family::V6 => self.source_v6.map(IpAddr::V6),
        }
    }

    pub(crate) fn socket_options(&self, class: Class) -> SocketOptions {
        SocketOptions {
            family: class.family,
            dont_fragment: class.dont_fragment,
            source: self.source(class.family),
            scope_id: self.scope_id,
            interface: self.interface.clone(),
            broadcast: class.dedicated,
            receive_buffer: self.receive_buffer,
        }
    }
}
