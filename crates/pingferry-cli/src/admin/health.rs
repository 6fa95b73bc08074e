//! Whether the proxy lives, and whether pings can cross.

use std::time::Duration;

use pingferry::{Control, Family};
use pingferry_sys::ping::{PingSocket, SocketOptions};
use serde_json::{Value, json};

use super::Observed;

/// How long a worker may take to respond.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether every worker responds.
pub(crate) fn responds(control: &Control) -> bool {
    control.responds_within(PATIENCE)
}

/// Whether at least one family works and one ingress is served, and which are.
pub(super) fn ready(observed: &Observed) -> (bool, Value) {
    let works = |family| PingSocket::open(&SocketOptions::new(family)).map(drop).map_err(|error| error.to_string());
    let (v4, v6) = (works(Family::V4), works(Family::V6));
    let is_alive = responds(&observed.control);
    let ready = is_alive && (v4.is_ok() || v6.is_ok()) && !observed.ingresses.is_empty();
    let family = |works: Result<(), String>| {
        works.map_or_else(|why| json!({"works": false, "why": why}), |()| json!({"works": true}))
    };
    let families = json!({"ipv4": family(v4), "ipv6": family(v6)});
    (ready, json!({"ready": ready, "alive": is_alive, "families": families, "ingresses": observed.ingresses}))
}
