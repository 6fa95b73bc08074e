//! How a proxy behaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::thread::available_parallelism;
use std::time::Duration;

use pingferry_proto::{Class, Family, OutOfRange, Rate, setters};
use pingferry_sys::ping::SocketOptions;
use pingferry_sys::preflight::descriptor_limit;

use crate::events::EventQueue;
use crate::ingress::PcapFile;
use crate::trace::Sampling;

/// How long adaptive busy-polling polls: what a reply takes to come from a host on the same link.
const BUSY_POLL: Duration = Duration::from_micros(50);

/// Descriptors that each worker leaves to everything but ping sockets: its own, those of ingresses, and some connections.
const OTHER_DESCRIPTORS: usize = 20;

/// How a proxy behaves. The limits in [`core`](Self::core) are those of the whole proxy.
///
/// ```
/// use pingferry::{Config, CoreConfig};
///
/// let config = Config::default().with_core(CoreConfig::default().with_max_flows(1000)).with_workers(2);
/// assert_eq!(config.core.max_flows, 1000);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Flows, limits and policy.
    pub core: pingferry_proto::Config,
    /// Source of what leaves on IPv4. `None`, the default, lets the kernel's routing choose for each destination.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of what leaves on IPv6. `None`, the default, lets the kernel's routing choose for each destination.
    pub source_v6: Option<Ipv6Addr>,
    /// Index of the interface that link-local IPv6 addresses belong to, of the source and of destinations; 0, the default, for
    /// none.
    pub scope_id: u32,
    /// Send and receive on this interface only (`SO_BINDTODEVICE`). This also keeps the proxy's own probes from being routed
    /// back into an ingress. Default: any.
    pub interface: Option<String>,
    /// Room for replies that wait at one socket, in bytes, 4 MiB by default; the kernel grants at most `net.core.rmem_max`.
    pub receive_buffer: usize,
    /// How many workers serve, each with its own flows and sockets: at least 1, the default. Each domain belongs to one worker.
    pub workers: usize,
    /// How many processors the proxy may use. Default: as many as the process may use now (affinity and control group quota).
    /// Where each worker can have two, it has a helper thread for when there is much to do; with some to spare, workers
    /// without a fixed `busy_poll` busy-poll adaptively.
    pub processors: usize,
    /// How long a worker polls for the next packet before it sleeps. This saves the time of a wake-up and costs a processor
    /// while there is traffic. Zero sleeps at once. `None`, the default, polls for 50 µs while packets come that fast. Within
    /// [`BUSY_POLL`](Self::BUSY_POLL).
    pub busy_poll: Option<Duration>,
    /// Writes the packets of all clients to this file. Default: none.
    pub pcap: Option<PcapFile>,
    /// Traces some of the packets of all clients. Spans of replies need a core that
    /// [observes flows](pingferry_proto::Config::observe_flows). Default: none.
    pub sampling: Option<Sampling>,
    /// Where events are put for an audit log: flows that open, and packets of clients that are denied or dropped. Default: nowhere.
    pub on_event: Option<EventQueue>,
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
            pcap: None,
            sampling: None,
            on_event: None,
        }
    }
}

impl Config {
    setters! {
        with_core => core: pingferry_proto::Config,
        with_source_v4 => source_v4: Option<Ipv4Addr>,
        with_source_v6 => source_v6: Option<Ipv6Addr>,
        with_scope_id => scope_id: u32,
        with_interface => interface: Option<String>,
        with_receive_buffer => receive_buffer: usize,
        with_workers => workers: usize,
        with_processors => processors: usize,
        with_busy_poll => busy_poll: Option<Duration>,
        with_pcap => pcap: Option<PcapFile>,
        with_sampling => sampling: Option<Sampling>,
        with_on_event => on_event: Option<EventQueue>,
    }
}

impl Config {
    /// What [`busy_poll`](Self::busy_poll) can be. A longer one would keep the processor for ever.
    pub const BUSY_POLL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);

    /// Checks the ranges of all durations.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        self.core.check()?;
        self.busy_poll.map_or(Ok(()), |length| OutOfRange::check("busy_poll", length, Self::BUSY_POLL))
    }

    /// The configuration of each worker: its share of what all have together.
    ///
    /// Pingers of one host need a socket each, so there are at most as many as the process may have descriptors.
    pub(crate) fn of_each_worker(mut self) -> Self {
        let workers = self.workers.max(1);
        let descriptors = usize::try_from(descriptor_limit().soft).unwrap_or(usize::MAX);
        let sockets = descriptors.saturating_sub(OTHER_DESCRIPTORS * workers).max(1);
        let core = &mut self.core;
        core.max_flows = core.max_flows.div_ceil(workers);
        core.max_sockets = core.max_sockets.min(sockets).div_ceil(workers);
        if let (Some(rate), Ok(workers)) = (&mut core.rate, u32::try_from(workers)) {
            *rate = Rate { per_second: rate.per_second.div_ceil(workers), burst: rate.burst.div_ceil(workers) };
        }
        self
    }

    /// How many processors are left when each worker has one.
    pub(crate) fn spare_processors(&self) -> usize {
        self.processors.saturating_sub(self.workers)
    }

    /// Whether each worker has a helper thread.
    pub(crate) fn has_helpers(&self) -> bool {
        self.spare_processors() >= self.workers
    }

    /// How long workers busy-poll, where they do. Without a fixed length and without a processor to spare they never do: the
    /// sender of what they poll for would wait for their processor.
    pub(crate) fn busy_poll_length(&self) -> Duration {
        let adaptive = if self.spare_processors() > 0 { BUSY_POLL } else { Duration::ZERO };
        self.busy_poll.unwrap_or(adaptive)
    }

    /// The interface of link-local destinations, 0 if there is none or sockets are bound to it: then they find it by themselves.
    pub(crate) fn destination_scope(&self) -> u32 {
        if self.interface.is_some() { 0 } else { self.scope_id }
    }

    pub(crate) fn source(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.source_v4.map(IpAddr::V4),
            Family::V6 => self.source_v6.map(IpAddr::V6),
        }
    }

    pub(crate) fn socket_options(&self, class: Class) -> SocketOptions {
        SocketOptions::new(class.family)
            .with_dont_fragment(class.dont_fragment)
            .with_source(self.source(class.family))
            .with_scope_id(self.scope_id)
            .with_interface(self.interface.clone())
            .with_broadcast(class.dedicated)
            .with_receive_buffer(self.receive_buffer)
            .with_timestamps(self.core.observe_flows)
    }
}

/// Whether an address means something on one link only (RFC 4007 §4).
pub(crate) fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            let [first, second, ..] = address.octets();
            // Multicast of interface-local and link-local scope, RFC 4291 §2.7.
            address.is_unicast_link_local() || (first == 0xff && second & 0x0f <= 2)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_limits_of_the_proxy() {
        let rate = Rate { per_second: 100, burst: 10 };
        let core = pingferry_proto::Config::default().with_max_flows(1001).with_max_sockets(10).with_rate(Some(rate));
        let each = Config::default().with_core(core).with_workers(4).of_each_worker().core;
        assert_eq!((each.max_flows, each.max_sockets), (251, 3));
        assert_eq!(each.rate, Some(Rate { per_second: 25, burst: 3 }));
    }

    #[test]
    fn there_are_no_more_sockets_than_descriptors() {
        let limit = usize::try_from(descriptor_limit().soft).unwrap_or(usize::MAX);
        let sockets = Config::default().of_each_worker().core.max_sockets;
        assert!(0 < sockets && sockets <= limit.saturating_sub(OTHER_DESCRIPTORS).max(1));
    }
}
