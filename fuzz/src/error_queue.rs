//! Parses arbitrary bytes as an entry of a socket's error queue, and passes the result to an endpoint.
//!
//! `QueuedError::parse` is the function that parses what `recvmmsg` returns from the kernel.

use std::net::IpAddr;

use pingferry_proto::wire::{IcmpError, IpHeader};
use pingferry_proto::{Config, DomainId, ErrorReport, Family, PathConfig};
use pingferry_sys::ping::{ErrorOrigin, QueuedError};

use crate::builder;
use crate::network::Network;
use crate::operations::Operations;

/// Parses one queued error and hands it to an endpoint that sent three requests.
///
/// The input is one byte that selects the socket, a length and that many bytes of `msg_name`, a length and that many bytes of
/// `msg_control`, and the data. No input may cause a panic. The quotation and the extensions must lie inside the data. When the
/// endpoint relays the error, the error must concern one of the requests.
pub fn error_queue(data: &[u8]) {
    let mut ops = Operations::new(data);
    let mut network = network_with_requests();
    let socket = ops.pick(&network.sent.iter().map(|sent| sent.socket).collect::<Vec<_>>());
    let [name, control] = [(); 2].map(|()| {
        let len = ops.byte().into();
        ops.bytes(len)
    });
    let body = ops.rest();
    let Some(queued) = QueuedError::parse(name, control, body) else { return };
    let relayed = [queued.quoted, queued.extensions].concat();
    assert!(body.starts_with(&relayed), "quotation and extensions lie inside the data");
    assert!(queued.extensions.is_empty() || !queued.quoted.is_empty(), "extensions follow a quotation");

    let Some(report) = report(&queued).filter(|report| is_possible(socket.class.family, report)) else { return };
    let _ = network.receive_error(socket, &report);
    network.process_outputs();
    network.expire_all();
}

/// A network in which three requests were sent. Each has a class of its own, and therefore a socket of its own.
fn network_with_requests() -> Network {
    let mut network = Network::new(Config::default());
    let path = network.add_path(PathConfig::default().with_domain(Some(DomainId(0))));
    for (ident, (family, dont_fragment)) in
        [(Family::V4, false), (Family::V4, true), (Family::V6, true)].iter().enumerate()
    {
        let header = IpHeader::icmp(builder::client(*family, 0), builder::target(*family, 0));
        let header = IpHeader { dont_fragment: *dont_fragment, ..header };
        let message = builder::request(&header, false, ident as u16, 1, &[0xa5; 56]);
        let _ = network.packet(path, &builder::packet(&header, &message));
    }
    network.process_outputs();
    assert_eq!(network.sent.len(), 3);
    network
}

/// The report that the driver makes of a queued error. Here the second word of the ICMP header may have any value.
fn report<'a>(queued: &QueuedError<'a>) -> Option<ErrorReport<'a>> {
    let offender = queued.offender.filter(|_| queued.origin != ErrorOrigin::Local)?;
    Some(ErrorReport {
        offender,
        error: IcmpError { icmp_type: queued.kind, code: queued.code, rest: queued.info.to_be_bytes() },
        hop_limit: queued.hop_limit.unwrap_or(64),
        traffic_class: queued.traffic_class,
        destination: queued.destination,
        quoted: queued.quoted,
        extensions: queued.extensions,
    })
}

/// Whether a kernel could report this error. It reports no address of another family than the socket's, no more data than the
/// receive buffer holds, and no extensions beyond the length that an ICMP error can state (RFC 4884 §4.1, §4.2). That length
/// includes the quoted IP header, which the kernel removes.
fn is_possible(family: Family, report: &ErrorReport<'_>) -> bool {
    let furthest = match family {
        Family::V4 => 255 * 4 - 20,
        Family::V6 => 255 * 8 - 40,
    };
    let of_family = |address: IpAddr| Family::of(address) == family;
    of_family(report.offender)
        && of_family(report.destination)
        && report.quoted.len() + report.extensions.len() <= 2048
        && (report.extensions.is_empty() || report.quoted.len() <= furthest)
}
