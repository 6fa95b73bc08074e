//! Where the token of a connector comes from.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use pingferry_sys::diagnosis::Operation;
use pingferry_sys::file::open_regular_file;
use pingferry_tunnel::wire::{Token, TokenError};
use tracing::warn;

use crate::error::CliError;

/// The name of the credential that a unit passes with `LoadCredential=` (systemd.exec(5)).
const CREDENTIAL: &str = "token";

#[derive(Args, Clone)]
pub(super) struct TokenFlags {
    /// Read the token of the tunnel from this file [default: the systemd credential `token`, if there is one]
    #[arg(long, value_name = "FILE", env = "PINGFERRY_TOKEN_FILE", help_heading = "Tunnel")]
    token_file: Option<PathBuf>,
    /// Read account, tunnel and secret from this JSON file
    #[arg(long, value_name = "FILE", env = "PINGFERRY_CREDENTIALS_FILE", help_heading = "Tunnel")]
    credentials_file: Option<PathBuf>,
    /// The token of the tunnel; as an option every user of this host can read it, in the environment only this one
    #[arg(long, value_name = "TOKEN", help_heading = "Tunnel", env = "TUNNEL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl TokenFlags {
    /// Reads the token.
    ///
    /// # Errors
    /// There is none, or it is not one.
    pub(super) fn load(&self) -> Result<Token, CliError> {
        match (&self.token_file, &self.credentials_file, &self.token) {
            (Some(file), _, _) => parsed(&file.display().to_string(), read(file)?.parse()),
            (_, Some(file), _) => parsed(&file.display().to_string(), Token::from_credentials(&read(file)?)),
            (_, _, Some(token)) => {
                if std::env::args_os().any(|arg| arg.to_string_lossy().starts_with("--token")) {
                    warn!("every user of this host can read the token of --token; use --token-file");
                }
                parsed("--token", token.parse())
            }
            (None, None, None) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let file = folder.map(|folder| Path::new(&folder).join(CREDENTIAL)).filter(|file| file.exists());
                let file =
                    file.ok_or_else(|| CliError::usage("no token is given; name its file: --token-file FILE"))?;
                parsed(&file.display().to_string(), read(&file)?.parse())
            }
        }
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let failed = |error| CliError::of(&Operation::ReadFile(file), format!("cannot read {}", file.display()), &error);
    open_regular_file(file).and_then(io::read_to_string).map_err(failed)
}

fn parsed(what: &str, token: Result<Token, TokenError>) -> Result<Token, CliError> {
    token.map_err(|error| CliError::usage(format!("{what}: {error}")))
}
