//! The end of each packet: delivered to a path, or dropped and counted.

use std::time::Instant;

use crate::drop_reason::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::key::{FlowId, Origin};
use crate::output::{Delivery, DeliveryKind, Dropped, Output};
use crate::reassembly::Discarded;
use crate::wire::fragment::emit_fragmented;
use crate::wire::header::IpHeader;
use crate::wire::icmp::IcmpError;

impl Endpoint {
    /// The driver did not deliver `delivery`, or one of its fragments. To be called once for a delivery.
    pub fn handle_delivery_error(&mut self, delivery: &Delivery) -> Verdict {
        if let Some(path) = self.paths.get_mut(&delivery.path) {
            path.counters.deliveries_failed += 1;
        }
        let reason = DropReason::DeliveryFailed;
        match delivery.kind {
            DeliveryKind::Reply => self.counters.replies_failed += 1,
            DeliveryKind::IcmpError => self.counters.icmp_errors_failed += 1,
            DeliveryKind::GeneratedError => {
                self.counters.errors_generated_failed += 1;
                return Verdict::Dropped(reason);
            }
        }
        self.count_reply_drop(reason)
    }

    /// Emits a packet for a path, in fragments if it is larger than the path's MTU.
    ///
    /// # Errors
    /// The path is closed.
    pub(crate) fn deliver(
        &mut self,
        kind: DeliveryKind,
        Origin { path: id, tag }: Origin,
        flow: Option<FlowId>,
        header: IpHeader,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let path = self.paths.get_mut(&id).ok_or(DropReason::PathClosed)?;
        path.counters.deliveries_attempted += 1;
        match kind {
            DeliveryKind::Reply => self.counters.replies_attempted += 1,
            DeliveryKind::IcmpError => self.counters.icmp_errors_attempted += 1,
            DeliveryKind::GeneratedError => self.counters.errors_generated_attempted += 1,
        }
        // Packets that may be fragmented need different identifications (RFC 6864 §4.3).
        self.identification = self.identification.wrapping_add(1);
        let header = IpHeader { identification: self.identification, ..header };
        let start = self.outputs.bytes.len();
        let piece_len = emit_fragmented(&header, message, path.config.mtu, &mut self.outputs.bytes);
        let bytes = start..self.outputs.bytes.len();
        let flow = flow.map_or(0, |FlowId(index)| index.number());
        self.outputs.queue.push(Output::Deliver(Delivery { path: id, tag, kind, flow, bytes, piece_len }));
        Ok(())
    }

    /// Drops datagrams that are incomplete for too long, or whose memory newer ones need.
    pub(crate) fn discard_datagrams(&mut self, now: Instant) {
        while let Some(Discarded { reason, origins, first }) = self.reassembly.discard(now) {
            self.discard_fragments(&origins, reason);
            if let (DropReason::ReassemblyTimeout, Some((packet, origin))) = (reason, first) {
                self.send_local_error(now, origin, IcmpError::reassembly_time_exceeded, &packet);
            }
        }
    }

    /// Counts drops of fragments that were accepted before.
    pub(crate) fn discard_fragments(&mut self, origins: &[Origin], reason: DropReason) {
        for origin in origins {
            self.counters.fragments_discarded += 1;
            self.count_drop(*origin, reason);
        }
    }

    /// Counts the drop of a packet that came from a path.
    pub(crate) fn count_drop(&mut self, Origin { path, tag }: Origin, reason: DropReason) {
        self.counters.request_drops[reason] += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.drops += 1;
        }
        if let Some(tag) = tag {
            self.outputs.queue.push(Output::Drop(Dropped { path, tag, reason }));
        }
    }

    /// Counts the drop of a reply or ICMP error that came from a ping socket.
    pub(crate) fn count_reply_drop(&mut self, reason: DropReason) -> Verdict {
        self.counters.reply_drops[reason] += 1;
        Verdict::Dropped(reason)
    }
}
