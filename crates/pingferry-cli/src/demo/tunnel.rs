//! `pingferry demo --tunnel`: pings through an edge and a connector.
//!
//! ```text
//! client ── TUN ── edge ══ two links, QUIC ══ connector ── veth ── router ── veth, MTU 1400 ── far host
//! ```
//!
//! The edge is in the namespace of the client. The connector is in that of the proxy, and dials the edge over each link. At the
//! end the links are cut one after the other, silently, under a running ping.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pingferry::{Config, Proxy};
use pingferry_sys::namespace::unshare_as_root;
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::{Host, link};
use pingferry_tunnel::connector::{Connector, ConnectorConfig};
use pingferry_tunnel::edge::{Edge, EdgeConfig, EdgeControl, EdgeFiles, Tunnels};
use pingferry_tunnel::transport::{bind, load_certificates, load_key, load_roots, server_config};
use pingferry_tunnel::wire::Token;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::client::{Pinger, Response};
use super::network::{self, Network};
use super::{HOP_LIMIT, PAYLOAD, Tally, cannot_ping, ping_all, ping_big, trace};
use crate::error::{CliError, RUNTIME};
use crate::{output, proxy};

/// The links between edge and connector: their names, and the addresses of the edge and of the connector.
const LINKS: [(&str, &str, &str); 2] =
    [("wan1", "198.18.1.1/24", "198.18.1.2/24"), ("wan2", "198.18.2.1/24", "198.18.2.2/24")];
const PORT: u16 = 7844;
/// Larger than a datagram can be, so that path MTU discovery has something to find.
const TUN_MTU: u32 = 1500;

/// How often the running ping asks.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many requests it sends before a cut, while the link is cut, and after that. A cut is shorter than the time after which
/// QUIC itself notices it.
const REQUESTS: [usize; 3] = [10, 40, 10];

pub(super) fn demo() -> Result<ExitCode, CliError> {
    let failed = |what: &'static str| move |error: io::Error| CliError::from_io(what, &error);
    unshare_as_root().map_err(failed("cannot create a network"))?;
    let network = Network::build().map_err(failed("cannot build the network"))?;
    add_links(&network).map_err(failed("cannot build the network"))?;
    output::print("client -- TUN -- edge == QUIC == connector -- router -- MTU 1400 -- far host\n")?;

    let files = Files::create()?;
    let edge = RunningEdge::start(&network.client, &files)?;
    let connector = RunningConnector::start(&network.proxy, &files)?;
    let tally =
        network.client.run(|| probe(&network)).map_err(failed("cannot enter the namespace of the client"))??;
    connector.stop()?;
    edge.stop()?;

    let Tally { sent, expected } = tally;
    output::print(&format!("\n{sent} probes sent, {expected} with the expected response\n"))?;
    Ok(if sent == expected { ExitCode::SUCCESS } else { ExitCode::from(RUNTIME) })
}

fn add_links(network: &Network) -> io::Result<()> {
    LINKS.iter().try_for_each(|(name, edge, connector)| {
        link(&network.client, name, &[net(edge)], &network.proxy, name, &[net(connector)], None)
    })
}

/// What the connector serves.
fn served() -> Vec<IpNet> {
    network::networks().into_iter().map(|network| network.trunc()).collect()
}

fn edge_addresses() -> Vec<SocketAddr> {
    LINKS.iter().map(|(_, edge, _)| SocketAddr::new(net(edge).addr(), PORT)).collect()
}

/// Constants of this file are addresses.
fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_default()
}

fn probe(network: &Network) -> Result<Tally, CliError> {
    let mut tally = Tally::default();
    wait_for_the_connector()?;
    ping_all(&mut tally)?;
    for host in network::far() {
        trace(host, &mut tally)?;
        discover_mtu(host, &mut tally)?;
        ping_big(host, &mut tally)?;
    }
    let [host, _] = network::far();
    for (link, ..) in LINKS {
        cut(network, link, host, &mut tally)?;
    }
    Ok(tally)
}

