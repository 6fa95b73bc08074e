//! A delivery as the client sees it: its pieces fit, follow one another, and join to one well-formed message.

use pingferry_proto::wire::{IpHeader, IpPacket, icmp_checksum};

/// What the pieces of a delivery join to.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) header: IpHeader,
    pub(crate) message: Vec<u8>,
}

impl Delivered {
    /// # Panics
    /// If the pieces are not what a host would accept, or do not fit into `mtu`.
    pub(crate) fn join<'a>(pieces: impl Iterator<Item = &'a [u8]>, mtu: usize) -> Self {
        let mut joined: Option<Self> = None;
        let mut more = true;
        for piece in pieces {
            assert!(more, "nothing follows the last fragment");
            assert!(piece.len() <= mtu, "{} > {mtu}", piece.len());
            let IpPacket { header, payload } = IpPacket::parse(piece).expect("a delivery is well-formed");
            assert_eq!(header.wire_len() + payload.len(), piece.len(), "nothing lies behind the packet");
            let whole = IpHeader { fragment: None, ..header };
            let joined = joined.get_or_insert_with(|| Self { header: whole, message: Vec::new() });
            assert_eq!(joined.header, whole, "fragments are of one packet");
            assert_eq!(header.fragment.map_or(0, |fragment| usize::from(fragment.offset)), joined.message.len());
            joined.message.extend_from_slice(payload);
            more = header.fragment.is_some_and(|fragment| fragment.more);
        }
        assert!(!more, "the last fragment is there");
        let joined = joined.expect("a delivery has a packet");
        assert!(joined.header.is_icmp());
        joined
    }

    pub(crate) fn checksum_is_valid(&self) -> bool {
        icmp_checksum(self.header.source, self.header.destination, &self.message).is_valid()
    }
}
