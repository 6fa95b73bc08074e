//! Confinement of the commands that serve.

use std::io;

use pingferry_sys::sandbox::Sandbox;
use tracing::warn;

use crate::config::model::Settings;

/// Confines this process unless the settings forbid it. Call it before any thread is started. Returns what could not be applied,
/// which is logged too.
pub(crate) fn confine(settings: &Settings, sandbox: &Sandbox) -> Option<String> {
    if settings.no_sandbox {
        return None;
    }
    let warning = warning(&sandbox.enter());
    warning.iter().for_each(|warning| warn!("{warning}"));
    warning
}

/// One line about everything that could not be applied.
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
