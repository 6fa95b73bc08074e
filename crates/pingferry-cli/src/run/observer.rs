//! The admin server of `run`: bound before the process is confined, started when it serves.

use std::sync::Arc;
use std::time::SystemTime;

use pingferry::Control;
use tracing::info;

use crate::admin::{self, AdminListener, Observed, ProcessFiles, ReloadResult, SocketFile};
use crate::config::model::Settings;
use crate::error::CliError;

/// What is opened before the process is confined.
pub(super) struct Observer {
    listener: AdminListener,
    process: ProcessFiles,
}

impl Observer {
    /// `None` if the settings want no admin server.
    pub(super) fn open(settings: &Settings) -> Result<Option<Self>, CliError> {
        let Some(address) = &settings.admin else { return Ok(None) };
        let listener = AdminListener::bind(&address.0, settings.admin_allow_remote)?;
        Ok(Some(Self { listener, process: ProcessFiles::open() }))
    }

    /// Starts the server. Returns its file, if it has one, to keep until the end.
    pub(super) fn start(
        self,
        settings: &Settings,
        control: &Control,
        ingresses: Vec<String>,
        reloads: &Arc<ReloadResult>,
    ) -> Result<Option<SocketFile>, CliError> {
        let observed = Observed {
            control: control.clone(),
            ingresses,
            targets: settings.metrics_target.iter().map(|target| target.0.name.clone()).collect(),
            cloudflared_names: settings.metrics_compat.is_some(),
            started: SystemTime::now(),
            process: self.process,
            reloads: Arc::clone(reloads),
        };
        let failed = |error| CliError::runtime(format!("cannot start the admin server: {error}"));
        info!("admin server at {}", self.listener.address().map_err(failed)?);
        let file = self.listener.file();
        admin::start(self.listener, Arc::new(observed), settings.admin_allow_remote).map_err(failed)?;
        Ok(file)
    }
}
