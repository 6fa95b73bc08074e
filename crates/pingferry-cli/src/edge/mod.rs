//! `pingferry edge`: the end of a tunnel beside those who ping.

mod init;
mod open;
mod role;
mod stats;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use clap::{Args, Subcommand};
use pingferry_sys::sandbox::Sandbox;
use pingferry_tunnel::edge::{Edge, EdgeConfig, EdgeControl};
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::{error, info};

use self::init::InitArgs;
use self::open::{Certificate, Device};
use self::role::EdgeRole;
use crate::admin::{self, Observer};
use crate::config::flags::SandboxFlag;
use crate::config::flags::observe::AdminFlags;
use crate::config::model::Settings;
use crate::config::number::Bounded;
use crate::config::values::{LogFormat, Prefix, Ratio, Text};
use crate::error::CliError;
use crate::notify::Notifier;
use crate::otlp::{Collector, Endpoint, Export, Exporter};
use crate::run::ReloadResult;
use crate::stats::render_ready;
use crate::{log, output, sandbox, signals};

/// From the smallest MTU of IPv6 on: with a smaller one the kernel takes the IPv6 addresses of the device away.
type TunMtu = Bounded<1280, 65_535>;

/// How many messages of connectors with spans may wait to be exported, which happens every few seconds.
const SPANS: usize = 4096;

#[derive(Args, Clone)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EdgeArgs {
    #[command(subcommand)]
    command: Option<EdgeCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand, Clone)]
enum EdgeCommand {
    /// Create the files of a new edge: CA, certificate, tunnel and token
    Init(InitArgs),
}

/// What has no default is required unless there is a subcommand.
#[derive(Args, Clone)]
#[command(next_help_heading = "Tunnel")]
struct ServeArgs {
    /// Let connectors dial this address; repeatable
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',', default_value = "[::]:7844")]
    #[arg(env = "PINGFERRY_LISTEN")]
    listen: Vec<SocketAddr>,
    /// Carry the pings that are routed to the TUN device NAME; it is created if it does not exist
    #[arg(long, value_name = "NAME", required = true, env = "PINGFERRY_TUN")]
    tun: Option<String>,
    /// An address of the TUN device, from which the edge sends its own ICMP errors; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PINGFERRY_ADDRESS")]
    address: Vec<Text<Prefix>>,
    /// A network to route to the TUN device; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PINGFERRY_ROUTE")]
    route: Vec<Text<Prefix>>,
    /// The metric of these routes; the kernel takes the route with the lowest one [default: that of the kernel]
    #[arg(long, value_name = "N", env = "PINGFERRY_METRIC")]
    metric: Option<u32>,
    /// The largest packet of the TUN device, in bytes
    #[arg(long, value_name = "BYTES", default_value = "1280", env = "PINGFERRY_MTU")]
    mtu: TunMtu,
    /// Read from this file which tunnels there are and what each may serve; read again at SIGHUP
    #[arg(long, value_name = "FILE", required = true, env = "PINGFERRY_TUNNELS")]
    tunnels: Option<PathBuf>,
    /// The certificate of the edge, a PEM file; read again at SIGHUP
    #[arg(long, value_name = "FILE", required = true, env = "PINGFERRY_CERT")]
    cert: Option<PathBuf>,
    /// The key of the certificate, a PEM file; read again at SIGHUP
    #[arg(long, value_name = "FILE", required = true, env = "PINGFERRY_KEY")]
    key: Option<PathBuf>,
    /// Trace this share of the packets, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value = "0.01", env = "PINGFERRY_TRACE_SAMPLE")]
    trace_sample: Ratio,
    /// Send the spans of traced packets to this OpenTelemetry collector; nothing is traced without it
    #[arg(long, value_name = "URL", env = "PINGFERRY_OTLP")]
    otlp: Option<Endpoint>,
    #[command(flatten)]
    admin: AdminFlags,
    #[command(flatten)]
    sandbox: SandboxFlag,
}

impl EdgeArgs {
    /// Overrides settings by what was given.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        self.serve.admin.apply(settings);
        self.serve.sandbox.apply(settings);
    }
}

