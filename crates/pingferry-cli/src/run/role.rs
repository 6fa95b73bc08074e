//! What the admin server tells of `run`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pingferry::Control;
use serde_json::{Map, Value};

use crate::admin::{ObservedProxy, Page, Role, responds};

pub(super) struct RunRole {
    pub(super) proxy: ObservedProxy,
    /// The ingresses, by their names for people.
    pub(super) ingresses: Vec<String>,
    pub(super) reloads: Arc<ReloadResult>,
}

impl Role for RunRole {
    fn responds(&self) -> bool {
        responds(&self.proxy.control)
    }

    /// At least one family works and one ingress is served.
    fn health(&self) -> (bool, Map<String, Value>) {
        let (can_ping, families) = self.proxy.families();
        let details = [("families".into(), families), ("ingresses".into(), self.ingresses.clone().into())];
        (can_ping && !self.ingresses.is_empty(), Map::from_iter(details))
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = self.proxy.status();
        status.insert("reload_success".into(), self.reloads.is_successful().into());
        status
    }

    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.proxy(&self.proxy)?;
        page.reload_success(self.reloads.is_successful())
    }

    fn proxy(&self) -> Option<&Control> {
        Some(&self.proxy.control)
    }
}

/// Whether the newest reload of the configuration was successful.
#[derive(Debug)]
// Relaxed: it stands alone.
pub(crate) struct ReloadResult(AtomicBool);

impl Default for ReloadResult {
    /// The configuration of the start was read.
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl ReloadResult {
    pub(crate) fn set(&self, successful: bool) {
        self.0.store(successful, Ordering::Relaxed);
    }

    pub(crate) fn is_successful(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
