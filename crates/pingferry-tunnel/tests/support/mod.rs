//! An edge in the network namespace of a test, and connectors that the test plays itself.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use pingferry::trace::otlp::ExportTraceServiceRequest;
use pingferry_proto::wire::{IpHeader, IpPacket, echo_request, write_checksum};
use pingferry_sys::capture::Capture;
use pingferry_sys::netlink::Netlink;
use pingferry_sys::tun::TunConfig;
use pingferry_tunnel::control::{
    Answer, Client, ClientInfo, ConnectionDetails, ConnectionOptions, FEATURE_PREFIXES, Refusal, Registration,
    RpcStream,
};
use pingferry_tunnel::edge::{Counters, DropReason, Edge, EdgeConfig, EdgeControl, EdgeFiles, Tunnels};
use pingferry_tunnel::transport::{DEFAULT_SERVER_NAME, bind, client_config, load_certificates, load_key, load_roots};
use pingferry_tunnel::transport::{endpoint, server_config};
use pingferry_tunnel::wire::{Secret, Token};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tempfile::TempDir;
use uuid::Uuid;

/// The addresses of the device, which sign the errors of the edge.
pub const GATEWAY: &str = "198.51.100.1";
pub const GATEWAY_6: &str = "2001:db8:1::1";
/// What the tunnel is allowed, and what is routed to the device besides.
pub const ALLOWED: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];
const ROUTED: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "172.16.0.0/12"];

pub struct TestEdge {
    pub address: SocketAddr,
    pub control: EdgeControl,
    pub files: EdgeFiles,
    running: Option<JoinHandle<io::Result<Counters>>>,
    _folder: TempDir,
}

impl TestEdge {
    /// Starts an edge with a device `pf0` in this namespace, to which the prefixes are routed.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with traces.
    pub fn start_with(traces: Option<(f64, mpsc::SyncSender<ExportTraceServiceRequest>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let allowed = ALLOWED.map(|prefix| prefix.parse().unwrap());
        let files = EdgeFiles::create(folder.path(), &["127.0.0.1".into()], &allowed).unwrap();
        let device = TunConfig::new("pf0")
            .with_addresses(vec![format!("{GATEWAY}/24").parse().unwrap(), format!("{GATEWAY_6}/64").parse().unwrap()])
            .with_routes(ROUTED.iter().map(|prefix| prefix.parse().unwrap()).collect())
            .with_mtu(Some(1280))
            .with_queue_length(Some(10_000));
        let (tun, _, _) = device.open().unwrap();
        tun.accept_own_addresses().unwrap();
        let (socket, _) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let config = EdgeConfig {
            tun,
            gateway: (Some(GATEWAY.parse().unwrap()), Some(GATEWAY_6.parse().unwrap())),
            sockets: vec![socket],
            quic: quic(&files),
            tunnels: Tunnels::read(&files.tunnels).unwrap(),
            traces,
        };
        let (edge, control) = Edge::new(config);
        let running = Some(std::thread::spawn(|| edge.run()));
        Self { address, control, files, running, _folder: folder }
    }

    pub fn token(&self) -> Token {
        std::fs::read_to_string(&self.files.token).unwrap().parse().unwrap()
    }

    pub fn counters(&self) -> Counters {
        self.control.counters().unwrap()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().drops[reason]
    }

    /// Waits until the counters are as expected.
    pub fn wait(&self, what: &str, is: impl Fn(&Counters) -> bool) {
        let waited = pingferry_testnet::eventually(what, || Ok(is(&self.counters())));
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", self.counters()));
    }

    /// What its tunnels file says now counts.
    pub fn reload(&self) {
        self.control.reload(Tunnels::read(&self.files.tunnels).unwrap(), quic(&self.files));
    }

    /// Starts to capture what crosses the device.
    pub fn capture(&self) -> Capture {
        Capture::open(Netlink::open().unwrap().index("pf0").unwrap()).unwrap()
    }

    /// A registration for its tunnel.
    pub fn registration(&self, client: u128, index: u8) -> Registration {
        let token = self.token();
        let client = ClientInfo { id: Uuid::from_u128(client), version: "test".into(), ..ClientInfo::default() };
        Registration {
            account_tag: token.account_tag,
            secret: token.secret,
            tunnel_id: token.tunnel_id,
            connection_index: index,
            options: ConnectionOptions { client, ..ConnectionOptions::default() },
        }
    }

    pub fn stop(mut self) -> Counters {
        self.control.stop();
        self.running.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.control.stop();
    }
}

fn quic(files: &EdgeFiles) -> ServerConfig {
    server_config(load_certificates(&files.certificate).unwrap(), load_key(&files.key).unwrap()).unwrap()
}

type Control = RpcStream<Client, RecvStream, SendStream>;

/// A connector that does what the test says.
pub struct Connector {
    pub quic: Connection,
    pub control: Control,
    _endpoint: Endpoint,
}

/// Dials without registering.
pub async fn dial(edge: &TestEdge) -> (Endpoint, Connection) {
    let (client, _) = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let config = client_config(load_roots(Some(&edge.files.ca)).unwrap()).unwrap();
    let quic = client.connect_with(config, edge.address, DEFAULT_SERVER_NAME).unwrap().await.unwrap();
    (client, quic)
}

impl Connector {
    pub async fn dial(edge: &TestEdge) -> Self {
        let (endpoint, quic) = dial(edge).await;
        let (send, receive) = quic.open_bi().await.unwrap();
        Self { quic, control: RpcStream::new(Client::default(), receive, send), _endpoint: endpoint }
    }

