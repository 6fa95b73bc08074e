//! What the driver does with the outputs of the endpoint, and the invariants that hold afterwards.

use pingferry_proto::wire::{IPPROTO_TCP, IpPacket, MAX_PACKET, is_icmp_error};
use pingferry_proto::{
    Delivery, DeliveryKind, DropReason, Family, OpenFailure, Output, Outputs, SendError, SocketId, Transmit, Verdict,
};

use super::{Network, Sent};
use crate::builder::{gateway_v4, gateway_v6};
use crate::delivered::Delivered;

/// How many ICMP errors the endpoint may generate in a burst. It may generate one more each millisecond.
const ERROR_BURST: u128 = 1000;

impl Network {
    /// Takes the outputs of the endpoint as the driver does, until there are none, and then checks the invariants.
    pub(crate) fn process_outputs(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            self.endpoint.take_outputs(&mut outputs);
            if outputs.is_empty() {
                break;
            }
            for output in &outputs {
                match output {
                    Output::Open(socket) => self.open(*socket),
                    Output::Close(socket) => self.close(*socket),
                    Output::Transmit(transmit) => self.transmit(transmit, outputs.bytes(&transmit.message)),
                    Output::Deliver(delivery) => self.deliver(delivery, &outputs),
                    Output::Probe(transmit) => {
                        let [segment, payload] =
                            [&transmit.segment, &transmit.payload].map(|range| outputs.bytes(range));
                        self.send_probe(transmit, segment, payload);
                    }
                    Output::CloseProbe(socket) => _ = self.open_probes.remove(socket),
                    other => panic!("{other:?}"),
                }
            }
        }
        self.outputs = outputs;
        self.open_failed = false;
        self.check();
    }

    fn open(&mut self, socket: SocketId) {
        // A socket that is opened again takes the place of the one before.
        self.free_descriptors += usize::from(self.sockets.remove(&socket).is_some());
        if self.free_descriptors == 0 {
            self.open_failed = true;
            self.was_short_of_descriptors = true;
            return self.endpoint.socket_failed(socket, OpenFailure::Exhausted);
        }
        self.free_descriptors -= 1;
        self.opened += 1;
        let ident = Self::BEFORE_FIRST_IDENT + self.opened;
        self.sockets.insert(socket, ident);
        self.endpoint.socket_opened(self.now, socket, ident);
    }

    fn close(&mut self, socket: SocketId) {
        assert!(self.sockets.remove(&socket).is_some(), "only open sockets are closed");
    }

    fn transmit(&mut self, transmit: &Transmit, message: &[u8]) {
        let (flow, number) = self.model.check_transmit(transmit, message);
        self.census.sent(flow, transmit.socket, message, number);
        let unsent = if self.sockets.contains_key(&transmit.socket) {
            self.send_error.take()
        } else {
            // Other classes may keep a reserve, so the limit need not be reached.
            let none_available =
                self.open_failed || self.was_short_of_descriptors || self.sockets.len() >= self.max_sockets;
            assert!(none_available, "the endpoint opens a socket before it sends on it");
            Some(SendError::NoSocket)
        };
        match unsent {
            Some(error) => {
                let verdict = self.endpoint.handle_send_error(self.now, transmit, message, error);
                assert!(matches!(verdict, Verdict::Dropped(_)));
            }
            None => self.sent.push(Sent {
                socket: transmit.socket,
                destination: transmit.header.destination,
                message: message.to_vec(),
            }),
        }
    }

    fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) {
        let mtu = self.paths.get(&delivery.path).map_or(usize::MAX, |path| path.mtu);
        let delivered = Delivered::join(outputs.packets(delivery), mtu);
        match delivery.kind {
            DeliveryKind::GeneratedError => check_local_error(&delivered),
            DeliveryKind::Answer => check_answer(&delivered),
            _ => self.model.check_delivery(delivery.path, &delivered),
        }
        if std::mem::take(&mut self.delivery_fails) || !self.paths.contains_key(&delivery.path) {
            let verdict = self.endpoint.handle_delivery_error(delivery);
            assert_eq!(verdict, Verdict::Dropped(DropReason::DeliveryFailed));
        }
    }

    fn check(&mut self) {
        assert!(self.model.is_settled(), "every forwarded input has an output");
        self.check_evictions();
        let c = self.endpoint.counters();
        assert!(c.add_up(), "{c:?}");
        let flows = self.endpoint.flows();
        self.check_probes();
        assert!(flows <= self.max_flows);
        assert_eq!(self.endpoint.sockets(), self.sockets.len());
        assert!(self.sockets.len() <= self.max_sockets);
        let allowed = ERROR_BURST + (self.now - self.started_at).as_millis();
        assert!(u128::from(c.errors_generated_attempted) <= allowed, "{} errors", c.errors_generated_attempted);
    }

    /// Advances the clock from deadline to deadline, without further input, until every flow and socket is closed.
    pub(crate) fn expire_all(&mut self) {
        self.process_outputs();
        let mut deadlines = 0;
        while let Some(deadline) = self.endpoint.next_deadline() {
            self.now = self.now.max(deadline);
            self.endpoint.handle_timeout(self.now);
            self.process_outputs();
            deadlines += 1;
            assert!(deadlines < 100_000, "every deadline passes");
        }
        assert_eq!((self.endpoint.flows(), self.sockets.len(), self.open_probes.len()), (0, 0, 0));
        let c = self.endpoint.counters();
        assert_eq!(c.flows_opened, c.flows_expired + c.flows_evicted, "{c:?}");
    }
}

/// Checks an answer of pingferry itself: an echo reply, or a RST.
fn check_answer(delivered: &Delivered) {
    let Delivered { header, message } = delivered;
    assert!(header.source == gateway_v4() || header.source == gateway_v6());
    match header.protocol {
        IPPROTO_TCP => assert!(message[13] & 0x04 != 0, "only a RST"),
        _ => assert!(delivered.checksum_is_valid() && matches!(message[0], 0 | 129), "an echo reply"),
    }
}

/// Checks an ICMP error that the endpoint generated: its source is the gateway, it goes to the sender of the quoted packet, and
/// the quoted packet is no ICMP error (RFC 1122 §3.2.2). If that is multicast, the error is one of the two that may be sent about
/// it (RFC 4443 §2.4 (e.3)).
fn check_local_error(delivered: &Delivered) {
    let Delivered { header, message } = delivered;
    let family = header.family();
    assert!(header.is_icmp());
    assert!(header.source == gateway_v4() || header.source == gateway_v6());
    assert!(is_icmp_error(family, message[0]));
    assert!(delivered.checksum_is_valid());
    let mut quote = message[8..].to_vec();
    quote.resize(MAX_PACKET, 0);
    // The quotation may end inside an IPv6 extension header.
    let Ok(quoted) = IpPacket::parse(&quote) else { return assert_eq!(family, Family::V6) };
    assert_eq!(quoted.header.source, header.destination, "the error goes to the sender");
    let error = quoted.header.is_icmp() && quoted.payload.first().is_some_and(|&kind| is_icmp_error(family, kind));
    let may_be_multicast = family == Family::V6 && matches!(message[..2], [2, 0] | [4, 2]);
    assert!(!error && (may_be_multicast || !quoted.header.destination.is_multicast()), "the quote: {quoted:?}");
}
