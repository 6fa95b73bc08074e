//! The scheduling policy of a thread (sched(7)).

use std::io;

use crate::error_context::with_context;

/// Gives the calling thread the policy `SCHED_IDLE`: it runs only while no other thread wants its processor.
///
/// A thread needs privileges to leave this policy again (sched(7)), so call this in a thread that keeps it until its
/// end.
///
/// # Errors
///
/// `EPERM` when a security policy forbids the change.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// use pingferry_sys::sched::run_when_idle;
///
/// thread::spawn(run_when_idle).join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // The call is made directly, because musl's sched_setscheduler always fails with ENOSYS.
    // SAFETY: 0 is the calling thread. `parameters` lives through the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(with_context(io::Error::last_os_error(), "run a thread only when idle")) }
}
