//! Who carries the echoes: pingferry, its peers in userspace, and the kernel.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Child, Command, Stdio};

use pingferry_testnet::{has_program, link};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::load::{GROWTH, Load, MILLION, ONE_ECHO};
use crate::pingferry;
use crate::process::{Usage, usage};
use crate::testbed::{CLIENT, ROUTER, TO_RESPONDER, Testbed};

/// The client's device, where the subject makes it.
const DEVICE: &str = "tap0";

/// Who carries the echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `pingferry run`.
    Pingferry,
    /// The same with `--busy-poll`.
    PingferryBusy,
    /// pasta, of passt.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
    /// A router with an nftables masquerade rule.
    Nat,
}

impl Subject {
    pub(crate) const ALL: [Self; 5] = [Self::Pingferry, Self::PingferryBusy, Self::Pasta, Self::Slirp4netns, Self::Nat];
    /// The peers that run in userspace.
    pub(crate) const PEERS: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pingferry => "pingferry",
            Self::PingferryBusy => "busy-poll",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
            Self::Nat => "nat",
        }
    }

    /// What it is, or why it cannot take part.
    pub(crate) fn version(self) -> Result<String, String> {
        match self {
            Self::Pingferry => pingferry::version(),
            Self::PingferryBusy => pingferry::require_option("--busy-poll"),
            Self::Pasta => version_of("pasta", "passt"),
            Self::Slirp4netns => version_of("slirp4netns", "slirp4netns"),
            Self::Nat => version_of("nft", "nftables"),
        }
    }

    /// Whether the load is one for it; the reason why not, otherwise.
    pub(crate) fn takes(self, load: &Load) -> Result<(), String> {
        match (self, load.id) {
            (Self::Pingferry, MILLION) => pingferry::require_option("--max-flows").map(drop),
            (Self::PingferryBusy, id) if id != ONE_ECHO => Err("is for one outstanding echo".into()),
            (_, MILLION) => Err("has no room for that many".into()),
            (Self::Nat, GROWTH) => Err("has no process to look at".into()),
            (Self::Pasta, GROWTH) => Err("needs an ident and a descriptor for each flow".into()),
            _ => Ok(()),
        }
    }

    /// Starts it in a testbed. It is ready when an echo comes back.
    pub(crate) fn start(self, testbed: &Testbed, load: &Load) -> io::Result<Running> {
        let mut command = match self {
            Self::Pingferry => pingferry::command(testbed, (load.id == MILLION).then_some(load.flows.count), false)?,
            Self::PingferryBusy => pingferry::command(testbed, None, true)?,
            Self::Pasta => pasta(testbed)?,
            Self::Slirp4netns => slirp4netns(testbed)?,
            Self::Nat => return masquerade(testbed).map(|()| Running { process: None }),
        };
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let child = testbed.proxy.spawn(&mut command)?;
        Ok(Running { process: Some(Process { child, stdout, stderr }) })
    }
}

/// A subject that runs.
pub(crate) struct Running {
    process: Option<Process>,
}

struct Process {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// What its processes use; `None` of the kernel.
    pub(crate) fn usage(&self) -> io::Result<Option<Usage>> {
        self.process.as_ref().map(|process| usage(process.child.id())).transpose()
    }

    /// Ends it and gives what it said: on standard output as JSON if it is that, and on standard error.
    pub(crate) fn stop(mut self) -> io::Result<(Option<Value>, String)> {
        let Some(mut process) = self.process.take() else { return Ok((None, String::new())) };
        kill_process(Pid::from_child(&process.child), Signal::TERM)?;
        process.child.wait()?;
        let stdout = whole(&mut process.stdout)?;
        let last = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        Ok((last, whole(&mut process.stderr)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It has ended already unless the measurement failed.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn whole(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Stays in the user namespace it is started in (`--netns-only` is implied by a path) and as its root, the only user
/// there is. Its MTU is that of the others, to be fair.
fn pasta(testbed: &Testbed) -> io::Result<Command> {
    let mut command = Command::new("pasta");
    command.args(["--foreground", "--config-net", "--runas", "0:0", "--mtu", "1500", "--no-netns-quit"]);
    command.args(["--ns-ifname", DEVICE, "--netns", "/proc/self/fd/0"]).stdin(testbed.client_as_stdin()?);
    Ok(command)
}

fn slirp4netns(testbed: &Testbed) -> io::Result<Command> {
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu=1500", "--disable-host-loopback", "--netns-type=path"]);
    command.args(["/proc/self/fd/0", DEVICE]).stdin(testbed.client_as_stdin()?);
    Ok(command)
}

/// Makes the ferry a router that gives the client's packets its own address (NAT44, RFC 3022 section 2.2).
fn masquerade(testbed: &Testbed) -> io::Result<()> {
    link(&testbed.client, "eth0", &[CLIENT.into()], &testbed.proxy, "to-client", &[ROUTER.into()], None)?;
    testbed.route_client(Some(ROUTER.addr().into()), "eth0")?;
    testbed.proxy.set_sysctl("net/ipv4/ip_forward", "1")?;
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = testbed.proxy.spawn(&mut command)?;
    if let Some(mut stdin) = nft.stdin.take() {
        writeln!(
            stdin,
            "table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {TO_RESPONDER} masquerade; }}; }}"
        )?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// What a program says of its version, and, since some do not know theirs, what the package is.
fn version_of(program: &str, package: &str) -> Result<String, String> {
    if !has_program(program) {
        return Err("not installed".into());
    }
    let said = first_line(Command::new(program).arg("--version")).unwrap_or_else(|| program.into());
    match first_line(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package])) {
        Some(version) => Ok(format!("{said} (package {package} {version})")),
        None => Ok(said),
    }
}

/// The first line a command says, if it ends well.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
