//! From paths to ping sockets: requests.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, Once};
use std::time::Instant;

use pingferry_proto::wire::Summary;
use pingferry_proto::{DropReason, PathId, Verdict};
use tracing::field::display;
use tracing::{Level, debug, enabled, warn};

use super::core::{Core, lock};
use super::outbound::Outbound;
use super::poller::{Poller, Ready, Token};
use crate::error::RunError;
use crate::ingress::{PacketBatch, PacketSource};

/// Said once. Each packet of the loop is counted.
const LOOP: &str = "pingferry's own probes are routed back into its ingress; to keep them out, use --interface";
static LOOP_REPORTED: Once = Once::new();

/// The direction from paths to sockets. The worker's own thread has it, so what comes by one path is served in the order it
/// came.
pub(super) struct Uplink {
    poller: Arc<Poller>,
    sources: HashMap<PathId, Box<dyn PacketSource>>,
    batch: PacketBatch,
    /// Paths whose sources are gone.
    closed: Vec<PathId>,
    /// An ingress that the proxy cannot do without is gone. The packets that were read before are still served.
    lost: Option<RunError>,
    outbound: Outbound,
    /// When the endpoint has something to do next.
    deadline: Option<Instant>,
}

impl Uplink {
    pub(super) fn new(poller: Arc<Poller>, scope_id: u32) -> Self {
        Self {
            poller,
            sources: HashMap::new(),
            batch: PacketBatch::new(),
            closed: Vec::new(),
            lost: None,
            outbound: Outbound::new(scope_id),
            deadline: None,
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

    /// Reads the paths that are ready, as far as one batch has room, and sends what they had. Returns how much that was, or an
    /// error after that if an essential ingress is gone.
    pub(super) fn round(
        &mut self,
        core: &Mutex<Core>,
        ready: &[Ready],
        now: Instant,
        low_latency: bool,
    ) -> Result<usize, RunError> {
        self.receive(ready);
        let is_due = self.deadline.is_some_and(|deadline| deadline <= now);
        let mut count = 0;
        if !self.batch.is_empty() || !self.closed.is_empty() || is_due {
            let mut locked = lock(core);
            self.handle(&mut locked, now);
            count = self.outbound.flush(core, locked, now, low_latency);
        }
        self.lost.take().map_or(Ok(count), Err)
    }

    fn receive(&mut self, ready: &[Ready]) {
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
                    self.lost = Some(RunError::IngressGone { ingress: source.name(), source: error });
                }
                Err(error) => {
                    debug!(path = path.0, %error, "path closed");
                    self.closed.push(path);
                }
            }
        }
    }

    /// Lets the endpoint handle what was read, and its deadlines.
    fn handle(&mut self, core: &mut Core, now: Instant) {
        core.rejected.clear();
        for (path, tag, packet) in self.batch.packets() {
            if let Verdict::Dropped(reason) = core.endpoint.handle_packet(now, path, tag, packet) {
                log_drop(path, packet, reason);
                if reason == DropReason::Loop {
                    LOOP_REPORTED.call_once(|| warn!("{LOOP}"));
                }
            }
            core.touch(path);
        }
        self.batch.clear();
        for path in self.closed.drain(..) {
            self.sources.remove(&path).into_iter().for_each(|source| self.poller.remove(&source));
            core.remove_path(path);
        }
        core.endpoint.handle_timeout(now);
        core.log_withheld(now);
        self.deadline = core.endpoint.next_deadline();
    }
}

