//! The life of a connection: handshake, registration, service, grace.
//!
//! # Theory of operation
//!
//! Until a connector has registered it can do nothing but register: it has five seconds, one stream, and its datagrams are
//! dropped. A connector that unregisters gets no new packets, but what it still sends is taken, until it closes the connection.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use quinn::{ConnectionError, Incoming, RecvStream, SendStream};
use tokio::time::{sleep, timeout};
use tracing::info;
use uuid::Uuid;

use super::drop_reason::DropReason;
use super::live::Live;
use super::shared::Shared;
use crate::control::{
    CallId, ConnectionDetails, ControlError, FEATURE_PREFIXES, Refusal, Registration, Request, RpcStream, Server,
};
use crate::receive::read_datagrams;
use crate::wire::DatagramVersion;

/// How long a connection may take to register, from its first packet on.
const REGISTER_WITHIN: Duration = Duration::from_secs(5);
/// How long a connector that was refused may take to read why.
const READ_REFUSAL_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection is kept after it has unregistered. The longest grace period of a stock connector is as long.
const GRACE: Duration = Duration::from_secs(180);
/// The feature of a connector that speaks datagrams of version 3, and no other.
const FEATURE_DATAGRAM_V3: &str = "support_datagram_v3_2";

type Control = RpcStream<Server, RecvStream, SendStream>;

/// Why a connection ended before it registered.
enum Unregistered {
    Handshake(ConnectionError),
    Control(ControlError),
    NoRegistration,
    Refused(String),
    TooLate,
}

impl fmt::Display for Unregistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::NoRegistration => f.write_str("it ended its control stream"),
            Self::Refused(cause) => write!(f, "refused: {cause}"),
            Self::TooLate => write!(f, "not registered within {} s", REGISTER_WITHIN.as_secs()),
        }
    }
}

/// Serves a connection from its first packet to its end.
pub(super) async fn serve(shared: Rc<Shared>, incoming: Incoming) {
    let address = incoming.remote_address().ip();
    let registered = timeout(REGISTER_WITHIN, register(&shared, incoming)).await;
    let registered = registered.unwrap_or(Err(Unregistered::TooLate));
    shared.admission.borrow_mut().ended(Instant::now(), address, registered.is_ok());
    match registered {
        Ok((live, control)) => run(&shared, &live, control).await,
        Err(why) => {
            shared.count(|counters| counters.unregistered += 1);
            shared.log_refusal(address, &why);
        }
    }
}

async fn register(shared: &Shared, incoming: Incoming) -> Result<(Rc<Live>, Control), Unregistered> {
    let quic = incoming.accept().map_err(Unregistered::Handshake)?.await.map_err(Unregistered::Handshake)?;
    let opened = Opened(quic);
    let registered = tokio::select! {
        registered = opened.register(shared) => registered,
        error = opened.drop_datagrams(shared) => Err(Unregistered::Handshake(error)),
    };
    // An error closes the connection, because it is dropped.
    let (registration, mut control, call) = registered?;
    let (live, details) = match opened.accept(shared, &registration) {
        Ok(accepted) => accepted,
        Err(refusal) => return Err(opened.refuse(shared, control, call, refusal).await),
    };
    control.peer.registered(call, Ok(&details));
    if let Err(error) = control.flush().await {
        shared.remove(&live);
        return Err(Unregistered::Control(error));
    }
    shared.count(|counters| counters.registrations += 1);
    let info = &registration.options.client;
    info!(
        "connection {} of connector {} registered for tunnel {} from {}: version {:?}, {:?}",
        registration.connection_index,
        info.id,
        live.tunnel,
        live.quic.remote_address(),
        info.version,
        live.version,
    );
    Ok((live, control))
}

/// A connection after its handshake.
struct Opened(quinn::Connection);

impl Opened {
    /// Waits for the call that registers.
    async fn register(&self, shared: &Shared) -> Result<(Box<Registration>, Control, CallId), Unregistered> {
        let (send, receive) = self.0.accept_bi().await.map_err(Unregistered::Handshake)?;
        let mut control = RpcStream::new(Server::default(), receive, send);
        loop {
            match control.next().await.map_err(Unregistered::Control)? {
                Some(Request::Register(call, registration)) => return Ok((registration, control, call)),
                Some(
                    Request::Unregister(call) | Request::UpdateConfiguration(call, _) | Request::Advertise(call, _),
                ) => {
                    shared.count(|counters| counters.registrations_refused += 1);
                    control.peer.failed(call, "not registered");
                }
                None => return Err(Unregistered::NoRegistration),
            }
        }
    }

