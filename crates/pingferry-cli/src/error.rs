use std::fmt::{self, Display};
use std::io;
use std::process::ExitCode;

use pingferry::RunError;

/// The command line or configuration is wrong (`EX_USAGE` of `sysexits.h`).
pub(crate) const USAGE: u8 = 64;
/// A permission is missing (`EX_NOPERM`).
pub(crate) const PERMISSION: u8 = 77;
/// It went wrong while running.
pub(crate) const RUNTIME: u8 = 1;

/// Why the command ends, in one line, and its exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    code: u8,
    message: String,
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    pub(crate) fn permission(message: impl Into<String>) -> Self {
        Self { code: PERMISSION, message: message.into() }
    }

    pub(crate) fn runtime(message: impl Into<String>) -> Self {
        Self { code: RUNTIME, message: message.into() }
    }

    /// A failure with another exit code, for commands whose code is not pingferry's own.
    pub(crate) fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What could not be done, with the command that fixes it where a permission is missing.
    pub(crate) fn from_io(what: impl Display, error: &io::Error, fix: &str) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::permission(format!("{what}: {error}; {fix}")),
            _ => Self::runtime(format!("{what}: {error}")),
        }
    }

    pub(crate) fn report(self) -> ExitCode {
        eprintln!("pingferry: {}", self.message);
        ExitCode::from(self.code)
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        Self::runtime(error.to_string())
    }
}