fn wait_for_the_connector() -> Result<(), CliError> {
    let [host, _] = network::far();
    let mut pinger = Pinger::new(host, false).map_err(cannot_ping)?;
    let answered = (0..100).any(|_| {
        let response = pinger.ping_within(INTERVAL, HOP_LIMIT, PAYLOAD);
        matches!(response, Ok(Some(Response::Reply { .. })))
    });
    if answered { Ok(()) } else { Err(CliError::runtime("the connector did not register")) }
}

/// Asks with ever smaller packets until one reaches the host, as path MTU discovery does (RFC 1191, RFC 8201).
fn discover_mtu(host: IpAddr, tally: &mut Tally) -> Result<(), CliError> {
    output::print(&format!("\ndiscover the path MTU to {host} from {TUN_MTU} bytes on\n"))?;
    let headers = if host.is_ipv4() { 28 } else { 48 };
    let mut pinger = Pinger::new(host, true).map_err(cannot_ping)?;
    let mut mtu = TUN_MTU;
    loop {
        let response = pinger.ping(HOP_LIMIT, mtu as usize - headers);
        let smaller = match &response {
            Ok(Some(Response::TooBig { mtu: next, .. })) if *next < mtu && *next as usize > headers => Some(*next),
            _ => None,
        };
        tally.add(response, |response| smaller.is_some() || matches!(response, Response::Reply { .. }))?;
        match smaller {
            Some(next) => mtu = next,
            None => return Ok(()),
        }
    }
}

/// Pings while a link is cut, and shows what happens: a dot for an answer, a cross for none. Expected is that answers come again
/// before the link is restored.
fn cut(network: &Network, link: &str, host: IpAddr, tally: &mut Tally) -> Result<(), CliError> {
    output::print(&format!("\ncut {link} under a running ping to {host}, a request each {INTERVAL:?}\n  "))?;
    let mut pinger = Pinger::new(host, false).map_err(cannot_ping)?;
    let [before, during, after] = REQUESTS;
    ping_on(&mut pinger, before)?;
    set_link(network, link, false)?;
    let (lost, recovered) = ping_on(&mut pinger, during)?;
    set_link(network, link, true)?;
    ping_on(&mut pinger, after)?;
    tally.sent += 1;
    tally.expected += usize::from(recovered);
    output::print(&format!("\n  {lost} requests lost by the cut\n"))
}

/// Sends so many requests. Returns how many were lost, and whether the last one was answered.
fn ping_on(pinger: &mut Pinger, requests: usize) -> Result<(usize, bool), CliError> {
    let (mut lost, mut last) = (0, true);
    for _ in 0..requests {
        let start = Instant::now();
        let response = pinger.ping_within(INTERVAL, HOP_LIMIT, PAYLOAD).map_err(cannot_ping)?;
        last = matches!(response, Some(Response::Reply { .. }));
        lost += usize::from(!last);
        output::print(if last { "." } else { "x" })?;
        thread::sleep(INTERVAL.saturating_sub(start.elapsed()));
    }
    Ok((lost, last))
}

/// Cuts or restores a link at the connector's end: the edge only hears nothing more.
fn set_link(network: &Network, link: &str, up: bool) -> Result<(), CliError> {
    let text = if up { "[restored]" } else { "[cut]" };
    output::print(text)?;
    let set = network.proxy.with_netlink(|netlink| {
        let index = netlink.index(link)?;
        if up { netlink.set_up(index) } else { netlink.set_down(index) }
    });
    set.map_err(|error| CliError::runtime(format!("cannot change {link}: {error}")))
}

/// The files of the edge, in a temporary folder that is removed with this.
struct Files {
    folder: PathBuf,
    files: EdgeFiles,
}

