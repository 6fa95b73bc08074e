//! `pingferry run`: the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pingferry::ingress::UnixIngress;
use pingferry::{DomainId, PathConfig, Proxy, Tun};
use pingferry_sys::namespace::Netns;
use pingferry_sys::preflight::raise_descriptor_limit;
use pingferry_sys::process::in_child;
use pingferry_sys::sandbox::Sandbox;
use pingferry_sys::tun::TunConfig;
use rustix::io::Errno;
use tracing::{debug, warn};

use crate::config::{Configuration, File, FileArg, Reload};
use crate::error::CliError;
use crate::log::{LogArgs, LogFormat};
use crate::options::{ProxyArgs, parse_cidr};
use crate::sandbox::SandboxArgs;
use crate::watch::Watched;
use crate::{proxy, signals, stats};

/// A burst of a few thousand packets waits rather than being lost before it is read.
const QUEUE_LENGTH: u32 = 10_000;

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    file: FileArg,
    /// Print all that flags, environment, file and defaults come to, as a configuration file, and exit
    #[arg(long, help_heading = "Configuration")]
    print_config: bool,
    /// Check all of it without opening anything, and exit: with 0, or with 64 and one line that says what is wrong
    #[arg(long, help_heading = "Configuration")]
    check: bool,
    #[command(flatten)]
    ingress: IngressArgs,
    #[command(flatten)]
    proxy: ProxyArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Serve with so many workers, each with its own queue of the TUN device, flows and sockets
    #[arg(long, value_name = "N", default_value = "1", env = "PINGFERRY_WORKERS", help_heading = "Proxy")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

#[derive(Args)]
#[group(skip)]
#[command(next_help_heading = "Ingress")]
struct IngressArgs {
    /// Serve the TUN device NAME; it is created if it does not exist
    #[arg(long, value_name = "NAME", env = "PINGFERRY_TUN")]
    tun: Option<String>,
    /// The network namespace of the TUN device [default: this one]
    #[arg(long, value_name = "PATH", requires = "tun", conflicts_with = "pid", env = "PINGFERRY_NETNS")]
    netns: Option<PathBuf>,
    /// The process whose network namespace is that of the TUN device; pingferry stops when it ends
    #[arg(long, value_name = "PID", requires = "tun", env = "PINGFERRY_PID")]
    pid: Option<u32>,
    /// An address of the TUN device, with the prefix of the network behind it; repeatable
    #[arg(long, value_name = "CIDR", requires = "tun", value_delimiter = ',', value_parser = parse_cidr)]
    #[arg(env = "PINGFERRY_ADDRESS")]
    address: Vec<IpNet>,
    /// A network to route to the TUN device; "default" is all of IPv4 and IPv6; repeatable
    #[arg(long, value_name = "CIDR|default", requires = "tun", value_delimiter = ',', env = "PINGFERRY_ROUTE")]
    route: Vec<Route>,
    /// The largest packet for clients, in bytes, at least 1280 for IPv6; larger answers are fragmented
    /// [default: that of the TUN device, 1500 for a new one and for Unix sockets]
    #[arg(long, value_name = "BYTES", env = "PINGFERRY_MTU")]
    #[arg(value_parser = clap::value_parser!(u32).range(68..=65_535))]
    mtu: Option<u32>,
    /// Serve a SOCK_SEQPACKET Unix socket at PATH, one record an IP packet; repeatable
    #[arg(long, value_name = "PATH", value_delimiter = ',', env = "PINGFERRY_UNIX")]
    unix: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Route {
    Default,
    To(IpNet),
}

impl std::str::FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" { Ok(Self::Default) } else { parse_cidr(text).map(Self::To) }
    }
}

pub(crate) fn run(args: &RunArgs, log: &LogArgs, configuration: Configuration) -> Result<ExitCode, CliError> {
    if args.print_config {
        print!("{}", configuration.to_toml(&args.proxy.policy.policy(configuration.file.as_ref())));
        return Ok(ExitCode::SUCCESS);
    }
    args.ingress.check()?;
    let mut path_config = args.proxy.path_config()?;
    path_config.mtu = args.ingress.mtu.map_or(path_config.mtu, |mtu| mtu as usize);
    if args.check {
        println!("pingferry: the configuration is valid");
        return Ok(ExitCode::SUCCESS);
    }
    serve(args, log, path_config, configuration.file)
}

