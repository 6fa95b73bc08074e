//! From paths to ping sockets: requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Once};
use std::time::Instant;

use pingferry_proto::{DropReason, PathId, TransitHistogram, Verdict};
use tracing::{debug, warn};

use super::core::{Core, lock};
use super::inbox::Inbox;
use super::outbound::Outbound;
use super::packet_log;
use super::poller::{Poller, Ready, Token};
use crate::config::Config;
use crate::error::RunError;
use crate::events::Recorder;
use crate::ingress::channel::PathQueue;
use crate::ingress::{PacketBatch, PacketSource};
use crate::stats::IngressId;

/// Said once. Each packet of the loop is counted.
const LOOP: &str = "pingferry's own probes are routed back into its ingress; to keep them out, use --interface";
static LOOP_REPORTED: Once = Once::new();

/// The direction from paths to sockets. The worker's own thread has it, so what comes by one path is served in the order it
/// came.
pub(super) struct Uplink {
    poller: Arc<Poller>,
    sources: HashMap<PathId, Source>,
    /// Paths of the embedding program that have packets.
    scheduled: VecDeque<PathId>,
    /// Whether the next round reads these before the others. They take turns, because either can fill a batch.
    scheduled_first: bool,
    batch: PacketBatch,
    /// Paths whose sources are gone.
    closed: Vec<PathId>,
    /// Sources of closed paths. They are dropped without the worker's lock, because a program's own may take locks.
    removed: Vec<Source>,
    /// An ingress that the proxy cannot do without is gone. The packets that were read before are still served.
    lost: Option<RunError>,
    outbound: Outbound,
    /// `None` if it is not measured how long packets take. The newest round is not in it before the next one.
    transit: Option<TransitHistogram>,
    /// `None` if nobody wants to know of events.
    events: Option<Recorder>,
    /// When the endpoint has something to do next.
    deadline: Option<Instant>,
}

/// Where packets of a path come from.
pub(crate) struct Source {
    pub(super) source: Box<dyn PacketSource>,
    /// The queue of a path of the embedding program, which the [`Inbox`] schedules. The descriptor of any other source is watched.
    pub(super) queue: Option<Arc<PathQueue>>,
}

impl Uplink {
    pub(super) fn new(poller: Arc<Poller>, config: &Config) -> Self {
        Self {
            poller,
            sources: HashMap::new(),
            scheduled: VecDeque::new(),
            scheduled_first: false,
            batch: PacketBatch::new(),
            closed: Vec::new(),
            removed: Vec::new(),
            lost: None,
            outbound: Outbound::new(config.destination_scope()),
            transit: config.core.observe_flows.then(TransitHistogram::default),
            events: config.on_event.clone().map(Recorder::new),
            deadline: None,
        }
    }

    pub(super) fn add_source(&mut self, path: PathId, source: Source) {
        debug!(path = path.0, ingress = source.source.name(), "path attached");
        self.sources.insert(path, source);
    }

    /// Takes the paths that have packets from the inbox.
    pub(super) fn take_scheduled(&mut self, inbox: &Inbox) {
        inbox.take(&mut self.scheduled);
    }

    /// Whether paths are left that have packets.
    pub(super) fn has_scheduled(&self) -> bool {
        !self.scheduled.is_empty()
    }

    /// Closes the paths of an ingress. The packets that wait for them are counted as dropped.
    pub(super) fn detach(&mut self, core: &mut Core, ingress: IngressId) {
        core.remove_listener(ingress);
        for path in core.paths_of(ingress) {
            self.close_path(core, path);
        }
    }

