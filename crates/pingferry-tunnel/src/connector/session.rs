//! A session: one connection from the first packet to the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pingferry::{AttachError, Closed, DomainId, DropReason, Path, PathConfig, Proxy, SendError, Tag};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::counters::{Counters, add};
use super::refuse::refuse;
use super::sender::Sender;
use super::sink::Sink;
use super::traces::Traces;
use super::{Shared, stopped};
use crate::control::{
    Answer, Client, ClientInfo, ConnectionDetails, ConnectionOptions, FEATURE_PREFIXES, Refusal, Registration,
    RpcStream,
};
use crate::receive::read_datagrams;
use crate::transport::HANDSHAKE_TIMEOUT;
use crate::wire::{DatagramV2, DatagramV3, DatagramVersion, RegistrationCode};

/// How long an edge may take to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to look whether the largest datagram has changed.
const LOOK: Duration = Duration::from_millis(250);

/// What is needed for a session.
pub(super) struct Session<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) proxy: &'a Proxy,
    pub(super) endpoint: &'a Endpoint,
    pub(super) index: u8,
    pub(super) edge: SocketAddr,
    /// That of the edge.
    pub(super) domain: DomainId,
    pub(super) attempts: u8,
}

/// How a session ended.
pub(super) enum End {
    /// The connector is stopped.
    Stopped,
    /// The edge does not want it.
    Refused(Refusal),
    Failed(String),
    /// The proxy has ended.
    Proxy(AttachError),
}

type Control = RpcStream<Client, RecvStream, SendStream>;

