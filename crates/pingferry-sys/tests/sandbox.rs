//! What a confined process can and cannot do. Each case runs in a forked child. libtest runs tests in threads, and a
//! process with several threads must not fork, so this file has its own `main`.
#![allow(clippy::unwrap_used, reason = "test helpers report failures by panicking")]

use std::backtrace::Backtrace;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use pingferry_sys::netlink::{AddressMonitor, Netlink};
use pingferry_sys::preflight::source_address;
use pingferry_sys::process::{Child, Pipe};
use pingferry_sys::sandbox::Sandbox;
use pingferry_sys::tun::Tun;
use pingferry_testnet::require;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit, test_kill_process};

/// How the work of a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The work succeeded.
    Success,
    /// The work returned an error.
    Failure,
    /// The seccomp filter killed the child.
    Killed,
    /// The child aborted.
    Aborted,
}

fn main() {
    let folder = std::env::temp_dir().join(format!("pingferry-sandbox-{}", std::process::id()));
    fs::create_dir_all(folder.join("own")).unwrap();
    let tested = require("sandbox", every_layer_is_supported()).then(|| {
        only_the_listed_system_calls_are_allowed();
        only_the_named_files_are_accessible(&folder);
        only_the_child_can_be_signalled();
        no_privileges_remain();
    });
    fs::remove_dir_all(&folder).unwrap();
    if tested.is_some() {
        println!("sandbox: ok");
    }
}

/// Runs `work` in a confined child.
fn confined(sandbox: &Sandbox, work: impl FnOnce() -> io::Result<()>) -> Outcome {
    let child = Child::fork(|_pipe| {
        sandbox.enter();
        work()
    });
    let status = child.unwrap().wait().unwrap();
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == Signal::SYS.as_raw() => Outcome::Killed,
        (Some(signal), _) if signal == Signal::ABORT.as_raw() => Outcome::Aborted,
        (None, Some(0)) => Outcome::Success,
        (None, Some(1)) => Outcome::Failure,
        _ => panic!("{status}"),
    }
}

fn every_layer_is_supported() -> Result<(), String> {
    let child = Child::fork(|_pipe| Sandbox::default().enter().into_iter().next().map_or(Ok(()), Err)).unwrap();
    let entered = child.pipe().receive_end();
    child.wait().unwrap();
    entered.map_err(|error| error.to_string())
}

fn only_the_listed_system_calls_are_allowed() {
    type Work = fn() -> io::Result<()>;
    let cases: [(&str, Outcome, Work); 19] = [
        ("no work", Outcome::Success, || Ok(())),
        ("an error", Outcome::Failure, || Err(io::ErrorKind::Other.into())),
        ("a thread", Outcome::Success, || {
            thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::ErrorKind::Other.into())
        }),
        ("an address monitor", Outcome::Success, || AddressMonitor::open()?.addresses().map(drop)),
        ("a source address", Outcome::Success, || source_address(IpAddr::V4(Ipv4Addr::LOCALHOST)).map(drop)),
        ("an interface index", Outcome::Success, || Netlink::open()?.index("lo").map(drop)),
        ("a socket pair", Outcome::Success, || UnixStream::pair()?.0.set_nonblocking(true)),
        ("reading limits", Outcome::Success, || Ok(_ = getrlimit(Resource::Nofile))),
        ("a backtrace", Outcome::Success, || Ok(_ = Backtrace::force_capture().to_string())),
        ("an abort", Outcome::Aborted, || std::process::abort()),
        ("raising limits", Outcome::Killed, || {
            Ok(setrlimit(Resource::Nofile, Rlimit { current: None, maximum: None })?)
        }),
        ("a TCP connection", Outcome::Killed, || TcpStream::connect("127.0.0.1:1").map(drop)),
        ("a Unix socket", Outcome::Killed, || UnixDatagram::unbound().map(drop)),
        ("executing a program", Outcome::Killed, || Command::new("true").status().map(drop)),
        ("a process", Outcome::Killed, fork),
        ("a TUN device", Outcome::Killed, || Tun::open("tun%d").map(drop)),
        ("tracing", Outcome::Killed, trace),
        ("executable memory", Outcome::Killed, executable_memory),
        ("a signal to another process", Outcome::Killed, || Ok(test_kill_process(Pid::INIT)?)),
    ];
    for (what, expected, work) in cases {
        assert_eq!(confined(&Sandbox::default(), work), expected, "{what}");
    }
}

