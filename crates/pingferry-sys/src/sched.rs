//! The scheduling policy of a thread (sched(7)), and what it has used.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

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
    // The kernel's `struct sched_param` is one int. musl's has more fields.
    let priority: libc::c_int = 0;
    // The call is made directly, because musl's sched_setscheduler always fails with ENOSYS.
    // SAFETY: 0 is the calling thread. `priority` lives through the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(with_context(io::Error::last_os_error(), "run a thread only when idle")) }
}

/// What a thread has used since it started (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// How often it gave up its processor to wait for something.
    pub voluntary_switches: u64,
    /// How long it has run.
    pub processor_time: Duration,
}

/// What the calling thread has used.
///
/// # Examples
///
/// ```
/// use std::thread::sleep;
/// use std::time::Duration;
///
/// use pingferry_sys::sched::thread_usage;
///
/// let before = thread_usage();
/// sleep(Duration::from_millis(1));
/// assert!(thread_usage().voluntary_switches > before.voluntary_switches);
/// ```
pub fn thread_usage() -> ThreadUsage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes a whole `rusage` to the pointer, which is valid for it. A `rusage` of zeros is valid too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    ThreadUsage {
        voluntary_switches: usage.ru_nvcsw.unsigned_abs(),
        processor_time: time(usage.ru_utime) + time(usage.ru_stime),
    }
}