impl Session<'_> {
    pub(super) async fn run(self, stop: &mut watch::Receiver<bool>) -> End {
        let end = match self.connect(stop).await {
            Ok((connection, control)) => self.serve(connection, control, stop).await,
            Err(end) => end,
        };
        if !matches!(end, End::Stopped) {
            add(&self.shared.counters.connections_failed, 1);
        }
        end
    }

    /// Dials and registers.
    async fn connect(&self, stop: &mut watch::Receiver<bool>) -> Result<(Connection, Control), End> {
        tokio::select! {
            connected = self.dial_and_register() => connected,
            () = stopped(stop) => Err(End::Stopped),
        }
    }

    async fn dial_and_register(&self) -> Result<(Connection, Control), End> {
        let shared = self.shared;
        let client_config = shared.client_config.clone();
        let connecting = self.endpoint.connect_with(client_config, self.edge, &shared.config.server_name);
        let connecting = connecting.map_err(|error| End::Failed(format!("cannot dial: {error}")))?;
        let connection = timeout(HANDSHAKE_TIMEOUT, connecting).await;
        let connection = connection.map_err(|_| End::Failed("no answer within 5 s".into()))?;
        let connection = connection.map_err(|error| End::Failed(format!("cannot connect: {error}")))?;
        let (send, receive) =
            connection.open_bi().await.map_err(|error| End::Failed(format!("cannot register: {error}")))?;
        let mut control = RpcStream::new(Client::default(), receive, send);
        control.peer.register(&self.registration());
        let details = match call(&mut control).await? {
            Answer::Registered(Ok(details)) => details,
            Answer::Registered(Err(refusal)) => {
                connection.close(VarInt::from_u32(0), b"");
                return Err(End::Refused(refusal));
            }
            Answer::Failed(reason) => return Err(End::Failed(format!("cannot register: {reason}"))),
            _ => return Err(End::Failed("cannot register: the edge answered another call".into())),
        };
        self.advertise(&mut control, &details).await?;
        Ok((connection, control))
    }

    fn registration(&self) -> Registration {
        let config = &self.shared.config;
        let mut features = vec!["support_datagram_v2".to_owned(), FEATURE_PREFIXES.into()];
        if config.datagrams == DatagramVersion::V3 {
            features.push("support_datagram_v3_2".into());
        }
        let client = ClientInfo {
            id: self.shared.client_id,
            features,
            version: env!("CARGO_PKG_VERSION").into(),
            arch: format!("{}_{}", std::env::consts::OS, std::env::consts::ARCH),
        };
        let options = ConnectionOptions { client, previous_attempts: self.attempts, ..ConnectionOptions::default() };
        Registration {
            account_tag: config.token.account_tag.clone(),
            secret: config.token.secret.clone(),
            tunnel_id: config.token.tunnel_id,
            connection_index: self.index,
            options,
        }
    }

    /// Tells which prefixes this connector serves, and the operator which of them it gets packets for.
    async fn advertise(&self, control: &mut Control, details: &ConnectionDetails) -> Result<(), End> {
        let (edge, index, location) = (self.edge, self.index, details.location.as_str());
        let advertised = &self.shared.config.advertise;
        control.peer.advertise(advertised);
        match call(control).await? {
            Answer::Advertised(Some(accepted)) => {
                let refused: Vec<String> =
                    advertised.iter().filter(|prefix| !accepted.contains(prefix)).map(ToString::to_string).collect();
                if !refused.is_empty() {
                    warn!(%edge, "edge {edge} sends nothing for {}: not allowed there", refused.join(", "));
                }
                let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
                info!(%edge, index, location, "connection {index} to edge {edge} serves {}", accepted.join(", "));
            }
            Answer::Advertised(None) => {
                info!(%edge, index, location, "connection {index} to edge {edge} is registered");
            }
            Answer::Failed(reason) => return Err(End::Failed(format!("cannot advertise: {reason}"))),
            _ => return Err(End::Failed("cannot advertise: the edge answered another call".into())),
        }
        Ok(())
    }

    /// Serves until the connection or the connector ends.
    async fn serve(&self, connection: Connection, control: Control, stop: &mut watch::Receiver<bool>) -> End {
        let shared = self.shared;
        let sender = Sender::new(connection.clone(), Arc::clone(&shared.counters));
        let version = shared.config.datagrams;
        let mut mtu = Mtu::new(self.path_config(), &connection, version);
        let traces = Traces::new(Arc::clone(&sender));
        let sink = Sink::new(Arc::clone(&sender), Arc::clone(&traces), version);
        let path = match self.proxy.attach(mtu.config.clone(), sink) {
            Ok(path) => Arc::new(path),
            Err(error) => return End::Proxy(error),
        };
        // Relaxed: see the field.
        shared.has_registered.store(true, Ordering::Relaxed);
        shared.slots.registered(self.index, &connection);
        add(&shared.counters.connections_registered, 1);
        // Both end with the connection, or the receiver with the proxy.
        let mut tasks = JoinSet::new();
        let receiver = Receiver {
            connection: connection.clone(),
            path: Arc::clone(&path),
            traces,
            version,
            counters: Arc::clone(&shared.counters),
        };
        tasks.spawn(receiver.run());
        tasks.spawn(async move { sender.drain().await });
        let end = self.watch(&connection, control, &mut mtu, &path, &mut tasks, stop).await;
        shared.slots.ended(self.index);
        end
    }

    fn path_config(&self) -> PathConfig {
        let config = &self.shared.config;
        config.path.clone().with_domain(Some(self.domain)).with_policy(self.shared.policy.clone())
    }

    /// Everything about a connection but its packets.
    async fn watch(
        &self,
        connection: &Connection,
        mut control: Control,
        mtu: &mut Mtu,
        path: &Path,
        tasks: &mut JoinSet<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        let mut refusals = JoinSet::new();
        let mut look = interval(LOOK);
        // Set when the connector is stopped.
        let mut deadline: Option<Instant> = None;
        let mut has_control = true;
        loop {
            tokio::select! {
                lost = connection.closed() => return if deadline.is_some() {
                    End::Stopped
                } else {
                    End::Failed(format!("connection {} ended: {lost}", self.index))
                },
                answer = control.next(), if has_control => match answer {
                    Ok(Some(Answer::Unregistered | Answer::Failed(_))) if deadline.is_some() => {
                        control.peer.abort("rpc: shutdown");
                        // It fails if the edge was faster.
                        let _ = control.finish().await;
                        has_control = false;
                    }
                    Ok(Some(answer)) => debug!(?answer, "an answer to no call"),
                    _ if deadline.is_some() => has_control = false,
                    Ok(None) => return self.close(connection, "the edge ended the registration"),
                    Err(error) => return self.close(connection, &error.to_string()),
                },
                Ok((send, receive)) = connection.accept_bi() => {
                    add(&self.shared.counters.streams_refused, 1);
                    // At most as many at once as the transport allows the edge to open.
                    refusals.spawn(refuse(send, receive));
                }
                Some(_) = refusals.join_next() => {}
                Some(_) = tasks.join_next(), if connection.close_reason().is_none() => {
                    connection.close(VarInt::from_u32(0), b"");
                    return End::Proxy(Closed.into());
                }
                _ = look.tick() => if let Err(error) = mtu.follow(connection, path) {
                    return End::Proxy(error);
                },
                () = stopped(stop), if deadline.is_none() => {
                    control.peer.unregister();
                    deadline = Some(Instant::now() + self.shared.config.grace_period);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    connection.close(VarInt::from_u32(0), b"");
                    self.endpoint.wait_idle().await;
                    return End::Stopped;
                }
            }
        }
    }

    fn close(&self, connection: &Connection, why: &str) -> End {
        connection.close(VarInt::from_u32(0), b"");
        End::Failed(format!("connection {} ended: {why}", self.index))
    }
}

