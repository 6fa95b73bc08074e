//! The edge as a whole: its tasks, and how other threads control it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, mpsc as blocking};
use std::time::{Duration, Instant};

use pingferry::trace::otlp::ExportTraceServiceRequest;
use pingferry_sys::tun::Tun;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::admission::Decision;
use super::connection;
use super::core::Core;
use super::counters::Counters;
use super::local_error::LocalErrors;
use super::router::Router;
use super::shared::Shared;
use super::status::EdgeStatus;
use super::traces::Tracer;
use super::tunnels::Tunnels;

/// The packets that are read from the device before other tasks run.
const BATCH: usize = 64;
/// A connection that was not heard for so long gets no new packets. Each end asks for a sign of life every second at least, the
/// edge more often.
const UNHEARD: Duration = Duration::from_millis(1400);
/// How often is looked who was heard. A cut is noticed when it is at most `UNHEARD` and two such intervals old, in 1.5 s.
const TICK: Duration = Duration::from_millis(50);
/// How long connectors may take to notice that the edge stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What an edge is made of.
#[derive(Debug)]
pub struct EdgeConfig {
    /// The device whose requests go to connectors.
    pub tun: Tun,
    /// The device's addresses, which sign the ICMP errors of the edge. Without one it sends none of that family.
    pub gateway: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Where connectors dial.
    pub sockets: Vec<std::net::UdpSocket>,
    /// The certificate, and how QUIC is spoken.
    pub quic: ServerConfig,
    /// Who may connect.
    pub tunnels: Tunnels,
    /// The share of packets that are traced, from 0 to 1, and where the spans go. `None` traces nothing. Spans that find no room
    /// are lost and counted.
    pub traces: Option<(f64, blocking::SyncSender<ExportTraceServiceRequest>)>,
}

/// An edge that is ready to run.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// Controls a running edge from any thread.
#[derive(Clone, Debug)]
pub struct EdgeControl(mpsc::UnboundedSender<Command>);

#[derive(Debug)]
enum Command {
    Stop,
    Reload(Tunnels, Box<ServerConfig>),
    Report(blocking::SyncSender<EdgeStatus>),
}

impl EdgeControl {
    /// Ends the edge.
    pub fn stop(&self) {
        // It has ended already if nobody receives.
        let _ = self.0.send(Command::Stop);
    }

    /// Takes over other tunnels and another certificate. Connectors whose tunnel or secret is gone are disconnected, the others
    /// stay.
    pub fn reload(&self, tunnels: Tunnels, quic: ServerConfig) {
        let _ = self.0.send(Command::Reload(tunnels, Box::new(quic)));
    }

    /// The counters now. `None` when the edge has ended.
    pub fn counters(&self) -> Option<Counters> {
        self.status_within(Duration::MAX).map(|status| status.counters)
    }

    /// The edge now. `None` when it has ended or does not respond within `patience`.
    pub fn status_within(&self, patience: Duration) -> Option<EdgeStatus> {
        let (sender, receiver) = blocking::sync_channel(1);
        self.0.send(Command::Report(sender)).ok()?;
        receiver.recv_timeout(patience).ok()
    }
}

impl Edge {
    /// An edge that does nothing yet.
    pub fn new(config: EdgeConfig) -> (Self, EdgeControl) {
        let (sender, commands) = mpsc::unbounded_channel();
        (Self { config, commands }, EdgeControl(sender))
    }

