//! Signals that stop, reload or are passed on.

use std::io;
use std::thread;

use pingferry::Control;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;

use crate::config::reload::Reload;

/// Stops the proxy at SIGINT and SIGTERM, and reloads at SIGHUP. Without anything to reload, SIGHUP keeps its default
/// action and ends the process, for example when its terminal is closed.
pub(crate) fn watch_signals(control: Control, reload: Option<Reload>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if reload.is_some() {
        signals.add_signal(SIGHUP)?;
    }
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match &reload {
                Some(reload) if signal == SIGHUP => reload.reload(&control),
                _ => return control.stop(),
            }
        }
    })?;
    Ok(())
}

/// Calls `pass_on` with each signal, except those that a terminal sent: the child is in the same foreground process
/// group and has received them already.
pub(crate) fn pass_on_signals(pass_on: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    let watched = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
    let mut signals = SignalsInfo::<WithOrigin>::new(watched)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if !matches!(signal.cause, Cause::Kernel) {
                pass_on(signal.signal);
            }
        }
    })?;
    Ok(())
}
