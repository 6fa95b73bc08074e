//! The tools, and how they are called.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pingferry_testnet::{has_program, require_program};

use super::support::routed::{FILTERED, TARGET};

/// The library that scamper is run with.
const LIBRARY: &str = "keep_user.so";
/// Names no server that listens.
const RESOLV_CONF: &str = "resolv.conf";

pub struct Tool {
    program: &'static str,
    /// How it is called, without the destination. `FAMILY` becomes `-4` or `-6`, `-6?` becomes `-6` or nothing.
    arguments: String,
    /// Whether it is also called for the destination that a router prohibits.
    shows_errors: bool,
    /// Where it may write files.
    folder: PathBuf,
}

pub fn tools(folder: &Path) -> Vec<Tool> {
    fs::write(folder.join(RESOLV_CONF), "nameserver 127.0.0.1\n").unwrap();
    if has_program("cc") {
        build_library(folder);
    }
    let mut tools = Vec::new();
    let mut add = |program, arguments: String| {
        let shows_errors = ["traceroute", "tracepath", "scamper"].contains(&program);
        tools.push(Tool { program, arguments, shows_errors, folder: folder.into() });
    };
    // A fixed time to wait: by default traceroute gives up after three times the time of the last answer.
    for mode in ["-I", "", "-T", "-T -p 81", "-U", "-U -p 80", "--mtu"] {
        add("traceroute", format!("FAMILY -n -w 5 {mode}"));
    }
    add("tracepath", "FAMILY -n".into());
    for mode in ["", "-u", "-u -P 53", "-T", "-T -P 81"] {
        add("mtr", format!("FAMILY -n -r -c 2 -i 0.2 -G 1 {mode}"));
    }
    for method in ["icmp", "icmp-paris", "udp", "udp-paris", "tcp"] {
        add("scamper", format!("-O json -c 'trace -w 1 -P {method}' -i"));
    }
    for mode in ["-PE --traceroute", "-PS80 --traceroute", "-PS80 --reason", "-PS81 --reason", "-PU33434 --reason"] {
        add("nmap", format!("-6? -n -sn --ttl 60 {mode}"));
    }
    for mode in ["--icmp", "--udp", "--udp -R paris --source-port 5000", "--udp -R dublin --source-port 5000", "--tcp"]
    {
        add("trip", format!("FAMILY -m csv -C 2 -i 300ms -g 20ms {mode}"));
    }
    add("dublin-traceroute", "-n 2 -T 5 -D 100".into());
    add("tcptraceroute", "-n -w 5".into());
    tools
}

impl Tool {
    /// The name of its row.
    pub fn name(&self) -> String {
        let words = self.arguments.split_whitespace().filter(|word| !["FAMILY", "-6?"].contains(word));
        std::iter::once(self.program).chain(words).collect::<Vec<_>>().join(" ")
    }

    pub fn can_run(&self) -> bool {
        require_program(self.program) && (self.program != "scamper" || require_program("cc"))
    }

    /// Why it cannot be compared in a family, 0 for IPv4 and 1 for IPv6.
    pub fn cannot(&self, family: usize) -> Option<&'static str> {
        let method = |name: &str| self.arguments.contains(name);
        match (self.program, family) {
            ("dublin-traceroute" | "tcptraceroute", 1) => Some("IPv4 only"),
            // It writes these probes to the link itself.
            ("scamper", _) if method("-P tcp") => Some("the tool does not support TUN devices"),
            ("scamper", 1) if method("udp-paris") => Some("the tool fails on the direct path"),
            _ => None,
        }
    }

    /// The commands for a family, 0 for IPv4 and 1 for IPv6.
    pub fn commands(&self, family: usize) -> Vec<String> {
        let destinations = if self.shows_errors { vec![TARGET, FILTERED] } else { vec![TARGET] };
        let arguments = self.arguments.replace("FAMILY", ["-4", "-6"][family]).replace("-6?", ["", "-6"][family]);
        let command = |pair: [&str; 2]| format!("{} {arguments} {}", self.program, pair[family]);
        destinations.into_iter().map(command).collect()
    }

    /// The command to execute. Those that look names up do not wait: no name server listens.
    pub fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("timeout");
        let script = format!("mount --bind {RESOLV_CONF} /etc/resolv.conf && exec {command}");
        shell.args(["60", "unshare", "--mount", "sh", "-c", &script]).env("LC_ALL", "C").current_dir(&self.folder);
        if self.program == "scamper" {
            shell.env("LD_PRELOAD", self.folder.join(LIBRARY));
        }
        shell
    }
}

/// A library in which changing the user and the group does nothing. scamper insists on it, and the namespace of a test has
/// one user and one group only.
fn build_library(folder: &Path) {
    let source = folder.join("keep_user.c");
    let functions = ["setgroups", "setgid", "setuid"].map(|name| format!("int {name}() {{ return 0; }}\n"));
    fs::write(&source, functions.concat()).unwrap();
    let mut compiler = Command::new("cc");
    // Nothing of the C library is included, so its declarations cannot disagree.
    compiler.args(["-w", "-fno-builtin", "-shared", "-fPIC", "-o"]).arg(folder.join(LIBRARY)).arg(&source);
    assert!(compiler.status().unwrap().success());
}
