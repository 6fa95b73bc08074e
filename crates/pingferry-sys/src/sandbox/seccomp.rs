//! The system calls that a confined process may make (`Documentation/userspace-api/seccomp_filter.rst`).
//!
//! What is in [`ALLOWED`] passes whatever its arguments, which costs next to nothing: the kernel keeps a bitmap of such
//! calls and does not run the filter for them (since Linux 5.11). All calls on a packet's way are among them. What is in
//! [`CONDITIONAL`] passes with certain arguments. Anything else ends the process.
//!
//! The lists are for glibc and musl: a few calls are there because one of the two takes another way than the kernel's
//! newest. To find a call that is missing, look for `type=1326` in the kernel's log, or run it with `strace -f`.

use std::ffi::{c_int, c_long};
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use super::Sandbox;

/// Whatever their arguments.
const ALLOWED: &[&[c_long]] = &[
    // Packets: paths and ping sockets, netlink, the log.
    &[libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev],
    &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg],
    &[libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg],
    // Sockets: `socket` itself is conditional. The pair is how signals reach the thread that waits for them.
    &[libc::SYS_bind, libc::SYS_connect, libc::SYS_accept4, libc::SYS_socketpair, libc::SYS_shutdown],
    &[libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_getsockname, libc::SYS_getpeername],
    &[libc::SYS_fcntl, libc::SYS_close],
    // Waiting.
    &[libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2],
    &[libc::SYS_eventfd2, libc::SYS_ppoll],
    &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_restart_syscall],
    // Time, where the processor's clock cannot be read without the kernel.
    &[libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday],
    // Memory: `mmap` and `mprotect` are conditional.
    &[libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk],
    // Threads. `clone3` gets no further than the first filter.
    &[libc::SYS_clone3, libc::SYS_futex, libc::SYS_sched_yield, libc::SYS_sched_getaffinity],
    &[libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_gettid, libc::SYS_getpid],
    &[libc::SYS_exit, libc::SYS_exit_group],
    // Signals, and the stack on which an overflow of the other is told.
    &[libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack],
    // Random idents and hash keys.
    &[libc::SYS_getrandom],
    // Files, of which Landlock leaves few: a configuration is read again, sockets are removed at the end, and a panic
    // looks for its own program.
    &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_lseek, libc::SYS_pread64],
    &[libc::SYS_unlinkat, libc::SYS_readlinkat, libc::SYS_getcwd],
    // Who this is, to explain why it may not ping.
    &[libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getgroups],
    LEGACY,
];

/// Calls that newer processors no longer have, as libraries still make them.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_lstat, libc::SYS_unlink, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[c_long] = &[];

/// A system call, and the conditions any of which lets it pass.
type Conditional = (c_long, &'static [&'static [Check]]);

#[allow(clippy::unnecessary_cast, reason = "with musl the numbers of some requests are an int")]
const CONDITIONAL: &[Conditional] = &[
    // Ping sockets, the UDP socket that finds a source address, and netlink for addresses and routes.
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
    // To make a socket non-blocking, and between the names and numbers of interfaces.
    (
        libc::SYS_ioctl,
        &[
            &[request(libc::FIONBIO as u64)],
            &[request(libc::SIOCGIFINDEX as u64)],
            &[request(libc::SIOCGIFNAME as u64)],
        ],
    ),
    // No new code.
    (libc::SYS_mmap, &[&[unset(2, libc::PROT_EXEC)]]),
    (libc::SYS_mprotect, &[&[unset(2, libc::PROT_EXEC)]]),
    // Threads, no processes.
    (libc::SYS_clone, &[&[Check { argument: 0, mask: THREAD, value: THREAD }]]),
    // The name of a thread.
    (libc::SYS_prctl, &[&[int(0, libc::PR_SET_NAME)]]),
    // A thread steps back.
    (libc::SYS_sched_setscheduler, &[&[int(0, 0), int(1, libc::SCHED_IDLE)]]),
    // Limits are looked at, not changed.
    (libc::SYS_prlimit64, &[&[Check { argument: 2, mask: u64::MAX, value: 0 }]]),
    // `abort`, as it is made by either library.
    (libc::SYS_tgkill, &[&[int(2, libc::SIGABRT)]]),
    (libc::SYS_tkill, &[&[int(1, libc::SIGABRT)]]),
    // Reading only.
    (libc::SYS_openat, &[&[unset(2, WRITES)]]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, &[&[unset(1, WRITES)]]),
];

/// What an argument has to be: `value`, in the bits of `mask`.
#[derive(Clone, Copy)]
struct Check {
    argument: u8,
    mask: u64,
    value: u64,
}

/// The kernel looks at no more of an `int`, and what is above is not always 0.
const INT: u64 = 0xffff_ffff;
/// Without the flags that `socket` takes together with the type.
const KIND_IS_DATAGRAM: Check = Check { argument: 1, mask: 0xf, value: libc::SOCK_DGRAM as u64 };
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

/// Installs the filters; they are for every thread, should there be more than one.
pub(super) fn apply(sandbox: &Sandbox) -> io::Result<()> {
    for program in [no_clone3(), allow_list(sandbox)] {
        let program = program.map_err(io::Error::other)?;
        apply_filter_all_threads(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// `clone3` keeps its flags in memory, where a filter cannot look. Libraries take `clone` where it is missing.
fn no_clone3() -> Result<BpfProgram, BackendError> {
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(vec![(libc::SYS_clone3, Vec::new())], SeccompAction::Allow, missing)
}

fn allow_list(sandbox: &Sandbox) -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = ALLOWED.iter().copied().flatten().map(|call| (*call, Vec::new())).collect();
    for (call, conditions) in CONDITIONAL {
        let conditions: Result<_, _> = conditions.iter().copied().map(rule).collect();
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
