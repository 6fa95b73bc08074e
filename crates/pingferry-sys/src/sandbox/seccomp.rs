//! The system calls that a confined process may make (`Documentation/userspace-api/seccomp_filter.rst`).
//!
//! [`ALLOWED`] lists the calls that are allowed with any arguments. They cost almost nothing: the kernel keeps a bitmap of
//! such calls and does not run the filter for them (since Linux 5.11). All calls of the packet path are among them.
//! [`CONDITIONAL`] lists the calls that are allowed with certain arguments. Any other call kills the process.
//!
//! The lists cover glibc and musl, which use different system calls for some functions. To find a missing call, look for
//! `type=1326` in the kernel log, or run the program with `strace -f`.

use std::ffi::{c_int, c_long};
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use super::Sandbox;

/// The calls that are allowed with any arguments.
const ALLOWED: &[&[c_long]] = &[
    // Packets, netlink messages and the log.
    &[libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev],
    &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg],
    &[libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg],
    // Sockets. `socket` is conditional. Signals reach the thread that waits for them through a socket pair.
    &[libc::SYS_bind, libc::SYS_connect, libc::SYS_accept4, libc::SYS_socketpair, libc::SYS_shutdown],
    &[libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_getsockname, libc::SYS_getpeername],
    &[libc::SYS_fcntl, libc::SYS_close],
    // Waiting.
    &[libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2],
    &[libc::SYS_eventfd2, libc::SYS_ppoll],
    &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_restart_syscall],
    // The time, on machines whose clock cannot be read without a system call.
    &[libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday],
    // Memory. `mmap` and `mprotect` are conditional.
    &[libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk],
    // Threads. The first filter answers `clone3` with ENOSYS.
    &[libc::SYS_clone3, libc::SYS_futex, libc::SYS_sched_yield, libc::SYS_sched_getaffinity],
    &[libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_gettid, libc::SYS_getpid],
    &[libc::SYS_exit, libc::SYS_exit_group],
    // Signals, and the alternate stack that reports a stack overflow.
    &[libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack],
    // Random idents and keys of hash tables.
    &[libc::SYS_getrandom],
    // Files, as far as Landlock allows: to reload the configuration, to remove sockets at the end, to find the program's own
    // symbols after a panic, and to count the open descriptors.
    &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_lseek, libc::SYS_pread64],
    &[libc::SYS_unlinkat, libc::SYS_readlinkat, libc::SYS_getcwd, libc::SYS_flock, libc::SYS_getdents64],
    // The kernel's version: what it can do with UDP sockets depends on it.
    &[libc::SYS_uname],
    // The process's IDs, to explain why it may not open ping sockets.
    &[libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getgroups],
    LEGACY,
];

/// Calls that only x86-64 has and that C libraries still make there.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_lstat, libc::SYS_unlink, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[c_long] = &[];

/// A system call and its conditions. The call is allowed when all checks of any one condition hold.
type Conditional = (c_long, &'static [&'static [Check]]);

/// The calls that are allowed with certain arguments.
#[allow(clippy::unnecessary_cast, reason = "with musl the numbers of some requests are an int")]
const CONDITIONAL: &[Conditional] = &[
    // Ping sockets, UDP sockets to find the source address, and netlink sockets to read the host's addresses.
    (
        libc::SYS_socket,
        &[
            &[int(0, libc::AF_INET), KIND_IS_DATAGRAM, int(2, libc::IPPROTO_ICMP)],
            &[int(0, libc::AF_INET6), KIND_IS_DATAGRAM, int(2, libc::IPPROTO_ICMPV6)],
            &[int(0, libc::AF_INET), KIND_IS_DATAGRAM, int(2, 0)],
            &[int(0, libc::AF_INET6), KIND_IS_DATAGRAM, int(2, 0)],
            &[int(0, libc::AF_NETLINK), int(2, libc::NETLINK_ROUTE)],
        ],
    ),
    // To make a socket non-blocking, and to translate between interface names and indices.
    (
        libc::SYS_ioctl,
        &[
            &[request(libc::FIONBIO as u64)],
            &[request(libc::SIOCGIFINDEX as u64)],
            &[request(libc::SIOCGIFNAME as u64)],
        ],
    ),
    // Memory that is not executable.
    (libc::SYS_mmap, &[&[unset(2, libc::PROT_EXEC)]]),
    (libc::SYS_mprotect, &[&[unset(2, libc::PROT_EXEC)]]),
    // Threads, but not processes.
    (libc::SYS_clone, &[&[Check { argument: 0, mask: THREAD, value: THREAD }]]),
    // To name a thread.
    (libc::SYS_prctl, &[&[int(0, libc::PR_SET_NAME)]]),
    // To run the calling thread only when its processor is idle.
    (libc::SYS_sched_setscheduler, &[&[int(0, 0), int(1, libc::SCHED_IDLE)]]),
    // To read limits, but not to change them.
    (libc::SYS_prlimit64, &[&[Check { argument: 2, mask: u64::MAX, value: 0 }]]),
    // `abort` of glibc and of musl.
    (libc::SYS_tgkill, &[&[int(2, libc::SIGABRT)]]),
    (libc::SYS_tkill, &[&[int(1, libc::SIGABRT)]]),
    // To open files for reading.
    (libc::SYS_openat, &[&[unset(2, WRITES)]]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, &[&[unset(1, WRITES)]]),
];

