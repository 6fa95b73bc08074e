//! `pingferry connect`: the end of a tunnel in a private network.

mod edges;
mod resolver;
mod role;
mod stats;
mod token;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::{Args, ValueEnum};
use pingferry::{Control, Policy, Proxy};
use pingferry_sys::sandbox::Sandbox;
use pingferry_tunnel::connector::{Connector, ConnectorConfig, ConnectorControl, ConnectorError};
use pingferry_tunnel::transport::{DEFAULT_SERVER_NAME, load_roots};
use pingferry_tunnel::wire::DatagramVersion;
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tracing::info;

use self::edges::{Edge, EdgeName};
use self::resolver::Resolver;
use self::role::ConnectRole;
use self::token::TokenFlags;
use crate::admin::{self, ObservedProxy, Observer};
use crate::config::build::{path_config, proxy_config};
use crate::config::flags::SandboxFlag;
use crate::config::flags::observe::{AdminFlags, MetricsFlags};
use crate::config::flags::proxy::ProxyFlags;
use crate::config::model::{Ingress, Settings};
use crate::config::number::{Bounded, BoundedDuration};
use crate::config::values::{Gateways, LogFormat, Prefix, Text};
use crate::error::CliError;
use crate::notify::Notifier;
use crate::stats::render_ready;
use crate::{log, output, proxy, sandbox, signals};

/// From 0 s to 3 min, as a stock connector.
type GracePeriod = BoundedDuration<0, 180_000_000>;

#[derive(Args, Clone)]
pub(crate) struct ConnectArgs {
    /// Dial this edge, by its name or address; the port is 7844 unless given; repeatable
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',', required = true, env = "PINGFERRY_EDGE")]
    #[arg(help_heading = "Tunnel")]
    edge: Vec<EdgeName>,
    /// Serve these destinations and no others, whatever the edge sends; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',', required = true, env = "PINGFERRY_ADVERTISE")]
    #[arg(help_heading = "Tunnel")]
    advertise: Vec<Text<Prefix>>,
    #[command(flatten)]
    token: TokenFlags,
    /// Keep so many connections open to each edge [default: four in all]
    #[arg(long, value_name = "N", env = "PINGFERRY_CONNECTIONS", help_heading = "Tunnel")]
    connections: Option<Bounded<1, 64>>,
    /// Trust the certificate authorities in this PEM file instead of the system's
    #[arg(long, alias = "cacert", value_name = "FILE", env = "PINGFERRY_CA", help_heading = "Tunnel")]
    ca: Option<PathBuf>,
    /// The name that an edge's certificate must have
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SERVER_NAME, env = "PINGFERRY_SERVER_NAME")]
    #[arg(help_heading = "Tunnel")]
    server_name: String,
    /// The format of datagrams; v3 has no traces
    #[arg(long, value_name = "VERSION", default_value = "v2", env = "PINGFERRY_DATAGRAM", help_heading = "Tunnel")]
    datagram: Datagram,
    /// After a signal to stop, carry replies for so long; a second signal ends at once
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "PINGFERRY_GRACE_PERIOD")]
    #[arg(help_heading = "Tunnel")]
    grace_period: GracePeriod,
    #[command(flatten)]
    proxy: ProxyFlags,
    #[command(flatten)]
    admin: AdminFlags,
    #[command(flatten)]
    metrics: MetricsFlags,
    #[command(flatten)]
    sandbox: SandboxFlag,
}

/// The format of datagrams.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Datagram {
    V2,
    V3,
}

impl ConnectArgs {
    /// Overrides settings by what was given.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), CliError> {
        self.admin.apply(settings);
        self.metrics.apply(settings);
        self.sandbox.apply(settings);
        self.proxy.apply(settings)
    }
}

