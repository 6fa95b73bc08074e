//! The log, on standard error.
//!
//! # Theory of operation
//!
//! Threads that forward packets or wait for signals log too. Whoever reads the log may stop reading, or be gone. So once
//! such threads run ([`detach`]), a line is only put into a bounded [`queue`], and a thread of its own writes it. A line
//! that finds the queue full, or that cannot be written, is lost; how many were lost is logged as soon as a line can be
//! written again. At the end ([`finish`]) the last lines get a limited time.
//!
//! Before that there is one thread, which must stay alone to fork and to be confined, and it writes its lines itself.

mod journal;
mod limit;
mod queue;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, error, warn};
use tracing_subscriber::fmt::{self, format};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

use self::journal::Prioritized;
use self::limit::Limit;
use self::queue::Queue;
use crate::config::model::Settings;
use crate::config::values::{LogFormat, LogLevel};

/// How long the last lines may take at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

/// Whether lines are JSON, and whether they go to the journal. Set once, before the first line, so relaxed is enough.
static IS_JSON: AtomicBool = AtomicBool::new(false);
static IS_JOURNAL: AtomicBool = AtomicBool::new(false);

/// Starts logging to standard error.
pub(crate) fn start(settings: &Settings) {
    let level = match settings.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let (is_json, is_journal) = (settings.log_format == LogFormat::Json, journal::is_journal());
    IS_JSON.store(is_json, Ordering::Relaxed);
    IS_JOURNAL.store(is_journal, Ordering::Relaxed);
    let format = format().with_target(false).with_ansi(false);
    let lines = fmt::layer().with_writer(|| Line).log_internal_errors(false).with_ansi(false);
    let lines = match (is_json, is_journal) {
        // Programs that read JSON want the time in it, also from the journal.
        (true, false) => lines.json().event_format(format.json()).boxed(),
        (true, true) => lines.json().event_format(Prioritized(format.json())).boxed(),
        (false, false) => lines.event_format(format).boxed(),
        (false, true) => lines.event_format(Prioritized(format.without_time())).boxed(),
    };
    registry().with(LevelFilter::from_level(level)).with(Limit::default()).with(lines).init();
}

/// Logs why the command ends. This line is for people who have just typed the command, unless all lines are JSON.
pub(crate) fn fail(message: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        error!("{message}");
    } else {
        write(&format!("pingferry: {message}\n"));
    }
}

/// From now on a thread writes the log, so that no other waits for its reader. Call it before threads are started that
/// must not wait, and after this process was confined.
pub(crate) fn detach() -> io::Result<()> {
    QUEUE.open();
    // The standard hook writes to standard error itself.
    panic::set_hook(Box::new(|panic| error!("{panic}\n{}", Backtrace::capture())));
    thread::Builder::new().name("log".into()).spawn(write_lines).map(drop)
}

/// Puts whole lines into the log that are not an event, whatever the level is.
pub(crate) fn write(lines: &str) {
    let prefix = match IS_JOURNAL.load(Ordering::Relaxed) {
        true => format!("<{}>", journal::priority(Level::INFO)),
        false => String::new(),
    };
    for line in lines.lines() {
        // `Line` takes everything.
        let _ = Line.write_all(format!("{prefix}{line}\n").as_bytes());
    }
}

/// Waits until all lines are written, for a limited time.
pub(crate) fn finish() {
    QUEUE.wait_until_empty(LAST_LINES);
}

/// Writes what is in the queue, for ever.
fn write_lines() {
    loop {
        let line = QUEUE.next();
        match io::stderr().write_all(&line) {
            Ok(()) => {
                // There is room now: the line that was written was taken out before.
                let lost = QUEUE.take_lost();
                if lost > 0 {
                    warn!("{lost} lines of the log were lost, which could not be written in time");
                }
            }
            Err(_) => QUEUE.count_lost(),
        }
        QUEUE.written();
    }
}

/// Takes the text of one event at each write, which never fails: nobody could be told.
struct Line;

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if !QUEUE.push(text) {
            let _ = io::stderr().write_all(text);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
