//! The admin server of a process: bound before the process is confined, started when it serves.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::info;

use super::process::ProcessFiles;
use super::{AdminListener, Observed, Role, SocketFile, server};
use crate::config::model::Settings;
use crate::error::CliError;

/// What is opened before the process is confined.
pub(crate) struct Observer {
    listener: AdminListener,
    process: ProcessFiles,
    /// Whether all names of this host are answered to.
    any_host: bool,
}

impl Observer {
    /// `None` if the settings want no admin server.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, CliError> {
        let Some(address) = &settings.admin else { return Ok(None) };
        let listener = AdminListener::bind(&address.0, settings.admin_allow_remote)?;
        Ok(Some(Self { listener, process: ProcessFiles::open(), any_host: settings.admin_allow_remote }))
    }

    /// Starts the server. Returns its file, if it has one, to keep until the end.
    pub(crate) fn start(self, role: impl Role + 'static) -> Result<Option<SocketFile>, CliError> {
        let observed = Observed { role: Box::new(role), started: SystemTime::now(), process: self.process };
        let failed = |error| CliError::runtime(format!("cannot start the admin server: {error}"));
        info!("admin server at {}", self.listener.address().map_err(failed)?);
        let file = self.listener.file();
        server::start(self.listener, Arc::new(observed), self.any_host).map_err(failed)?;
        Ok(file)
    }
}
