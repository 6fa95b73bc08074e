//! What SIGHUP does: the policy of the file is read again.

use pingferry::Control;
use tracing::{error, info, warn};

use super::File;
use crate::options::PolicyArgs;

/// Brings a proxy in line with the newest configuration file.
pub(crate) struct Reload {
    pub(crate) file: File,
    /// The rules that do not come from the file.
    pub(crate) rules: PolicyArgs,
}

impl Reload {
    /// Reads the file again and puts its policy in force. If it has a mistake, all stays as it was.
    pub(crate) fn reload(&self, control: &Control) {
        let read = match File::read(&self.file.path) {
            Ok(read) => read,
            Err(failure) => return error!("{failure}; the policy stays as it was"),
        };
        let policy = self.rules.policy(Some(&read));
        // One that has ended needs no policy.
        if control.set_policy(&policy).is_ok() {
            info!("policy reloaded from {}: {} rules", self.file.path.display(), policy.rules.len());
        }
        let differences = self.file.differences(&read).join(", ");
        if !differences.is_empty() {
            warn!("only the policy is reloaded; changed, but in force after a restart only: {differences}");
        }
    }
}