    /// Serves until it is [stopped](EdgeControl::stop). Everything runs on the calling thread. Returns the counters.
    ///
    /// # Errors
    /// The device is gone, or the kernel refuses what every edge needs.
    pub fn run(self) -> io::Result<Counters> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(mut self) -> io::Result<Counters> {
        let EdgeConfig { tun, gateway: (v4, v6), sockets, quic, tunnels, traces } = self.config;
        let core = Core::new(Instant::now(), Router::new(&tunnels), LocalErrors::new(v4, v6));
        let (ratio, spans) = traces.map_or((0.0, None), |(ratio, spans)| (ratio, Some(spans)));
        let shared = Rc::new(Shared::new(tun, tunnels, core, Tracer::new(ratio), spans));
        let endpoints: io::Result<Vec<Endpoint>> =
            sockets.into_iter().map(|socket| endpoint(quic.clone(), socket)).collect();
        let endpoints = endpoints?;
        for endpoint in &endpoints {
            spawn_local(accept(Rc::clone(&shared), endpoint.clone()));
        }
        spawn_local(watch(Rc::clone(&shared)));
        let ended = tokio::select! {
            gone = read_device(&shared) => gone,
            () = obey(&mut self.commands, &shared, &endpoints) => Ok(()),
        };
        for endpoint in &endpoints {
            endpoint.close(0u8.into(), b"the edge stops");
            let _ = tokio::time::timeout(CLOSE_WITHIN, endpoint.wait_idle()).await;
        }
        ended.map(|()| shared.counters())
    }
}

fn endpoint(quic: ServerConfig, socket: std::net::UdpSocket) -> io::Result<Endpoint> {
    Endpoint::new(EndpointConfig::default(), Some(quic), socket, Arc::new(TokioRuntime))
}

/// Carries out commands until one ends the edge.
async fn obey(commands: &mut mpsc::UnboundedReceiver<Command>, shared: &Shared, endpoints: &[Endpoint]) {
    // All senders are gone only if nobody wants to stop it any more.
    while let Some(command) = commands.recv().await {
        match command {
            Command::Stop => return,
            Command::Reload(tunnels, quic) => {
                endpoints.iter().for_each(|endpoint| endpoint.set_server_config(Some((*quic).clone())));
                shared.reload(tunnels);
                info!("reloaded the tunnels and the certificate");
            }
            Command::Report(status) => _ = status.try_send(shared.status()),
        }
    }
    std::future::pending::<()>().await;
}

/// Takes connections.
async fn accept(shared: Rc<Shared>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let (address, is_validated) = (incoming.remote_address().ip(), incoming.remote_address_validated());
        let decision = shared.admission.borrow_mut().dialled(Instant::now(), address, is_validated);
        shared.count(|counters| match decision {
            Decision::Accept => counters.dials += 1,
            Decision::Retry => counters.retries += 1,
            Decision::Ignore => counters.dials_ignored += 1,
        });
        match decision {
            Decision::Accept => _ = spawn_local(connection::serve(Rc::clone(&shared), incoming)),
            // It fails only after a Retry, when the address is validated.
            Decision::Retry => _ = incoming.retry(),
            Decision::Ignore => incoming.ignore(),
        }
    }
}

/// Takes connections that are not heard any more out of the router, and those that are heard again back.
async fn watch(shared: Rc<Shared>) {
    let mut heard = HashMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let connections = shared.connections();
        let open: HashSet<_> = connections.iter().map(|live| live.id).collect();
        heard.retain(|id, _| open.contains(id));
        for live in connections {
            let received = live.quic.stats().udp_rx.datagrams;
            let (last, at) = heard.entry(live.id).or_insert((received, now));
            if *last != received {
                (*last, *at) = (received, now);
            }
            let is_heard = now.saturating_duration_since(*at) < UNHEARD;
            if live.is_heard.replace(is_heard) != is_heard {
                debug!(is_heard, "connection from {}", live.quic.remote_address());
                shared.route(&live);
            }
        }
    }
}

/// A descriptor of the device to wait for.
struct Readable<'a>(&'a Tun);

impl AsRawFd for Readable<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Reads the device until it is gone.
async fn read_device(shared: &Shared) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; the device stays open for as long as it is borrowed here"
    )]
    let device = AsyncFd::new(Readable(&shared.tun))?;
    let mut buffer = vec![0; pingferry_proto::wire::MAX_PACKET];
    loop {
        let mut ready = device.readable().await?;
        let now = Instant::now();
        for _ in 0..BATCH {
            match shared.tun.receive(&mut buffer) {
                Ok(len) => shared.handle_request(now, buffer.get(..len).unwrap_or_default()),
                Err(error) if Tun::is_gone(&error) => return Err(error),
                // No packet waits, or the device is down.
                Err(_) => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        // The connections send what they got.
        yield_now().await;
    }
}
