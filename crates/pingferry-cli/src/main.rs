//! The `pingferry` command: ping, traceroute and mtr across anything that ends in userspace, without root.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod config;
mod demo;
mod error;
mod exec;
mod log;
mod proxy;
mod run;
mod sandbox;
mod signals;
mod stats;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::CliError;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => start(cli).unwrap_or_else(CliError::report),
        Err(error) => explain(&error),
    }
}

fn start(cli: Cli) -> Result<ExitCode, CliError> {
    let settings = cli.settings()?;
    log::start(&settings);
    match &cli.command {
        Command::Check(args) => check::check(args, &settings),
        Command::Run(args) => {
            let again = cli.clone();
            run::run(args, settings, Box::new(move || again.settings()))
        }
        Command::Exec(args) => exec::exec(args, &settings),
        Command::Demo => demo::demo(),
    }
}

/// Prints what is wrong with the command line, or the help that was wanted. With `--check`, what is wrong is one line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be done if standard output is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|arg| arg == "--check") {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        return CliError::usage(lines.join(" ").trim_start_matches("error: ")).report();
    }
    let _ = error.print();
    ExitCode::from(error::USAGE)
}
