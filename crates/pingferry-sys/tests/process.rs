//! Forked children. libtest runs tests in threads, and a process with several threads must not fork, so this file has its
//! own `main`, which runs the tests one after the other.
#![allow(clippy::unwrap_used, reason = "test helpers report failures by panicking")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{panic, thread};

use pingferry_sys::errno;
use pingferry_sys::namespace::{Netns, isolate, keep_network_capabilities, unshare_as_self};
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::process::{Child, in_child};
use pingferry_testnet::require;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

fn main() {
    a_child_passes_a_descriptor_or_its_error();
    a_child_that_sends_nothing_is_an_error();
    a_child_whose_parent_exits_stops_waiting();
    a_process_with_several_threads_does_not_fork();
    the_parent_gets_the_error_of_a_command_that_cannot_start();
    let namespaces = isolate(&mut Command::new("true")).status();
    if require("netns", namespaces.map(drop).map_err(|error| format!("user and network namespaces: {error}"))) {
        a_child_waits_and_then_executes_a_command();
        a_network_namespace_is_entered_through_its_user_namespace();
    }
    println!("process: ok");
}

fn text_of(descriptor: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(descriptor).read_to_string(&mut text).unwrap();
    text
}

fn a_child_whose_parent_exits_stops_waiting() {
    let (reader, writer) = io::pipe().unwrap();
    let middle = Child::fork(|_pipe| {
        let child = Child::fork(|pipe| {
            let ended = pipe.receive_go().unwrap_err().kind();
            write!(writer.try_clone()?, "{ended:?}")
        });
        child.map(drop)
    });
    assert!(middle.unwrap().wait().unwrap().success());
    drop(writer);
    assert_eq!(text_of(reader.into()), "UnexpectedEof");
}

fn a_child_passes_a_descriptor_or_its_error() {
    let passed = in_child(|| {
        let (reader, mut writer) = io::pipe()?;
        write!(writer, "from {}", std::process::id())?;
        Ok((vec![reader.into(), io::pipe()?.0.into()], 70_000))
    });
    let (mut fds, number) = passed.unwrap();
    assert_eq!((fds.len(), number), (2, 70_000));
    let reader = fds.swap_remove(0);
    let text = text_of(reader);
    assert!(text.starts_with("from ") && text != format!("from {}", std::process::id()), "{text}");

    let error = in_child(|| Err(Netlink::open()?.index("nowhere").unwrap_err())).unwrap_err();
    assert_eq!(error.to_string(), "look up nowhere: No such device (os error 19)");
    assert_eq!(errno(&error), Some(19));

    let error = in_child(|| panic::resume_unwind(Box::new("without a message"))).unwrap_err();
    assert_eq!(error.to_string(), "the child panicked");
}

fn a_child_that_sends_nothing_is_an_error() {
    let child = Child::fork(|_pipe| Ok(())).unwrap();
    assert_eq!(child.pipe().receive_fd().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(child.wait().unwrap().success());
}

fn a_process_with_several_threads_does_not_fork() {
    let forked = thread::scope(|scope| scope.spawn(|| Child::fork(|_pipe| Ok(())).map(drop)).join().unwrap());
    assert_eq!(forked.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

/// The steps of `pingferry exec`: the child creates a network, passes a descriptor to its parent, waits, and executes the
/// command.
fn a_child_waits_and_then_executes_a_command() {
    let (reader, writer) = io::pipe().unwrap();
    let child = Child::fork(|pipe| {
        unshare_as_self()?;
        Netlink::open()?.set_up(LOOPBACK)?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        pipe.send_fd(socket.as_fd(), 0)?;
        pipe.receive_go()?;
        keep_network_capabilities()?;
        let mut command = Command::new("sh");
        command.args(["-c", "readlink /proc/self/ns/net; grep CapAmb /proc/self/status; exit 7"]);
        Err(command.stdout(Stdio::from(writer.try_clone()?)).exec())
    })
    .unwrap();
    drop(writer);
    let socket = UdpSocket::from(child.pipe().receive_fd().unwrap().0);
    // The socket is in the network of the child, so the same port is free in this one.
    assert!(UdpSocket::bind(socket.local_addr().unwrap()).is_ok());
    child.pipe().send_go().unwrap();
    child.pipe().receive_end().unwrap();
    let text = text_of(reader.into());
    let (netns, capabilities) = text.trim().split_once('\n').unwrap();
    assert_ne!(netns, fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    assert_eq!(capabilities.split_whitespace().last(), Some("0000000000003000"));
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

fn the_parent_gets_the_error_of_a_command_that_cannot_start() {
    let child = Child::fork(|_pipe| Err(Command::new("/missing/program").exec())).unwrap();
    assert_eq!(child.pipe().receive_end().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// The network namespace of a rootless container belongs to a user namespace. The user who created that may enter both,
/// without a capability in the namespace of the host.
fn a_network_namespace_is_entered_through_its_user_namespace() {
    let mut container = Command::new("cat");
    container.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut container = isolate(&mut container).spawn().unwrap();
    let expected = fs::read_link(format!("/proc/{}/ns/net", container.id())).unwrap();
    let opened = in_child(|| {
        let netns = Netns::of_process(container.id())?;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        assert_eq!(errno(&netns.enter().unwrap_err()), Some(libc::EPERM), "the direct way must be closed");
        netns.enter_through_owner()?;
        let (reader, mut writer) = io::pipe()?;
        write!(writer, "{}", fs::read_link("/proc/self/ns/net")?.display())?;
        Ok((vec![reader.into()], 0))
    });
    assert_eq!(text_of(opened.unwrap().0.swap_remove(0)), expected.to_str().unwrap());
    drop(container.stdin.take());
    container.wait().unwrap();
}
