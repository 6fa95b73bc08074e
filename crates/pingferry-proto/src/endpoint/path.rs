//! Paths: they are added, configured, counted and removed.

use crate::config::PathConfig;
use crate::endpoint::{Endpoint, Path};
use crate::flow::key::PathId;
use crate::stats::PathCounters;

impl Endpoint {
    /// Adds a path. Its identifier is never used again.
    pub fn add_path(&mut self, config: PathConfig) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        self.paths.insert(id, Path { config, counters: PathCounters::default() });
        id
    }

    /// Changes the configuration of a path. Its flows stay; their next packets are handled by the new configuration. The
    /// domain stays what it was, whatever `config` says. Returns false if there is no such path.
    pub fn set_path_config(&mut self, path: PathId, config: PathConfig) -> bool {
        let Some(path) = self.paths.get_mut(&path) else { return false };
        path.config = config.with_domain(path.config.domain);
        true
    }

    /// What happened on a path so far. `None` if there is no such path.
    pub fn path_counters(&self, path: PathId) -> Option<PathCounters> {
        self.paths.get(&path).map(|path| path.counters)
    }

    /// Removes a path. Its flows stay open until they are idle or appear on another path of the domain. Until then their
    /// replies are dropped.
    pub fn remove_path(&mut self, path: PathId) {
        self.paths.remove(&path);
    }
}
