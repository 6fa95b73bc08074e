//! The `pingferry` command: ping, traceroute and mtr across anything that ends in userspace, without root.
#![forbid(unsafe_code)]

mod check;
mod config;
mod demo;
mod error;
mod exec;
mod log;
mod options;
mod proxy;
mod run;
mod sandbox;
mod signals;
mod stats;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Refused;
use crate::error::CliError;
use crate::log::LogArgs;

/// Lets ping, traceroute and mtr cross anything that ends in userspace, without root.
///
/// Raw IP packets with echo requests come in from a TUN device, a namespace or a socket; pingferry sends each through an
/// ordinary ping socket and carries the answer back.
#[derive(Parser)]
#[command(name = "pingferry", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Show whether this process can ping, and what to do if not
    Check(check::CheckArgs),
    /// Serve a TUN device, Unix sockets, or both, until a signal comes
    Run(run::RunArgs),
    /// Run a command in a network namespace of its own, whose pings go through pingferry
    Exec(exec::ExecArgs),
    /// Build a small lab in namespaces and ping through it; needs no root and no network
    Demo,
}

fn main() -> ExitCode {
    let (cli, configuration) = match config::parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(Refused::Told(failure)) => return failure.report(),
        Err(Refused::Usage(error)) => {
            // Nobody is left to be told if this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(error::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    cli.log.start();
    let ended = match cli.command {
        Command::Check(args) => check::check(&args, configuration.file.as_ref()),
        Command::Run(args) => run::run(&args, &cli.log, configuration),
        Command::Exec(args) => exec::exec(&args),
        Command::Demo => demo::demo(),
    };
    ended.unwrap_or_else(CliError::report)
}
