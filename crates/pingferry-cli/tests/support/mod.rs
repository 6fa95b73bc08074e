//! The program under test, and networks to run it in.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

pub mod client;
pub mod forgery;
pub mod routed;
#[cfg(feature = "tunnel")]
pub mod tunnel;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};

use ipnet::IpNet;
use pingferry_testnet::{Host, link, require_program, require_tun};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tempfile::TempDir;

use self::client::Client;

pub const TARGET: &str = "192.0.2.2";
pub const TARGET_6: &str = "2001:db8::2";
/// The address that pingferry pings from.
pub const PROXY: &str = "192.0.2.1";
pub const PROXY_6: &str = "2001:db8::1";
/// The client's addresses on its TUN device.
pub const CLIENT: &str = "198.51.100.2";
pub const CLIENT_6: &str = "2001:db8:1::2";

pub fn pingferry() -> Command {
    without_environment(Command::new(env!("CARGO_BIN_EXE_pingferry")))
}

/// pingferry, which is killed if it does not end by itself: where it must, a test then fails instead of hanging.
pub fn pingferry_that_ends() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal", "KILL", "30", env!("CARGO_BIN_EXE_pingferry")]);
    without_environment(command)
}

fn without_environment(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PINGFERRY_")) {
        command.env_remove(name);
    }
    command
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Whether the machine has TUN devices and the programs that a test needs.
pub fn can_run(programs: &[&str]) -> bool {
    require_tun() && programs.iter().all(|program| require_program(program))
}

/// Three hosts. `client` has only the TUN device that pingferry creates. pingferry runs in `proxy`, which a veth
/// connects to `target`. The target also has 198.18.0.0/15, so that there are many addresses to ping.
pub struct Network {
    pub client: Host,
    pub proxy: Host,
    pub target: Host,
}

impl Network {
    pub fn new() -> Self {
        let [client, proxy, target] = ["client", "proxy", "target"].map(|name| Host::new(name).unwrap());
        let here = [net("192.0.2.1/24"), net("2001:db8::1/64")];
        let there = [net("192.0.2.2/24"), net("2001:db8::2/64")];
        link(&proxy, "to-target", &here, &target, "to-proxy", &there, None).unwrap();
        target.add_address("lo", net("198.18.0.1/15")).unwrap();
        proxy.add_route(net("198.18.0.0/15"), Some(TARGET.parse().unwrap()), "to-target").unwrap();
        Self { client, proxy, target }
    }

    /// Starts `pingferry run` in `proxy`, with a TUN device in `client` to which everything is routed.
    pub fn run(&self, more: &[&str]) -> Running {
        self.run_with(more, Stdio::inherit())
    }

    /// The same, with its log going to `stderr`.
    pub fn run_with(&self, more: &[&str], stderr: Stdio) -> Running {
        let mut command = pingferry();
        command.stderr(stderr);
        command.args(["run", "--tun", "ping0", "--netns"]).arg(self.netns_path());
        command.args(["--address", "198.51.100.2/32", "--address", "2001:db8:1::2/128", "--route", "default"]);
        Running::start(&self.proxy, command.args(more))
    }

    /// Sets the proxy's link to the target up or down.
    pub fn set_link(&self, up: bool) {
        let set = self.proxy.with_netlink(|netlink| {
            let index = netlink.index("to-target")?;
            if up { netlink.set_up(index) } else { netlink.set_down(index) }
        });
        set.unwrap();
    }

    /// The path of the client's namespace.
    pub fn netns_path(&self) -> String {
        netns_path(&self.client)
    }
}

/// The path of the namespace of a host. It is valid as long as the host exists.
pub fn netns_path(host: &Host) -> String {
    use std::os::fd::{AsFd, AsRawFd};
    format!("/proc/{}/fd/{}", std::process::id(), host.netns.as_fd().as_raw_fd())
}

