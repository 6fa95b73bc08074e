//! New user and network namespaces.
#![allow(clippy::unwrap_used, reason = "test helpers report failures by panicking")]

use std::fs;
use std::process::Command;

use pingferry_sys::namespace::isolate;
use pingferry_testnet::{Host, isolated};

fn netns_of(host: &Host) -> String {
    host.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string()).unwrap()
}

#[test]
fn an_isolated_command_is_root_and_has_only_loopback() {
    isolated(|| {
        let mut command = Command::new("cat");
        command.args(["/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups", "/proc/net/dev"]);
        let output = isolate(&mut command).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(words[..3], [vec!["0", "0", "1"], vec!["0", "0", "1"], vec!["deny"]]);
        assert_eq!(words[5..].iter().map(|line| line[0]).collect::<Vec<_>>(), ["lo:"]);
    });
}

#[test]
fn work_in_a_namespace_does_not_move_the_caller() {
    isolated(|| {
        let before = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let host = Host::new("host").unwrap();
        assert_ne!(netns_of(&host), before.display().to_string());
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    });
}
