//! The handle of a running proxy.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
#[cfg(feature = "tun")]
use std::time::Duration;

#[cfg(feature = "tun")]
use pingferry_proto::DomainId;
use pingferry_proto::{Family, PathConfig, Policy};

use crate::driver::Remote;
use crate::echoes::{self, Answers, Echoes};
use crate::ending::{Ending, ProxyId};
use crate::error::{AttachError, Closed, RunError};
use crate::handle::{Attachment, Path};
#[cfg(feature = "tun")]
use crate::ingress::TunIngress;
#[cfg(feature = "unix")]
use crate::ingress::UnixIngress;
use crate::ingress::channel::{ChannelSource, PathQueue};
use crate::ingress::guarded::Guarded;
use crate::ingress::{Ingress, PacketSink, Replies, Taps, replies, split};
use crate::stats::{IngressId, Stats};

/// A handle of a running proxy, which any number of threads can have. The proxy goes on when a handle is dropped.
///
/// All methods can be called from a callback too, and under a lock that a callback takes, but for [`wait`](Self::wait) and
/// [`close`](Self::close), which wait for callbacks to return.
///
/// ```no_run
/// use pingferry::{Config, PathConfig, Proxy};
///
/// let proxy = Proxy::open(Config::default())?;
/// let control = proxy.control();
/// // One for each client, wherever it is accepted.
/// let path = control.attach(PathConfig::default().with_mtu(1400), |packet: &[u8]| println!("{}", packet.len()))?;
/// assert_eq!(path.stats().packets, 0);
/// control.stop();
/// proxy.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Control(Arc<Inner>);

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("id", &self.0.id).finish_non_exhaustive()
    }
}

struct Inner {
    id: ProxyId,
    workers: Vec<Remote>,
    settings: Settings,
    next_ingress: AtomicU32,
    ending: Ending,
}

/// What attached ingresses are given.
#[derive(Debug)]
pub(crate) struct Settings {
    /// For how long after each packet the idle writer of each TUN queue looks for the next one; zero for none.
    #[cfg(feature = "tun")]
    pub(crate) idle_writer: Duration,
    /// The addresses that ICMP errors come from where a path has none.
    pub(crate) gateway_v4: Option<IpAddr>,
    pub(crate) gateway_v6: Option<IpAddr>,
    pub(crate) taps: Taps,
    /// Whether ping sockets can be opened, for IPv4 and IPv6.
    pub(crate) families: (bool, bool),
}

impl Control {
    pub(crate) fn new(id: ProxyId, workers: Vec<Remote>, settings: Settings) -> Self {
        let ending = Ending::new(workers.len());
        Self(Arc::new(Inner { id, workers, settings, next_ingress: AtomicU32::new(0), ending }))
    }

    /// Attaches a path of the embedding program. The proxy's threads call `sink`, often a closure that takes a `&[u8]`, with each
    /// packet for the path's clients, one at a time.
    ///
    /// A callback should not block, because other paths wait for it. One that has once taken 50 ms for the packets of a round, at
    /// most 64, is watched: when it takes as long again, the rest of the round is counted as not delivered. So the others
    /// wait for 50 ms and one call at most. If it panics it is not called again, and packets for its clients are counted as
    /// not delivered.
    ///
    /// Without a domain in `config`, the path has a domain of its own. Without a gateway address, pingferry's own ICMP errors
    /// come from the address it would ping from.
    ///
    /// # Errors
    /// The proxy has ended, or a value of `config` is out of its range.
    pub fn attach(&self, config: PathConfig, sink: impl PacketSink + 'static) -> Result<Path, AttachError> {
        let attachment = self.new_attachment(&config);
        let config = self.checked(config)?;
        let worker = self.worker_of(&attachment, &config)?;
        let queue = PathQueue::new(Arc::clone(worker.inbox()));
        let halves = split((ChannelSource::new(Arc::clone(&queue)), Guarded::new(sink)), &self.0.settings.taps)?;
        queue.set_path(worker.attach(attachment.id(), config, halves, Some(Arc::clone(&queue)))?);
        Ok(Path::new(queue, attachment))
    }

