//! A proxy: its workers, and the ingresses that are attached to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use pingferry_proto::{Class, DomainId, Family, PathConfig};
use pingferry_sys::ping::PingSocket;
use pingferry_sys::preflight::default_source_address;
use pingferry_sys::tun::Tun;
use tracing::warn;

use crate::config::Config;
use crate::driver::{Command, Mailbox, Worker};
use crate::error::{Closed, OpenError, RunError};
use crate::handle::{Attachment, Control, Gateways, Path};
use crate::ingress::channel;
use crate::ingress::{Ingress, PcapFile, TunIngress, UnixIngress, split};
use crate::stats::{IngressId, Published, Stats};
use crate::waker::Waker;

/// A running proxy. It stops when it is dropped.
///
/// It lives in the network namespace of the thread that opens it. Where no ping socket can be opened, it says so:
///
/// ```
/// use pingferry::{Config, OpenError, Proxy};
///
/// match Proxy::open(Config::default()) {
///     Ok(proxy) => assert_eq!(proxy.close()?.counters.packets, 0),
///     Err(OpenError::NoPing { v4, v6 }) => println!("not permitted here: {v4}; {v6}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    workers: Vec<JoinHandle<Result<Stats, RunError>>>,
    control: Control,
    /// For how long after each packet the idle writer of each TUN queue looks for the next one; zero for none.
    idle_writer: Duration,
    gateways: Gateways,
    pcap: Option<PcapFile>,
    next_ingress: AtomicU32,
}

