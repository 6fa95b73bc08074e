//! Looking at the flows of a running proxy, and whether it runs.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use pingferry_proto::FlowInfo;

use crate::control::Control;

/// How many places of the table are read at a time.
const PLACES_PER_PAGE: usize = 1000;

/// Where a page of flows begins. As text it is two numbers with a dot between them.
///
/// ```
/// use pingferry::FlowCursor;
///
/// let cursor: FlowCursor = "1.4000".parse()?;
/// assert_eq!(cursor.to_string(), "1.4000");
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCursor {
    worker: usize,
    place: usize,
}

impl fmt::Display for FlowCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.place)
    }
}

impl FromStr for FlowCursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (worker, place) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { worker: worker.parse()?, place: place.parse()? })
    }
}

impl Control {
    /// Some of the open flows, from a cursor on, and the cursor of the next ones. `None` starts, and ends. There are none unless
    /// [flows are observed](pingferry_proto::Config::observe_flows). The packet path waits while a page is made, some hundred
    /// microseconds at most.
    pub fn flows(&self, cursor: Option<FlowCursor>) -> (Vec<FlowInfo>, Option<FlowCursor>) {
        let FlowCursor { worker, place } = cursor.unwrap_or_default();
        let Some(remote) = self.workers().get(worker) else { return (Vec::new(), None) };
        let page = remote.flow_page(place, PLACES_PER_PAGE);
        let here = page.next.map(|place| FlowCursor { worker, place });
        let next_worker = Some(worker + 1).filter(|worker| *worker < self.workers().len());
        (page.flows, here.or(next_worker.map(|worker| FlowCursor { worker, place: 0 })))
    }

    /// Whether the thread of every worker carries out a command within this time. It waits for that, so a callback must not call
    /// it: its worker would not respond.
    pub fn responds_within(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let asked: Vec<_> = self
            .workers()
            .iter()
            .map(|worker| {
                let (done, responded) = sync_channel(1);
                worker.confirm(done);
                responded
            })
            .collect();
        asked.iter().all(|responded| responded.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok())
    }
}
