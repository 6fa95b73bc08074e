//! An edge that the test plays, and a connector that runs beside it.
#![allow(unreachable_pub, reason = "a module of a test")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pingferry::{Config, CoreConfig, Counters as ProxyCounters, Proxy};
use pingferry_tunnel::connector::{Connector, ConnectorConfig, ConnectorError, Counters};
use pingferry_tunnel::control::{
    CallId, ConnectionDetails, ControlError, Peer, Refusal, Registration, Request, RpcStream, Server,
};
use pingferry_tunnel::transport::{DEFAULT_SERVER_NAME, RootCertStore, endpoint, server_config};
use pingferry_tunnel::wire::{DatagramV2, Secret, Token};
use quinn::{Connection, Endpoint, ReadToEndError, RecvStream, SendStream};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What is waited for comes within this time, or the test fails.
pub const SOON: Duration = Duration::from_secs(20);

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An edge without a TUN device.
pub struct PlayedEdge {
    endpoint: Endpoint,
    roots: RootCertStore,
}

impl PlayedEdge {
    pub fn start() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([DEFAULT_SERVER_NAME.into()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = server_config(vec![cert.der().clone()], key).unwrap();
        let (endpoint, _) = endpoint("127.0.0.1:0".parse().unwrap(), Some(config)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        Self { endpoint, roots }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub fn token(&self) -> Token {
        Token {
            account_tag: "lab".into(),
            tunnel_id: uuid::Uuid::from_u128(7),
            secret: Secret::new(b"secret".to_vec()),
            endpoint: None,
        }
    }

    /// A connector of this edge with so many connections, which serves loopback.
    pub fn config(&self, connections: u8) -> ConnectorConfig {
        let advertise = ["127.0.0.0/8", "::1/128"].map(|prefix| prefix.parse().unwrap());
        let mut config = ConnectorConfig::new(self.token(), vec![self.address()], advertise.into(), self.roots.clone());
        config.connections = Some(connections);
        config
    }

    async fn incoming(&self) -> Result<Connection, quinn::ConnectionError> {
        timeout(SOON, self.endpoint.accept()).await.unwrap().unwrap().await
    }

    pub async fn fails_to_accept(&self) -> String {
        self.incoming().await.unwrap_err().to_string()
    }

    async fn registering(&self) -> (Connected, CallId) {
        let connection = self.incoming().await.unwrap();
        let (send, receive) = timeout(SOON, connection.accept_bi()).await.unwrap().unwrap();
        let mut control = RpcStream::new(Played::default(), receive, send);
        let request = timeout(SOON, control.next()).await.unwrap().unwrap().unwrap();
        let Request::Register(call, registration) = request else { panic!("{request:?}") };
        let registration = *registration;
        (Connected { connection, control, registration, advertised: Vec::new() }, call)
    }

    /// Accepts a connection, its registration and its prefixes.
    pub async fn accept(&self) -> Connected {
        let (mut connected, call) = self.registering().await;
        connected.control.peer.server.registered(call, Ok(&ConnectionDetails::default()));
        let Request::Advertise(call, prefixes) = connected.request().await else { panic!() };
        connected.control.peer.server.accepted(call, &prefixes);
        connected.control.flush().await.unwrap();
        connected.advertised = prefixes;
        connected
    }

    /// Accepts a connection and refuses its registration.
    pub async fn refuse(&self, refusal: &Refusal) {
        let (mut connected, call) = self.registering().await;
        connected.control.peer.server.registered(call, Err(refusal));
        connected.control.flush().await.unwrap();
        timeout(SOON, connected.connection.closed()).await.unwrap();
    }
}

/// The edge's end of a control stream, and bytes to send that are none of its messages.
#[derive(Default)]
pub struct Played {
    pub server: Server,
    pub raw: Vec<u8>,
}

impl Peer for Played {
    type Event = Request;

    fn handle(&mut self, frame: &[u8]) -> Result<Option<Request>, ControlError> {
        self.server.handle(frame)
    }

    fn take_output(&mut self) -> Vec<u8> {
        [self.server.take_output(), std::mem::take(&mut self.raw)].concat()
    }
}

/// A connection of the connector.
pub struct Connected {
    pub connection: Connection,
    pub control: RpcStream<Played, RecvStream, SendStream>,
    pub registration: Registration,
    pub advertised: Vec<IpNet>,
}

impl Connected {
    pub async fn request(&mut self) -> Request {
        timeout(SOON, self.control.next()).await.unwrap().unwrap().unwrap()
    }

    pub async fn send(&self, packet: &[u8]) {
        let mut datagram = Vec::new();
        DatagramV2::Packet(packet).encode(&mut datagram);
        self.send_datagram(datagram).await;
    }

    pub async fn send_datagram(&self, datagram: Vec<u8>) {
        self.connection.send_datagram_wait(datagram.into()).await.unwrap();
    }

    pub async fn datagram(&self) -> Vec<u8> {
        timeout(SOON, self.connection.read_datagram()).await.unwrap().unwrap().into()
    }

    /// The next echo reply. ICMP errors before it are left out.
    pub async fn receive(&self) -> Vec<u8> {
        loop {
            let datagram = self.datagram().await;
            let Ok(DatagramV2::Packet(packet)) = DatagramV2::parse(&datagram) else { panic!("{datagram:?}") };
            let is_error =
                packet.first() == Some(&0x45) && packet.get(6..8) == Some(&[0, 0]) && packet.get(20) == Some(&3);
            if !is_error {
                return packet.to_vec();
            }
        }
    }

    /// Opens a stream, sends `bytes` as all of it, and reads the answer to its end.
    pub async fn stream(&self, bytes: &[u8]) -> Result<Vec<u8>, ReadToEndError> {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.shutdown().await.unwrap();
        timeout(SOON, receive.read_to_end(1000)).await.unwrap()
    }
}

/// A connector that runs.
pub struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ConnectorError>>,
    proxy: Arc<Proxy>,
    pub counters: Arc<Counters>,
}

impl Running {
    pub fn start(mut config: ConnectorConfig, change: impl FnOnce(&mut ConnectorConfig)) -> Self {
        change(&mut config);
        // As `pingferry connect` does, for the spans of first replies.
        let config_of_proxy = Config::default().with_core(CoreConfig::default().with_observe_flows(true));
        let proxy = Arc::new(Proxy::open(config_of_proxy).unwrap());
        let connector = Connector::open(config).unwrap();
        let counters = connector.counters();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(connector.run(Arc::clone(&proxy), stopped));
        Self { stop, task, proxy, counters }
    }

    pub fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    pub async fn ended(self) -> Result<(), ConnectorError> {
        timeout(SOON, self.task).await.unwrap().unwrap()
    }

    pub fn proxy_counters(&self) -> ProxyCounters {
        self.proxy.stats().counters
    }
}
