//! The command line.

use clap::{Parser, Subcommand};

use crate::check::CheckArgs;
use crate::config::access::AccessKeys;
use crate::config::file;
use crate::config::flags::{FileFlag, LogFlags};
use crate::config::model::Settings;
use crate::config::reload::Loaded;
use crate::config::values::LogLevel;
#[cfg(feature = "tunnel")]
use crate::connect::ConnectArgs;
use crate::demo::DemoArgs;
#[cfg(feature = "tunnel")]
use crate::edge::EdgeArgs;
use crate::error::CliError;
use crate::exec::ExecArgs;
use crate::generate::{CompletionsArgs, ManArgs};
use crate::run::RunArgs;
use crate::status::StatusArgs;
use crate::top::TopArgs;

/// Lets ping, traceroute and mtr cross anything that ends in userspace, without root.
///
/// Raw IP packets with echo requests come in from a TUN device, a namespace or a socket; pingferry sends each through
/// an ordinary ping socket and carries the reply back.
#[derive(Parser, Clone)]
#[command(name = "pingferry", version = env!("PINGFERRY_VERSION"), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Subcommand, Clone)]
pub(crate) enum Command {
    /// Show whether this process can ping, and how to fix it if not
    Check(CheckArgs),
    /// Serve TUN devices and Unix sockets until a signal stops it
    Run(RunArgs),
    /// Run a command in a network namespace of its own, whose pings go through pingferry
    Exec(ExecArgs),
    /// Dial an edge and serve the pings that come through it; needs no root and no open ports
    #[cfg(feature = "tunnel")]
    Connect(ConnectArgs),
    /// Let connectors dial, and carry the pings of a TUN device to them
    #[cfg(feature = "tunnel")]
    Edge(EdgeArgs),
    /// Show what a running `pingferry run --admin` does
    Status(StatusArgs),
    /// Watch a running `pingferry run --admin`: totals, flows, loss, round trips, drops
    Top(TopArgs),
    /// Build a small network in namespaces and ping through it; needs no root and no network
    Demo(DemoArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages, for a package
    #[command(hide = true)]
    Man(ManArgs),
}

impl Cli {
    /// The settings of the file, overridden by environment and options.
    ///
    /// # Errors
    /// The file cannot be read, or something in it or in the options is wrong.
    pub(crate) fn load(&self) -> Result<Loaded, CliError> {
        let (mut settings, access_keys) = match self.file().and_then(|file| file.path.as_ref()) {
            Some(path) => file::read(path)?,
            None => (Settings::default(), AccessKeys::default()),
        };
        // The demonstration prints its own lines, and the log would interrupt them.
        if let Command::Demo(_) = self.command {
            settings.log_level = LogLevel::Error;
        }
        self.log.apply(&mut settings);
        match &self.command {
            Command::Check(args) => args.apply(&mut settings),
            Command::Run(args) => args.apply(&mut settings)?,
            Command::Exec(args) => args.apply(&mut settings)?,
            #[cfg(feature = "tunnel")]
            Command::Connect(args) => args.apply(&mut settings)?,
            #[cfg(feature = "tunnel")]
            Command::Edge(args) => args.apply(&mut settings),
            Command::Status(_) | Command::Top(_) | Command::Demo(_) | Command::Completions(_) | Command::Man(_) => {}
        }
        Ok(Loaded { settings, access_keys })
    }

    /// What the options say about the log, for an error in the rest.
    pub(crate) fn log_settings(&self) -> Settings {
        let mut settings = Settings::default();
        self.log.apply(&mut settings);
        settings
    }

    fn file(&self) -> Option<&FileFlag> {
        match &self.command {
            Command::Check(args) => Some(&args.file),
            Command::Run(args) => Some(&args.file),
            Command::Exec(args) => Some(&args.file),
            _ => None,
        }
    }
}
