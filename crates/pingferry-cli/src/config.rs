//! The configuration file.
//!
//! # Theory of operation
//!
//! The file is a command line in another form: each key is the name of an option of `pingferry run`, with `_` for `-`, and
//! its value is what the option takes. So there is one list of options, clap's, and an option that is added there is a key
//! of the file too. The command line is parsed once to see what flags and environment give; what they leave open and the
//! file has is appended as options, and the whole is parsed again. That makes the precedence flag, environment, file,
//! default, and clap checks all of it alike.
//!
//! Only the policy is no option but an ordered list of rules of its own, which follow those of the command line.

mod file;
mod reload;
#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use pingferry::Policy;
use toml::Value;

pub(crate) use self::file::File;
pub(crate) use self::reload::Reload;
use crate::Cli;
use crate::error::CliError;

#[derive(Args, Clone, Debug)]
pub(crate) struct FileArg {
    /// Take options and policy rules from this TOML file; flags and environment variables outrank it
    #[arg(long = "config", value_name = "FILE", env = "PINGFERRY_CONFIG", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,
}

/// What a command was told, apart from what its arguments say.
pub(crate) struct Configuration {
    pub(crate) file: Option<File>,
    matches: ArgMatches,
}

/// Why a command line cannot be followed.
pub(crate) enum Refused {
    /// As clap tells it. This includes a wish for help.
    Usage(clap::Error),
    /// In one line.
    Told(CliError),
}

/// Parses a command line, and the configuration file that it or the environment names.
pub(crate) fn parse(mut args: Vec<OsString>) -> Result<(Cli, Configuration), Refused> {
    let command = Cli::command();
    let given = command.clone().ignore_errors(true).try_get_matches_from(&args).map_err(Refused::Usage)?;
    let file = given.subcommand().and_then(|(_, matches)| matches.try_get_one::<PathBuf>("config").ok()?);
    let file = file.map(|path| File::read(path)).transpose().map_err(Refused::Told)?;
    if let (Some(("run", given)), Some(file)) = (given.subcommand(), &file) {
        let is_open =
            |id: &str| !matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        args.extend(file.args(is_open));
    }
    let in_one_line = args.iter().any(|arg| arg == "--check");
    let refused = |error: clap::Error| match error.use_stderr() && in_one_line {
        true => Refused::Told(CliError::usage(first_paragraph(&error.to_string()))),
        false => Refused::Usage(error),
    };
    let mut matches = command.try_get_matches_from(args).map_err(refused)?;
    let cli = Cli::from_arg_matches(&matches).map_err(Refused::Usage)?;
    let matches = matches.remove_subcommand().map(|(_, matches)| matches).unwrap_or_default();
    Ok((cli, Configuration { file, matches }))
}

fn first_paragraph(error: &str) -> String {
    let lines: Vec<&str> = error.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// Options of `run` that are no settings.
const NOT_IN_FILE: [&str; 7] = ["help", "version", "config", "print_config", "check", "allow", "deny"];
/// The key of the rules.
const POLICY: &str = "policy";

/// The options that a file can set. Their identifiers are its keys.
fn settings() -> Vec<Arg> {
    let mut command = Cli::command();
    // Makes the options of the whole command those of `run` too.
    command.build();
    let options = command.find_subcommand("run").into_iter().flat_map(Command::get_arguments);
    options.filter(|option| !NOT_IN_FILE.contains(&option.get_id().as_str())).cloned().collect()
}

fn is_number(option: &Arg) -> bool {
    let id = option.get_value_parser().type_id();
    [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()]
        .iter()
        .any(|number| id == *number)
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn is_list(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

impl Configuration {
    /// All that `run` goes by, as a file that says the same.
    pub(crate) fn to_toml(&self, policy: &Policy) -> String {
        let mut text = String::new();
        for option in settings() {
            let id = option.get_id().as_str();
            if let Some(value) = self.value(&option) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{id} = {value}");
            }
        }
        let rules: String = policy.rules.iter().map(|rule| format!("\n    \"{rule}\",")).collect();
        text + &format!("{POLICY} = [{rules}{}]\n", if rules.is_empty() { "" } else { "\n" })
    }

    fn value(&self, option: &Arg) -> Option<Value> {
        let id = option.get_id().as_str();
        if is_switch(option) {
            return Some(Value::Boolean(self.matches.get_flag(id)));
        }
        let texts = self.matches.get_raw(id).into_iter().flatten().map(|text| text.to_string_lossy().into_owned());
        let mut values: Vec<Value> = texts
            .map(|text| match text.parse() {
                Ok(number) if is_number(option) => Value::Integer(number),
                _ => Value::String(text),
            })
            .collect();
        if is_list(option) { Some(Value::Array(values)) } else { values.pop() }
    }
}