impl Files {
    fn create() -> Result<Self, CliError> {
        let folder = std::env::temp_dir().join(format!("pingferry-demo-{}", std::process::id()));
        let names: Vec<String> = edge_addresses().iter().map(|address| address.ip().to_string()).collect();
        let files = EdgeFiles::create(&folder, &names, &served()).map_err(runtime)?;
        Ok(Self { folder, files })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It fails only if somebody else removed it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn runtime(error: impl std::fmt::Display) -> CliError {
    CliError::runtime(error.to_string())
}

struct RunningEdge {
    control: EdgeControl,
    thread: JoinHandle<io::Result<pingferry_tunnel::edge::Counters>>,
}

impl RunningEdge {
    fn start(host: &Host, Files { files, .. }: &Files) -> Result<Self, CliError> {
        let chain = load_certificates(&files.certificate).map_err(runtime)?;
        let quic = server_config(chain, load_key(&files.key).map_err(runtime)?).map_err(runtime)?;
        let tunnels = Tunnels::read(&files.tunnels).map_err(runtime)?;
        let addresses = network::client_addresses();
        let [Some(IpAddr::V4(v4)), Some(IpAddr::V6(v6))] = addresses.map(|address| Some(address.addr())) else {
            return Err(CliError::runtime("the addresses of the client are of the wrong families"));
        };
        let device = TunConfig::new("pf0")
            .with_addresses(addresses.into())
            .with_routes(served())
            .with_mtu(Some(TUN_MTU))
            .with_queue_length(Some(10_000));
        let opened = host.run(|| {
            let (tun, ..) = device.open()?;
            tun.accept_own_addresses()?;
            let sockets: io::Result<Vec<_>> =
                edge_addresses().into_iter().map(|address| Ok(bind(address)?.0)).collect();
            let config =
                EdgeConfig { tun, gateway: (Some(v4), Some(v6)), sockets: sockets?, quic, tunnels, traces: None };
            let (edge, control) = Edge::new(config);
            let thread = thread::Builder::new().name("edge".into()).spawn(|| edge.run())?;
            io::Result::Ok(Self { control, thread })
        });
        opened.and_then(|opened| opened).map_err(|error| CliError::from_io("cannot start the edge", &error))
    }

    fn stop(self) -> Result<(), CliError> {
        self.control.stop();
        let ended = self.thread.join().map_err(|_| CliError::runtime("the edge panicked"))?;
        ended.map(drop).map_err(|error| CliError::runtime(format!("the edge ended: {error}")))
    }
}

struct RunningConnector {
    stop: watch::Sender<bool>,
    proxy: Arc<Proxy>,
    thread: JoinHandle<Result<(), CliError>>,
}

impl RunningConnector {
    fn start(host: &Host, Files { files, .. }: &Files) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(&files.token).map_err(runtime)?;
        let token: Token = text.parse().map_err(runtime)?;
        let roots = load_roots(Some(&files.ca)).map_err(runtime)?;
        let mut config = ConnectorConfig::new(token, edge_addresses(), served(), roots);
        config.connections = Some(1);
        config.grace_period = Duration::ZERO;
        let (stop, stopped) = watch::channel(false);
        let start = || {
            let proxy = Arc::new(proxy::open(Config::default())?);
            let of_thread = Arc::clone(&proxy);
            let run = move || {
                let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(self::runtime)?;
                runtime.block_on(async {
                    let connector = Connector::open(config).map_err(self::runtime)?;
                    connector.run(of_thread, stopped).await.map_err(self::runtime)
                })
            };
            let thread = thread::Builder::new().name("connector".into()).spawn(run).map_err(self::runtime)?;
            Ok((proxy, thread))
        };
        let started: Result<_, CliError> = host.run(start).map_err(runtime)?;
        let (proxy, thread) = started?;
        Ok(Self { stop, proxy, thread })
    }

    fn stop(self) -> Result<(), CliError> {
        // It has ended already if nobody receives.
        let _ = self.stop.send(true);
        self.thread.join().map_err(|_| CliError::runtime("the connector panicked"))??;
        self.proxy.control().close()?;
        Ok(())
    }
}
