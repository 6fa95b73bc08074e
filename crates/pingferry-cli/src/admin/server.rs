//! The HTTP server: one thread, HTTP/1.1, and bounds on everything that a client can take.
//!
//! Connections beyond the limit wait until one is closed. A client that sends its request slowly, or reads the answer slowly,
//! loses its connection, so it holds up others for some seconds at most.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::routes::respond;
use super::{AdminListener, Observed};

/// How many clients are served at a time.
const CONNECTIONS: usize = 32;
/// The descriptors that the server needs: those of connections, to wait, and some files.
pub(crate) const DESCRIPTORS: usize = CONNECTIONS + 8;
/// How long a client may take for the head of a request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last, with all its requests.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes. hyper takes no less.
const REQUEST_SIZE: usize = 8192;
/// How many answers may wait for the workers at a time.
const WAITING: usize = 4;
/// The pause after a connection could not be accepted, because there was no descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts the thread that serves the listener for as long as the process lives. `any_host`: see [`respond`].
pub(crate) fn start(listener: AdminListener, observed: Arc<Observed>, any_host: bool) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(WAITING).build()?;
    let serve = move || match serve(&runtime, listener, &observed, any_host) {
        Ok(never) => match never {},
        Err(error) => debug!(%error, "admin server"),
    };
    thread::Builder::new().name("admin".into()).spawn(serve).map(drop)
}

fn serve(
    runtime: &Runtime,
    listener: AdminListener,
    observed: &Arc<Observed>,
    any_host: bool,
) -> io::Result<Infallible> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    runtime.block_on(async {
        match listener {
            AdminListener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let permit = permit(&connections).await;
                    match listener.accept().await {
                        Ok((stream, _)) => spawn(stream, Arc::clone(observed), any_host, permit),
                        Err(error) => pause(&error).await,
                    }
                }
            }
            AdminListener::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                loop {
                    let permit = permit(&connections).await;
                    match listener.accept().await {
                        Ok((stream, _)) => spawn(stream, Arc::clone(observed), true, permit),
                        Err(error) => pause(&error).await,
                    }
                }
            }
        }
    })
}

/// Waits until one more connection may be served. It never fails, because the semaphore is never closed.
async fn permit(connections: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(connections).acquire_owned().await.ok()
}

async fn pause(error: &io::Error) {
    debug!(%error, "admin connection not accepted");
    sleep(PAUSE).await;
}

/// Serves a connection until it is closed or its time is over.
fn spawn(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    observed: Arc<Observed>,
    any_host: bool,
    permit: Option<OwnedSemaphorePermit>,
) {
    tokio::spawn(async move {
        let _permit = permit;
        let service = service_fn(move |request| {
            let response = respond(Arc::clone(&observed), any_host, request);
            async { Ok::<_, Infallible>(response.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME)
            .max_buf_size(REQUEST_SIZE)
            .serve_connection(TokioIo::new(stream), service);
        // Only the client is to know what it did wrong.
        let _ = timeout(CONNECTION_TIME, connection).await;
    });
}
