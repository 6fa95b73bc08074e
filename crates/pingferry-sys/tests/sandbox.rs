//! What a confined process can do and what it cannot, each in a forked child of its own. libtest runs every test in a
//! thread, and a process with threads must not fork: so this file has a `main` of its own.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

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

/// How a child ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It did it.
    Well,
    /// The kernel said no.
    Refused,
    /// The kernel ended it.
    Killed,
    /// It ended itself.
    Aborted,
}

fn main() {
    let folder = std::env::temp_dir().join(format!("pingferry-sandbox-{}", std::process::id()));
    fs::create_dir_all(folder.join("own")).unwrap();
    let tested = require("sandbox", nothing_is_missing()).then(|| {
        the_system_calls_left_are_few();
        files_are_closed_but_for_the_named_ones(&folder);
        a_child_can_be_ended_and_nobody_else();
        rights_are_gone();
    });
    fs::remove_dir_all(&folder).unwrap();
    if tested.is_some() {
        println!("sandbox: ok");
    }
}

/// Does `work` in a confined child and tells how that ended.
fn confined(sandbox: &Sandbox, work: impl FnOnce() -> io::Result<()>) -> End {
    let child = Child::fork(|_line| {
        sandbox.enter();
        work()
    });
    let status = child.unwrap().wait().unwrap();
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == Signal::SYS.as_raw() => End::Killed,
        (Some(signal), _) if signal == Signal::ABORT.as_raw() => End::Aborted,
        (None, Some(0)) => End::Well,
        (None, Some(1)) => End::Refused,
        _ => panic!("{status}"),
    }
}

fn nothing_is_missing() -> Result<(), String> {
    let child = Child::fork(|_line| Sandbox::default().enter().into_iter().next().map_or(Ok(()), Err)).unwrap();
    let entered = child.pipe().receive_end();
    child.wait().unwrap();
    entered.map_err(|error| error.to_string())
}

fn the_system_calls_left_are_few() {
    type Work = fn() -> io::Result<()>;
    let cases: [(&str, End, Work); 19] = [
        ("nothing", End::Well, || Ok(())),
        ("an error", End::Refused, || Err(io::ErrorKind::Other.into())),
        ("a thread", End::Well, || {
            thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::ErrorKind::Other.into())
        }),
        ("the watch on addresses", End::Well, || AddressMonitor::open()?.addresses().map(drop)),
        ("a source address", End::Well, || source_address(IpAddr::V4(Ipv4Addr::LOCALHOST)).map(drop)),
        ("an interface's number", End::Well, || Netlink::open()?.index("lo").map(drop)),
        ("a pair of sockets", End::Well, || UnixStream::pair()?.0.set_nonblocking(true)),
        ("the limits", End::Well, || Ok(_ = getrlimit(Resource::Nofile))),
        ("a backtrace", End::Well, || Ok(_ = Backtrace::force_capture().to_string())),
        ("an abort", End::Aborted, || std::process::abort()),
        ("higher limits", End::Killed, || Ok(setrlimit(Resource::Nofile, Rlimit { current: None, maximum: None })?)),
        ("a TCP connection", End::Killed, || TcpStream::connect("127.0.0.1:1").map(drop)),
        ("a Unix connection", End::Killed, || UnixDatagram::unbound().map(drop)),
        ("another program", End::Killed, || Command::new("true").status().map(drop)),
        ("another process", End::Killed, fork),
        ("a TUN device", End::Killed, || Tun::open("tun%d").map(drop)),
        ("tracing", End::Killed, trace),
        ("new code", End::Killed, executable_memory),
        ("a signal to another", End::Killed, || Ok(test_kill_process(Pid::INIT)?)),
    ];
    for (what, expected, work) in cases {
        assert_eq!(confined(&Sandbox::default(), work), expected, "{what}");
    }
}

fn files_are_closed_but_for_the_named_ones(folder: &Path) {
    let [read, removed, other] = ["own/read", "own/removed", "other"].map(|name| folder.join(name));
    for file in [&read, &removed, &other] {
        fs::write(file, "text").unwrap();
    }
    let sandbox = |readable: &[&PathBuf], removable: &[&PathBuf]| Sandbox {
        readable: readable.iter().copied().cloned().collect(),
        removable: removable.iter().copied().cloned().collect(),
        child: None,
    };
    let closed = Sandbox::default();
    assert_eq!(confined(&closed, || File::open(&read).map(drop)), End::Refused);
    assert_eq!(confined(&closed, || fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").map(drop)), End::Well);
    let reads = sandbox(&[&read], &[]);
    assert_eq!(confined(&reads, || fs::read_to_string(&read).map(drop)), End::Well);
    assert_eq!(confined(&reads, || File::open(&other).map(drop)), End::Refused);
    assert_eq!(confined(&reads, || fs::remove_file(&read)), End::Refused);
    let removes = sandbox(&[], &[&removed]);
    assert_eq!(confined(&removes, || File::open(&removed).map(drop)), End::Refused);
    assert_eq!(confined(&removes, || fs::remove_file(&other)), End::Refused);
    assert_eq!(confined(&removes, || fs::remove_file(&removed)), End::Well);
    assert!(!removed.exists() && other.exists());
    let writes = sandbox(&[&read], &[&read]);
    assert_eq!(confined(&writes, || File::create(&read).map(drop)), End::Killed);
    assert_eq!(confined(&writes, || File::options().append(true).open(&read).map(drop)), End::Killed);
    assert_eq!(confined(&removes, || UnixListener::bind(folder.join("own/listener")).map(drop)), End::Killed);
    assert_eq!(fs::read_to_string(&read).unwrap(), "text");
}

fn a_child_can_be_ended_and_nobody_else() {
    let ended = Child::fork(|_line| {
        let child = Child::fork(Pipe::receive_go)?;
        let sandbox = Sandbox { child: Some(child.pid()), ..Sandbox::default() };
        sandbox.enter();
        let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        kill_process(pid, Signal::TERM)?;
        assert_eq!(child.wait()?.signal(), Some(Signal::TERM.as_raw()));
        Ok(test_kill_process(Pid::INIT)?)
    });
    let status = ended.unwrap().wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SYS.as_raw()), "{status}");
}

/// Asks on a thread started after, which is how the workers are started.
fn rights_are_gone() {
    let readable = vec![PathBuf::from("/proc/self/status")];
    let end = confined(&Sandbox { readable, ..Sandbox::default() }, || {
        let status = thread::spawn(|| fs::read_to_string("/proc/thread-self/status")).join().unwrap()?;
        for line in
            ["CapInh:\t0000", "CapPrm:\t0000", "CapEff:\t0000", "CapAmb:\t0000", "NoNewPrivs:\t1", "Seccomp:\t2"]
        {
            assert!(status.contains(line), "{line} in {status}");
        }
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        assert!(socket.local_addr()?.port() > 0);
        Ok(())
    });
    assert_eq!(end, End::Well);
}

fn trace() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn fork() -> io::Result<()> {
    // SAFETY: this is the only thread, and if there is a child, it ends at once.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(0),
        _ => Ok(()),
    }
}

fn executable_memory() -> io::Result<()> {
    let (everything, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which nobody uses.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, everything, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
