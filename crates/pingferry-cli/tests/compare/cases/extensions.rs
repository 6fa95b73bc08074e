//! ICMP errors with extensions (RFC 4884), valid and invalid: the vectors of the kernel's own test,
//! tools/testing/selftests/net/icmp_rfc4884.c. Routers look at none of them.

use super::probes::{Probe, port_unreachable};
use super::{Expected, List};
use crate::ip::Ip;
use crate::message::{extension, packet};

/// What follows the quoted packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Extensions,
    WrongChecksum,
    /// An object with this length, which cannot be.
    ObjectOf(u8),
}

pub fn add(list: &mut List) {
    let shortest = list.pick([128 - 28, 128 - 48]);
    for (name, payload_len, after) in [
        ("extensions after a quote of less than 128 bytes", 64, After::Extensions),
        ("extensions after 128 bytes", shortest, After::Extensions),
        ("extensions after more than 128 bytes", 256, After::Extensions),
        ("the length of a quote of less than 128 bytes without extensions", 64, After::Nothing),
        ("the length of a quote of 128 bytes without extensions", shortest, After::Nothing),
        ("the length of a quote of more than 128 bytes without extensions", 256, After::Nothing),
        ("extensions with an invalid checksum", shortest, After::WrongChecksum),
        ("extensions with an object that is too short", shortest, After::ObjectOf(3)),
        ("extensions with an object that is too long", shortest, After::ObjectOf(16)),
    ] {
        for probe in [Probe::Echo, Probe::Udp] {
            // Both have a header of eight bytes.
            let len = list.pick([28, 48]) + payload_len;
            let units = u8::try_from(len / list.pick([4, 8])).unwrap();
            add_error(list, format!("{probe}: {name}"), probe, payload_len, units, move |quote| {
                [quote.emit(), structure(after)].concat()
            });
        }
    }
    padded(list);
}

/// A quote of a short packet, padded to 128 bytes. Some routers do not say where the extensions begin (RFC 4884 §5.1).
fn padded(list: &mut List) {
    for probe in [Probe::Echo, Probe::Udp, Probe::Syn] {
        for (name, units) in [("", list.pick([32, 16])), (" without a length", 0)] {
            let name = format!("{probe}: extensions after zeros{name}");
            add_error(list, name, probe, 12, units, |quote| {
                let mut quote = quote.emit();
                quote.resize(128, 0);
                [quote, structure(After::Extensions)].concat()
            });
        }
    }
}

/// Adds an error that says that it quotes so many units of 32 bits, or on IPv6 of 64 bits.
fn add_error(
    list: &mut List,
    name: String,
    probe: Probe,
    payload_len: usize,
    units: u8,
    data: impl Fn(&Ip) -> Vec<u8> + 'static,
) {
    let (host, kind) = (list.far(), port_unreachable(list));
    let rest = list.pick([[0, units, 0, 0], [units, 0, 0, 0]]);
    let respond = move |request: &Ip| {
        let message = [&[kind.0, kind.1, 0, 0][..], &rest, &data(request)].concat();
        vec![packet(host, request.source, message)]
    };
    let request = probe.request(list, payload_len);
    list.add_with_far_host(name, &[request], &[Expected::error(host, kind, rest)], Some(Box::new(respond)));
}

/// An object of four bytes, with its header, in an extension structure.
fn structure(after: After) -> Vec<u8> {
    let object = |len| [0, len, 1, 1, 0x18, 0x6a, 0x11, 0x01];
    match after {
        After::Nothing => Vec::new(),
        After::Extensions => extension(&object(8)),
        After::ObjectOf(len) => extension(&object(len)),
        After::WrongChecksum => {
            let mut structure = extension(&object(8));
            structure[3] ^= 1;
            structure
        }
    }
}
