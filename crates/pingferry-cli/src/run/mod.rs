//! `pingferry run`: the daemon.

mod netns;
mod open;
mod role;
mod start_line;
mod watch;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use pingferry::Stats;
use pingferry_sys::sandbox::Sandbox;
use tracing::warn;

use self::open::Opened;
pub(crate) use self::open::no_tun;
pub(crate) use self::role::ReloadResult;
use self::role::RunRole;
use crate::admin::{self, ObservedProxy, Observer};
use crate::config::build::{domains, proxy_config};
use crate::config::file::readable_paths;
use crate::config::flags::ingress::IngressFlags;
use crate::config::flags::observe::ObserveFlags;
use crate::config::flags::proxy::ProxyFlags;
use crate::config::flags::{FileFlag, SandboxFlag, WorkersFlag};
use crate::config::model::{Ingress, Settings};
use crate::config::reload::{Load, Loaded, Reload};
use crate::config::validate;
use crate::error::CliError;
use crate::notify::Notifier;
use crate::otlp::{Collector, Export, Exporter};
use crate::{output, proxy, sandbox, signals, stats};

#[derive(Args, Clone)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) file: FileFlag,
    /// Print all settings, from options, environment, file and defaults, as a configuration file, and exit
    #[arg(long, help_heading = "Configuration")]
    print_config: bool,
    /// Check all settings without opening anything, and exit: with 0, or with 64 and one line that says what is wrong
    #[arg(long, help_heading = "Configuration")]
    check: bool,
    #[command(flatten)]
    ingress: IngressFlags,
    #[command(flatten)]
    proxy: ProxyFlags,
    #[command(flatten)]
    observe: ObserveFlags,
    #[command(flatten)]
    sandbox: SandboxFlag,
    #[command(flatten)]
    workers: WorkersFlag,
}

impl RunArgs {
    /// Overrides settings by what was given.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), CliError> {
        self.ingress.apply(settings);
        self.observe.apply(settings);
        self.sandbox.apply(settings);
        self.workers.apply(settings);
        self.proxy.apply(settings)
    }
}

/// Serves until a signal comes or a device is gone. `load` reads the settings again.
pub(crate) fn run(args: &RunArgs, loaded: Loaded, load: Load) -> Result<ExitCode, CliError> {
    let settings = &loaded.settings;
    if args.print_config {
        output::print(&settings.to_toml().map_err(|error| CliError::usage(error.to_string()))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    validate::check(settings).map_err(CliError::usage)?;
    validate::warnings(settings).iter().for_each(|warning| warn!("{warning}"));
    if args.check {
        output::print("pingferry: the configuration is valid\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    serve(args, loaded, load)
}

fn serve(args: &RunArgs, Loaded { settings, access_keys }: Loaded, load: Load) -> Result<ExitCode, CliError> {
    let config = proxy_config(&settings)?;
    proxy::raise_descriptor_limit(&settings, config.workers, descriptors(&settings))?;
    // Before the proxy starts its threads: only a process with one thread can enter another user namespace.
    let opened = open_all(&settings)?;
    let observer = Observer::open(&settings)?;
    let collector = settings.otlp.as_ref().map(|endpoint| Collector::resolve(&endpoint.0)).transpose()?;
    let notifier = Notifier::connect();
    proxy::check_permission()?;
    let degraded = sandbox::confine(&settings, &sandbox_of(args, &settings));

    let sampling = config.sampling.clone();
    let proxy = proxy::open(config)?;
    // Before it serves: from the first packet on it ends with statistics.
    let signals = signals::keep().map_err(no_signals)?;
    let names: Vec<String> = opened.iter().map(|opened| opened.name.clone()).collect();
    let served = opened.into_iter().map(|opened| opened.attach(&proxy)).collect::<Result<Vec<_>, _>>()?;
    let (format, control, result) = (settings.log_format, proxy.control(), Arc::new(ReloadResult::default()));
    start_line::log(&settings, &served, &names, &control, degraded);
    let role = RunRole {
        proxy: ObservedProxy::new(control.clone(), &settings),
        ingresses: names.clone(),
        reloads: Arc::clone(&result),
    };
    let _admin = observer.map(|observer| observer.start(role)).transpose()?;
    let exporter = collector.zip(sampling);
    let exporter =
        exporter.map(|(collector, sampling)| Exporter::start(collector, move || Export::take_from(&sampling)));
    let _exporter = exporter.transpose()?;
    let reload = args.file.path.is_some().then_some(Reload {
        load,
        initial: settings,
        access_keys,
        served,
        result,
        notifier: notifier.clone(),
    });
    signals::watch(signals, control.clone(), reload, notifier.clone(), format).map_err(no_signals)?;
    notifier.watch(control.clone()).map_err(no_signals)?;

    output::announce(stats::render_ready(&names.join(", "), format));
    notifier.ready(&format!("serving {}", names.join(", ")));
    let ended = proxy.wait();
    // However it ended, the statistics of until then are printed.
    let stats = ended.as_ref().map_or_else(|_| control.stats(), Stats::clone);
    output::announce(stats::render(&stats, format));
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// How many descriptors the ingresses have: a TUN device a queue for each worker, a Unix socket a spare one
/// and a lock. And those of the admin server.
fn descriptors(settings: &Settings) -> usize {
    let workers = settings.workers.get() as usize;
    let ingresses =
        settings.ingresses().iter().map(|ingress| if ingress.tun.is_some() { workers } else { 3 }).sum::<usize>();
    ingresses + if settings.admin.is_some() { admin::DESCRIPTORS } else { 0 }
}

fn no_signals(error: io::Error) -> CliError {
    CliError::runtime(format!("cannot watch for signals: {error}"))
}

fn open_all(settings: &Settings) -> Result<Vec<Opened>, CliError> {
    let ingresses = settings.ingresses();
    let domains = domains(&ingresses);
    ingresses.iter().zip(domains).map(|(ingress, domain)| open::open(ingress, domain, settings)).collect()
}

/// The files that are needed while serving: the configuration to read again, and sockets to remove at the end.
fn sandbox_of(args: &RunArgs, settings: &Settings) -> Sandbox {
    Sandbox::default()
        .with_readable(args.file.path.as_deref().map_or_else(Vec::new, readable_paths))
        .with_removable(sockets(settings))
        .with_tcp(settings.otlp.is_some() || settings.ingresses().iter().any(Ingress::has_tcp))
}

/// The files of all Unix sockets.
fn sockets(settings: &Settings) -> Vec<PathBuf> {
    settings.ingresses().into_iter().filter_map(|ingress| ingress.unix).chain(admin::socket(settings)).collect()
}
