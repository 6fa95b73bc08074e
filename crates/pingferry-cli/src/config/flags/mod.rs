//! Options and environment variables, as far as they are settings.
//!
//! No option has a default here: an option that was not given leaves the setting as the file or the default has it.

pub(crate) mod ingress;
pub(crate) mod observe;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod traffic;

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::model::Settings;
use super::number::Workers;
use super::values::{LogFormat, LogLevel};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct FileFlag {
    /// Read settings and policy rules from this TOML file; options and environment variables override it
    #[arg(long = "config", value_name = "FILE", env = "PINGFERRY_CONFIG")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct WorkersFlag {
    /// The number of workers, each with its own queue of the TUN device, flows and sockets [default: 1]
    #[arg(long, value_name = "N", env = "PINGFERRY_WORKERS", help_heading = "Proxy")]
    workers: Option<Workers>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SandboxFlag {
    /// Keep all rights while serving, for a debugger or profiler
    #[arg(long, env = "PINGFERRY_NO_SANDBOX", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0, default_missing_value = "true")]
    no_sandbox: Option<bool>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LogFlags {
    /// How much to log, on standard error; debug logs what happens to each packet [default: info]
    #[arg(long, global = true, value_name = "LEVEL", env = "PINGFERRY_LOG_LEVEL")]
    log_level: Option<LogLevel>,
    /// One line of text, or one JSON object, for each event [default: text]
    #[arg(long, global = true, value_name = "FORMAT", env = "PINGFERRY_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

impl WorkersFlag {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set(&mut settings.workers, self.workers.as_ref());
    }
}

impl SandboxFlag {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set(&mut settings.no_sandbox, self.no_sandbox.as_ref());
    }
}

impl LogFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set(&mut settings.log_level, self.log_level.as_ref());
        set(&mut settings.log_format, self.log_format.as_ref());
    }
}

pub(super) fn set<T: Clone>(setting: &mut T, given: Option<&T>) {
    if let Some(value) = given {
        setting.clone_from(value);
    }
}

pub(super) fn set_option<T: Clone>(setting: &mut Option<T>, given: &Option<T>) {
    if given.is_some() {
        setting.clone_from(given);
    }
}

pub(super) fn set_list<T: Clone>(setting: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        given.clone_into(setting);
    }
}