    /// Attaches a path of the embedding program, which takes the packets for the path's clients when it likes. At most `room`
    /// of them wait, at least 1, beside the batch that the program has taken; more are counted as not delivered.
    ///
    /// ```no_run
    /// use pingferry::{Config, PathConfig, Proxy};
    ///
    /// # async fn serve(packet_from_a_client: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    /// let proxy = Proxy::open(Config::default())?;
    /// let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 1000)?;
    /// path.send(packet_from_a_client)?;
    /// while let Some(reply) = replies.recv().await {
    ///     println!("{} bytes back", reply.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`attach`](Self::attach), or there is no descriptor for the queue.
    pub fn attach_queue(&self, config: PathConfig, room: usize) -> Result<(Path, Replies), AttachError> {
        let (sink, replies) = replies::queue(room)?;
        Ok((self.attach(config, sink)?, replies))
    }

    /// Attaches a path for a program that has echo requests as values, and no IP packets: [`Echoes`]. At most `room` answers
    /// wait, as in [`attach_queue`](Self::attach_queue). The MTU, the gateway and the sources of `config` do not matter.
    ///
    /// # Errors
    /// As [`attach_queue`](Self::attach_queue).
    pub fn attach_echoes(&self, config: PathConfig, room: usize) -> Result<(Echoes, Answers), AttachError> {
        let (path, replies) = self.attach_queue(echoes::config(config), room)?;
        Ok((Echoes::new(path), Answers::new(replies)))
    }

    /// Attaches an ingress of one path.
    ///
    /// # Errors
    /// The proxy has ended, a value of `config` is out of its range, the ingress could not be taken apart, or the kernel cannot
    /// watch its descriptor.
    pub fn attach_ingress(&self, config: PathConfig, ingress: impl Ingress) -> Result<Attachment, AttachError> {
        let attachment = self.new_attachment(&config);
        let config = self.checked(config)?;
        self.add_path(&attachment, self.worker_of(&attachment, &config)?, config, ingress)?;
        Ok(attachment)
    }

    /// Attaches a TUN device by its queues, of which each worker gets its share. The proxy ends when the device is deleted, unless
    /// its queues are [not essential](TunIngress::with_essential). Where each worker may use a second processor, a thread of
    /// idle priority shortens round trips while the worker busy-polls.
    ///
    /// # Errors
    /// As [`attach_ingress`](Self::attach_ingress).
    #[cfg(feature = "tun")]
    pub fn attach_tun<T: Into<TunIngress>>(
        &self,
        config: PathConfig,
        queues: impl IntoIterator<Item = T>,
    ) -> Result<Attachment, AttachError> {
        let attachment = self.new_attachment(&config);
        let mut config = self.checked(config)?;
        // The kernel moves flows from queue to queue, so these share a domain: the last reserved number or one before it.
        config.domain.get_or_insert(DomainId(u32::MAX - attachment.id().0));
        let workers = self.0.workers.iter().cycle();
        queues.into_iter().zip(workers).try_for_each(|(queue, worker)| {
            let ingress = queue.into().with_idle_writer(self.0.settings.idle_writer);
            self.add_path(&attachment, worker, config.clone(), ingress)
        })?;
        Ok(attachment)
    }

    /// Attaches a listening Unix socket. Each of its connections is a path with this configuration. Without a domain in it, each
    /// has a domain of its own: no client can take over flows of another one and receive their replies. With a domain, a client
    /// that connects again goes on with its flows. Without a tenant, that of a connection is the user ID of the client, so a user
    /// has no larger share for having many connections. One worker serves them all.
    ///
    /// # Errors
    /// As [`attach_ingress`](Self::attach_ingress).
    #[cfg(feature = "unix")]
    pub fn attach_unix(&self, config: PathConfig, listener: UnixIngress) -> Result<Attachment, AttachError> {
        let attachment = self.new_attachment(&config);
        let config = self.checked(config)?;
        let listener = listener.with_taps(self.0.settings.taps.clone());
        self.worker_of(&attachment, &config)?.listen(attachment.id(), config, listener)?;
        Ok(attachment)
    }

