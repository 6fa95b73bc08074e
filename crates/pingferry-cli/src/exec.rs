//! `pingferry exec`: a command in a network namespace of its own.
//!
//! # Theory of operation
//!
//! 1. This process forks a child while it has one thread.
//! 2. The child creates a user and a network namespace. It opens a TUN device there, routes everything to it, and
//!    passes the device to the parent.
//! 3. The parent confines itself, serves the device, and signals the child that the proxy is ready.
//! 4. The child becomes the command. The command keeps its user and group, and has the network capabilities of its
//!    namespace, so that `traceroute` and `mtr` can open raw sockets.
//! 5. The parent passes signals on to the command and exits with its exit code. If it is killed, so is the command, which
//!    would be left without a network.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread::{self, JoinHandle};

use clap::Args;
use ipnet::{Ipv4Net, Ipv6Net};
use pingferry::{Proxy, Tun};
use pingferry_sys::namespace::{allow_ping, keep_network_capabilities, unshare_as_self};
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::preflight;
use pingferry_sys::process::{Child, Pipe, die_with_parent, keep_only_standard_streams};
use pingferry_sys::sandbox::Sandbox;
use pingferry_sys::tun::TunConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tracing::{debug, error, warn};

use crate::config::build::{path_config, proxy_config};
use crate::config::flags::proxy::ProxyFlags;
use crate::config::flags::{FileFlag, SandboxFlag};
use crate::config::model::{Ingress, Settings};
use crate::config::validate;
use crate::config::values::{Crossing, Gateways};
use crate::error::CliError;
use crate::{proxy, sandbox, signals};

/// The exit codes of shells for a command that cannot be executed, and for one that was not found.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

#[derive(Args, Clone)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) file: FileFlag,
    #[command(flatten)]
    proxy: ProxyFlags,
    #[command(flatten)]
    sandbox: SandboxFlag,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl ExecArgs {
    /// Overrides settings by what was given.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), CliError> {
        self.sandbox.apply(settings);
        self.proxy.apply(settings)
    }
}

/// Runs the command and returns its exit code.
pub(crate) fn exec(args: &ExecArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    validate::warnings(settings).iter().for_each(|warning| warn!("{warning}"));
    let config = proxy_config(settings)?;
    // While this process has one thread.
    let parent = std::process::id();
    let child =
        Child::fork(|pipe| become_command(pipe, parent, &args.command)).map_err(|error| no_namespace(&error))?;
    let (fd, mtu) = child.pipe().receive_fd().map_err(|error| no_namespace(&error))?;
    let tun = Tun::from_fd(fd).map_err(|error| CliError::runtime(error.to_string()))?;
    // After the fork, so that the command keeps its limits. The device is open already.
    proxy::raise_descriptor_limit(settings, config.workers, 0)?;
    let ingress = settings.with_defaults(Ingress {
        udp: settings.udp.or(Some(Crossing::Probes)),
        tcp: settings.tcp.or(Some(Crossing::Probes)),
        ..Ingress::default()
    });
    proxy::check_permission()?;
    sandbox::confine(settings, &Sandbox::default().with_child(Some(child.pid())).with_tcp(ingress.has_tcp()));

    let proxy = proxy::open(config)?;
    let attached = proxy.attach_tun(path_config(&ingress, None, Some(mtu), Gateways::default()), [tun]);
    attached.map_err(|error| CliError::runtime(format!("cannot serve the TUN device: {error}")))?;
    let pid = child.pid();
    signals::pass_on_signals(move |signal| pass_on(pid, signal))
        .and_then(|()| child.pipe().send_go())
        .map_err(|error| CliError::runtime(format!("cannot start the command: {error}")))?;
    if let Err(error) = child.pipe().receive_end() {
        return Err(not_started(args, &error));
    }
    let control = proxy.control();
    let serving = watch(proxy, &child)?;
    let status = child.wait().map_err(|error| CliError::runtime(error.to_string()))?;
    control.stop();
    // How the proxy ended was logged, if it matters.
    let _ = serving.join();
    debug!(stats = ?control.stats(), "the command ended");
    Ok(ExitCode::from(exit_code(status)))
}

/// Says so if the proxy ends before the command does, because the command deleted the device.
fn watch(proxy: Proxy, child: &Child) -> Result<JoinHandle<()>, CliError> {
    let start = || {
        let pidfd = child.as_fd().try_clone_to_owned()?;
        let wait = move || {
            if let Err(error) = proxy.wait()
                && !has_ended(&pidfd)
            {
                error!("{error}; the command has no network any more");
            }
        };
        thread::Builder::new().name("serving".into()).spawn(wait)
    };
    start().map_err(|error: io::Error| CliError::runtime(format!("cannot watch the proxy: {error}")))
}

/// Whether the command has ended, or does so now: the device goes with its namespace, at nearly the same time.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let soon = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&soon)).is_ok_and(|ready| ready > 0)
}

/// Moves this process into a network of its own, and opens the TUN device to which everything is routed there. Returns the
/// MTU of the device too.
pub(crate) fn open_network() -> io::Result<(Tun, u32)> {
    unshare_as_self()?;
    Netlink::open()?.set_up(LOOPBACK)?;
    let (tun, mtu, _) = tun_config().open()?;
    Ok((tun, mtu))
}

/// Runs in the child. Returns only if the child cannot become the command.
fn become_command(pipe: &Pipe, parent: u32, command: &[OsString]) -> io::Result<()> {
    let group = preflight::groups()?.effective;
    let (tun, mtu) = open_network()?;
    // The command can open raw sockets, with which ping works too.
    allow_ping(group, group).unwrap_or_else(|error| warn!("the command cannot open ping sockets: {error}"));
    pipe.send_fd(tun.as_fd(), mtu)?;
    drop(tun);
    pipe.receive_go()?;
    keep_network_capabilities()?;
    keep_only_standard_streams()?;
    die_with_parent(parent)?;
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Err(Command::new(program).args(args).exec())
}

/// All of IPv4 and IPv6 is routed to the device. Its addresses are not routed by any other network: they are from the
/// IPv4 service continuity prefix (RFC 7335) and a unique local prefix (RFC 4193).
fn tun_config() -> TunConfig {
    TunConfig::new("ping0")
        .with_addresses(vec![
            Ipv4Net::new_assert([192, 0, 0, 2].into(), 32).into(),
            Ipv6Net::new_assert([0xfd70, 0x696e, 0x6766, 0, 0, 0, 0, 2].into(), 128).into(),
        ])
        .with_routes(vec![Ipv4Net::default().into(), Ipv6Net::default().into()])
        .with_queue_length(Some(10_000))
}

fn pass_on(pid: u32, signal: i32) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).zip(Signal::from_named_raw(signal));
    if let Some((pid, signal)) = target {
        // Fails if the command has ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

fn no_namespace(error: &io::Error) -> CliError {
    CliError::from_io("cannot create a network for the command", error)
}

fn not_started(args: &ExecArgs, error: &io::Error) -> CliError {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    let command = args.command.first().map(|command| command.display().to_string()).unwrap_or_default();
    CliError::with_code(code, format!("cannot run {command}: {error}"))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
