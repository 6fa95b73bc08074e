//! A pingferry executable.

use std::env;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::process::first_line;
use crate::testbed::{CLIENT, Testbed};

/// How long to poll with `--busy-poll`. It is longer than a round trip here.
const BUSY_POLL: &str = "200us";

/// The path of the executable.
#[derive(Clone, Debug)]
pub(super) struct Executable(pub(super) PathBuf);

impl Executable {
    /// The executable that was built together with this program: in the same folder, or for tests in the one above.
    pub(super) fn built() -> Self {
        let here = env::current_exe().unwrap_or_default();
        let mut candidates = here.ancestors().skip(1).take(2).map(|folder| folder.join("pingferry"));
        Self(candidates.find(|path| path.is_file()).unwrap_or_else(|| here.with_file_name("pingferry")))
    }

    /// Its version, or why it cannot be run.
    pub(super) fn version(&self) -> Result<String, String> {
        first_line(self.command().arg("--version"))
            .filter(|line| line.starts_with("pingferry "))
            .ok_or_else(|| format!("{self} is not a pingferry executable"))
    }

    /// `pingferry run` on a TUN device of the client, which gets an address and a default route.
    pub(super) fn run(&self, testbed: &Testbed, max_flows: Option<u32>, busy_poll: bool) -> io::Result<Command> {
        let mut command = self.command();
        command.args(["run", "--log-format", "json", "--tun", "ping0", "--netns", "/proc/self/fd/0"]);
        command.args(["--address", &format!("{}/32", CLIENT.addr()), "--route", "default"]);
        if let Some(flows) = max_flows {
            command.args(["--max-flows", &flows.to_string()]);
        }
        if busy_poll {
            command.args(["--busy-poll", BUSY_POLL]);
        }
        command.stdin(testbed.client_as_stdin()?);
        Ok(command)
    }

    /// The command without the caller's environment variables for pingferry.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PINGFERRY_")) {
            command.env_remove(name);
        }
        command
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
