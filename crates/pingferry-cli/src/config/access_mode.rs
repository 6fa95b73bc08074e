//! Who can connect to a Unix socket.

use std::fmt::{self, Display};
use std::fs;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The permissions of a file, in octal: `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileMode(pub(crate) u32);

impl FromStr for FileMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
        mode.map(Self).ok_or("expected permissions in octal from 0000 to 0777, such as 0660")
    }
}

impl Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A group, by its name or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Group(String);

impl FromStr for Group {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Group {
    /// Its number.
    ///
    /// # Errors
    /// It is neither a number nor in `/etc/group`.
    pub(crate) fn id(&self) -> Result<u32, String> {
        let groups = || fs::read_to_string("/etc/group").unwrap_or_default();
        let known = self.0.parse().ok().or_else(|| find(&groups(), &self.0));
        known.ok_or_else(|| format!("`{}` is no group of /etc/group; give its name there, or its number", self.0))
    }
}

/// The number of a group in the text of `/etc/group` (group(5)).
fn find(groups: &str, name: &str) -> Option<u32> {
    let mut fields = groups.lines().map(|line| line.split(':'));
    fields.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal() {
        let mode = |text: &str| text.parse::<FileMode>().map(|mode| mode.to_string());
        assert_eq!(mode("660"), Ok("0660".into()));
        assert_eq!(mode("0007"), Ok("0007".into()));
        for text in ["", "0800", "1777", "rw", "+7", "-1"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_is_a_number_or_a_name() {
        let groups = "root:x:0:\nclients:x:1001:alice,bob\nbad:x:\n";
        assert_eq!(
            ["root", "clients", "bad", "client"].map(|name| find(groups, name)),
            [Some(0), Some(1001), None, None]
        );
        assert_eq!("77".parse::<Group>().unwrap().id(), Ok(77));
        assert!("no-such-group-here".parse::<Group>().unwrap().id().is_err());
    }
}
