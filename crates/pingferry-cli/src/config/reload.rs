//! SIGHUP: the configuration is read again, and what can change while the proxy runs is changed.
//!
//! A thread of its own does that: reading a file can take long, and the thread that waits for signals must not wait for
//! anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use pingferry::{AttachError, Attachment, Control, PathConfig};
use toml::{Table, Value};
use tracing::{error, info, warn};

use super::access::AccessKeys;
use super::build::{policy, with_live_settings};
use super::model::{Ingress, Settings};
use super::validate;
use super::values::Gateways;
use crate::error::CliError;
use crate::notify::Notifier;
use crate::run::ReloadResult;

/// The keys, of the top level and of tables, that change while the proxy runs.
const LIVE: [&str; 3] = ["policy", "gateway", "source"];

/// Reads the configuration in the same way as at the start.
pub(crate) type Load = Box<dyn Fn() -> Result<Loaded, CliError> + Send>;

/// A configuration, as it was read.
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// Those of the file, if there is one.
    pub(crate) access_keys: AccessKeys,
}

/// Applies a changed configuration file to a running proxy.
pub(crate) struct Reload {
    pub(crate) load: Load,
    /// The settings at the start. They are still in force, except for those that are [`LIVE`].
    pub(crate) initial: Settings,
    /// Those of the file that was applied last.
    pub(crate) access_keys: AccessKeys,
    pub(crate) served: Vec<Served>,
    /// Who is told how it went.
    pub(crate) result: Arc<ReloadResult>,
    pub(crate) notifier: Notifier,
}

/// Asks for reloads.
pub(crate) struct Reloader(SyncSender<()>);

/// An ingress that the proxy serves.
pub(crate) struct Served {
    pub(crate) ingress: Ingress,
    pub(crate) config: PathConfig,
    pub(crate) attachment: Attachment,
    /// Its gateways if none are configured.
    pub(crate) default_gateway: Gateways,
}

impl Reloader {
    /// Asks for a reload. Never waits: a reload that is still to begin reads the newest file anyway.
    pub(crate) fn reload(&self) {
        let _ = self.0.try_send(());
    }
}

impl Reload {
    /// Starts the thread that reloads.
    pub(crate) fn start(mut self, control: Control) -> io::Result<Reloader> {
        // Room for the one request that is still to begin.
        let (sender, requests) = sync_channel(1);
        let reload = move || {
            for () in requests {
                self.notifier.reloading();
                let successful = self.reload(&control);
                self.result.set(successful);
                self.notifier.ready(if successful {
                    "serving"
                } else {
                    "serving; the newest configuration has an error"
                });
            }
        };
        thread::Builder::new().name("reload".into()).spawn(reload)?;
        Ok(Reloader(sender))
    }

    /// Reads the configuration again and applies it. If it has an error, nothing changes. Returns whether it has none.
    fn reload(&mut self, control: &Control) -> bool {
        let (changed, Loaded { settings, access_keys }) = match self.read() {
            Ok(read) => read,
            Err(error) => {
                error!("{error}; the configuration was not changed");
                return false;
            }
        };
        // A proxy that has ended needs no configuration.
        if self.apply(&settings, control).is_ok() {
            validate::warnings(&settings).iter().for_each(|warning| warn!("{warning}"));
            info!("reloaded {}; policy: {} rules", LIVE.join(", "), settings.policy.len());
            self.access_keys = access_keys;
        }
        let waiting: Vec<String> = changed.into_iter().filter(|key| !is_live(key)).collect();
        if !waiting.is_empty() {
            warn!("changed, but in force only after a restart: {}", waiting.join(", "));
        }
        true
    }

    /// The configuration, and the keys whose values have changed.
    fn read(&self) -> Result<(Vec<String>, Loaded), CliError> {
        let loaded = (self.load)()?;
        self.access_keys.all_in(&loaded.access_keys).map_err(CliError::usage)?;
        let ingresses = loaded.settings.ingresses();
        let is_lost = |served: &&Served| ingresses.iter().all(|other| other.device() != served.ingress.device());
        if let Some(lost) = self.served.iter().find(is_lost) {
            let why = "is missing, which is served now; to remove it, restart pingferry";
            return Err(CliError::usage(format!("{} {why}", lost.ingress.name())));
        }
        Ok((changed_keys(&self.initial, &loaded.settings)?, loaded))
    }

    fn apply(&self, settings: &Settings, control: &Control) -> Result<(), AttachError> {
        control.set_policy(&policy(&settings.policy))?;
        let ingresses = settings.ingresses();
        for served in &self.served {
            if let Some(ingress) = ingresses.iter().find(|ingress| ingress.device() == served.ingress.device()) {
                served.attachment.configure(&with_live_settings(
                    served.config.clone(),
                    ingress,
                    served.default_gateway,
                ))?;
            }
        }
        Ok(())
    }
}

fn is_live(key: &str) -> bool {
    LIVE.contains(&key.rsplit('.').next().unwrap_or(key))
}

/// The keys whose values differ, such as `mtu` or `ingress[1].mtu`.
fn changed_keys(old: &Settings, new: &Settings) -> Result<Vec<String>, CliError> {
    let (old, new) = (values(old)?, values(new)?);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    Ok(keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned().collect())
}

fn values(settings: &Settings) -> Result<BTreeMap<String, Value>, CliError> {
    let mut table = Table::try_from(settings).map_err(|error| CliError::usage(error.to_string()))?;
    let tables = table.remove("ingress").and_then(|tables| tables.try_into::<Vec<Table>>().ok()).unwrap_or_default();
    let of_table = |(number, table): (usize, Table)| {
        table.into_iter().map(move |(key, value)| (format!("ingress[{number}].{key}"), value))
    };
    Ok(table.into_iter().chain(tables.into_iter().enumerate().flat_map(of_table)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::*;

    #[test]
    fn changes_are_named_by_key() {
        let settings = |text| parse(text).unwrap();
        let old = settings("workers = 2\ntun = \"a\"\npolicy = []\n[[ingress]]\nunix = \"/u\"\nmtu = 1400");
        let new = settings(
            "workers = 3\nidle_timeout = \"5s\"\ntun = \"a\"\npolicy = [\"allow ::1\"]\n\
             [[ingress]]\nunix = \"/u\"\n[[ingress]]\ntun = \"b\"",
        );
        let changed = changed_keys(&old, &new).unwrap();
        for key in ["idle_timeout", "ingress[0].mtu", "ingress[1].tun", "policy", "workers"] {
            assert!(changed.iter().any(|it| it == key), "{key}: {changed:?}");
        }
        assert!(!changed.iter().any(|key| key == "ingress[0].unix" || key == "tun"), "{changed:?}");
        assert!(changed_keys(&old, &old).unwrap().is_empty());
    }
}
