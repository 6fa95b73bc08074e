//! SIGHUP: the configuration is read again, and what can change while the proxy runs is changed.

use std::collections::{BTreeMap, BTreeSet};

use pingferry::{Attachment, Closed, Control, PathConfig};
use toml::{Table, Value};
use tracing::{error, info, warn};

use super::build::{policy, with_live_settings};
use super::model::{Ingress, Settings};
use crate::error::CliError;

/// The keys, of the top level and of tables, that change while the proxy runs.
const LIVE: [&str; 3] = ["policy", "gateway", "source"];

/// Reads the configuration in the same way as at the start.
pub(crate) type Load = Box<dyn Fn() -> Result<Settings, CliError> + Send>;

/// Applies a changed configuration file to a running proxy.
pub(crate) struct Reload {
    pub(crate) load: Load,
    /// The settings at the start. They are still in force, except for those that are [`LIVE`].
    pub(crate) initial: Settings,
    pub(crate) served: Vec<Served>,
}

/// An ingress that the proxy serves.
pub(crate) struct Served {
    pub(crate) ingress: Ingress,
    pub(crate) config: PathConfig,
    pub(crate) attachment: Attachment,
}

impl Reload {
    /// Reads the configuration again and applies it. If it has an error, nothing changes.
    pub(crate) fn reload(&self, control: &Control) {
        let read = (self.load)().and_then(|settings| Ok((changed_keys(&self.initial, &settings)?, settings)));
        let (changed, settings) = match read {
            Ok(read) => read,
            Err(error) => return error!("{error}; the configuration was not changed"),
        };
        // A proxy that has ended needs no configuration.
        if self.apply(&settings, control).is_ok() {
            info!("reloaded {}; policy: {} rules", LIVE.join(", "), settings.policy.len());
        }
        let waiting: Vec<String> = changed.into_iter().filter(|key| !is_live(key)).collect();
        if !waiting.is_empty() {
            warn!("changed, but in force only after a restart: {}", waiting.join(", "));
        }
    }

    fn apply(&self, settings: &Settings, control: &Control) -> Result<(), Closed> {
        control.set_policy(&policy(&settings.policy))?;
        let ingresses = settings.ingresses();
        for served in &self.served {
            // An ingress that is no longer in the configuration is served as before until the restart.
            if let Some(ingress) = ingresses.iter().find(|ingress| ingress.is_same_device(&served.ingress)) {
                served.attachment.configure(&with_live_settings(served.config.clone(), ingress))?;
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
