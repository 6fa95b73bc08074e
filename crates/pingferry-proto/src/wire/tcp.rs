//! TCP (RFC 9293), as far as a probe needs it: a SYN, and the two answers to it.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::ip::{IPPROTO_TCP, IpHeader};
use crate::wire::udp::ports;

/// The length of a TCP header without options, in bytes.
pub(crate) const TCP_HEADER_LEN: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What a host answers to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpAnswer {
    /// SYN and ACK: the port is open.
    SynAck,
    /// RST: the port is closed.
    Reset,
}

/// The fields of a segment that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
}

impl Tcp {
    /// Parses the segment of a packet with this IP header, and verifies its checksum.
    ///
    /// # Errors
    /// The reason why the packet has to be dropped.
    pub(crate) fn parse(header: &IpHeader, segment: &[u8]) -> Result<Self, DropReason> {
        let tcp = Self::parse_header(segment)?;
        let header_len = Self::header_len(segment);
        if header_len < TCP_HEADER_LEN {
            return Err(DropReason::BadHeaderLength);
        }
        if segment.len() < header_len {
            return Err(DropReason::Truncated);
        }
        if !tcp_sum(header, segment.len()).with(segment).is_valid() {
            return Err(DropReason::BadTransportChecksum);
        }
        Ok(tcp)
    }

    /// Parses a header that [`parse`](Self::parse) accepted before.
    ///
    /// # Errors
    /// It is shorter than a header.
    pub(crate) fn parse_header(segment: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; TCP_HEADER_LEN] = segment.first_chunk().ok_or(DropReason::Truncated)?;
        let [_, _, _, _, s0, s1, s2, s3, ..] = *fixed;
        let (source_port, destination_port) = ports(fixed)?;
        Ok(Self { source_port, destination_port, sequence: u32::from_be_bytes([s0, s1, s2, s3]) })
    }

    /// The length of the header with its options, in bytes, as the segment states it: 60 at most. That of a header without
    /// options if that is missing.
    pub(crate) fn header_len(segment: &[u8]) -> usize {
        segment.get(12).map_or(TCP_HEADER_LEN, |offset| usize::from(offset >> 4) * 4)
    }

    /// Whether a segment opens a connection: SYN without ACK, RST or FIN. Its checksum is not verified.
    pub(crate) fn is_syn(segment: &[u8]) -> bool {
        segment.get(13).is_some_and(|flags| flags & (SYN | ACK | RST | FIN) == SYN)
    }

    /// The answer to this SYN, as a segment from its destination to its source. `header` is that of the answer, and `sequence`
    /// is the initial sequence number of a SYN and ACK.
    pub(crate) fn answer(&self, header: &IpHeader, answer: TcpAnswer, sequence: u32) -> Vec<u8> {
        let (sequence, flags) = match answer {
            TcpAnswer::SynAck => (sequence, SYN | ACK),
            TcpAnswer::Reset => (0, RST | ACK),
        };
        // A SYN takes one sequence number (RFC 9293 §3.4).
        self.reply(header.source, header.destination, sequence, self.sequence.wrapping_add(1), flags)
    }

    /// The RST with which a host answers the segment of a packet with this IP header if no port is open (RFC 9293 §3.10.7.1).
    ///
    /// # Errors
    /// The reason why the packet has to be dropped without an answer.
    pub(crate) fn reset(header: &IpHeader, segment: &[u8]) -> Result<Vec<u8>, DropReason> {
        let tcp = Self::parse(header, segment)?;
        let &[.., offset, flags, _, _, _, _, _, _] =
            segment.first_chunk::<TCP_HEADER_LEN>().ok_or(DropReason::Truncated)?;
        let acknowledgment = segment.get(8..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_be_bytes);
        if flags & RST != 0 {
            return Err(DropReason::TcpReset);
        }
        let (sequence, acknowledged, flags) = if flags & ACK != 0 {
            (acknowledgment, 0, RST)
        } else {
            let len = segment.len() - usize::from(offset >> 4) * 4;
            let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            // A segment has less than 65,536 bytes.
            (0, tcp.sequence.wrapping_add(len as u32).wrapping_add(controls), RST | ACK)
        };
        Ok(tcp.reply(header.destination, header.source, sequence, acknowledged, flags))
    }

    /// A segment without payload to the sender of this one.
    fn reply(&self, source: IpAddr, destination: IpAddr, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
        let ([s0, s1], [d0, d1]) = (self.destination_port.to_be_bytes(), self.source_port.to_be_bytes());
        let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (sequence.to_be_bytes(), acknowledged.to_be_bytes());
        // No window: nothing can be sent on a connection that is closed at once.
        let mut segment = vec![s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, 5 << 4, flags, 0, 0, 0, 0, 0, 0];
        let sum = Sum::pseudo_header(source, destination, IPPROTO_TCP, segment.len());
        let checksum = sum.with(&segment).checksum();
        if let Some(field) = segment.get_mut(16..18) {
            field.copy_from_slice(&checksum);
        }
        segment
    }
}

