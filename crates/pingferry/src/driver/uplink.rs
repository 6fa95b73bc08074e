//! From paths to ping sockets: requests.

use std::collections::HashMap;
use std::io;
use std::mem::replace;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pingferry_proto::{DropReason, PathId, Verdict};
use tracing::{debug, warn};

use super::core::{Core, lock};
use super::outbound::Outbound;
use super::poller::{Poller, Ready, Token};
use crate::error::RunError;
use crate::ingress::{PacketBatch, PacketSource};

/// The direction from paths to sockets. The worker's own thread has it, so what comes by one path is served in the order it
/// came.
pub(super) struct Uplink {
    poller: Arc<Poller>,
    sources: HashMap<PathId, Box<dyn PacketSource>>,
    batch: PacketBatch,
    /// Paths whose sources are gone.
    closed: Vec<PathId>,
    outbound: Outbound,
    /// When the endpoint has something to do next.
    deadline: Option<Instant>,
    loop_reported: bool,
}

impl Uplink {
    pub(super) fn new(poller: Arc<Poller>, scope_id: u32) -> Self {
        Self {
            poller,
            sources: HashMap::new(),
            batch: PacketBatch::new(),
            closed: Vec::new(),
            outbound: Outbound::new(scope_id),
            deadline: None,
            loop_reported: false,
        }
    }

    pub(super) fn add_source(&mut self, path: PathId, source: Box<dyn PacketSource>) -> io::Result<()> {
        self.poller.add(&source, Token::Path(path))?;
        debug!(path = path.0, ingress = source.name(), "path attached");
        self.sources.insert(path, source);
        Ok(())
    }

    /// When the next [`round`](Self::round) is due, if no packet comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Reads the paths that are ready, as far as one batch has room, and sends what they had. Returns how much that was.
    pub(super) fn round(
        &mut self,
        core: &Mutex<Core>,
        ready: &[Ready],
        now: Instant,
        low_latency: bool,
    ) -> Result<usize, RunError> {
        self.receive(ready)?;
        let is_due = self.deadline.is_some_and(|deadline| deadline <= now);
        if self.batch.is_empty() && self.closed.is_empty() && !is_due {
            return Ok(0);
        }
        let mut locked = lock(core);
        self.handle(&mut locked, now);
        let count = self.outbound.flush(core, locked, now, low_latency);
        Ok(count)
    }

    fn receive(&mut self, ready: &[Ready]) -> Result<(), RunError> {
        for ready in ready {
            if self.batch.is_full() {
                break;
            }
            let Token::Path(path) = ready.token else { continue };
            let Some(source) = self.sources.get_mut(&path) else { continue };
            self.batch.begin(path);
            match source.receive(&mut self.batch) {
                Ok(()) => {}
                Err(error) if source.is_essential() => {
                    return Err(RunError::IngressGone { ingress: source.name(), source: error });
                }
                Err(error) => {
                    debug!(path = path.0, %error, "path closed");
                    self.closed.push(path);
                }
            }
        }
        Ok(())
    }

    /// Lets the endpoint handle what was read, and its deadlines.
    fn handle(&mut self, core: &mut Core, now: Instant) {
        let mut newest = None;
        for (path, tag, packet) in self.batch.packets() {
            if let Verdict::Dropped(reason) = core.endpoint.handle_packet(now, path, tag, packet) {
                debug!(path = path.0, len = packet.len(), %reason, "packet dropped");
                if reason == DropReason::Loop {
                    report_loop(&mut self.loop_reported);
                }
            }
            if newest != Some(path) {
                newest.replace(path).into_iter().for_each(|path| core.touch(path));
            }
        }
        newest.into_iter().for_each(|path| core.touch(path));
        self.batch.clear();
        for path in self.closed.drain(..) {
            self.sources.remove(&path).into_iter().for_each(|source| self.poller.remove(&source));
            core.remove_path(path);
        }
        core.endpoint.handle_timeout(now);
        self.deadline = core.endpoint.next_deadline();
    }
}

/// Says once what can be done about a loop. Each packet of it is counted.
fn report_loop(reported: &mut bool) {
    if !replace(reported, true) {
        warn!("pingferry's own probes are routed back into its ingress; to keep them out, use --interface");
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use pingferry_proto::PathConfig;
    use pingferry_proto::wire::echo_request;
    use pingferry_testnet::isolated;

    use super::super::sockets::Sockets;
    use super::*;
    use crate::config::Config;
    use crate::ingress::channel::channel;
    use crate::ingress::split;
    use crate::stats::IngressId;

    #[test]
    fn a_round_is_bounded_and_the_next_one_reads_the_rest() {
        const PATHS: usize = 8;
        const PACKETS: u16 = 500;
        isolated(|| {
            let mut core = Config::default().core;
            core.policy.rules = vec!["allow 127.0.0.0/8".parse().unwrap()];
            let config = Config::default().with_core(core);
            let (up, down) = (Arc::new(Poller::new().unwrap()), Arc::new(Poller::new().unwrap()));
            let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), down)));
            let core = Mutex::new(Core::new(&config, sockets, Arc::default()));
            let mut uplink = Uplink::new(Arc::clone(&up), 0);
            let paths = (0..PATHS).map(|_| {
                let (sender, ingress) = channel(|_: &[u8]| {}).unwrap();
                let (source, sink) = split(ingress, None).unwrap();
                let path = lock(&core).add_path(IngressId(0), PathConfig::default(), Arc::new(Mutex::new(sink)));
                uplink.add_source(path, source).unwrap();
                for seq in 0..PACKETS {
                    sender.send(&echo_request([10, 0, 0, 1].into(), [127, 0, 0, 1].into(), 7, seq, b"")).unwrap();
                }
                sender
            });
            let _senders: Vec<_> = paths.collect();
            let (mut ready, mut read) = (Vec::new(), 0);
            while read < PATHS * usize::from(PACKETS) {
                up.wait(Some(std::time::Duration::ZERO), &mut ready).unwrap();
                uplink.round(&core, &ready, Instant::now(), false).unwrap();
                let before = std::mem::replace(&mut read, lock(&core).endpoint.counters().packets as usize);
                // The last path may add a batch of its own.
                assert!((1..=192).contains(&(read - before)), "{}", read - before);
            }
        });
    }
}
