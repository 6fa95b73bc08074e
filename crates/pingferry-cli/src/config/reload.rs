//! SIGHUP: the configuration is read again, and what can change while the proxy runs is changed.

use std::collections::{BTreeMap, BTreeSet};

use pingferry::Control;
use toml::{Table, Value};
use tracing::{error, info, warn};

use super::build::policy;
use super::model::Settings;
use crate::error::CliError;

/// Reads the configuration in the same way as at the start.
pub(crate) type Load = Box<dyn Fn() -> Result<Settings, CliError> + Send>;

/// Applies a changed configuration file to a running proxy.
pub(crate) struct Reload {
    pub(crate) load: Load,
    /// What is in force.
    pub(crate) settings: Settings,
}

impl Reload {
    /// Reads the configuration again and puts its policy in force. If it has an error, nothing changes.
    pub(crate) fn reload(&mut self, control: &Control) {
        let read = (self.load)().and_then(|settings| Ok((changed_keys(&self.settings, &settings)?, settings)));
        let (changed, settings) = match read {
            Ok(read) => read,
            Err(error) => return error!("{error}; the configuration was not changed"),
        };
        self.settings.policy = settings.policy;
        // An error means that the proxy has ended, and then it needs no policy.
        if control.set_policy(&policy(&self.settings.policy)).is_ok() {
            info!("policy reloaded: {} rules", self.settings.policy.len());
        }
        let waiting: Vec<String> = changed.into_iter().filter(|key| key != "policy").collect();
        if !waiting.is_empty() {
            warn!("only the policy is reloaded; changed, but in force only after a restart: {}", waiting.join(", "));
        }
    }
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
