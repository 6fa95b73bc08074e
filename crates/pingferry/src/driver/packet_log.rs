//! What the log says of single packets, at the level debug. Each line has the same fields: `src`, `dst`, `ident` and `seq` as the
//! client has them. Nothing is parsed for it at other levels.

use pingferry_proto::wire::{Echo, IpPacket, Summary};
use pingferry_proto::{Delivery, PathId, Verdict};
use tracing::field::display;
use tracing::{Level, debug, enabled};

/// What became of a packet of a path.
pub(super) fn packet(path: PathId, packet: &[u8], verdict: Verdict) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let Summary { source, destination, ident, .. } = Summary::of(packet);
    let (path, src, dst) = (path.0, source.map(display), destination.map(display));
    let seq = request(packet).map(|echo| echo.seq);
    match verdict {
        Verdict::Dropped(reason) => {
            debug!(path, len = packet.len(), src, dst, ident, seq, %reason, "packet dropped");
        }
        Verdict::Forwarded => debug!(path, src, dst, ident, seq, "request forwarded"),
        Verdict::Answered => debug!(path, src, dst, ident, seq, "packet answered"),
        _ => debug!(path, src, dst, ident, seq, "fragment held"),
    }
}

/// A packet is delivered to a path.
pub(super) fn delivery(delivery: &Delivery, packet: &[u8]) {
    let Delivery { path, kind, header, .. } = delivery;
    let echo = reply(packet);
    let (ident, seq) = (echo.map(|echo| echo.ident), echo.map(|echo| echo.seq));
    debug!(path = path.0, ?kind, src = %header.source, dst = %header.destination, ident, seq, "packet delivered");
}

/// Whether packets are logged.
pub(super) fn is_on() -> bool {
    enabled!(Level::DEBUG)
}

fn request(packet: &[u8]) -> Option<Echo> {
    let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
    Echo::parse_request(header.family(), payload).ok()
}

fn reply(packet: &[u8]) -> Option<Echo> {
    let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
    Echo::parse_reply(header.family(), payload).ok()
}
