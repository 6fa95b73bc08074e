//! The keys that restrict clients, and whether a file still has those that it had.
//!
//! A file that is half written or was emptied by accident parses, and has no rules. Without its rules it would allow what
//! they forbade. So a key that was there must stay, even if it becomes an empty list.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::model::{Device, Settings};

/// The keys, of the top level and of tables, without which clients may do more.
const RESTRICTIONS: [&str; 2] = ["policy", "source"];

/// The [`RESTRICTIONS`] that a file has, each with the device of its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessKeys(BTreeSet<(Option<Device>, &'static str)>);

impl AccessKeys {
    /// Those of a file that was parsed to `settings`.
    pub(super) fn of(table: &Table, settings: &Settings) -> Self {
        let keys = |table: &Table| RESTRICTIONS.into_iter().filter(|key| table.contains_key(*key)).collect::<Vec<_>>();
        let tables = table.get("ingress").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
        let in_tables = settings.ingress.iter().zip(tables).flat_map(|(ingress, table)| {
            let device = ingress.get_ref().device();
            keys(table).into_iter().map(move |key| (Some(device.clone()), key))
        });
        Self(keys(table).into_iter().map(|key| (None, key)).chain(in_tables).collect())
    }

    /// Whether `new` has all of these.
    ///
    /// # Errors
    /// A line that names a key which is missing.
    pub(super) fn all_in(&self, new: &Self) -> Result<(), String> {
        let Some((device, key)) = self.0.difference(&new.0).next() else { return Ok(()) };
        let of_table = device.as_ref().map(|device| format!(" of {}", device.name())).unwrap_or_default();
        Err(format!("`{key}`{of_table} is missing, which the file had before; to empty it, write `{key} = []`"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::*;

    fn keys(text: &str) -> AccessKeys {
        AccessKeys::of(&text.parse().unwrap(), &parse(text).unwrap())
    }

    #[test]
    fn a_key_that_is_lost_is_named() {
        let old = "policy = []\n[[ingress]]\ntun = 'a'\nsource = ['::/0']\n[[ingress]]\ntun = 'a'\nnetns = '/n'";
        for (new, lost) in [
            (old, None),
            ("policy = ['deny ::1']\n[[ingress]]\ntun = 'a'\nsource = []\ngateway = []", None),
            ("[[ingress]]\ntun = 'a'\nsource = []", Some("`policy` is missing")),
            ("policy = []", Some("`source` of TUN device a is missing")),
            (
                "policy = []\n[[ingress]]\ntun = 'a'\nnetns = '/n'\nsource = []",
                Some("`source` of TUN device a is missing"),
            ),
        ] {
            let error = keys(old).all_in(&keys(new)).err();
            assert_eq!(error.is_some(), lost.is_some(), "{new}");
            assert!(error.unwrap_or_default().starts_with(lost.unwrap_or_default()), "{new}");
        }
    }
}
