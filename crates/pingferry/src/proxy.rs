use std::io;
use std::iter::Sum;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use pingferry_proto::{Class, Counters, Family, PathConfig, Policy};
use pingferry_sys::ping::PingSocket;
use pingferry_sys::preflight::default_source_address;
use pingferry_sys::tun::Tun;
use tracing::warn;

use crate::driver::wake::Wake;
use crate::driver::{Command, Worker};
use crate::ingress::Ingress;
use crate::ingress::channel::{self, Path};
use crate::ingress::tun::TunIngress;
use crate::ingress::unix::UnixIngress;
use crate::{Closed, Config, OpenError, RunError};

/// A proxy that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    workers: Vec<JoinHandle<Result<Stats, RunError>>>,
    control: Control,
    /// For how long after each packet a thread for each TUN queue is near.
    near: Duration,
    gateway_v4: Option<IpAddr>,
    gateway_v6: Option<IpAddr>,
}

/// Stops a proxy or changes its policy, from any thread, for example one that handles signals.
#[derive(Clone, Debug)]
pub struct Control(Arc<[Line]>);

/// The way to a worker's ear.
#[derive(Debug)]
struct Line {
    commands: Sender<Command>,
    wake: Arc<Wake>,
}

/// What a proxy did and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What became of all packets.
    pub counters: Counters,
    /// Flows that are alive.
    pub flows: usize,
    /// Sockets that are open.
    pub sockets: usize,
    /// Answers that the kernel dropped because a socket's receive buffer was full (`SK_MEMINFO_DROPS`).
    pub receive_overflows: u64,
}

