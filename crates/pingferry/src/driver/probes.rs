//! The sockets of UDP and TCP probes.
//!
//! Probes are few: the endpoint limits their rate and their sockets. So everything here is done with the worker's lock, one
//! system call at a time.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use pingferry_proto::wire::IPPROTO_TCP;
use pingferry_proto::{
    Class, Endpoint, ErrorReport, Outputs, ProbeReply, ProbeSocketId, ProbeTransmit, SendError, Verdict,
};
use pingferry_sys::ping::{ReceiveBatch, SocketOptions};
use pingferry_sys::probe::{ProbeHeader, TcpProbe, UdpProbe};
use rustix::io::Errno;
use tracing::debug;

use super::core::Core;
use super::error_queue::{UNKNOWN_HOP_LIMIT, error_report, read_errors, send_error};
use super::poller::{Poller, Token};
use crate::config::{Config, is_on_link};

/// The probe sockets of a worker.
pub(super) struct Probes {
    config: Config,
    /// Watches them.
    poller: Arc<Poller>,
    open: HashMap<ProbeSocketId, ProbeSocket>,
    /// Made for the first answer, because it is large.
    replies: Option<ReceiveBatch>,
}

enum ProbeSocket {
    Udp(UdpProbe),
    Tcp(TcpProbe),
}

impl AsFd for ProbeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl Probes {
    pub(super) fn new(config: Config, poller: Arc<Poller>) -> Self {
        Self { config, poller, open: HashMap::new(), replies: None }
    }

    /// Closes a socket, if it is open.
    pub(super) fn close(&mut self, id: ProbeSocketId) {
        self.open.remove(&id);
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    fn send(&mut self, transmit: &ProbeTransmit, payload: &[u8]) -> io::Result<()> {
        let source_port = transmit.source_port;
        let destination = transmit.header.destination;
        let header = ProbeHeader {
            destination: SocketAddr::new(destination, transmit.destination_port),
            scope_id: if is_on_link(destination) { self.config.scope_id } else { 0 },
            hop_limit: transmit.hop_limit,
            traffic_class: transmit.header.traffic_class,
            dont_fragment: transmit.header.dont_fragment,
        };
        let options = self.options(transmit);
        if transmit.header.protocol == IPPROTO_TCP {
            let socket = TcpProbe::connect(&options, source_port, &header)?;
            self.poller.add_connecting(&socket, Token::Probe(transmit.socket))?;
            self.open.insert(transmit.socket, ProbeSocket::Tcp(socket));
            return Ok(());
        }
        if !self.open.contains_key(&transmit.socket) {
            let socket = UdpProbe::open(&options, source_port)?;
            self.poller.add(&socket, Token::Probe(transmit.socket))?;
            self.open.insert(transmit.socket, ProbeSocket::Udp(socket));
        }
        match self.open.get_mut(&transmit.socket) {
            Some(ProbeSocket::Udp(socket)) => socket.send(&header, payload),
            _ => Err(Errno::BADF.into()),
        }
    }

    fn options(&self, transmit: &ProbeTransmit) -> SocketOptions {
        let family = transmit.header.family();
        self.config.socket_options(Class { family, dont_fragment: transmit.header.dont_fragment, dedicated: false })
    }
}

impl Core {
    /// Sends a probe, and tells the endpoint if the kernel refuses it. Returns whether it did.
    pub(super) fn send_probe(&mut self, now: Instant, transmit: &ProbeTransmit, outputs: &Outputs) -> bool {
        let Err(error) = self.probes.send(transmit, outputs.bytes(&transmit.payload)) else { return false };
        let reason = self.refusal(transmit, Errno::from_io_error(&error));
        debug!(destination = %transmit.header.destination, %error, "probe not sent");
        let _ = self.endpoint.handle_probe_send_error(now, transmit, outputs.bytes(&transmit.segment), reason);
        true
    }

    /// Why a probe was not sent. The error queue may know more than the errno: the MTU, or that a firewall of this host
    /// rejected the probe by an ICMP error, which is then the answer.
    fn refusal(&mut self, transmit: &ProbeTransmit, errno: Option<Errno>) -> SendError {
        let (mut mtu, mut is_rejected) = (None, false);
        let destination = (transmit.header.destination, transmit.destination_port);
        let Self { probes, errors, endpoint, .. } = self;
        if let Some(socket) = probes.open.get(&transmit.socket) {
            read_errors(socket, errors, |error| match error_report(error) {
                Some(report) => {
                    is_rejected |= endpoint.host_addresses().own.contains(&report.offender)
                        && (report.destination, error.port) == destination;
                    relay(endpoint, transmit.socket, error.port, &report);
                }
                None if (error.destination, error.port) == destination => mtu = Some(error.info),
                None => {}
            });
        }
        match errno {
            Some(Errno::PERM) if is_rejected => SendError::Rejected,
            Some(Errno::MSGSIZE) => SendError::TooBig(mtu),
            Some(Errno::MFILE | Errno::NFILE) => SendError::NoSocket,
            _ => send_error(errno),
        }
    }

    /// Lets the endpoint handle what a probe socket has: errors, and answers to datagrams.
    pub(super) fn receive_probe(&mut self, now: Instant, id: ProbeSocketId, has_answers: bool) {
        let Self { probes, errors, endpoint, .. } = self;
        // It may have been closed since it was ready.
        let Some(socket) = probes.open.get(&id) else { return };
        read_errors(socket, errors, |error| {
            if let Some(report) = error_report(error) {
                relay(endpoint, id, error.port, &report);
            }
        });
        match socket {
            ProbeSocket::Udp(_) if !has_answers => {}
            ProbeSocket::Udp(socket) => {
                let replies = probes.replies.get_or_insert_default();
                replies.clear();
                let received = replies.receive(socket).unwrap_or_default();
                for reply in replies.get(received) {
                    let reply = ProbeReply {
                        from: SocketAddr::new(reply.from, reply.port),
                        hop_limit: reply.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
                        traffic_class: reply.traffic_class,
                        payload: reply.message,
                    };
                    if let Verdict::Dropped(reason) = endpoint.handle_probe_reply(now, id, reply) {
                        debug!(from = %reply.from, %reason, "answer to a probe dropped");
                    }
                }
            }
            ProbeSocket::Tcp(socket) => {
                // A SYN causes one event: an answer, or the end of the attempt by an ICMP error or by time.
                if let Ok(Some(answer)) = socket.answer() {
                    let _ = endpoint.handle_probe_answer(now, id, answer, UNKNOWN_HOP_LIMIT);
                }
                probes.close(id);
            }
        }
    }
}

fn relay(endpoint: &mut Endpoint, id: ProbeSocketId, port: u16, report: &ErrorReport<'_>) {
    if let Verdict::Dropped(reason) = endpoint.handle_probe_error(id, port, report) {
        debug!(offender = %report.offender, destination = %report.destination, %reason, "ICMP error dropped");
    }
}
