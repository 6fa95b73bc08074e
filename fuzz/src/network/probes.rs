//! What the driver does with UDP and TCP probes.

use std::net::SocketAddr;

use pingferry_proto::{ErrorReport, ProbeReply, ProbeSocketId, ProbeTransmit, TcpAnswer, Verdict};

use super::Network;
use crate::model::{ProbeReturn, Returned};

/// A probe that was sent.
#[derive(Clone, Debug)]
pub(crate) struct SentProbe {
    pub(crate) socket: ProbeSocketId,
    pub(crate) protocol: u8,
    pub(crate) destination: SocketAddr,
    pub(crate) segment: Vec<u8>,
}

impl Network {
    pub(super) fn send_probe(&mut self, transmit: &ProbeTransmit, segment: &[u8], payload: &[u8]) {
        let probe = self.model.check_probe(transmit, segment, payload);
        if let Some(error) = self.send_error.take() {
            let verdict = self.endpoint.handle_probe_send_error(self.now, transmit, segment, error);
            assert!(matches!(verdict, Verdict::Dropped(_)));
            return;
        }
        self.open_probes.insert(transmit.socket);
        self.sent_probes.push(SentProbe {
            socket: transmit.socket,
            protocol: probe.header.protocol,
            destination: probe.destination(),
            segment: segment.to_vec(),
        });
    }

    /// Receives a datagram on a UDP probe socket.
    pub(crate) fn receive_datagram(&mut self, socket: ProbeSocketId, reply: ProbeReply<'_>) -> Verdict {
        let mut expected = self.endpoint.counters().clone();
        let verdict = self.endpoint.handle_probe_reply(self.now, socket, reply);
        expected.replies_received += 1;
        expected.replies_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        let ProbeReply { from, hop_limit, traffic_class, payload } = reply;
        self.expect_probe_return(socket, verdict, || ProbeReturn::Datagram {
            from,
            hop_limit,
            traffic_class,
            payload: payload.to_vec(),
        });
        verdict
    }

    /// A SYN of a TCP probe socket was answered.
    pub(crate) fn receive_answer(&mut self, socket: ProbeSocketId, answer: TcpAnswer, hop_limit: u8) {
        let mut expected = self.endpoint.counters().clone();
        let verdict = self.endpoint.handle_probe_answer(self.now, socket, answer, hop_limit);
        expected.replies_received += 1;
        expected.replies_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        self.expect_probe_return(socket, verdict, || ProbeReturn::Answer(answer));
    }

    /// Receives an ICMP error from the error queue of a probe socket.
    pub(crate) fn receive_probe_error(&mut self, socket: ProbeSocketId, port: u16, report: &ErrorReport<'_>) {
        let mut expected = self.endpoint.counters().clone();
        let deadline = self.endpoint.next_deadline();
        let verdict = self.endpoint.handle_probe_error(socket, port, report);
        expected.icmp_errors_received += 1;
        expected.icmp_errors_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        assert_eq!(deadline, self.endpoint.next_deadline(), "an error neither ends nor refreshes a flow");
        self.expect_probe_return(socket, verdict, || ProbeReturn::error(port, report));
    }

    fn expect_probe_return(&mut self, socket: ProbeSocketId, verdict: Verdict, returned: impl FnOnce() -> ProbeReturn) {
        if verdict == Verdict::Forwarded {
            self.model.expect_return(Returned::Probe(socket, returned()));
        }
    }

    /// There are no more probe flows than allowed, and each has one socket at most.
    pub(super) fn check_probes(&self) {
        let c = self.endpoint.counters();
        let flows = c.flows_opened - c.flows_expired - c.flows_evicted;
        let of_probes = flows.checked_sub(self.endpoint.flows() as u64).expect("no flow ends twice");
        assert!(of_probes <= self.max_probe_flows as u64, "{of_probes} flows of probes");
        assert!(self.open_probes.len() as u64 <= of_probes, "each open socket has a flow");
    }
}
