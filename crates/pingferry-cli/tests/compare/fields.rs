//! The fields of a packet that are compared, as named values in readable form.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use super::ip::{Ip, TCP, UDP, icmp_checksum, read_word};

/// Names and values, in the order of the packet.
pub type Fields = Vec<(String, String)>;

/// The fields of a whole packet, and of the packet it quotes if it is an ICMP error.
pub fn fields(ip: &Ip) -> Fields {
    let mut fields = Fields::new();
    ip_fields("", ip, &mut fields);
    if !ip.is_icmp() {
        transport_fields("", ip, &mut fields);
        return fields;
    }
    let message = &ip.payload;
    let valid = message.len() >= 8 && icmp_checksum(ip.source, ip.destination, message) == [0, 0];
    put(&mut fields, "", "ICMP checksum", if valid { "right" } else { "wrong" });
    if message.len() < 8 {
        put(&mut fields, "", "message", format!("{message:02x?}"));
        return fields;
    }
    put(&mut fields, "", "type", message[0]);
    put(&mut fields, "", "code", message[1]);
    if is_error(ip.source, message[0]) {
        put(&mut fields, "", "rest", format!("{:02x?}", &message[4..8]));
        let (quote, extensions) = split_extensions(ip.source, message);
        quote_fields(quote, &mut fields);
        put(&mut fields, "", "extensions", format!("{extensions:02x?}"));
    } else {
        echo_fields("", message, &mut fields);
    }
    fields
}

pub fn is_error(source: IpAddr, icmp_type: u8) -> bool {
    if source.is_ipv4() { matches!(icmp_type, 3 | 4 | 5 | 11 | 12) } else { icmp_type < 128 }
}

/// The quoted packet of an error, and the extension structure after it (RFC 4884). The length of the quote is in words
/// of 32 bits in IPv4 and of 64 bits in IPv6. Zero means that there are no extensions.
pub fn split_extensions(source: IpAddr, message: &[u8]) -> (&[u8], &[u8]) {
    let len = match (source, message[0]) {
        (IpAddr::V4(_), 3 | 11 | 12) => usize::from(message[5]) * 4,
        (IpAddr::V6(_), 1 | 3) => usize::from(message[4]) * 8,
        _ => 0,
    };
    let data = &message[8..];
    if len == 0 || len > data.len() { (data, &[]) } else { data.split_at(len) }
}

fn ip_fields(prefix: &str, ip: &Ip, fields: &mut Fields) {
    put(fields, prefix, "source", ip.source);
    put(fields, prefix, "destination", ip.destination);
    put(fields, prefix, "protocol", ip.protocol);
    put(fields, prefix, "hop limit", ip.hop_limit);
    put(fields, prefix, "traffic class", format!("{:#04x}", ip.traffic_class));
    put(fields, prefix, "identification", ip.identification);
    put(fields, prefix, "fragment", format!("offset {}, more {}", ip.offset, ip.more));
    put(fields, prefix, "length", ip.length);
    if ip.source.is_ipv4() {
        put(fields, prefix, "DF", ip.dont_fragment);
        put(fields, prefix, "options", format!("{:02x?}", ip.options));
        put(fields, prefix, "header checksum", if ip.header_checksum_valid { "right" } else { "wrong" });
    } else {
        put(fields, prefix, "flow label", ip.flow_label);
        put(fields, prefix, "extension headers", format!("{:02x?}", ip.extensions));
    }
}

fn transport_fields(prefix: &str, ip: &Ip, fields: &mut Fields) {
    let segment = &ip.payload;
    put(fields, prefix, "ports", format!("{:?}", segment.chunks(2).take(2).collect::<Vec<_>>()));
    if ip.protocol == TCP {
        put(fields, prefix, "rest of the segment", format!("{:02x?}", segment.get(4..).unwrap_or_default()));
        return;
    }
    put(fields, prefix, "UDP checksum", format!("{:02x?}", segment.get(6..8)));
    put(fields, prefix, "UDP length and payload", format!("{:02x?}", [segment.get(4..6), segment.get(8..)]));
}

fn echo_fields(prefix: &str, message: &[u8], fields: &mut Fields) {
    let [_, _, _, _, ident_high, ident_low, seq_high, seq_low, payload @ ..] = message else { return };
    put(fields, prefix, "ident", u16::from_be_bytes([*ident_high, *ident_low]));
    put(fields, prefix, "seq", u16::from_be_bytes([*seq_high, *seq_low]));
    put(fields, prefix, "payload length", payload.len());
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    put(fields, prefix, "payload", format!("hash {:016x}", hasher.finish()));
}

fn quote_fields(quote: &[u8], fields: &mut Fields) {
    const QUOTE: &str = "quoted ";
    put(fields, QUOTE, "bytes", quote.len());
    let Some(ip) = Ip::parse(quote) else { return put(fields, QUOTE, "packet", format!("{quote:02x?}")) };
    ip_fields(QUOTE, &ip, fields);
    put(fields, "", "after the quoted packet", format!("{:02x?}", quote.get(ip.length..).unwrap_or_default()));
    let message = &ip.payload;
    if matches!(ip.protocol, UDP | TCP) {
        return transport_fields(QUOTE, &ip, fields);
    }
    if ip.offset > 0 || message.len() < 8 {
        return put(fields, QUOTE, "message", format!("{message:02x?}"));
    }
    put(fields, QUOTE, "type", message[0]);
    put(fields, QUOTE, "code", message[1]);
    put(fields, QUOTE, "ICMP checksum", format!("{:#06x}", read_word(message, 2)));
    echo_fields(QUOTE, message, fields);
}

fn put(fields: &mut Fields, prefix: &str, name: &str, value: impl ToString) {
    fields.push((format!("{prefix}{name}"), value.to_string()));
}
