//! Confinement of the commands that serve.

use std::io;

use clap::Args;
use clap::builder::BoolishValueParser;
use pingferry_sys::sandbox::Sandbox;
use tracing::warn;

#[derive(Args)]
pub(crate) struct SandboxArgs {
    /// Keep all rights while serving, for a debugger or profiler
    #[arg(long, env = "PINGFERRY_NO_SANDBOX", value_parser = BoolishValueParser::new())]
    no_sandbox: bool,
}

impl SandboxArgs {
    /// Confines this process unless it was told not to. To be called before any thread is started.
    pub(crate) fn confine(&self, sandbox: &Sandbox) {
        if self.no_sandbox {
            return;
        }
        if let Some(warning) = warning(&sandbox.enter()) {
            warn!("{warning}");
        }
    }
}

/// All that is missing, in one line.
fn warning(missing: &[io::Error]) -> Option<String> {
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    (!missing.is_empty()).then(|| format!("not fully confined: could not {}", missing.join("; could not ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_one_warning() {
        assert_eq!(warning(&[]), None);
        let missing = ["close files: unsupported", "filter calls: denied"].map(io::Error::other);
        let expected = "not fully confined: could not close files: unsupported; could not filter calls: denied";
        assert_eq!(warning(&missing).unwrap(), expected);
    }
}