    /// Drops what comes before the registration.
    async fn drop_datagrams(&self, shared: &Shared) -> ConnectionError {
        loop {
            match self.0.read_datagram().await {
                Ok(_) => shared.count(|counters| {
                    counters.datagrams += 1;
                    counters.drops[DropReason::Unregistered] += 1;
                }),
                Err(error) => return error,
            }
        }
    }

    /// Checks who it is, and gives it a place.
    fn accept(&self, shared: &Shared, registration: &Registration) -> Result<(Rc<Live>, ConnectionDetails), Refusal> {
        let id = registration.tunnel_id;
        // The same words for an unknown tunnel and a wrong secret.
        let unauthorized = || Refusal { cause: "unauthorized".into(), ..Refusal::default() };
        let is_known = shared.tunnels.borrow().authenticate(id, registration.secret.as_bytes()).is_some();
        let tunnel = is_known.then_some(id).ok_or_else(unauthorized)?;
        let client = &registration.options.client;
        let has = |feature: &str| client.features.iter().any(|other| other == feature);
        let version = if has(FEATURE_DATAGRAM_V3) { DatagramVersion::V3 } else { DatagramVersion::V2 };
        // One that advertises serves nothing before it has.
        let advertised = has(FEATURE_PREFIXES).then(Vec::new);
        let key = (tunnel, client.id, registration.connection_index);
        let added = shared.add(key, self.0.clone(), version, advertised);
        let live = added.map_err(|_| Refusal {
            cause: "the edge has too many connections of this tunnel".into(),
            retry_after: Duration::from_secs(30),
            should_retry: true,
        })?;
        let location = String::from("pingferry");
        Ok((live, ConnectionDetails { uuid: Uuid::new_v4(), location, is_remotely_managed: true }))
    }

    /// Tells it why it is refused, and waits until it has read that.
    async fn refuse(&self, shared: &Shared, mut control: Control, call: CallId, refusal: Refusal) -> Unregistered {
        shared.count(|counters| counters.registrations_refused += 1);
        control.peer.registered(call, Err(&refusal));
        if control.flush().await.is_ok() {
            let _ = timeout(READ_REFUSAL_WITHIN, self.0.closed()).await;
        }
        Unregistered::Refused(refusal.cause)
    }
}

/// Serves a registered connection until it ends.
async fn run(shared: &Shared, live: &Live, control: Control) {
    let ended = tokio::select! {
        error = take_datagrams(shared, live) => error.to_string(),
        () = live.send_queued(|reason| shared.count(|counters| counters.drops[reason] += 1)) => String::new(),
        why = answer_calls(shared, live, control) => why,
        error = live.quic.closed() => error.to_string(),
    };
    shared.remove(live);
    info!("connection from {} of tunnel {} ended: {ended}", live.quic.remote_address(), live.tunnel);
    live.quic.close(0u8.into(), b"");
}

async fn take_datagrams(shared: &Shared, live: &Live) -> ConnectionError {
    let mut taken = 0;
    let mut batch = Vec::new();
    let error = loop {
        if let Err(error) = read_datagrams(&live.quic, &mut batch).await {
            break error;
        }
        let now = Instant::now();
        taken += batch.len() as u64;
        batch.drain(..).for_each(|datagram| shared.handle_datagram(now, live, &datagram));
    };
    let lost = live.quic.stats().frame_rx.datagram.saturating_sub(taken);
    shared.count(|counters| counters.unread += lost);
    error
}

/// Answers calls on the control stream, and then waits out the grace period. Returns why the connection has to end.
async fn answer_calls(shared: &Shared, live: &Live, mut control: Control) -> String {
    loop {
        match control.next().await {
            Ok(Some(Request::Unregister(call))) => {
                info!("connection from {} unregistered from tunnel {}", live.quic.remote_address(), live.tunnel);
                live.is_serving.set(false);
                shared.route(live);
                control.peer.done(call);
            }
            Ok(Some(Request::UpdateConfiguration(call, _))) => control.peer.done(call),
            Ok(Some(Request::Advertise(call, prefixes))) => {
                let accepted = shared.advertise(live, prefixes);
                info!("connection from {} serves {accepted:?} of tunnel {}", live.quic.remote_address(), live.tunnel);
                control.peer.accepted(call, &accepted);
            }
            Ok(Some(Request::Register(call, _))) => control.peer.failed(call, "registered already"),
            // A stock connector ends the stream with an Abort after it has unregistered.
            Ok(None) | Err(_) if !live.is_serving.get() => {
                let _ = control.finish().await;
                break;
            }
            Ok(None) => return "it ended its control stream".into(),
            Err(error) => return error.to_string(),
        }
    }
    sleep(GRACE).await;
    "the grace period is over".into()
}