fn only_the_named_files_are_accessible(folder: &Path) {
    let [read, removed, other] = ["own/read", "own/removed", "other"].map(|name| folder.join(name));
    for file in [&read, &removed, &other] {
        fs::write(file, "text").unwrap();
    }
    let sandbox = |readable: &[&PathBuf], removable: &[&PathBuf]| {
        Sandbox::default()
            .with_readable(readable.iter().copied().cloned().collect())
            .with_removable(removable.iter().copied().cloned().collect())
    };
    let no_files = Sandbox::default();
    let read_sysctl = || fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").map(drop);
    assert_eq!(confined(&no_files, || File::open(&read).map(drop)), Outcome::Failure);
    assert_eq!(confined(&no_files, read_sysctl), Outcome::Success);
    let reads = sandbox(&[&read], &[]);
    assert_eq!(confined(&reads, || fs::read_to_string(&read).map(drop)), Outcome::Success);
    assert_eq!(confined(&reads, || File::open(&other).map(drop)), Outcome::Failure);
    assert_eq!(confined(&reads, || fs::remove_file(&read)), Outcome::Failure);
    let removes = sandbox(&[], &[&removed]);
    assert_eq!(confined(&removes, || File::open(&removed).map(drop)), Outcome::Failure);
    assert_eq!(confined(&removes, || fs::remove_file(&other)), Outcome::Failure);
    assert_eq!(confined(&removes, || fs::remove_file(&removed)), Outcome::Success);
    assert!(!removed.exists() && other.exists());
    let writes = sandbox(&[&read], &[&read]);
    assert_eq!(confined(&writes, || File::create(&read).map(drop)), Outcome::Killed);
    assert_eq!(confined(&writes, || File::options().append(true).open(&read).map(drop)), Outcome::Killed);
    assert_eq!(confined(&removes, || UnixListener::bind(folder.join("own/listener")).map(drop)), Outcome::Killed);
    assert_eq!(fs::read_to_string(&read).unwrap(), "text");
}

fn only_the_child_can_be_signalled() {
    let confined = Child::fork(|_pipe| {
        let child = Child::fork(Pipe::receive_go)?;
        let sandbox = Sandbox::default().with_child(Some(child.pid()));
        sandbox.enter();
        let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        kill_process(pid, Signal::TERM)?;
        assert_eq!(child.wait()?.signal(), Some(Signal::TERM.as_raw()));
        Ok(test_kill_process(Pid::INIT)?)
    });
    let status = confined.unwrap().wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SYS.as_raw()), "{status}");
}

/// Reads the status in a thread that was started afterwards, as the workers are.
fn no_privileges_remain() {
    let readable = vec![PathBuf::from("/proc/self/status")];
    let outcome = confined(&Sandbox::default().with_readable(readable), || {
        let status = thread::spawn(|| fs::read_to_string("/proc/thread-self/status")).join().unwrap()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // Not the bounding set: an ordinary user cannot empty it.
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), Some("0000000000000000"), "{set} in {status}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (Some("1"), Some("2")), "{status}");
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        assert!(socket.local_addr()?.port() > 0);
        Ok(())
    });
    assert_eq!(outcome, Outcome::Success);
}

fn trace() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME ignores all other arguments.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn fork() -> io::Result<()> {
    // SAFETY: this is the only thread. A child would exit at once.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(0),
        _ => Ok(()),
    }
}

fn executable_memory() -> io::Result<()> {
    let (everything, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address that the kernel chooses. Nothing accesses it.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, everything, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