fn tcp_sum(header: &IpHeader, len: usize) -> Sum {
    Sum::pseudo_header(header.source, header.destination, IPPROTO_TCP, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: [u8; 4], destination: [u8; 4]) -> IpHeader {
        IpHeader { protocol: IPPROTO_TCP, ..IpHeader::icmp(source.into(), destination.into()) }
    }

    fn segment(flags: u8) -> Vec<u8> {
        let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        let sum = tcp_sum(&header([10, 0, 0, 2], [192, 0, 2, 1]), segment.len()).with(&segment).checksum();
        segment[16..18].copy_from_slice(&sum);
        segment
    }

    #[test]
    fn only_a_pure_syn_opens_a_connection() {
        let header = header([10, 0, 0, 2], [192, 0, 2, 1]);
        let parsed = |flags| Tcp::parse(&header, &segment(flags)).unwrap();
        assert_eq!((parsed(SYN).source_port, parsed(SYN).destination_port, parsed(SYN).sequence), (40_000, 80, 7));
        // The bits of ECN (RFC 3168) do not count.
        assert!(Tcp::is_syn(&segment(SYN)) && Tcp::is_syn(&segment(SYN | 0xc0)));
        for flags in [0, ACK, RST, SYN | ACK, SYN | RST, SYN | FIN] {
            assert!(!Tcp::is_syn(&segment(flags)), "{flags:#x}");
        }
    }

    #[test]
    fn malformed_segments_have_a_reason() {
        let header = header([10, 0, 0, 2], [192, 0, 2, 1]);
        let with = |index: usize, value: u8| {
            let mut segment = segment(SYN);
            segment[index] = value;
            Tcp::parse(&header, &segment).map(|_| ())
        };
        assert_eq!(with(19, 1), Err(DropReason::BadTransportChecksum));
        assert_eq!(with(12, 0x40), Err(DropReason::BadHeaderLength));
        assert_eq!(with(12, 0x60), Err(DropReason::Truncated));
        assert_eq!(Tcp::parse(&header, &segment(SYN)[..19]), Err(DropReason::Truncated));
    }

    #[test]
    fn an_answer_acknowledges_the_syn() {
        let back = header([192, 0, 2, 1], [10, 0, 0, 2]);
        let syn = Tcp::parse(&header([10, 0, 0, 2], [192, 0, 2, 1]), &segment(SYN)).unwrap();
        for (answer, sequence, flags) in [(TcpAnswer::SynAck, 99, SYN | ACK), (TcpAnswer::Reset, 0, RST | ACK)] {
            let segment = syn.answer(&back, answer, 99);
            assert_eq!(Tcp::parse(&back, &segment).unwrap().sequence, sequence);
            assert_eq!((segment[13], &segment[8..12]), (flags, &[0, 0, 0, 8][..]));
            assert_eq!(ports(&segment), Ok((80, 40_000)));
        }
    }
}
