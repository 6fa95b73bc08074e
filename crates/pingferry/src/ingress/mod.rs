//! Where packets of clients come in and where packets for them go out.
//!
//! An [`Ingress`] is one path to clients. It has two halves: a [`PacketSource`], which the proxy reads when its descriptor is
//! readable, and a [`PacketSink`], which takes replies and ICMP errors. The two are used by different threads at the same time.
//!
//! A TUN device, a connection of a Unix socket and the channel behind a [`Path`](crate::Path) are ingresses.
//! [`Pcap`], [`Traced`], [`Lossy`] and [`Delayed`] wrap another ingress.

/// The methods of a [`PacketSource`] that a wrapper leaves to the source in it.
macro_rules! delegate_source {
    ($self:ident => $inner:expr) => {
        fn name(&$self) -> String {
            $inner.name()
        }

        fn is_essential(&$self) -> bool {
            $inner.is_essential()
        }
    };
}

/// The methods of a [`PacketSink`] that a wrapper leaves to the sink in it.
macro_rules! delegate_sink {
    ($self:ident => $inner:expr) => {
        fn report_sent(&mut $self, sent: &$crate::ingress::Sent) {
            $inner.report_sent(sent);
        }

        fn report_drop(&mut $self, tag: pingferry_proto::Tag, reason: pingferry_proto::DropReason) {
            $inner.report_drop(tag, reason);
        }

        fn finish(&mut $self, batch: &mut $crate::ingress::Deliveries<'_>) {
            $inner.finish(batch);
        }
    };
}

mod batch;
pub(crate) mod channel;
#[cfg(feature = "unix")]
mod connections;
mod delayed;
pub(crate) mod guarded;
#[cfg(feature = "unix")]
mod listener;
mod lossy;
mod outcome;
pub(crate) mod pcap;
pub(crate) mod queue;
pub(crate) mod replies;
pub(crate) mod traced;
#[cfg(feature = "tun")]
pub(crate) mod tun;
#[cfg(feature = "unix")]
pub(crate) mod unix;

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use pingferry_proto::{DropReason, Tag};

pub use self::batch::{Deliveries, PacketBatch};
pub use self::delayed::Delayed;
pub use self::lossy::Lossy;
pub use self::outcome::Outcome;
pub use self::pcap::{Pcap, PcapFile};
pub(crate) use self::replies::Replies;

pub use self::traced::Traced;
#[cfg(feature = "tun")]
pub use self::tun::TunIngress;
#[cfg(feature = "unix")]
pub use self::unix::UnixIngress;
use crate::trace::Sampling;

/// A path to clients, before it is attached to a proxy.
///
/// ```no_run
/// use std::io;
/// use std::net::UdpSocket;
/// use std::os::fd::{AsFd, BorrowedFd};
///
/// use pingferry::ingress::{Ingress, PacketBatch, PacketSink, PacketSource};
/// use pingferry::{Config, PathConfig, Proxy};
///
/// /// One IP packet a datagram.
/// struct Udp(UdpSocket);
///
/// impl Ingress for Udp {
///     type Source = Self;
///     type Sink = Self;
///
///     fn split(self) -> io::Result<(Self, Self)> {
///         Ok((Self(self.0.try_clone()?), self))
///     }
/// }
///
/// impl AsFd for Udp {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl PacketSource for Udp {
///     fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
///         batch.fill(|buffer| match self.0.recv(buffer) {
///             Ok(len) => Ok(Some(len)),
///             Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
///             Err(error) => Err(error),
///         })
///     }
///
///     fn name(&self) -> String {
///         "UDP socket".into()
///     }
/// }
///
/// impl PacketSink for Udp {
///     fn send(&mut self, packet: &[u8]) -> io::Result<()> {
///         self.0.send(packet).map(drop)
///     }
/// }
///
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.connect("127.0.0.1:9")?;
/// socket.set_nonblocking(true)?;
/// let proxy = Proxy::open(Config::default())?;
/// proxy.attach_ingress(PathConfig::default(), Udp(socket))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Ingress {
    /// The half that packets of clients come from.
    type Source: PacketSource + 'static;
    /// The half that packets for clients go to.
    type Sink: PacketSink + 'static;

    /// Takes the ingress apart.
    ///
    /// # Errors
    /// A descriptor could not be duplicated, or a thread not be started.
    fn split(self) -> io::Result<(Self::Source, Self::Sink)>;
}

