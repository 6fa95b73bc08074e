//! Asking the admin server of a running proxy.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::address::AdminAddress;
use crate::error::CliError;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const SIZE: usize = 16 << 20;

/// A client of one server.
pub(crate) struct AdminClient {
    address: AdminAddress,
    runtime: Runtime,
}

impl AdminClient {
    /// A client of the server at `address`, by default that of the process that runs.
    pub(crate) fn new(address: Option<AdminAddress>) -> Result<Self, CliError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::runtime(format!("cannot wait for an answer: {error}")))?;
        Ok(Self { address: address.unwrap_or_else(AdminAddress::of_running), runtime })
    }

    /// The JSON at a path of the server.
    ///
    /// # Errors
    /// Nobody listens there, or the answer is an error or no JSON.
    pub(crate) fn json(&self, path: &str) -> Result<Value, CliError> {
        let answer = self.runtime.block_on(async {
            timeout(PATIENCE, self.get(path)).await.unwrap_or_else(|_| Err(self.error("no answer came in time")))
        });
        serde_json::from_slice(&answer?).map_err(|error| self.error(&error.to_string()))
    }

    async fn get(&self, path: &str) -> Result<Bytes, CliError> {
        match (&self.address, self.address.path()) {
            (AdminAddress::Tcp(address), _) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, path).await
            }
            (_, socket) => {
                let stream = UnixStream::connect(socket.unwrap_or_default()).await;
                self.exchange(stream.map_err(|error| self.unreachable(&error))?, path).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        path: &str,
    ) -> Result<Bytes, CliError> {
        let wrong = |error: hyper::Error| self.error(&error.to_string());
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(wrong)?;
        tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.error(&error.to_string()))?;
        let response = sender.send_request(request).await.map_err(wrong)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), SIZE).collect().await;
        let body = body.map_err(|error| self.error(&error.to_string()))?.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(self.error(String::from_utf8_lossy(&body).trim())),
        }
    }

    fn error(&self, why: &str) -> CliError {
        CliError::runtime(format!("the admin server at {}: {why}", self.name()))
    }

    fn unreachable(&self, error: &std::io::Error) -> CliError {
        let fix = "pingferry run needs --admin, and its address is to be given here as --admin ADDRESS";
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => CliError::permission(format!(
                "the admin server at {}: {error}; run this as the user of pingferry",
                self.name()
            )),
            _ => CliError::runtime(format!("no pingferry answers at {}: {error}; {fix}", self.name())),
        }
    }

    fn name(&self) -> String {
        self.address.path().map_or_else(|| self.address.to_string(), |path| path.display().to_string())
    }
}
