//! ICMP errors that the edge sends itself, about requests that it does not forward.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use pingferry_proto::Family;
use pingferry_proto::wire::{IcmpError, IpPacket, is_icmp_error};

use super::checks::is_host;

/// A source may cause this many errors a second, and twice as many at once: enough for a traceroute with parallel probes.
const PER_SECOND: u32 = 50;
const BURST: u32 = 2 * PER_SECOND;
/// Sources whose hashes collide share a limit. Together they cause 51,200 errors a second at most.
const BUCKETS: usize = 1024;

/// Who signs the errors, and how many there may be.
#[derive(Debug)]
pub(crate) struct LocalErrors {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    hasher: RandomState,
    /// When each bucket of tokens is full again (the generic cell rate algorithm).
    full_at: Vec<Option<Instant>>,
}

impl LocalErrors {
    /// Errors are sent from these addresses of the TUN device. A family without one gets none.
    pub(crate) fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Self {
        Self { v4, v6, hasher: RandomState::new(), full_at: vec![None; BUCKETS] }
    }

    /// The packet that reports `error` to the sender of `original`. `None` if no error may be sent about it (RFC 1122 §3.2.2,
    /// RFC 4443 §2.4 (e)), or if its sender caused too many.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        error: IcmpError,
        packet: &IpPacket<'_>,
        original: &[u8],
    ) -> Option<Vec<u8>> {
        let family = packet.header.family();
        let source = match family {
            Family::V4 => IpAddr::V4(self.v4?),
            Family::V6 => IpAddr::V6(self.v6?),
        };
        if !may_be_about(packet, error) || !self.take(now, packet.header.source) {
            return None;
        }
        let (header, message) = error.about(packet, original, source);
        Some(IpPacket { header, payload: &message }.to_bytes())
    }

    /// Whether errors are sent from this address.
    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address),
        }
    }

    fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        let interval = Duration::from_secs(1) / PER_SECOND;
        #[allow(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
        let index = self.hasher.hash_one(source) as usize % BUCKETS;
        let Some(full_at) = self.full_at.get_mut(index) else { return false };
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + interval;
        let is_left = next <= now + interval * BURST;
        if is_left {
            *full_at = Some(next);
        }
        is_left
    }
}

fn may_be_about(packet: &IpPacket<'_>, error: IcmpError) -> bool {
    let header = &packet.header;
    let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
    let is_error = header.is_icmp() && packet.payload.first().is_none_or(|kind| is_icmp_error(header.family(), *kind));
    // Path MTU discovery works for multicast (RFC 4443 §2.4 (e.3)).
    let is_too_big = header.family() == Family::V6 && error.icmp_type == 2;
    is_first && !is_error && is_host(header.source) && (is_host(header.destination) || is_too_big)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingferry_proto::wire::{echo_request, icmp_checksum};

    const GATEWAYS: (&str, &str) = ("198.51.100.1", "2001:db8:1::1");

    fn errors() -> LocalErrors {
        LocalErrors::new(Some(GATEWAYS.0.parse().unwrap()), Some(GATEWAYS.1.parse().unwrap()))
    }

    fn report(errors: &mut LocalErrors, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        let parsed = IpPacket::parse(packet).unwrap();
        errors.report(now, IcmpError::no_route(parsed.header.family()), &parsed, packet)
    }

    #[test]
    fn an_error_is_a_valid_packet_from_the_gateway() {
        for (source, destination, gateway, icmp_type) in
            [("198.51.100.2", "10.0.0.1", GATEWAYS.0, 3), ("2001:db8:1::2", "fd00::1", GATEWAYS.1, 1)]
        {
            let request = echo_request(source.parse().unwrap(), destination.parse().unwrap(), 7, 1, &[0; 2000]);
            let error = report(&mut errors(), Instant::now(), &request).unwrap();
            let IpPacket { header, payload } = IpPacket::parse(&error).unwrap();
            assert_eq!((header.source, header.destination), (gateway.parse().unwrap(), source.parse().unwrap()));
            assert_eq!(payload[0], icmp_type);
            assert!(icmp_checksum(header.source, header.destination, payload).is_valid());
            assert!(request.starts_with(&payload[8..]) && error.len() <= 1280);
        }
    }

    #[test]
    fn there_is_no_error_about_an_error_a_fragment_or_a_group() {
        let (source, gateway) = ("198.51.100.2", GATEWAYS.0);
        let packet = |source: &str, destination: &str| {
            echo_request(source.parse().unwrap(), destination.parse().unwrap(), 7, 1, b"")
        };
        let now = Instant::now();
        assert!(report(&mut errors(), now, &packet(source, gateway)).is_some());
        assert!(report(&mut errors(), now, &packet(source, "224.0.0.1")).is_none());
        assert!(report(&mut errors(), now, &packet("0.0.0.0", gateway)).is_none());
        assert!(report(&mut errors(), now, &packet("2001:db8::1", "ff02::1")).is_none());
        let error = report(&mut errors(), now, &packet(source, gateway)).unwrap();
        assert!(report(&mut errors(), now, &error).is_none());
        assert!(report(&mut LocalErrors::new(None, None), now, &packet(source, gateway)).is_none());
    }

    #[test]
    fn each_source_has_a_limit() {
        let start = Instant::now();
        let mut errors = errors();
        let mut caused = |source: &str, millis| {
            let request = echo_request(source.parse().unwrap(), "10.0.0.1".parse().unwrap(), 7, 1, b"");
            let now = start + Duration::from_millis(millis);
            (0..1000).filter(|_| report(&mut errors, now, &request).is_some()).count()
        };
        assert_eq!(caused("198.51.100.2", 0), 100);
        assert_eq!(caused("198.51.100.2", 100), 5);
        let others = (1..=10).map(|host| caused(&format!("203.0.113.{host}"), 100)).sum::<usize>();
        assert!(others >= 900, "{others}: by chance, two of them may share a limit");
    }
}