/// Sends a call and waits for its answer.
async fn call(control: &mut Control) -> Result<Answer, End> {
    match timeout(CALL_TIMEOUT, control.next()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err(End::Failed("the edge ended the registration".into())),
        Ok(Err(error)) => Err(End::Failed(format!("registration: {error}"))),
        Err(_) => Err(End::Failed("the edge did not answer the registration within 5 s".into())),
    }
}

/// Keeps the MTU of the path what the connection takes.
struct Mtu {
    config: PathConfig,
    version: DatagramVersion,
}

impl Mtu {
    fn new(mut config: PathConfig, connection: &Connection, version: DatagramVersion) -> Self {
        config.mtu = usable(connection, &config, version);
        Self { config, version }
    }

    fn follow(&mut self, connection: &Connection, path: &Path) -> Result<(), AttachError> {
        let mtu = usable(connection, &self.config, self.version);
        if mtu == self.config.mtu {
            return Ok(());
        }
        debug!("the largest packet is now {mtu} bytes");
        self.config.mtu = mtu;
        path.configure(&self.config)
    }
}

/// The largest packet that a connection takes now, in bytes. A path with addresses of IPv6 cannot have less than IPv6 requires;
/// packets that are too large are lost there, and counted.
fn usable(connection: &Connection, config: &PathConfig, version: DatagramVersion) -> usize {
    let mtu = version.max_packet(connection.max_datagram_size().unwrap_or_default());
    let mtu = mtu.clamp(*PathConfig::MTU.start(), *PathConfig::MTU.end());
    if config.clone().with_mtu(mtu).check().is_ok() { mtu } else { PathConfig::MIN_MTU_V6 }
}

/// Reads the datagrams of a connection.
struct Receiver {
    connection: Connection,
    path: Arc<Path>,
    traces: Arc<Traces>,
    version: DatagramVersion,
    counters: Arc<Counters>,
}

impl Receiver {
    /// Reads until the connection or the proxy ends.
    async fn run(self) {
        let mut read = 0;
        let mut batch = Vec::new();
        while read_datagrams(&self.connection, &mut batch).await.is_ok() {
            read += batch.len() as u64;
            if batch.drain(..).any(|datagram| self.receive(&datagram) == Err(SendError::Closed)) {
                return;
            }
        }
        let received = self.connection.stats().frame_rx.datagram;
        add(&self.counters.datagrams_overrun, received.saturating_sub(read));
    }

    fn receive(&self, datagram: &Bytes) -> Result<(), SendError> {
        match self.version {
            DatagramVersion::V2 => self.receive_v2(datagram),
            DatagramVersion::V3 => self.receive_v3(datagram),
        }
    }

    fn receive_v2(&self, datagram: &[u8]) -> Result<(), SendError> {
        match DatagramV2::parse(datagram) {
            Ok(DatagramV2::Packet(packet)) => return self.forward(packet, None),
            Ok(DatagramV2::TracedPacket { packet, identity }) => {
                return self.forward(packet, self.traces.begin(packet, identity));
            }
            Ok(DatagramV2::UdpPayload { .. } | DatagramV2::Spans { .. }) => add(&self.counters.datagrams_refused, 1),
            Err(_) => add(&self.counters.datagrams_malformed, 1),
        }
        Ok(())
    }

    fn receive_v3(&self, datagram: &[u8]) -> Result<(), SendError> {
        match DatagramV3::parse(datagram) {
            Ok(DatagramV3::Packet(packet)) => return self.forward(packet, None),
            Ok(DatagramV3::UdpRegistration(flow)) => {
                add(&self.counters.datagrams_refused, 1);
                let (code, message) = (RegistrationCode::Message, b"this connector carries only ICMP");
                let mut refusal = Vec::new();
                DatagramV3::RegistrationResponse { code, flow: flow.flow, message }.encode(&mut refusal);
                if self.connection.datagram_send_buffer_space() >= refusal.len() {
                    // It fails if the connection has ended.
                    let _ = self.connection.send_datagram(refusal.into());
                }
            }
            Ok(_) => add(&self.counters.datagrams_refused, 1),
            Err(_) => add(&self.counters.datagrams_malformed, 1),
        }
        Ok(())
    }

    fn forward(&self, packet: &[u8], tag: Option<Tag>) -> Result<(), SendError> {
        add(&self.counters.packets_received, 1);
        let sent = tag.map_or_else(|| self.path.send(packet), |tag| self.path.send_tagged(packet, tag));
        if sent == Err(SendError::Full) {
            add(&self.counters.queue_full, 1);
            tag.into_iter().for_each(|tag| self.traces.dropped(tag, DropReason::QueueFull));
        }
        sent
    }
}
