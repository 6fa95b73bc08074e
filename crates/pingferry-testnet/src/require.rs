//! What a test needs from its machine, and what happens when that is missing.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};

use pingferry_sys::namespace::Netns;

/// Says whether a test can go on, given what it needs under the name `what` (`netns`, `tun`, `fping`, …).
///
/// When `available` is an error, its reason is printed as `skipped: reason` and the test should return; but if the
/// environment variable `PINGFERRY_REQUIRE`, a comma-separated list, has `what`, this panics.
pub fn require(what: &str, available: Result<(), String>) -> bool {
    let Err(reason) = available else { return true };
    let required = env::var("PINGFERRY_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|item| item.trim() == what), "{what} is required: {reason}");
    // Past libtest's capture, so that it shows in the log of a run that passed.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    false
}

/// [`require`] for a program that must be in `PATH`.
pub fn require_program(name: &str) -> bool {
    let found = if has_program(name) { Ok(()) } else { Err(format!("no {name} in PATH")) };
    require(name, found)
}

/// [`require`] for what takes root of the machine, or of a container that has all users and groups, under the name `root`:
/// network namespaces without a user namespace of their own.
pub fn require_root() -> bool {
    require("root", Netns::create().map(drop).map_err(|error| format!("a network namespace as root: {error}")))
}

/// [`require`] for TUN devices, under the name `tun`.
pub fn require_tun() -> bool {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    require("tun", opened.map(drop).map_err(|error| format!("/dev/net/tun: {error}")))
}

/// Whether `PATH` has a file called `name`.
pub fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
