//! The `pingferry` program beside this one, and which options it has.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::subject::first_line;
use crate::testbed::{CLIENT, Testbed};

/// How long to spin with `--busy-poll`: longer than a round trip here.
const BUSY_POLL: &str = "200us";

/// `pingferry run` on a TUN device of the client, which gets its address and its default route.
pub(crate) fn command(testbed: &Testbed, max_flows: Option<u32>, busy_poll: bool) -> io::Result<Command> {
    let mut command = program();
    command.args(["run", "--log-format", "json", "--tun", "ping0", "--netns", "/proc/self/fd/0"]);
    command.args(["--address", &format!("{}/32", CLIENT.addr()), "--route", "default"]);
    if let Some(flows) = max_flows {
        command.args(["--max-flows", &(flows + 1).to_string()]);
    }
    if busy_poll {
        command.args(["--busy-poll", BUSY_POLL]);
    }
    command.stdin(testbed.client_as_stdin()?);
    Ok(command)
}

pub(crate) fn version() -> Result<String, String> {
    first_line(program().arg("--version")).ok_or_else(|| format!("not built: no {}", path().display()))
}

/// The version, if `pingferry run` has an option of this name.
pub(crate) fn require_option(name: &str) -> Result<String, String> {
    let help = program().args(["run", "--help"]).stdin(Stdio::null()).output();
    let help = help.map_err(|error| format!("{}: {error}", path().display()))?;
    if String::from_utf8_lossy(&help.stdout).contains(name) {
        return version();
    }
    Err(format!("no {name}"))
}

fn program() -> Command {
    let mut command = Command::new(path());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PINGFERRY_")) {
        command.env_remove(name);
    }
    command
}

/// The program in the folder this one is in, or, for tests, in the one above it.
fn path() -> PathBuf {
    let here = env::current_exe().unwrap_or_default();
    let mut folders = here.ancestors().skip(1).take(2).map(|folder| folder.join("pingferry"));
    folders.find(|path| path.is_file()).unwrap_or_else(|| here.with_file_name("pingferry"))
}