    /// Changes which destinations clients may ping. When this returns, every worker follows the new policy. Flows stay.
    ///
    /// # Errors
    /// The proxy has ended.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Closed> {
        self.0.workers.iter().try_for_each(|worker| worker.set_policy(policy.clone()))
    }

    /// What the proxy did so far, also after it has ended. The packet path neither waits for this nor is waited for.
    ///
    /// What a client has received a reply to is in it.
    pub fn stats(&self) -> Stats {
        self.0.workers.iter().map(|worker| worker.published().stats()).sum()
    }

    /// Whether the proxy can ping hosts of this family. If it cannot, requests to them are answered with Destination Unreachable.
    pub fn serves(&self, family: Family) -> bool {
        let (v4, v6) = self.0.settings.families;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Tells the proxy to end, and does not wait for it. Does nothing if it has ended.
    ///
    /// It takes no more packets, sends the requests of those that it has taken, does not wait for replies to them, and closes
    /// all sockets and paths.
    pub fn stop(&self) {
        self.0.workers.iter().for_each(Remote::stop);
    }

    /// Blocks until the proxy has ended, and returns its final statistics.
    ///
    /// # Errors
    /// Why it ended by itself, or [`RunError::WouldDeadlock`] at once if a callback of this proxy calls it.
    pub fn wait(&self) -> Result<Stats, RunError> {
        if self.0.id.is_entered() {
            return Err(RunError::WouldDeadlock);
        }
        self.0.ending.wait().map(|()| self.stats())
    }

    /// Waits until the proxy has ended, in a task of any runtime, and returns its final statistics.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub async fn closed(&self) -> Result<Stats, RunError> {
        poll_fn(|context| self.0.ending.poll(context)).await.map(|()| self.stats())
    }

    /// [Stops](Self::stop) the proxy and [waits](Self::wait) for its end.
    ///
    /// # Errors
    /// As [`wait`](Self::wait). The proxy is stopped also if a callback calls this.
    pub fn close(&self) -> Result<Stats, RunError> {
        self.stop();
        self.wait()
    }

    /// A worker has ended: so do the others.
    pub(crate) fn worker_ended(&self, ended: Result<(), RunError>) {
        self.stop();
        if let Some(file) = &self.0.settings.taps.pcap {
            file.flush();
        }
        self.0.ending.report(ended);
    }

    /// The descriptor that is readable when the only worker has something to do.
    #[expect(clippy::indexing_slicing, reason = "there is one worker at least")]
    pub(crate) fn poller(&self) -> BorrowedFd<'_> {
        self.0.workers[0].poller()
    }

    pub(crate) fn workers(&self) -> &[Remote] {
        &self.0.workers
    }

    /// Checks a configuration, and gives a path the addresses that it has not.
    pub(crate) fn checked(&self, mut config: PathConfig) -> Result<PathConfig, AttachError> {
        config.check()?;
        let Settings { gateway_v4, gateway_v6, .. } = self.0.settings;
        if let Some(IpAddr::V4(gateway)) = gateway_v4 {
            config.gateway_v4.get_or_insert(gateway);
        }
        if let Some(IpAddr::V6(gateway)) = gateway_v6 {
            config.gateway_v6.get_or_insert(gateway);
        }
        Ok(config)
    }

    fn new_attachment(&self, config: &PathConfig) -> Attachment {
        // Relaxed: each number only has to be a new one.
        let id = IngressId(self.0.next_ingress.fetch_add(1, Ordering::Relaxed));
        Attachment::new(self.clone(), id, config)
    }

    fn add_path(
        &self,
        attachment: &Attachment,
        worker: &Remote,
        config: PathConfig,
        ingress: impl Ingress,
    ) -> Result<(), AttachError> {
        let halves = split(ingress, &self.0.settings.taps)?;
        worker.attach(attachment.id(), config, halves, None).map(drop)
    }

    /// The worker of a domain, or of an ingress whose paths have their own. Flows that move from path to path stay with it.
    fn worker_of(&self, attachment: &Attachment, config: &PathConfig) -> Result<&Remote, Closed> {
        let (workers, number) = (&self.0.workers, config.domain.map_or(attachment.id().0, |domain| domain.0));
        workers.get(number as usize % workers.len()).ok_or(Closed)
    }
}
