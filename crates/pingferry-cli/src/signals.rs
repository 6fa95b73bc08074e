//! Signals that stop, reload, ask for statistics or are passed on.

use std::io;
use std::thread;

use pingferry::Control;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;
use tracing::info;

use crate::config::reload::Reload;
use crate::config::values::LogFormat;
use crate::notify::Notifier;
use crate::{log, stats};

/// Keeps the signals of a daemon for [`watch`], instead of ending at them.
pub(crate) fn keep() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2])
}

/// Stops the proxy at SIGINT and SIGTERM, reloads at SIGHUP, and logs the statistics at SIGUSR1. The thread that does so
/// waits for nothing but signals.
pub(crate) fn watch(
    mut signals: Signals,
    control: Control,
    reload: Option<Reload>,
    notifier: Notifier,
    format: LogFormat,
) -> io::Result<()> {
    let reloader = reload.map(|reload| reload.start(control.clone())).transpose()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match (signal, &reloader) {
                (SIGHUP, Some(reloader)) => reloader.reload(),
                (SIGHUP, None) => {
                    notifier.reloading();
                    info!("SIGHUP: there is no configuration file to read again");
                    notifier.ready("serving");
                }
                (SIGUSR1, _) => log::write(&stats::render(&control.stats(), format)),
                (SIGUSR2, _) => info!("SIGUSR2 has no meaning; SIGUSR1 logs the statistics"),
                _ => {
                    notifier.stopping();
                    control.stop();
                }
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