    fn close_path(&mut self, core: &mut Core, path: PathId) {
        if let Some(source) = self.sources.remove(&path) {
            match &source.queue {
                Some(queue) => {
                    let (waiting, refused) = queue.retire();
                    core.endpoint.handle_lost(path, DropReason::PathClosed, waiting);
                    core.endpoint.handle_lost(path, DropReason::QueueFull, refused);
                }
                None => self.poller.remove(&source.source),
            }
            self.removed.push(source);
        }
        core.remove_path(path);
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
        if !self.batch.is_empty() || self.batch.queue_full().next().is_some() || !self.closed.is_empty() || is_due {
            let mut locked = lock(core);
            self.handle(&mut locked, now);
            count = self.outbound.flush(core, locked, now, low_latency);
            self.events.iter_mut().for_each(Recorder::send);
            if let Some(transit) = &mut self.transit {
                transit.record_many(now.elapsed(), u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        self.removed.clear();
        self.lost.take().map_or(Ok(count), Err)
    }

    fn receive(&mut self, ready: &[Ready]) {
        self.scheduled_first = !self.scheduled_first;
        if self.scheduled_first {
            self.receive_scheduled();
        }
        for ready in ready {
            if self.batch.is_full() {
                return;
            }
            if let Token::Path(path) = ready.token {
                self.receive_from(path);
            }
        }
        self.receive_scheduled();
    }

    fn receive_scheduled(&mut self) {
        while !self.batch.is_full()
            && let Some(path) = self.scheduled.pop_front()
        {
            self.receive_from(path);
        }
    }

    fn receive_from(&mut self, path: PathId) {
        let Some(Source { source, .. }) = self.sources.get_mut(&path) else { return };
        self.batch.begin(path);
        match source.receive(&mut self.batch) {
            Ok(()) => {}
            Err(error) if source.is_essential() => {
                self.lost = Some(RunError::IngressGone { ingress: source.name(), source: Arc::new(error) });
            }
            Err(error) => {
                debug!(path = path.0, %error, "path closed");
                self.closed.push(path);
            }
        }
    }

    /// Lets the endpoint handle what was read, and its deadlines.
    fn handle(&mut self, core: &mut Core, now: Instant) {
        core.rejected.clear();
        core.transit.requests = self.transit.unwrap_or_default();
        for (path, tag, packet) in self.batch.packets() {
            let verdict = core.endpoint.handle_packet(now, path, tag, packet);
            packet_log::packet(path, packet, verdict);
            if let Some(events) = &mut self.events
                && let Some(ingress) = core.ingress_of(path)
            {
                events.note(ingress, packet, verdict, core.endpoint.counters().flows_opened);
            }
            if verdict == Verdict::Dropped(DropReason::Loop) {
                LOOP_REPORTED.call_once(|| warn!("{LOOP}"));
            }
            core.touch(path);
        }
        for (path, count) in self.batch.queue_full() {
            core.endpoint.handle_lost(path, DropReason::QueueFull, count);
            core.touch(path);
        }
        self.batch.clear();
        for path in std::mem::take(&mut self.closed) {
            self.close_path(core, path);
        }
        core.endpoint.handle_timeout(now);
        core.log_withheld(now);
        self.deadline = core.endpoint.next_deadline();
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    use pingferry_proto::PathConfig;
    use pingferry_proto::wire::echo_request;
    use pingferry_testnet::isolated;

    use super::super::sockets::Sockets;
    use super::*;
    use crate::ingress::channel::ChannelSource;

    /// An uplink whose clients may ping loopback.
    fn uplink() -> (Mutex<Core>, Uplink) {
        let mut core = Config::default().core;
        core.policy.rules = vec!["allow 127.0.0.0/8".parse().unwrap()];
        let config = Config::default().with_core(core);
        let (up, down) = (Arc::new(Poller::new().unwrap()), Arc::new(Poller::new().unwrap()));
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let core = Mutex::new(Core::new(&config, sockets, down, Arc::default()));
        (core, Uplink::new(up, &config))
    }

    /// A path, with a source that is made of the one of its queue.
    fn attach<S: PacketSource + 'static>(
        core: &Mutex<Core>,
        uplink: &mut Uplink,
        inbox: &Arc<Inbox>,
        source: impl FnOnce(ChannelSource) -> S,
    ) -> Arc<PathQueue> {
        let queue = PathQueue::new(Arc::clone(inbox));
        let sink = Arc::new(Mutex::new(|_: &[u8]| {}));
        let path = lock(core).add_path(IngressId(0), PathConfig::default(), sink).unwrap();
        queue.set_path(path);
        let source = Box::new(source(ChannelSource::new(Arc::clone(&queue))));
        uplink.add_source(path, Source { source, queue: Some(Arc::clone(&queue)) });
        queue
    }

    fn request(seq: u16) -> Vec<u8> {
        echo_request([10, 0, 0, 1].into(), [127, 0, 0, 1].into(), 7, seq, b"")
    }

    #[test]
    fn a_round_is_bounded_and_the_next_one_reads_the_rest() {
        const PATHS: usize = 8;
        const PACKETS: u16 = 500;
        isolated(|| {
            let (core, mut uplink) = uplink();
            let inbox = Arc::new(Inbox::new().unwrap());
            for _ in 0..PATHS {
                let queue = attach(&core, &mut uplink, &inbox, |source| source);
                (0..PACKETS).for_each(|seq| queue.send(&request(seq), None).unwrap());
            }
            let mut read = 0;
            while read < PATHS * usize::from(PACKETS) {
                uplink.take_scheduled(&inbox);
                uplink.round(&core, &[], Instant::now(), false).unwrap();
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
            let (core, mut uplink) = uplink();
            let inbox = Arc::new(Inbox::new().unwrap());
            let first = attach(&core, &mut uplink, &inbox, |source| source);
            let last = attach(&core, &mut uplink, &inbox, Ends);
            first.send(&request(1), None).unwrap();
            last.send(&request(1), None).unwrap();
            uplink.take_scheduled(&inbox);
            let ended = uplink.round(&core, &[], Instant::now(), false);
            assert!(matches!(ended, Err(RunError::IngressGone { ingress, .. }) if ingress == "essential"));
            assert_eq!(lock(&core).endpoint.counters().requests_sent(), 2);
        });
    }
}
