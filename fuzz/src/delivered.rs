//! A delivery as the client receives it: one packet, or consecutive fragments that each fit the MTU.

use pingferry_proto::wire::{IpHeader, IpPacket, icmp_checksum};

/// The reassembled packet of a delivery.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) header: IpHeader,
    pub(crate) message: Vec<u8>,
}

impl Delivered {
    /// Reassembles a delivery from its fragments, which must be in order.
    ///
    /// # Panics
    ///
    /// When a host would not accept the fragments, or one is longer than `mtu` bytes.
    pub(crate) fn join<'a>(pieces: impl Iterator<Item = &'a [u8]>, mtu: usize) -> Self {
        let mut joined: Option<Self> = None;
        let mut more = true;
        for piece in pieces {
            assert!(more, "no fragment follows the last one");
            assert!(piece.len() <= mtu, "{} > {mtu}", piece.len());
            let IpPacket { header, payload } = IpPacket::parse(piece).expect("a delivery is well-formed");
            assert_eq!(header.wire_len() + payload.len(), piece.len(), "no bytes follow the packet");
            let whole = IpHeader { fragment: None, ..header };
            let joined = joined.get_or_insert_with(|| Self { header: whole, message: Vec::new() });
            assert_eq!(joined.header, whole, "all fragments belong to one packet");
            assert_eq!(header.fragment.map_or(0, |fragment| usize::from(fragment.offset)), joined.message.len());
            joined.message.extend_from_slice(payload);
            more = header.fragment.is_some_and(|fragment| fragment.more);
        }
        assert!(!more, "the last fragment is present");
        joined.expect("a delivery contains a packet")
    }

    pub(crate) fn checksum_is_valid(&self) -> bool {
        icmp_checksum(self.header.source, self.header.destination, &self.message).is_valid()
    }
}
