//! Handles of what is attached to a proxy: its ingresses, and its paths of the embedding program.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use pingferry_proto::{PathConfig, PathCounters, ProbeConfig, Tag};

use crate::control::Control;
use crate::error::{AttachError, SendError};
use crate::ingress::channel::PathQueue;
use crate::stats::IngressId;

/// An ingress that is attached to a proxy.
///
/// It stays attached when this is dropped.
#[derive(Clone, Debug)]
pub struct Attachment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    control: Control,
    id: IngressId,
    // Held to read or to change it. Nothing is locked under it.
    probes: Mutex<ProbeConfig>,
}

/// A path of the embedding program. It is closed when it is dropped; the packets that were taken before are still sent.
///
/// It dereferences to its [`Attachment`], which changes its configuration and tells its statistics. All methods take `&self`, so
/// threads can share it.
#[derive(Debug)]
pub struct Path {
    queue: Arc<PathQueue>,
    attachment: Attachment,
}

/// What became of a packet that was [offered](Path::offer) to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// The path takes care of it.
    Taken,
    /// It is of no kind that pingferry carries: the caller keeps it.
    NotMine,
    /// The path's queue is full. The packet is lost, as it would be at a congested router, and counted.
    Full,
    /// The path or the proxy is closed.
    Closed,
}

impl Attachment {
    pub(crate) fn new(control: Control, id: IngressId, config: &PathConfig) -> Self {
        control.workers().iter().for_each(|worker| worker.published().keep(id));
        Self(Arc::new(Inner { control, id, probes: Mutex::new(config.probes.clone()) }))
    }

    /// Which ingress of its proxy it is, as [events](crate::Event) tell it.
    pub fn id(&self) -> IngressId {
        self.0.id
    }

    /// Changes the configuration of the ingress: MTU, gateway addresses, sources, limits and policy of its paths and of those to
    /// come. The domain stays what it was. Flows stay; their next packets are handled by the new configuration. When this
    /// returns, the next packet is.
    ///
    /// # Errors
    /// The proxy has ended, or a value is out of its range: then nothing is changed.
    pub fn configure(&self, config: &PathConfig) -> Result<(), AttachError> {
        let config = self.0.control.checked(config.clone())?;
        self.0.probes.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.probes);
        self.0.control.workers().iter().try_for_each(|worker| worker.configure(self.0.id, &config))?;
        Ok(())
    }

    /// What the paths of the ingress did so far, closed ones included. The packet path neither waits for this nor is waited for.
    pub fn stats(&self) -> PathCounters {
        self.0.control.workers().iter().map(|worker| worker.published().ingress(self.0.id)).sum()
    }

    /// Closes the paths of the ingress, and its listener. The proxy goes on. This does not wait: the proxy's threads close the
    /// descriptors soon. Packets that wait in the queue of a path of the embedding program are counted as dropped.
    pub fn detach(&self) {
        self.0.control.workers().iter().for_each(|worker| worker.detach(self.0.id));
    }

    fn wants(&self, packet: &[u8]) -> bool {
        self.0.probes.lock().unwrap_or_else(PoisonError::into_inner).wants(packet)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.control.workers().iter().for_each(|worker| worker.published().forget(self.id));
    }
}

impl Path {
    pub(crate) fn new(queue: Arc<PathQueue>, attachment: Attachment) -> Self {
        Self { queue, attachment }
    }

    /// Hands in an IP packet of a client. Never blocks, and allocates nothing while as many packets as before wait.
    ///
    /// What is wrong with a packet is counted, not returned: see [`Control::stats`].
    ///
    /// # Errors
    /// [`SendError::Full`] when too many packets wait, which is counted too; [`SendError::Closed`] when the path or the proxy has
    /// ended.
    pub fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        self.queue.send(packet, None)
    }

    /// Hands in an IP packet with a tag, such as the number of a trace context. The tag comes back with what the packet causes:
    /// in [`Delivery::tag`](pingferry_proto::Delivery::tag) of its reply or error, or in
    /// [`PacketSink::report_drop`](crate::ingress::PacketSink::report_drop).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_tagged(&self, packet: &[u8], tag: Tag) -> Result<(), SendError> {
        self.queue.send(packet, Some(tag))
    }

    /// Hands in several IP packets at once, until one is not taken. Returns how many were taken.
    ///
    /// # Errors
    /// As [`send`](Self::send), if the first packet was not taken.
    pub fn send_batch<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) -> Result<usize, SendError> {
        self.queue.send_batch(packets)
    }

    /// Hands in an IP packet if it is of a kind that pingferry carries: an echo request, a fragment of one, or a UDP or TCP probe
    /// if the path's configuration lets them cross. A program with a network stack of its own gives it the others.
    pub fn offer(&self, packet: &[u8]) -> Offer {
        if !self.attachment.wants(packet) {
            return Offer::NotMine;
        }
        match self.send(packet) {
            Ok(()) => Offer::Taken,
            Err(SendError::Full) => Offer::Full,
            Err(SendError::Closed) => Offer::Closed,
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn poll_room(&self, context: &std::task::Context<'_>) -> std::task::Poll<Result<(), SendError>> {
        self.queue.poll_room(context)
    }

    /// Sets how many packets may wait for the proxy, at least 1; 1,024 by default. They may have 1,500 bytes each on average.
    pub fn set_queue_length(&self, packets: usize) {
        self.queue.set_limit(packets);
    }
}

impl Deref for Path {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.queue.close();
    }
}
