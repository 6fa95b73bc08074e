//! What a package has beside the program: completions of shells and manual pages. Both follow from the command line.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::CliError;
use crate::output;

/// The end of pingferry(1), which the command line does not tell.
const END_OF_MANUAL: &str = include_str!("pingferry.1.roff");

#[derive(Args, Clone)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Args, Clone)]
pub(crate) struct ManArgs {
    /// The folder for the pages; it must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pingferry", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, CliError> {
    write_manual(&args.folder)
        .map_err(|error| CliError::from_creating("cannot write the manual to", &args.folder, &error))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for the command and for each subcommand.
fn write_manual(folder: &Path) -> io::Result<()> {
    // The version alone: the commit and the features are those of a program.
    clap_mangen::generate_to(Cli::command().version(env!("CARGO_PKG_VERSION")), folder)?;
    let mut page = OpenOptions::new().append(true).open(folder.join("pingferry.1"))?;
    page.write_all(END_OF_MANUAL.as_bytes())
}