impl Proxy {
    /// Checks that ping sockets can be opened and starts the workers, which live in the caller's network namespace.
    ///
    /// If only one family works, the proxy serves that one and says so once, as a `tracing` warning. Requests of the other
    /// are answered with Destination Unreachable.
    ///
    /// # Errors
    /// A duration is out of its range, a source address cannot be used, neither family works, or a worker could not be
    /// started.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        check_families(&config)?;
        let gateway = |family| config.source(family).or_else(|| default_source_address(family).ok());
        let gateways = Gateways { v4: gateway(Family::V4), v6: gateway(Family::V6) };
        let (each, count) = (config.clone().of_each_worker(), config.workers.max(1));
        let made: io::Result<Vec<(Mailbox, Worker)>> = (0..count).map(|_| make_worker(&each)).collect();
        let (mailboxes, workers): (Vec<Mailbox>, Vec<Worker>) = made?.into_iter().unzip();
        let control = Control(mailboxes.into());
        let start = |(number, worker): (usize, Worker)| {
            let stop_all = StopAll(control.clone());
            Builder::new().name(format!("pingferry-{number}")).spawn(move || {
                let _stop_all = stop_all;
                worker.run()
            })
        };
        let workers: io::Result<Vec<_>> = workers.into_iter().enumerate().map(start).collect();
        let idle_writer = if config.has_helpers() { config.busy_poll_length() } else { Duration::ZERO };
        let next_ingress = AtomicU32::new(0);
        Ok(Self { workers: workers?, control, idle_writer, gateways, pcap: config.pcap, next_ingress })
    }

    /// Attaches a path of the embedding program. The proxy's threads call `callback` with each packet for its clients, one at a
    /// time. It must not block. If it panics it is not called again, and packets for its clients are counted as not delivered.
    ///
    /// Without a gateway address in `config`, pingferry's own ICMP errors come from the address it would ping from.
    ///
    /// # Errors
    /// The proxy has ended, or there is no descriptor for the path.
    pub fn attach(&self, config: PathConfig, callback: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Path> {
        let (sender, ingress) = channel::channel(callback)?;
        let attachment = self.attach_ingress(config, ingress)?;
        Ok(Path { sender, attachment })
    }

    /// Attaches an ingress of one path.
    ///
    /// # Errors
    /// The proxy has ended, the ingress could not be taken apart, or the kernel cannot watch its descriptor.
    pub fn attach_ingress(&self, config: PathConfig, ingress: impl Ingress) -> io::Result<Attachment> {
        let attachment = self.new_attachment();
        self.add_path(&attachment, self.mailbox_of(&attachment, &config)?, config, ingress)?;
        Ok(attachment)
    }

    /// Attaches a TUN device by its queues, of which each worker gets its share. The proxy ends when the device is deleted.
    /// Where each worker may use a second processor, a thread of idle priority shortens round trips while the worker
    /// busy-polls.
    ///
    /// # Errors
    /// As [`attach_ingress`](Self::attach_ingress).
    pub fn attach_tun(&self, mut config: PathConfig, queues: impl IntoIterator<Item = Tun>) -> io::Result<Attachment> {
        let attachment = self.new_attachment();
        // The kernel moves flows from queue to queue, so these share a domain: the last reserved number or one before it.
        config.domain.get_or_insert(DomainId(u32::MAX - attachment.id.0));
        let mailboxes = self.control.0.iter().cycle();
        queues.into_iter().zip(mailboxes).try_for_each(|(queue, mailbox)| {
            let ingress = TunIngress::new(queue).with_idle_writer(self.idle_writer);
            self.add_path(&attachment, mailbox, config.clone(), ingress)
        })?;
        Ok(attachment)
    }

    /// Attaches a listening Unix socket. Each of its connections is a path with this configuration. Without a domain in it, each
    /// has a domain of its own: no client can take over flows of another one and receive their replies. With a domain, a client
    /// that connects again goes on with its flows. One worker serves them all.
    ///
    /// # Errors
    /// The proxy has ended, or the kernel cannot watch the socket.
    pub fn attach_unix(&self, config: PathConfig, listener: UnixIngress) -> io::Result<Attachment> {
        let attachment = self.new_attachment();
        let listener = listener.with_pcap(self.pcap.clone());
        let (mailbox, config) = (self.mailbox_of(&attachment, &config)?, self.gateways.fill(config));
        mailbox.call(|done| Command::Listen { ingress: attachment.id, config, listener, done })??;
        Ok(attachment)
    }

    /// What the proxy did so far. The packet path neither waits for this nor is waited for.
    ///
    /// What a client has received a reply to is in it.
    pub fn stats(&self) -> Stats {
        self.control.stats()
    }

    /// A handle that stops this proxy and changes its policy while a thread [waits](Self::wait) for it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits until the proxy is stopped or ends by itself.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn wait(mut self) -> Result<Stats, RunError> {
        let ended: Vec<_> = self.workers.drain(..).map(JoinHandle::join).collect();
        ended.into_iter().map(|ended| ended.unwrap_or(Err(RunError::Panicked))).sum()
    }

    /// Stops the proxy: closes all sockets and paths.
    ///
    /// # Errors
    /// Why it had ended by itself before.
    pub fn close(self) -> Result<Stats, RunError> {
        self.control.stop();
        self.wait()
    }

    fn new_attachment(&self) -> Attachment {
        // Relaxed: each number only has to be a new one.
        let id = IngressId(self.next_ingress.fetch_add(1, Ordering::Relaxed));
        Attachment { control: self.control.clone(), id, gateways: self.gateways }
    }

    fn add_path(
        &self,
        attachment: &Attachment,
        mailbox: &Mailbox,
        config: PathConfig,
        ingress: impl Ingress,
    ) -> io::Result<()> {
        let halves = split(ingress, self.pcap.as_ref())?;
        let (ingress, config) = (attachment.id, self.gateways.fill(config));
        mailbox.call(|done| Command::Attach { ingress, config, halves, done })?
    }

    /// The worker of a domain, or of an ingress whose paths have their own. Flows that move from path to path stay with it.
    fn mailbox_of(&self, attachment: &Attachment, config: &PathConfig) -> Result<&Mailbox, Closed> {
        let (mailboxes, number) = (&self.control.0, config.domain.map_or(attachment.id.0, |domain| domain.0));
        mailboxes.get(number as usize % mailboxes.len()).ok_or(Closed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.stop();
        // Why they ended was for `wait` to return. A panic was printed when it happened.
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

/// Each worker holds one: when one ends, however it does, the others end too.
struct StopAll(Control);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn check_families(config: &Config) -> Result<(), OpenError> {
    let check = |family| {
        let class = Class { family, dont_fragment: false, dedicated: false };
        match (PingSocket::open(&config.socket_options(class)), config.source(family)) {
            (Err(source), Some(address)) if source.kind() != io::ErrorKind::PermissionDenied => {
                Err(OpenError::Source { address, source })
            }
            (opened, _) => Ok(opened),
        }
    };
    match (check(Family::V4)?, check(Family::V6)?) {
        (Ok(_), Ok(_)) => {}
        (Ok(_), Err(error)) => warn!("only IPv4 is served: {error}"),
        (Err(error), Ok(_)) => warn!("only IPv6 is served: {error}"),
        (Err(v4), Err(v6)) => return Err(OpenError::NoPing { v4, v6 }),
    }
    Ok(())
}

fn make_worker(config: &Config) -> io::Result<(Mailbox, Worker)> {
    let (commands, receiver) = channel();
    let mailbox = Mailbox { commands, waker: Arc::new(Waker::new()?), published: Arc::new(Published::default()) };
    let worker = Worker::new(config, receiver, &mailbox)?;
    Ok((mailbox, worker))
}