/// `pingferry run` in the proxy of a network, with a Unix socket in a temporary folder.
pub struct Served {
    pub network: Network,
    pub running: Running,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Served {
    pub fn start(more: &[&str]) -> Self {
        Self::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(socket).args(more);
            command
        })
    }

    /// Starts it with a hard limit of descriptors.
    pub fn start_with_descriptors(limit: u32) -> Self {
        Self::start_as(|socket| {
            let mut command = Command::new("sh");
            let script = format!(r#"ulimit -n {limit}; exec "$0" run --unix "$1" "$2" "$3""#);
            command.args(["-c", &script, env!("CARGO_BIN_EXE_pingferry")]).arg(socket);
            command
        })
    }

    /// Starts it by a command, which is given the path of the socket.
    pub fn start_as(command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let network = Network::new();
        let running = Running::start(&network.proxy, &mut command(&socket));
        Self { network, running, socket, _folder: folder }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket)
    }
}

/// A `pingferry run` that is ready.
pub struct Running {
    child: Child,
    stdout: Box<dyn BufRead>,
    pub ready: String,
}

impl Running {
    pub fn start(host: &Host, command: &mut Command) -> Self {
        command.args(["--log-format", "json"]).stdout(Stdio::piped());
        let mut child = host.spawn(command).unwrap();
        let mut stdout = Box::new(BufReader::new(child.stdout.take().unwrap()));
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        assert!(ready.contains("ready: "), "not ready: {ready:?}");
        Self { child, stdout, ready }
    }

    /// Its log, which must have been piped.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Suspends it as a debugger does, and waits until it is suspended.
    pub fn pause(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }

    /// Continues it.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Lets it read its configuration again.
    pub fn reload(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it with a signal and returns its stats.
    pub fn stop_with(mut self, signal: Signal) -> Value {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut stats = String::new();
        self.stdout.read_to_string(&mut stats).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        serde_json::from_str(&stats).unwrap_or_else(|error| panic!("{error}: {stats}"))
    }

    pub fn stop(self) -> Value {
        self.stop_with(Signal::TERM)
    }

    /// Waits for it to end by itself, and returns its exit code and what it printed after the first line.
    pub fn end_with_output(mut self) -> (Option<i32>, String) {
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap().code(), printed)
    }

    /// Stops reading its standard output.
    pub fn close_stdout(&mut self) {
        self.stdout = Box::new(std::io::empty());
    }

    /// Waits for it to end by itself.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without effect if it has ended, which it has unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The resident memory of a process in KiB, and its number of descriptors.
pub fn resources_of(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (resident, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// Every packet, reply and ICMP error is counted exactly once: as passed on or as dropped.
pub fn assert_counters_add_up(stats: &Value) {
    let count = |key: &str| stats[key].as_u64().unwrap();
    let sum = |key: &str| -> u64 { stats[key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum() };
    let [packets, sent, answers, held] = ["packets", "requests_sent", "answers", "fragments_held"].map(count);
    assert_eq!(packets, sent + answers + held + sum("request_drops"), "{stats}");
    let [received, returned] =
        ["received", "returned"].map(|what| count(&format!("replies_{what}")) + count(&format!("icmp_errors_{what}")));
    assert_eq!(received, returned + sum("reply_drops"), "{stats}");
    for (passed, attempted, failed) in [
        ("requests_sent", "requests_attempted", "requests_failed"),
        ("answers", "answers_attempted", "answers_failed"),
        ("fragments_held", "fragments_accepted", "fragments_discarded"),
        ("replies_returned", "replies_attempted", "replies_failed"),
        ("icmp_errors_returned", "icmp_errors_attempted", "icmp_errors_failed"),
        ("errors_generated", "errors_generated_attempted", "errors_generated_failed"),
    ] {
        assert_eq!(count(passed), count(attempted) - count(failed), "{passed}: {stats}");
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output and standard error of a program.
pub fn all_output(output: &Output) -> String {
    stdout(output) + &stderr(output)
}