fn log_drop(path: PathId, packet: &[u8], reason: DropReason) {
    if enabled!(Level::DEBUG) {
        let Summary { source, destination, ident, .. } = Summary::of(packet);
        let (source, destination) = (source.map(display), destination.map(display));
        debug!(path = path.0, len = packet.len(), source, destination, ident, %reason, "packet dropped");
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    use pingferry_proto::PathConfig;
    use pingferry_proto::wire::echo_request;
    use pingferry_testnet::isolated;

    use super::super::sockets::Sockets;
    use super::*;
    use crate::config::Config;
    use crate::ingress::channel::channel;
    use crate::ingress::{Ingress, split};
    use crate::stats::IngressId;

    /// An uplink whose clients may ping loopback.
    fn uplink() -> (Mutex<Core>, Arc<Poller>, Uplink) {
        let mut core = Config::default().core;
        core.policy.rules = vec!["allow 127.0.0.0/8".parse().unwrap()];
        let config = Config::default().with_core(core);
        let (up, down) = (Arc::new(Poller::new().unwrap()), Arc::new(Poller::new().unwrap()));
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let core = Mutex::new(Core::new(&config, sockets, down, Arc::default()));
        (core, Arc::clone(&up), Uplink::new(up, 0))
    }

    fn attach(core: &Mutex<Core>, uplink: &mut Uplink, ingress: impl Ingress) {
        let (source, sink) = split(ingress, None).unwrap();
        let path = lock(core).add_path(IngressId(0), PathConfig::default(), Arc::new(Mutex::new(sink)));
        uplink.add_source(path, source).unwrap();
    }

    fn request(seq: u16) -> Vec<u8> {
        echo_request([10, 0, 0, 1].into(), [127, 0, 0, 1].into(), 7, seq, b"")
    }

    #[test]
    fn a_round_is_bounded_and_the_next_one_reads_the_rest() {
        const PATHS: usize = 8;
        const PACKETS: u16 = 500;
        isolated(|| {
            let (core, up, mut uplink) = uplink();
            let paths = (0..PATHS).map(|_| {
                let (sender, ingress) = channel(|_: &[u8]| {}).unwrap();
                attach(&core, &mut uplink, ingress);
                (0..PACKETS).for_each(|seq| sender.send(&request(seq)).unwrap());
                sender
            });
            let _senders: Vec<_> = paths.collect();
            let (mut ready, mut read) = (Vec::new(), 0);
            while read < PATHS * usize::from(PACKETS) {
                up.wait(Some(Duration::ZERO), &mut ready).unwrap();
                uplink.round(&core, &ready, Instant::now(), false).unwrap();
                let before = std::mem::replace(&mut read, lock(&core).endpoint.counters().packets as usize);
                // The last path may add a batch of its own.
                assert!((1..=192).contains(&(read - before)), "{}", read - before);
            }
        });
    }

    /// Has one packet and ends.
    struct Ends<S>(S);

    impl<S: PacketSource> AsFd for Ends<S> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl<S: PacketSource> PacketSource for Ends<S> {
        fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
            batch.push_copy(&request(1), None);
            Err(io::ErrorKind::UnexpectedEof.into())
        }

        fn name(&self) -> String {
            "essential".into()
        }

        fn is_essential(&self) -> bool {
            true
        }
    }

    #[test]
    fn packets_that_were_read_are_served_before_the_loss_of_an_ingress_ends_the_worker() {
        isolated(|| {
            let (core, up, mut uplink) = uplink();
            let ((first, ordinary), (last, ends)) = (channel(|_: &[u8]| {}).unwrap(), channel(|_: &[u8]| {}).unwrap());
            attach(&core, &mut uplink, ordinary);
            let (source, sink) = ends.split().unwrap();
            attach(&core, &mut uplink, (Ends(source), sink));
            first.send(&request(1)).unwrap();
            last.send(&request(1)).unwrap();
            let mut ready = Vec::new();
            up.wait(None, &mut ready).unwrap();
            assert_eq!(ready.len(), 2);
            let ended = uplink.round(&core, &ready, Instant::now(), false);
            assert!(matches!(ended, Err(RunError::IngressGone { ingress, .. }) if ingress == "essential"));
            assert_eq!(lock(&core).endpoint.counters().requests_sent(), 2);
        });
    }
}
