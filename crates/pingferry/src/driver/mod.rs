//! The driver: it moves packets between ingresses and ping sockets, and lets the endpoint decide on each.
//!
//! # Theory of operation
//!
//! A worker has one endpoint with its sockets and paths, and two directions. A round of a direction is always the same:
//!
//! * *Uplink* ([`uplink`]): read a batch of packets from the paths that are ready → with the worker's lock
//!   ([`core`]): `Endpoint::handle_packet` for each, then take the outputs → without it: one `sendmmsg` for each socket
//!   ([`outbound`]).
//! * *Downlink* ([`downlink`]): read a batch of replies from the sockets that are ready → with the lock: read error queues,
//!   `Endpoint::handle_reply` for each, then take the outputs → without it: packets to their paths ([`outbound`]).
//!
//! Each direction owns its buffers, and is one thread's for a whole round. So the packets of a flow keep their order: they come
//! by one path and leave by one socket, and the other way round. Between paths there is no order.
//!
//! The worker's thread does both directions, and the helper thread takes the downlink when there is work for two ([`helper`]).
//! Every round is bounded, and what was not read is reported as ready again, so no path or socket starves another.
//!
//! Only a broken `epoll` or the loss of an essential ingress ends a worker. Everything else is counted.

mod busy_poll;
mod command;
mod control;
mod core;
mod downlink;
mod error_queue;
mod helper;
mod outbound;
mod poller;
mod resend;
mod sockets;
mod thread;
mod uplink;

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pingferry_proto::Outputs;
use tracing::debug;

use self::busy_poll::BusyPoll;
pub(crate) use self::command::{Command, Mailbox};
use self::control::Control;
use self::core::{Core, lock_sink};
use self::downlink::Downlink;
use self::helper::{Helper, Tools};
use self::poller::{Poller, Token};
use self::sockets::Sockets;
use self::thread::Thread;
use self::uplink::Uplink;
use crate::config::Config;
use crate::error::RunError;
use crate::ingress::Deliveries;
use crate::stats::{Published, Stats};
use crate::waker::Waker;

/// A worker that has not started.
pub(crate) struct Worker {
    // Held to let the endpoint handle a batch. See `core` for what is done with it.
    core: Mutex<Core>,
    // Held for whole rounds. Only its own threads want it: the helper, and the worker's thread while the helper is parked.
    downlink: Mutex<Downlink>,
    pollers: (Arc<Poller>, Arc<Poller>),
    waker: Arc<Waker>,
    published: Arc<Published>,
    control: Control,
    uplink: Uplink,
    busy_poll: BusyPoll,
    has_helper: bool,
}

impl Worker {
    pub(crate) fn new(config: &Config, commands: Receiver<Command>, mailbox: &Mailbox) -> io::Result<Self> {
        let (up, down) = (Arc::new(Poller::new()?), Arc::new(Poller::new()?));
        up.add(&*mailbox.waker, Token::Wake)?;
        up.add(&*down, Token::Downlink)?;
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let mut core = Core::new(config, Arc::clone(&sockets), Arc::clone(&mailbox.published));
        let control = Control::new(commands, &up, &mut core)?;
        Ok(Self {
            core: Mutex::new(core),
            downlink: Mutex::new(Downlink::new(sockets, config.scope_id)),
            uplink: Uplink::new(Arc::clone(&up), config.scope_id),
            pollers: (up, down),
            waker: Arc::clone(&mailbox.waker),
            published: Arc::clone(&mailbox.published),
            control,
            busy_poll: BusyPoll::new(config, Instant::now()),
            has_helper: config.has_helpers(),
        })
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(self) -> Result<Stats, RunError> {
        let Self { core, downlink, pollers, waker, published, control, uplink, busy_poll, has_helper } = self;
        let tools = Tools { core: &core, downlink: &downlink, pollers: &pollers, waker: &waker };
        std::thread::scope(|scope| {
            let spawned = if has_helper { Helper::spawn(scope, tools) } else { Ok(Helper::none()) };
            let helper = spawned.unwrap_or_else(|error| {
                debug!(%error, "no helper thread");
                Helper::none()
            });
            Thread::new(tools, helper, &published, control, uplink, busy_poll).run()
        })?;
        Ok(finish(&mut core.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Waits until it is known of every packet whether it has left, and returns the final statistics.
fn finish(core: &mut Core) -> Stats {
    let (nothing, mut undelivered) = (Outputs::default(), Vec::new());
    for sink in core.sinks.values() {
        lock_sink(sink).finish(&mut Deliveries::new(&nothing, &[], &mut undelivered, false));
    }
    core.report_undelivered(&mut undelivered);
    let stats = core.final_stats();
    core.publish();
    stats
}