/// Serves until a signal comes.
pub(crate) fn connect(args: &ConnectArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    if settings.udp.is_some() || settings.tcp.is_some() {
        return Err(CliError::usage("--udp and --tcp: a tunnel carries only ICMP"));
    }
    let edges = edges::resolve(&args.edge)?;
    // Before there is a secret in memory that the child would have too.
    let resolver = Resolver::start(&edges)?;
    let mut config = proxy_config(settings)?;
    // The thread of the tunnel needs one too.
    config.processors = config.processors.saturating_sub(1).max(1);
    // It tells which reply is the first of a traced flow.
    config.core.observe_flows = true;
    let connector_config = connector_config(args, settings, &edges)?;
    let tunnel = connector_config.token.tunnel_id;
    // A socket and a path for each connection, and the admin server.
    let descriptors = 3 * 64 + settings.admin.as_ref().map_or(0, |_| admin::DESCRIPTORS);
    proxy::raise_descriptor_limit(settings, config.workers, descriptors)?;
    let runtime = runtime()?;
    let connector = {
        let _entered = runtime.enter();
        Connector::open(connector_config).map_err(|error| CliError::runtime(error.to_string()))?
    };
    let (observer, notifier) = (Observer::open(settings)?, Notifier::connect());
    // All threads are started after this.
    proxy::check_permission()?;
    sandbox::confine(settings, &Sandbox::default().with_removable(admin::socket(settings)));

    let proxy = Arc::new(proxy::open(config)?);
    let (stop, stopped) = watch::channel(false);
    let (control, format) = (connector.control(), settings.log_format);
    watch_signals(stop, proxy.control(), connector.control(), notifier.clone(), format)
        .map_err(|error| CliError::runtime(format!("cannot watch for signals: {error}")))?;
    resolver.map(|resolver| resolver.watch(move |edge, address| control.set_address(edge, address))).transpose()?;
    let names: Vec<String> = edges.iter().map(|edge| edge.name.to_string()).collect();
    let advertised: Vec<String> = args.advertise.iter().map(|prefix| prefix.0.0.to_string()).collect();
    let ready = format!("tunnel {tunnel} to {} edges, serving {}", names.len(), advertised.join(", "));
    let role = ConnectRole {
        proxy: ObservedProxy::new(proxy.control(), settings),
        connector: connector.control(),
        edges: names,
    };
    let _admin = observer.map(|observer| observer.start(role)).transpose()?;
    output::announce(render_ready(&ready, format));
    // The edges may not answer yet. A connector goes on trying, so that is no failure to start.
    notifier.ready(&ready);
    serve(&runtime, connector, proxy, stopped, format)
}

fn serve(
    runtime: &Runtime,
    connector: Connector,
    proxy: Arc<Proxy>,
    stopped: watch::Receiver<bool>,
    format: LogFormat,
) -> Result<ExitCode, CliError> {
    let (control, tunnel) = (proxy.control(), connector.control());
    let ended = runtime.block_on(connector.run(Arc::clone(&proxy), stopped));
    control.stop();
    let waited = control.wait();
    // However it ended, the statistics of until then are printed.
    output::announce(stats::render(&control.stats(), &tunnel.status().counters, format));
    waited?;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(ConnectorError::Refused(edge, cause)) => {
            Err(CliError::permission(format!("edge {edge} refuses this connector: {cause}")))
        }
        Err(error) => Err(CliError::runtime(error.to_string())),
    }
}

fn connector_config(args: &ConnectArgs, settings: &Settings, edges: &[Edge]) -> Result<ConnectorConfig, CliError> {
    let token = args.token.load()?;
    let roots = load_roots(args.ca.as_deref()).map_err(|error| CliError::usage(error.to_string()))?;
    let edges = edges.iter().map(|edge| edge.address).collect();
    let advertise = args.advertise.iter().map(|prefix| prefix.0.0).collect();
    let ingress = settings.with_defaults(Ingress::default());
    let mut config = ConnectorConfig::new(token, edges, advertise, roots);
    config.connections = args.connections.and_then(|number| u8::try_from(number.get()).ok());
    config.policy = Policy { rules: settings.policy.iter().map(|rule| rule.0).collect() };
    config.server_name.clone_from(&args.server_name);
    config.datagrams = match args.datagram {
        Datagram::V2 => DatagramVersion::V2,
        Datagram::V3 => DatagramVersion::V3,
    };
    config.grace_period = args.grace_period.get();
    config.path = path_config(&ingress, None, None, Gateways::default());
    Ok(config)
}

/// One thread, this one, does everything about the tunnel.
fn runtime() -> Result<Runtime, CliError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|error| CliError::runtime(format!("cannot start: {error}")))
}

/// Stops gracefully at the first SIGINT or SIGTERM, and at once at the second. Logs the statistics at SIGUSR1.
fn watch_signals(
    stop: watch::Sender<bool>,
    control: Control,
    tunnel: ConnectorControl,
    notifier: Notifier,
    format: LogFormat,
) -> io::Result<()> {
    let mut signals: Signals = signals::keep()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => info!("SIGHUP: there is no configuration file to read again"),
                SIGUSR1 => log::write(&stats::render(&control.stats(), &tunnel.status().counters, format)),
                SIGUSR2 => info!("SIGUSR2 has no meaning; SIGUSR1 logs the statistics"),
                _ if *stop.borrow() => {
                    log::finish();
                    std::process::exit(1);
                }
                _ => {
                    notifier.stopping();
                    _ = stop.send(true);
                }
            }
        }
    })?;
    Ok(())
}
