//! Why the command ends, and its exit code.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use pingferry::RunError;
use pingferry_sys::diagnosis::{Operation, Situation, diagnose};
use pingferry_sys::errno;

use crate::log;

/// The command line or configuration is wrong (`EX_USAGE` of `sysexits.h`).
pub(crate) const USAGE: u8 = 64;
/// A permission is missing (`EX_NOPERM`).
pub(crate) const PERMISSION: u8 = 77;
/// Something failed while running.
pub(crate) const RUNTIME: u8 = 1;

/// An error that ends the command: one line and an exit code.
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

    /// An error with another exit code.
    pub(crate) fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error of the kernel. Where pingferry-sys knows the cause and what helps, its text says so.
    pub(crate) fn from_io(what: impl Display, error: &io::Error) -> Self {
        Self::with_code(code(error.kind() == io::ErrorKind::PermissionDenied), format!("{what}: {error}"))
    }

    /// An error of something that was tried, with its cause and what helps.
    pub(crate) fn of(operation: &Operation<'_>, what: impl Display, error: &io::Error) -> Self {
        let Some(errno) = errno(error) else { return Self::from_io(what, error) };
        let diagnosis = diagnose(operation, errno, &Situation::detect());
        let advice = diagnosis.to_string();
        let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
        Self::with_code(code(diagnosis.is_permission), format!("{what}: {error}{advice}"))
    }

    /// An error of creating the file at `path`.
    pub(crate) fn from_creating(what: impl Display, path: &Path, error: &io::Error) -> Self {
        Self::of(&Operation::CreateFile(path), format!("{what} {}", path.display()), error)
    }

    /// Prints the line and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        log::fail(&self.message);
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

fn code(is_permission: bool) -> u8 {
    if is_permission { PERMISSION } else { RUNTIME }
}
