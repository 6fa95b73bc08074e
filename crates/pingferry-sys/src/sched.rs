//! How a thread stands to others that want its processor.

use std::io;

use crate::error_context::with_context;

/// Lets the calling thread run only where nothing else wants to (`SCHED_IDLE`, sched(7)). Without privileges there is no
/// way back.
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // Not the function of that name, which musl does not have.
    // SAFETY: `parameters` is valid, and the kernel only reads it; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(with_context(io::Error::last_os_error(), "run a thread only when idle")) }
}
