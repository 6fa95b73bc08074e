//! A proxy and its threads.

use std::io;
use std::ops::Deref;
use std::thread::Builder;

use pingferry_proto::{Class, Family};
use pingferry_sys::diagnosis::{Operation, Situation, diagnose, explain};
use pingferry_sys::errno;
use pingferry_sys::ping::PingSocket;
use pingferry_sys::preflight::default_source_address;
use rustix::io::Errno;
use tracing::warn;

use crate::config::Config;
use crate::control::{Control, Settings};
use crate::driver::Worker;
use crate::ending::ProxyId;
use crate::error::{OpenError, RunError};
use crate::ingress::Taps;

/// A running proxy. It is [stopped](Control::stop) when it is dropped; to wait for its end too, [close](Control::close) it.
///
/// It dereferences to its [`Control`], which does everything else. It lives in the network namespace of the thread that opens
/// it. Where no ping socket can be opened, it says what to do:
///
/// ```
/// use pingferry::{Config, OpenError, Proxy};
///
/// match Proxy::open(Config::default()) {
///     Ok(proxy) => assert_eq!(proxy.close()?.counters.packets, 0),
///     Err(error @ OpenError::NotPermitted { .. }) => println!("{error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    control: Control,
}

impl Proxy {
    /// Checks that ping sockets can be opened and starts the workers, which live in the caller's network namespace.
    ///
    /// If only one family works, the proxy [serves](Control::serves) that one and says so once, as a `tracing` warning. Requests
    /// of the other are answered with Destination Unreachable.
    ///
    /// # Errors
    /// A value is out of its range, the interface or a source address does not exist, the process may not ping, neither family
    /// works, no descriptor is left, or a worker could not be started.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let (control, workers) = make(&config, config.workers.max(1))?;
        // Dropped if a thread cannot be started, and so stops those that were.
        let proxy = Self { control };
        for (number, worker) in workers.into_iter().enumerate() {
            let control = proxy.control();
            let run = move || {
                let mut end = End { control, ended: Err(RunError::Panicked) };
                end.ended = worker.run();
            };
            Builder::new().name(format!("pingferry-{number}")).spawn(run).map_err(OpenError::Worker)?;
        }
        Ok(proxy)
    }

    /// Another handle of this proxy.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Deref for Proxy {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.stop();
    }
}

/// Each worker's thread holds one. When one ends, however it does, the others end too.
struct End {
    control: Control,
    ended: Result<(), RunError>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.control.worker_ended(self.ended.clone());
    }
}

/// Makes a proxy with so many workers that have not started.
pub(crate) fn make(config: &Config, count: usize) -> Result<(Control, Vec<Worker>), OpenError> {
    config.check()?;
    let families = check_families(config)?;
    let gateway = |family| config.source(family).or_else(|| default_source_address(family).ok());
    let settings = Settings {
        #[cfg(feature = "tun")]
        idle_writer: if config.has_helpers() { config.busy_poll_length() } else { std::time::Duration::ZERO },
        gateway_v4: gateway(Family::V4),
        gateway_v6: gateway(Family::V6),
        taps: Taps { pcap: config.pcap.clone(), sampling: config.sampling.clone() },
        families,
    };
    let (each, id) = (config.clone().of_each_worker(), ProxyId::new());
    let made: io::Result<Vec<_>> = (0..count).map(|_| Worker::new(&each, id)).collect();
    let (workers, remotes): (Vec<_>, Vec<_>) = made.map_err(no_worker)?.into_iter().unzip();
    Ok((Control::new(id, remotes, settings), workers))
}

fn no_worker(error: io::Error) -> OpenError {
    if is_out_of_descriptors(&error) { OpenError::Descriptors(error) } else { OpenError::Worker(error) }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(errno(error).map(Errno::from_raw_os_error), Some(Errno::MFILE | Errno::NFILE))
}

/// Which families work.
fn check_families(config: &Config) -> Result<(bool, bool), OpenError> {
    match (check_family(config, Family::V4)?, check_family(config, Family::V6)?) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(error)) => {
            warn!("only IPv4 is served: {error}");
            return Ok((true, false));
        }
        (Err(error), Ok(())) => {
            warn!("only IPv6 is served: {error}");
            return Ok((false, true));
        }
        (Err(v4), Err(v6)) => return Err(no_ping(v4, v6)),
    }
    Ok((true, true))
}

/// Why neither family works.
fn no_ping(v4: io::Error, v6: io::Error) -> OpenError {
    let at = Situation::detect();
    let diagnoses = [&v4, &v6].map(|error| diagnose(&Operation::OpenPingSocket, errno(error).unwrap_or_default(), &at));
    match diagnoses.into_iter().find(|diagnosis| diagnosis.is_permission) {
        Some(diagnosis) => OpenError::NotPermitted { range: at.ping_group_range, groups: at.groups, v4, v6, diagnosis },
        None => OpenError::NoPing { v4, v6: explain(v6, &Operation::OpenPingSocket) },
    }
}

/// Whether ping sockets of a family can be opened. What is wrong with the configuration is an error for the proxy.
fn check_family(config: &Config, family: Family) -> Result<io::Result<()>, OpenError> {
    let class = Class { family, dont_fragment: false, dedicated: false };
    let Err(error) = PingSocket::open(&config.socket_options(class)) else { return Ok(Ok(())) };
    if is_out_of_descriptors(&error) {
        return Err(OpenError::Descriptors(error));
    }
    match (errno(&error).map(Errno::from_raw_os_error), &config.interface, config.source(family)) {
        (Some(Errno::NODEV), Some(name), _) => Err(OpenError::Interface { name: name.clone() }),
        (errno, _, Some(address)) if errno != Some(Errno::ACCESS) => Err(OpenError::Source { address, source: error }),
        _ => Ok(Err(error)),
    }
}
