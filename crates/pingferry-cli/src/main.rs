//! The `pingferry` command: ping, traceroute and mtr across anything that ends in userspace, without root.
#![forbid(unsafe_code)]
// They panic if they cannot write. Results go through `output`, the rest through `log`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod admin;
mod check;
mod cli;
mod config;
#[cfg(feature = "tunnel")]
mod connect;
mod demo;
#[cfg(feature = "tunnel")]
mod edge;
mod error;
mod exec;
mod generate;
mod log;
mod notify;
mod otlp;
mod output;
mod proxy;
mod run;
mod sandbox;
mod signals;
mod stats;
mod status;
mod top;
#[cfg(feature = "tunnel")]
mod tunnel;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::model::Settings;
use crate::config::values::LogFormat;
use crate::error::CliError;

fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => start(cli),
        Err(error) => explain(&error),
    };
    let code = code.unwrap_or_else(CliError::report);
    log::finish();
    code
}

fn start(cli: Cli) -> Result<ExitCode, CliError> {
    let loaded = cli.load().inspect_err(|_| log::start(&cli.log_settings()))?;
    log::start(&loaded.settings);
    match &cli.command {
        Command::Check(args) => check::check(args, &loaded.settings),
        Command::Run(args) => {
            let again = cli.clone();
            run::run(args, loaded, Box::new(move || again.load()))
        }
        Command::Exec(args) => exec::exec(args, &loaded.settings),
        #[cfg(feature = "tunnel")]
        Command::Connect(args) => connect::connect(args, &loaded.settings),
        #[cfg(feature = "tunnel")]
        Command::Edge(args) => edge::edge(args, &loaded.settings),
        Command::Status(args) => status::status(args),
        Command::Top(args) => top::top(args),
        Command::Demo(args) => demo::demo(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}

/// Prints what is wrong with the command line, or the help that was wanted. With `--check`, what is wrong is one line, and with a
/// log in JSON one object.
fn explain(error: &clap::Error) -> Result<ExitCode, CliError> {
    if !error.use_stderr() {
        return output::written(error.print()).map(|()| ExitCode::SUCCESS);
    }
    let is_json = wants_json();
    if is_json {
        log::start(&Settings { log_format: LogFormat::Json, ..Settings::default() });
    }
    if is_json || std::env::args_os().any(|arg| arg == "--check") {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        return Err(CliError::usage(lines.join(" ").trim_start_matches("error: ")));
    }
    // Nothing can be done if standard error cannot be written. The exit code still says that the usage is wrong.
    let _ = error.print();
    Ok(ExitCode::from(error::USAGE))
}

/// Whether the log is to be JSON, as far as a command line tells that is wrong.
fn wants_json() -> bool {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let is_given = args.iter().any(|arg| arg == "--log-format=json")
        || args.iter().zip(args.iter().skip(1)).any(|(option, value)| option == "--log-format" && value == "json");
    is_given || std::env::var("PINGFERRY_LOG_FORMAT").is_ok_and(|format| format == "json")
}