/// More conditions of `socket`, for TCP probes.
const TCP: &[&[Check]] =
    &[&[int(0, libc::AF_INET), KIND_IS_STREAM, int(2, 0)], &[int(0, libc::AF_INET6), KIND_IS_STREAM, int(2, 0)]];

/// A check of one argument: its bits in `mask` must equal `value`.
#[derive(Clone, Copy)]
struct Check {
    argument: u8,
    mask: u64,
    value: u64,
}

/// The bits of an `int` argument. The kernel ignores the upper 32 bits of the register, which are not always 0.
const INT: u64 = 0xffff_ffff;
/// The socket type is `SOCK_DGRAM`. The mask excludes the flags that `socket` accepts in the same argument.
const KIND_IS_DATAGRAM: Check = Check { argument: 1, mask: 0xf, value: libc::SOCK_DGRAM as u64 };
/// The socket type is `SOCK_STREAM`, as above.
const KIND_IS_STREAM: Check = Check { argument: 1, mask: 0xf, value: libc::SOCK_STREAM as u64 };
const THREAD: u64 = libc::CLONE_THREAD as u64;
const WRITES: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

const fn int(argument: u8, value: c_int) -> Check {
    Check { argument, mask: INT, value: value as u64 & INT }
}

const fn request(value: u64) -> Check {
    Check { argument: 1, mask: INT, value: value & INT }
}

const fn unset(argument: u8, bits: c_int) -> Check {
    Check { argument, mask: bits as u64, value: 0 }
}

/// Installs the filters in every thread of the process.
pub(super) fn apply(sandbox: &Sandbox) -> io::Result<()> {
    for program in [no_clone3(), allow_list(sandbox)] {
        let program = program.map_err(io::Error::other)?;
        apply_filter_all_threads(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The first filter makes `clone3` fail with `ENOSYS`: its flags are in memory, which a filter cannot read. C libraries
/// then use `clone`, whose flags the second filter checks.
fn no_clone3() -> Result<BpfProgram, BackendError> {
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(vec![(libc::SYS_clone3, Vec::new())], SeccompAction::Allow, missing)
}

/// The second filter kills the process on any call that is not allowed.
fn allow_list(sandbox: &Sandbox) -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = ALLOWED.iter().copied().flatten().map(|call| (*call, Vec::new())).collect();
    for (call, conditions) in CONDITIONAL {
        let tcp: &[&[Check]] = if sandbox.tcp && *call == libc::SYS_socket { TCP } else { &[] };
        let conditions: Result<_, _> = conditions.iter().chain(tcp).copied().map(rule).collect();
        rules.push((*call, conditions?));
    }
    if let Some(child) = sandbox.child {
        let is_child = Check { argument: 0, mask: INT, value: child.into() };
        rules.push((libc::SYS_kill, vec![rule(&[is_child])?]));
        rules.push((libc::SYS_wait4, vec![rule(&[is_child])?]));
    }
    compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

type Rules = Vec<(c_long, Vec<SeccompRule>)>;

fn rule(checks: &[Check]) -> Result<SeccompRule, BackendError> {
    let condition = |check: &Check| {
        let bits = SeccompCmpOp::MaskedEq(check.mask);
        SeccompCondition::new(check.argument, SeccompCmpArgLen::Qword, bits, check.value)
    };
    SeccompRule::new(checks.iter().map(condition).collect::<Result<_, _>>()?)
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, BackendError> {
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, otherwise, matched, std::env::consts::ARCH.try_into()?)?.try_into()
}