fn serve(args: &RunArgs, log: &LogArgs, path_config: PathConfig, file: Option<File>) -> Result<ExitCode, CliError> {
    let workers = usize::from(args.workers);
    if let Err(error) = raise_descriptor_limit() {
        debug!(%error, "the limit of descriptors stays as it is");
    }
    let config = args.proxy.config(file.as_ref())?.with_workers(workers);
    let watched = args.ingress.watch()?;
    // Before the proxy starts its thread: entering another user namespace needs a process with one.
    let tun = args.ingress.open_tun(workers, watched.as_ref())?;
    let listeners = args.ingress.listen()?;
    args.sandbox.confine(&Sandbox {
        readable: file.as_ref().map_or_else(Vec::new, File::ways),
        removable: args.ingress.unix.clone(),
        ..Sandbox::default()
    });

    let proxy = proxy::open(config)?;
    let served = attach(&proxy, &path_config, tun, listeners)?;
    let reload = file.map(|file| Reload { file, rules: args.proxy.policy.clone() });
    signals::watch_signals(proxy.control(), reload)
        .map_err(|error| CliError::runtime(format!("cannot watch for signals: {error}")))?;
    if let Some(process) = watched {
        let watches = process.stop_at_its_end(proxy.control());
        watches.map_err(|error| CliError::runtime(format!("cannot watch for the end of the process: {error}")))?;
    }

    println!("pingferry: ready: {}", served.join(", "));
    let stats = proxy.wait()?;
    match log.log_format {
        LogFormat::Text => print!("{}", stats::text(&stats)),
        LogFormat::Json => println!("{}", stats::json(&stats)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands the ingresses to the proxy, each as a domain of its own, and says what they are.
fn attach(
    proxy: &Proxy,
    path_config: &PathConfig,
    tun: Option<(Vec<Tun>, usize)>,
    listeners: Vec<(UnixIngress, &Path)>,
) -> Result<Vec<String>, CliError> {
    let mut served = Vec::new();
    if let Some((queues, mtu)) = tun {
        let name = queues.first().map_or("", Tun::name);
        served.push(format!("TUN device {name} with MTU {mtu}"));
        let attached = proxy.attach_tun(path_config.clone().with_mtu(mtu), queues);
        attached.map_err(|error| CliError::runtime(format!("cannot serve the TUN device: {error}")))?;
    }
    for ((listener, path), domain) in listeners.into_iter().zip(1..) {
        served.push(format!("Unix socket {}", path.display()));
        let attached = proxy.attach_unix(path_config.clone().with_domain(DomainId(domain)), listener);
        attached.map_err(|error| CliError::runtime(format!("cannot serve {}: {error}", path.display())))?;
    }
    Ok(served)
}

impl IngressArgs {
    fn check(&self) -> Result<(), CliError> {
        if self.tun.is_none() && self.unix.is_empty() {
            return Err(CliError::usage("nothing to serve: give --tun NAME, --unix PATH or both"));
        }
        Ok(())
    }

    /// The device's queues and its MTU.
    fn open_tun(&self, queues: usize, watched: Option<&Watched>) -> Result<Option<(Vec<Tun>, usize)>, CliError> {
        let Some(name) = &self.tun else { return Ok(None) };
        let config = TunConfig {
            name: name.clone(),
            addresses: self.address.clone(),
            routes: self.route.iter().flat_map(|route| route.networks()).collect(),
            mtu: self.mtu,
            queue_length: Some(QUEUE_LENGTH),
        };
        let namespace = self.namespace().map_err(|error| CliError::runtime(error.to_string()))?;
        // Asked after its namespace was opened: until then no other process can have had its number.
        if watched.is_some_and(Watched::has_ended) {
            return Err(CliError::runtime(format!("process {} has ended", self.pid.unwrap_or_default())));
        }
        let opened = match namespace {
            None => config.open_queues(queues).map(|(queues, mtu, _)| (queues, mtu)),
            Some(netns) => open_in(&netns, &config, queues),
        };
        let (queues, mtu) = opened.map_err(|error| no_tun(name, &error))?;
        Ok(Some((queues, mtu as usize)))
    }

    /// The process of `--pid`, if the kernel lets it be watched.
    fn watch(&self) -> Result<Option<Watched>, CliError> {
        let Some(pid) = self.pid else { return Ok(None) };
        match Watched::open(pid) {
            Ok(watched) => Ok(Some(watched)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {
                Err(CliError::runtime(format!("process {pid}: {error}; to list processes, run: ps -e")))
            }
            Err(error) => {
                warn!("this will go on when process {pid} has ended: {error}");
                Ok(None)
            }
        }
    }

    fn namespace(&self) -> io::Result<Option<Netns>> {
        match (&self.netns, self.pid) {
            (Some(path), _) => Netns::open(path).map(Some),
            (None, Some(pid)) => Netns::of_process(pid).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn listen(&self) -> Result<Vec<(UnixIngress, &Path)>, CliError> {
        let bind = |path| match UnixIngress::bind(path) {
            Ok(listener) => Ok((listener, path)),
            Err(error) => {
                let folder = path.parent().unwrap_or(path).display();
                let fix = format!("its folder must be writable; to see who may write, run: ls -ld {folder}");
                Err(CliError::from_io(format!("cannot listen at {}", path.display()), &error, &fix))
            }
        };
        self.unix.iter().map(|path| bind(path.as_path())).collect()
    }
}

impl Route {
    fn networks(self) -> Vec<IpNet> {
        match self {
            Route::Default => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
            Route::To(network) => vec![network],
        }
    }
}

/// Opens the device in another namespace, which may take another user namespace, by a child that goes there.
fn open_in(netns: &Netns, config: &TunConfig, queues: usize) -> io::Result<(Vec<Tun>, u32)> {
    let (fds, mtu) = in_child(|| {
        netns.enter_through_owner()?;
        let (queues, mtu, _) = config.open_queues(queues)?;
        Ok((queues.into_iter().map(Tun::into).collect(), mtu))
    })?;
    let queues: io::Result<Vec<Tun>> = fds.into_iter().map(Tun::from_fd).collect();
    Ok((queues?, mtu))
}

fn no_tun(name: &str, error: &io::Error) -> CliError {
    let what = format!("cannot open TUN device {name}");
    match error.kind() {
        io::ErrorKind::NotFound => CliError::runtime(format!("{what}: {error}; run: sudo modprobe tun")),
        _ => CliError::from_io(what, error, &format!("run: sudo ip tuntap add dev {name} mode tun user $USER")),
    }
}
