//! Processes of subjects, and what they print.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::usage::Usage;

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    // Files, because a pipe that nobody reads would block the process.
    stdout: File,
    stderr: File,
}

/// What a process printed.
#[derive(Default)]
pub(crate) struct Output {
    /// The last line of its standard output, if that is JSON.
    pub(crate) json: Option<Value>,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts `command` by means of `spawn`.
    pub(super) fn spawn(
        command: &mut Command,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        Ok(Self { child: spawn(command)?, stdout, stderr })
    }

    /// The resources of the process and its descendants.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        Usage::of_tree(Pid::from_child(&self.child).as_raw_nonzero().get())
    }

    /// Terminates the process and returns what it printed.
    pub(super) fn stop(mut self) -> io::Result<Output> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        let stdout = contents(&mut self.stdout)?;
        let json = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        Ok(Output { json, stderr: contents(&mut self.stderr)? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is the normal case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn contents(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first line that `command` prints, if it succeeds.
pub(super) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