/// Packets of clients. Its descriptor is readable when packets wait, and is watched level-triggered.
pub trait PacketSource: AsFd + Send {
    /// Adds packets that wait to `batch`, in the order they came, until none waits or the batch is full. Never blocks.
    ///
    /// # Errors
    /// The ingress is gone. Packets that were added before the error are still served.
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()>;

    /// What it is, for messages: `TUN device ping0`.
    fn name(&self) -> String;

    /// Whether the proxy ends when [`receive`](Self::receive) fails. Otherwise only this path is closed.
    fn is_essential(&self) -> bool {
        false
    }
}

/// A packet with a tag that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The tag.
    pub tag: Tag,
    /// It opened its flow.
    pub opens_flow: bool,
    /// The identifier that it has on the network: that of its socket.
    pub socket_ident: u16,
}

/// Packets for clients. A panic of a sink ends the proxy.
pub trait PacketSink: Send {
    /// Passes an IP packet on. Never blocks.
    ///
    /// # Errors
    /// It was not taken, and is counted as not delivered. The next packet may be taken.
    fn send(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Passes on what is due for this path, in order.
    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        batch.send_each(|packet| self.send(packet));
    }

    /// Tells that a packet of this path was sent that its source gave a tag. To be told which reply is the first of its flow, see
    /// [`Delivery::opener`](pingferry_proto::Delivery::opener).
    fn report_sent(&mut self, _sent: &Sent) {}

    /// Tells what became of a packet of this path that its source gave a tag and the proxy dropped. The tag of a packet that
    /// was sent comes back with the reply, in [`Delivery::tag`](pingferry_proto::Delivery::tag).
    fn report_drop(&mut self, _tag: Tag, _reason: DropReason) {}

    /// Waits until it is known of all packets that were taken whether they have left, and reports those that have not by
    /// [`Deliveries::report_failed`]. Only a sink that passes packets to another thread has something to do here.
    fn finish(&mut self, _batch: &mut Deliveries<'_>) {}
}

impl<S: PacketSource + 'static, K: PacketSink + 'static> Ingress for (S, K) {
    type Source = S;
    type Sink = K;

    fn split(self) -> io::Result<(S, K)> {
        Ok(self)
    }
}

impl<S: PacketSource + ?Sized> PacketSource for Box<S> {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        (**self).receive(batch)
    }

    delegate_source!(self => (**self));
}

/// A callback, which may refuse a packet: see [`Outcome`].
impl<F, R> PacketSink for F
where
    F: FnMut(&[u8]) -> R + Send,
    R: Outcome,
{
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self(packet).into_result()
    }
}

/// The halves of an ingress of any kind.
pub(crate) type Halves = (Box<dyn PacketSource>, SharedSink);

/// The sink of a path, which both directions use: replies come from the downlink, ICMP errors from both.
// Held while packets are passed to the sink. Taken without the worker's lock.
pub(crate) type SharedSink = Arc<Mutex<dyn PacketSink>>;

/// What sees the packets of every ingress.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taps {
    pub(crate) pcap: Option<PcapFile>,
    pub(crate) sampling: Option<Sampling>,
}

/// Takes an ingress apart. Its packets pass through the taps.
pub(crate) fn split(ingress: impl Ingress, taps: &Taps) -> io::Result<Halves> {
    fn boxed(ingress: impl Ingress) -> io::Result<Halves> {
        let (source, sink) = ingress.split()?;
        Ok((Box::new(source), Arc::new(Mutex::new(sink))))
    }
    match (taps.pcap.clone(), taps.sampling.clone()) {
        (None, None) => boxed(ingress),
        (Some(file), None) => boxed(Pcap::new(ingress, file)),
        (None, Some(sampling)) => boxed(Traced::new(ingress, sampling)),
        (Some(file), Some(sampling)) => boxed(Traced::new(Pcap::new(ingress, file), sampling)),
    }
}
