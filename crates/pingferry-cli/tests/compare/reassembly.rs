//! Reassembly of fragments (RFC 791 §3.2, RFC 8200 §4.5), without any checks.

use super::ip::Ip;

#[derive(Default)]
pub struct Reassembly {
    waiting: Vec<Ip>,
}

impl Reassembly {
    /// Adds a packet. Returns it if it is whole, and the reassembled packet if this was its last missing fragment.
    pub fn add(&mut self, packet: Ip) -> Option<Ip> {
        if !packet.is_fragment() {
            return Some(packet);
        }
        let key = |ip: &Ip| (ip.source, ip.destination, ip.identification);
        let this = key(&packet);
        self.waiting.push(packet);
        let mut parts: Vec<Ip> = self.waiting.iter().filter(|ip| key(ip) == this).cloned().collect();
        parts.sort_by_key(|ip| ip.offset);
        let mut payload = Vec::new();
        for part in &parts {
            if part.offset != payload.len() {
                return None;
            }
            payload.extend(&part.payload);
        }
        if parts.last()?.more {
            return None;
        }
        self.waiting.retain(|ip| key(ip) != this);
        let headers = parts[0].length - parts[0].payload.len() - if parts[0].source.is_ipv4() { 0 } else { 8 };
        Some(Ip { more: false, length: headers + payload.len(), payload, ..parts[0].clone() })
    }
}
