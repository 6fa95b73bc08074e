//! Messages of netlink: what this crate needs of the format (netlink(7), rtnetlink(7)).
//!
//! # Theory of operation
//!
//! A message is a header (`struct nlmsghdr`: length, type, flags, sequence number, port), a fixed part that depends on its type,
//! and attributes. An attribute is a length, a type and a value. Nested attributes are the value of another one. Numbers are
//! in the byte order of the machine, addresses in that of the network. Messages and attributes are padded to four bytes.
//!
//! A datagram has one message or several. What does not fit into its datagram ends the list.

use std::net::IpAddr;

/// The size of `struct nlmsghdr` (include/uapi/linux/netlink.h).
const HEADER: usize = 16;
/// The size of `struct rtattr` (include/uapi/linux/rtnetlink.h).
const ATTRIBUTE_HEADER: usize = 4;
/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// A message to the kernel. `flags` and the sequence number are added when it is [finished](Self::finish).
#[derive(Clone, Debug)]
pub(super) struct Request {
    kind: u16,
    body: Vec<u8>,
}

impl Request {
    /// A message of a type, with its fixed part.
    pub(super) fn new(kind: u16, fixed: &[u8]) -> Self {
        Self { kind, body: fixed.to_vec() }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put_attribute(&mut self.body, kind, value);
        self
    }

    /// Adds an attribute that is a number.
    pub(super) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that is an address.
    pub(super) fn with_address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.with(kind, &address.octets()),
            IpAddr::V6(address) => self.with(kind, &address.octets()),
        }
    }

    /// Its bytes.
    pub(super) fn finish(&self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        // The kernel fills in the port of the sender.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Adds an attribute to the bytes of others.
pub(super) fn put_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    /// The fixed part and the attributes.
    pub(super) body: &'a [u8],
}

/// The messages of a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let message = rest.get(..length)?;
        let found = Message { kind: u16_at(message, 4)?, sequence: u32_at(message, 8)?, body: message.get(HEADER..)? };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    })
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed part of this size, each with its type and value.
    pub(super) fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(fixed..).unwrap_or_default())
    }

    /// The value of the first attribute of a type.
    pub(super) fn attribute(&self, fixed: usize, kind: u16) -> Option<&'a [u8]> {
        self.attributes(fixed).find_map(|(found, value)| (found == kind).then_some(value))
    }
}

/// The attributes in a row of bytes, each with its type and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & !ATTRIBUTE_FLAGS;
        let value = rest.get(..length)?.get(ATTRIBUTE_HEADER..)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// An address of either family, by its length.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(value).ok().map(IpAddr::from);
    v4().or_else(v6)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let request = Request::new(20, &[1, 2, 3, 4]).with(9, b"eth0\0").with_u32(2, 77).with_address(1, v6);
        let datagram = [request.finish(0x301, 5), Request::new(3, &[]).finish(0, 6)].concat();
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(), [(20, 5), (3, 6)]);
        let attributes: Vec<_> = found[0].attributes(4).collect();
        assert_eq!(attributes[0], (9, &b"eth0\0"[..]));
        assert_eq!((attributes[1].0, u32_at(attributes[1].1, 0)), (2, Some(77)));
        assert_eq!((attributes[2].0, address(attributes[2].1)), (1, Some(v6)));
        assert_eq!(attributes.len(), 3);
    }

    #[test]
    fn what_does_not_fit_ends_the_list() {
        let message = Request::new(20, &[0; 4]).with(1, &[1; 8]).finish(0, 1);
        for len in 0..message.len() {
            assert_eq!(messages(&message[..len]).count(), 0);
        }
        for length in [0u32, 15, u32::MAX] {
            let mut bad = message.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bad).count(), 0, "{length}");
        }
        for length in [0u16, 3, 13, u16::MAX] {
            let mut bad = message.clone();
            bad[20..22].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bad).next().unwrap().attributes(4).count(), 0, "{length}");
        }
        assert_eq!(messages(&message).next().unwrap().attributes(4).count(), 1);
    }
}