/// Creates the files of an edge, or serves until a signal comes or the device is gone.
pub(crate) fn edge(args: &EdgeArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    match &args.command {
        Some(EdgeCommand::Init(init)) => init::init(init),
        None => run(&args.serve, settings),
    }
}

fn run(args: &ServeArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    let (Some(tun), Some(tunnels), Some(cert), Some(key)) = (&args.tun, &args.tunnels, &args.cert, &args.key) else {
        return Err(CliError::usage("--tun, --tunnels, --cert and --key are needed"));
    };
    let certificate = Certificate { tunnels: tunnels.clone(), cert: cert.clone(), key: key.clone() };
    let (tunnels, quic) = certificate.load().map_err(CliError::usage)?;
    let addresses = args.address.iter().map(|address| address.0.0).collect();
    let routes = args.route.iter().map(|route| route.0.0).collect();
    let device = Device::open(tun, addresses, routes, args.metric, args.mtu.get())?;
    let sockets = args.listen.iter().map(|address| open::listen(*address)).collect::<Result<_, _>>()?;
    let count = tunnels.iter().count();
    let device_name = device.tun.name().to_owned();
    let name = format!("TUN device {device_name} with MTU {}", args.mtu.get());
    let collector = args.otlp.as_ref().map(Collector::resolve).transpose()?;
    let (observer, notifier) = (Observer::open(settings)?, Notifier::connect());
    let sandbox = Sandbox::default()
        .with_readable(certificate.files())
        .with_removable(admin::socket(settings))
        .with_tcp(collector.is_some());
    let (spans, traced) = sync_channel(SPANS);
    let traces = collector.is_some().then(|| (args.trace_sample.get(), spans));
    let config = EdgeConfig { tun: device.tun, gateway: device.gateway, sockets, quic, tunnels, traces };
    let (edge, control) = Edge::new(config);

    sandbox::confine(settings, &sandbox);
    log::detach().map_err(|error| CliError::runtime(format!("cannot start the thread of the log: {error}")))?;
    let reloads = Arc::new(ReloadResult::default());
    watch_signals(control.clone(), certificate, Arc::clone(&reloads), notifier.clone(), settings.log_format)
        .map_err(|error| CliError::runtime(format!("cannot watch for signals: {error}")))?;
    let exporter = collector.map(|collector| {
        Exporter::start(collector, move || {
            Export::new(traced.try_iter().flat_map(|request| request.resource_spans).collect())
        })
    });
    let _exporter = exporter.transpose()?;
    let listen: Vec<String> = args.listen.iter().map(ToString::to_string).collect();
    let ready = format!("{name}, {count} tunnels, connectors dial {}", listen.join(", "));
    let role = EdgeRole { control, device: device_name, listen, reloads };
    let _admin = observer.map(|observer| observer.start(role)).transpose()?;
    output::announce(render_ready(&ready, settings.log_format));
    notifier.ready(&ready);
    let counters = edge.run().map_err(|error| CliError::runtime(format!("{name}: {error}")))?;
    output::announce(stats::render(&counters, settings.log_format));
    Ok(ExitCode::SUCCESS)
}

/// Stops at SIGINT and SIGTERM, reads the tunnels and the certificate again at SIGHUP, and logs the statistics at SIGUSR1.
fn watch_signals(
    control: EdgeControl,
    certificate: Certificate,
    reloads: Arc<ReloadResult>,
    notifier: Notifier,
    format: LogFormat,
) -> io::Result<()> {
    let mut signals: Signals = signals::keep()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => {
                    let loaded = certificate.load();
                    reloads.set(loaded.is_ok());
                    match loaded {
                        Ok((tunnels, quic)) => control.reload(tunnels, quic),
                        Err(error) => error!("SIGHUP: nothing has changed: {error}"),
                    }
                }
                SIGUSR1 => _ = control.counters().map(|counters| log::write(&stats::render(&counters, format))),
                SIGUSR2 => info!("SIGUSR2 has no meaning; SIGUSR1 logs the statistics"),
                _ => {
                    notifier.stopping();
                    control.stop();
                }
            }
        }
    })?;
    Ok(())
}