impl Proxy {
    /// Proves that ping sockets can be opened and starts the worker, which lives in the caller's network namespace.
    ///
    /// If only one family works, the proxy works with that one and says so once, as a `tracing` warning; requests of the
    /// other are answered with Destination Unreachable.
    ///
    /// # Errors
    /// Neither family works, or the worker could not be started.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let test = |family| {
            let class = Class { family, dont_fragment: false, dedicated: false };
            PingSocket::open(&config.socket_options(class))
        };
        match (test(Family::V4), test(Family::V6)) {
            (Ok(_), Ok(_)) => {}
            (Ok(_), Err(error)) => warn!("only IPv4 is served: {error}"),
            (Err(error), Ok(_)) => warn!("only IPv6 is served: {error}"),
            (Err(v4), Err(v6)) => return Err(OpenError::NoPing { v4, v6 }),
        }
        let gateway = |family| config.source(family).or_else(|| default_source_address(family).ok());
        let (gateway_v4, gateway_v6) = (gateway(Family::V4), gateway(Family::V6));

        let made: io::Result<Vec<(Line, Worker)>> = (0..config.workers.max(1)).map(|_| make_worker(&config)).collect();
        let (lines, workers): (Vec<Line>, Vec<Worker>) = made?.into_iter().unzip();
        let control = Control(lines.into());
        let start = |(number, worker): (usize, Worker)| {
            let (stop_all, config) = (StopAll(control.clone()), config.clone());
            Builder::new().name(format!("pingferry-{number}")).spawn(move || {
                let _stop_all = stop_all;
                worker.run(&config)
            })
        };
        let workers: io::Result<Vec<_>> = workers.into_iter().enumerate().map(start).collect();
        let near = if config.hands() > 1 { config.busy_poll_length() } else { Duration::ZERO };
        Ok(Self { workers: workers?, control, near, gateway_v4, gateway_v6 })
    }

    /// Attaches a path of the embedding program. Packets for its clients are handed to `back`, which the proxy's threads call,
    /// one at a time, and which must not block. If it panics it is not called again, and what is for its clients is dropped
    /// and counted.
    ///
    /// Without a gateway address in `config`, pingferry's own ICMP errors come from the address it would ping from.
    ///
    /// # Errors
    /// The proxy has ended, or there is no descriptor for the path.
    pub fn attach(&self, config: PathConfig, back: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Path> {
        let (path, ingress) = channel::channel(back)?;
        self.attach_ingress(self.line_of(&config)?, config, Box::new(ingress))?;
        Ok(path)
    }

    /// Attaches a TUN device by its queues, of which each worker gets its share. The proxy ends when the device is deleted.
    /// Where a processor is to spare for each worker, a thread is near that wakes clients sooner while the worker looks for
    /// packets.
    ///
    /// # Errors
    /// The proxy has ended, or the kernel cannot watch the device.
    pub fn attach_tun(&self, config: PathConfig, queues: impl IntoIterator<Item = Tun>) -> io::Result<()> {
        let lines = self.control.0.iter().cycle();
        queues.into_iter().zip(lines).try_for_each(|(queue, line)| {
            let ingress = TunIngress::new(queue, self.near);
            self.attach_ingress(line, config.clone(), Box::new(ingress))
        })
    }

    /// Attaches a Unix socket; each of its connections is a path with this configuration, and one worker serves them all.
    ///
    /// # Errors
    /// The proxy has ended, or the kernel cannot watch the socket.
    pub fn attach_unix(&self, config: PathConfig, listener: UnixIngress) -> io::Result<()> {
        let (line, config) = (self.line_of(&config)?, self.with_gateways(config));
        line.ask(|done| Command::Listen { config, listener, done })?
    }

    /// What the proxy did so far.
    ///
    /// # Errors
    /// The proxy has ended.
    pub fn stats(&self) -> Result<Stats, Closed> {
        self.control.0.iter().map(|line| line.ask(Command::Stats)).sum()
    }

    /// What stops this proxy and changes its policy while someone [waits](Self::wait) for it.
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

    fn attach_ingress(&self, line: &Line, config: PathConfig, ingress: Box<dyn Ingress>) -> io::Result<()> {
        let config = self.with_gateways(config);
        line.ask(|done| Command::Attach { config, ingress, done })?
    }

    /// The worker of a domain. Flows that move from path to path must not leave it.
    fn line_of(&self, config: &PathConfig) -> Result<&Line, Closed> {
        let lines = &self.control.0;
        lines.get(config.domain.0 as usize % lines.len()).ok_or(Closed)
    }

    fn with_gateways(&self, mut config: PathConfig) -> PathConfig {
        if let Some(IpAddr::V4(gateway)) = self.gateway_v4 {
            config.gateway_v4.get_or_insert(gateway);
        }
        if let Some(IpAddr::V6(gateway)) = self.gateway_v6 {
            config.gateway_v6.get_or_insert(gateway);
        }
        config
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.stop();
        // Why they ended was for `wait` to say; a panic was printed when it happened.
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

impl Control {
    /// Changes who may ping what. When this returns, every worker follows the new policy; flows stay.
    ///
    /// # Errors
    /// The proxy has ended.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Closed> {
        self.0.iter().try_for_each(|line| line.ask(|done| Command::SetPolicy { policy: policy.clone(), done }))
    }

    /// Stops the proxy, whose [`wait`](Proxy::wait) then returns. Does nothing if it has ended.
    pub fn stop(&self) {
        for line in self.0.iter() {
            // One that has ended need not be stopped.
            let _ = line.command(Command::Stop);
        }
    }
}

impl Line {
    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, Closed> {
        let (done, answer) = sync_channel(1);
        self.command(command(done))?;
        answer.recv().map_err(|_| Closed)
    }

    fn command(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).map_err(|_| Closed)?;
        self.wake.wake();
        Ok(())
    }
}

/// Held by each worker: however one ends, the others end too.
struct StopAll(Control);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn make_worker(config: &Config) -> io::Result<(Line, Worker)> {
    let (sender, receiver) = channel();
    let wake = Arc::new(Wake::new()?);
    let worker = Worker::new(config.clone(), receiver, Arc::clone(&wake))?;
    Ok((Line { commands: sender, wake }, worker))
}

impl Sum for Stats {
    fn sum<I: Iterator<Item = Stats>>(stats: I) -> Stats {
        stats.fold(Stats::default(), |mut sum, stats| {
            sum.counters += &stats.counters;
            sum.flows += stats.flows;
            sum.sockets += stats.sockets;
            sum.receive_overflows += stats.receive_overflows;
            sum
        })
    }
}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        io::Error::new(io::ErrorKind::NotConnected, closed)
    }
}
