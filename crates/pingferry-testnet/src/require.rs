//! The requirements of a test, and what happens when the machine does not meet them.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};

use pingferry_sys::namespace::Netns;

/// Whether a test can continue. `what` names its requirement (`netns`, `tun`, `fping`, …), and `available` is an error with
/// the reason when the machine does not meet it.
///
/// Prints the reason as `skipped: REASON` and returns false. The test should then return.
///
/// # Panics
///
/// When the requirement is not met and the environment variable `PINGFERRY_REQUIRE`, a comma-separated list, contains
/// `what`.
///
/// # Examples
///
/// ```
/// use pingferry_testnet::require;
///
/// assert!(require("present", Ok(())));
/// assert!(!require("missing", Err("this machine does not have it".into())));
/// ```
pub fn require(what: &str, available: Result<(), String>) -> bool {
    let Err(reason) = available else { return true };
    let required = env::var("PINGFERRY_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|item| item.trim() == what), "{what} is required: {reason}");
    // Written directly, because libtest captures the output of a passing test and would hide the skip.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    false
}

/// [`require`] for a program in `PATH`, under the name of the program.
pub fn require_program(name: &str) -> bool {
    let found = if has_program(name) { Ok(()) } else { Err(format!("no {name} in PATH")) };
    require(name, found)
}

/// [`require`] for network namespaces without a user namespace of their own, under the name `root`. Only root of the
/// machine, or of a container in which all users and groups are mapped, can create them.
pub fn require_root() -> bool {
    require("root", Netns::create().map(drop).map_err(|error| format!("a network namespace as root: {error}")))
}

/// [`require`] for `/dev/net/tun`, under the name `tun`.
pub fn require_tun() -> bool {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    require("tun", opened.map(drop).map_err(|error| format!("/dev/net/tun: {error}")))
}

/// Whether a folder in `PATH` contains a file `name`.
pub fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
