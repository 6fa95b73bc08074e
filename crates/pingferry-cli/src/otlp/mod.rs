//! Exporting spans over OTLP (http/protobuf), for `--otlp`.
//!
//! A thread of its own takes the spans every few seconds and sends them in one request. What the collector does not take is
//! lost, and counted in the log. The collector's name is resolved before the process is confined.

mod endpoint;

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use pingferry::trace::Sampling;
use pingferry::trace::otlp::{ExportTraceServiceRequest, InstrumentationScope, KeyValue, ResourceSpans, Span};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::error::CliError;

pub(crate) use self::endpoint::{Collector, Endpoint};

/// What spans say of the process that made them.
const NAME: &str = "pingferry";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often spans are sent.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a request may take. At the end of the process it delays that.
const PATIENCE: Duration = Duration::from_secs(3);

/// The thread that exports. Dropping this sends the last spans.
pub(crate) struct Exporter {
    /// `None` once the thread is told to end.
    stop: Option<SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The body of a request, and how many spans it has.
pub(crate) struct Export {
    body: Vec<u8>,
    spans: usize,
}

impl Export {
    /// The spans that a proxy made since the last call.
    pub(crate) fn take_from(sampling: &Sampling) -> Option<Self> {
        let spans: Vec<_> = sampling.take_spans().into_iter().map(Span::from).collect();
        let attributes = vec![KeyValue::text("service.name", NAME), KeyValue::text("service.version", VERSION)];
        let scope = InstrumentationScope { name: NAME.into(), version: VERSION.into() };
        Self::new(vec![ResourceSpans::new(attributes, scope, spans)])
    }

    /// All spans of these processes in one message, if there are any.
    pub(crate) fn new(resource_spans: Vec<ResourceSpans>) -> Option<Self> {
        let request = ExportTraceServiceRequest { resource_spans };
        let spans = request.spans().count();
        (spans > 0).then(|| Self { body: request.to_bytes(), spans })
    }
}

impl Exporter {
    /// Exports what `take` returns every few seconds.
    pub(crate) fn start(
        collector: Collector,
        mut take: impl FnMut() -> Option<Export> + Send + 'static,
    ) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::runtime(format!("cannot export spans: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = sync_channel(0);
        let export = move || {
            let mut failure = Failure::default();
            loop {
                let is_last = stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected);
                if let Some(Export { body, spans }) = take() {
                    failure.note(runtime_export(&runtime, &collector, body), spans);
                }
                if is_last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("otlp".into()).spawn(export).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic was logged when it happened.
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

fn runtime_export(runtime: &Runtime, collector: &Collector, body: Vec<u8>) -> Result<(), String> {
    runtime.block_on(async {
        timeout(PATIENCE, export(collector, body)).await.unwrap_or_else(|_| Err("it did not answer in time".into()))
    })
}

async fn export(collector: &Collector, body: Vec<u8>) -> Result<(), String> {
    let stream = TcpStream::connect(&*collector.addresses).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&*collector.endpoint.path)
        .header(HOST, &collector.endpoint.host)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(Bytes::from(body)));
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await;
    connection.abort();
    match response {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("it answered {}", response.status())),
        Err(error) => Err(error.to_string()),
    }
}

/// What is logged of a collector that takes nothing: the first failure, and how much was lost when it works again.
#[derive(Default)]
struct Failure {
    lost: usize,
}

impl Failure {
    fn note(&mut self, exported: Result<(), String>, spans: usize) {
        match exported {
            Ok(()) if self.lost > 0 => info!("spans are exported again; {} were lost", std::mem::take(&mut self.lost)),
            Ok(()) => {}
            Err(why) => {
                if self.lost == 0 {
                    warn!("spans are lost, because the collector does not take them: {why}");
                }
                self.lost += spans;
            }
        }
    }
}
