//! Where the admin server listens.

use std::env;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The file of the default socket in the runtime directory.
const FILE: &str = "admin.sock";

/// An address of the admin server: `default`, `unix:PATH` or `ADDRESS:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// A Unix socket in the runtime directory.
    Default,
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl AdminAddress {
    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Default | Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }

    /// The path of its Unix socket, if it is one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Default => Some(runtime_folder().join(FILE)),
            Self::Unix(path) => Some(path.clone()),
            Self::Tcp(_) => None,
        }
    }

    /// The path of the default socket of a running process: of the first runtime directory that has one.
    pub(crate) fn of_running() -> Self {
        let sockets = runtime_folders().map(|folder| folder.join(FILE));
        sockets.into_iter().find(|path| path.exists()).map_or(Self::Default, Self::Unix)
    }
}

/// The folder that the default socket is created in.
fn runtime_folder() -> PathBuf {
    runtime_folders().next().unwrap_or_else(|| PathBuf::from("/run/pingferry"))
}

/// That of the unit (`RuntimeDirectory=` in systemd.exec(5)), of the user (XDG Base Directory Specification), of the system.
fn runtime_folders() -> impl Iterator<Item = PathBuf> {
    let of_unit = env::var("RUNTIME_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from));
    let of_user = env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("pingferry"));
    of_unit.into_iter().chain(of_user).chain([PathBuf::from("/run/pingferry")]).filter(|folder| folder.is_absolute())
}

impl FromStr for AdminAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            _ if text == "default" => Ok(Self::Default),
            Some("") => Err("expected a path after unix:"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected default, unix:PATH or an address such as 127.0.0.1:9090"),
        }
    }
}

impl Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["default", "unix:/run/a b", "127.0.0.1:9090", "[::1]:9090", "0.0.0.0:1"] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "localhost:9090", "127.0.0.1", "9090"] {
            assert!(text.parse::<AdminAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        let is_local = |text: &str| text.parse::<AdminAddress>().unwrap().is_local();
        for text in ["default", "unix:/a", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_local(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", "[fe80::1]:1"] {
            assert!(!is_local(text), "{text}");
        }
    }
}