    pub async fn register(&mut self, registration: &Registration) -> Result<ConnectionDetails, Refusal> {
        self.control.peer.register(registration);
        match self.control.next().await.unwrap().unwrap() {
            Answer::Registered(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Registers as a stock connector does: it gets all that is allowed.
    pub async fn stock(edge: &TestEdge, client: u128, index: u8) -> Self {
        let mut connector = Self::dial(edge).await;
        connector.register(&edge.registration(client, index)).await.unwrap();
        connector
    }

    /// Registers as a connector of pingferry does. It has advertised nothing yet.
    pub async fn own(edge: &TestEdge, client: u128, index: u8) -> Self {
        let mut connector = Self::dial(edge).await;
        let mut registration = edge.registration(client, index);
        registration.options.client.features = vec![FEATURE_PREFIXES.into()];
        connector.register(&registration).await.unwrap();
        connector
    }

    pub fn send(&self, packet: &[u8]) {
        self.quic.send_datagram([packet, &[1]].concat().into()).unwrap();
    }

    /// The next packet from the edge.
    pub async fn receive(&self) -> Vec<u8> {
        let mut datagram = self.quic.read_datagram().await.unwrap().to_vec();
        assert_eq!(datagram.pop(), Some(1), "the type of an untraced packet");
        datagram
    }

    /// Answers all echo requests.
    pub async fn answer(&self) {
        while let Ok(datagram) = self.quic.read_datagram().await {
            let request = &datagram[..datagram.len() - 1];
            self.send(&reply_to(request));
        }
    }
}

/// The answer of the host that a request is for.
pub fn reply_to(request: &[u8]) -> Vec<u8> {
    let IpPacket { header, payload } = IpPacket::parse(request).unwrap();
    let answer = IpHeader { fragment: header.fragment, ..IpHeader::icmp(header.destination, header.source) };
    let mut message = payload.to_vec();
    message[0] = if header.source.is_ipv4() { 0 } else { 129 };
    write_checksum(answer.source, answer.destination, &mut message);
    IpPacket { header: answer, payload: &message }.to_bytes()
}

pub fn echo_reply(host: &str, client: &str) -> Vec<u8> {
    let (host, client): (IpAddr, IpAddr) = (host.parse().unwrap(), client.parse().unwrap());
    reply_to(&echo_request(client, host, 7, 1, b"reply"))
}

pub fn no_secret() -> Secret {
    Secret::new(vec![0; 32])
}

/// Runs a test's connectors. A thread of its own serves their connections.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

/// The longest that something may take that happens at once.
pub const SOON: Duration = Duration::from_secs(10);

/// The datagrams that begin a handshake. The hybrid key share needs two.
const FIRST_FLIGHT: usize = 2;
/// How many clients wait for an answer at a time: fewer than fit into the buffer of a socket.
const AT_ONCE: usize = 16;

/// Sends the first flights of so many clients to the edge, from many addresses. None of the clients hears an answer.
pub async fn half_open(edge: &TestEdge, count: usize) {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sink_address = sink.local_addr().unwrap();
    let sources: Vec<UdpSocket> =
        (1..=250).map(|n| UdpSocket::bind((Ipv4Addr::new(127, 1, 0, n), 0)).unwrap()).collect();
    let (edge_address, (done, flights)) = (edge.address, mpsc::channel());
    // Ends when the receiver is dropped.
    std::thread::spawn(move || relay_first_flights(&sink, &sources, edge_address, &done));
    let config = client_config(load_roots(Some(&edge.files.ca)).unwrap()).unwrap();
    let (client, _) = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
    for _ in 0..count.div_ceil(AT_ONCE) {
        let dial = |_| client.connect_with(config.clone(), sink_address, DEFAULT_SERVER_NAME).unwrap();
        let dialled: Vec<_> = (0..AT_ONCE).map(dial).collect();
        // What a client sends when it is dropped is not relayed.
        (0..AT_ONCE).for_each(|_| flights.recv_timeout(SOON).unwrap());
        drop(dialled);
    }
}

/// Passes the first datagrams of each connection on, and reports each connection.
fn relay_first_flights(sink: &UdpSocket, sources: &[UdpSocket], edge: SocketAddr, done: &mpsc::Sender<()>) {
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut buffer = [0; 2048];
    loop {
        let len = sink.recv(&mut buffer).unwrap();
        // RFC 9000 section 17.2: the destination connection ID follows a byte with its length.
        let id = buffer[6..6 + usize::from(buffer[5])].to_vec();
        let number = seen.len();
        let sent = seen.entry(id).or_insert(0);
        *sent += 1;
        if *sent <= FIRST_FLIGHT {
            sources[number % sources.len()].send_to(&buffer[..len], edge).unwrap();
        }
        if *sent == FIRST_FLIGHT && done.send(()).is_err() {
            return;
        }
    }
}
