//! Sends spans to an OpenTelemetry collector: OTLP over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! A collector runs on the same host or in the same network, so this speaks plain HTTP/1.1 and leaves anything else to it. What
//! cannot be sent is lost and counted: nothing waits for a collector.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use crate::wire::spans::ExportTraceServiceRequest;

/// How many datagrams with spans may wait.
pub(super) const QUEUE: usize = 1024;
/// How many are sent at once.
const BATCH: usize = 256;
/// How long a collector may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Where a collector listens: an `http` URL with an address.
///
/// ```
/// use pingferry_tunnel::edge::Collector;
///
/// let collector: Collector = "http://127.0.0.1:4318/v1/traces".parse()?;
/// assert_eq!(collector.to_string(), "http://127.0.0.1:4318/v1/traces");
/// assert_eq!("http://[::1]:4318".parse::<Collector>()?.to_string(), "http://[::1]:4318/v1/traces");
/// assert!("https://127.0.0.1:4318".parse::<Collector>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    address: SocketAddr,
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected the URL of a collector, such as http://127.0.0.1:4318/v1/traces".to_owned();
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        let (address, path) = rest.find('/').map_or((rest, "/v1/traces"), |at| rest.split_at(at));
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        let address = address.parse().ok().filter(|_| is_plain).ok_or_else(expected)?;
        Ok(Self { address, path: path.into() })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// Sends what comes, as long as somebody can send. `failed` counts datagrams whose spans were lost.
pub(super) async fn export(
    collector: Collector,
    mut spans: mpsc::Receiver<ExportTraceServiceRequest>,
    mut failed: impl FnMut(u64),
) {
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        let count = batch.len() as u64;
        let resource_spans = batch.drain(..).flat_map(|request| request.resource_spans).collect();
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let posted = timeout(SEND_WITHIN, post(&collector, &body)).await;
        if let Err(error) = posted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            debug!(%error, "the collector {collector} did not take {count} spans");
            failed(count);
        }
    }
}

async fn post(collector: &Collector, body: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(collector.address).await?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        collector.path,
        collector.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    // The status line: HTTP/1.1 200 OK.
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match status {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2', _, _] => Ok(()),
        _ => Err(io::Error::other(String::from_utf8_lossy(&status).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::net::TcpListener;

    use super::*;
    use crate::wire::spans::ResourceSpans;

    /// Exports a message to a collector that answers `status`. Returns what the collector got and how much was lost.
    async fn exported(status: &str) -> (Vec<u8>, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::channel(QUEUE);
        let message = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::default()] };
        sender.send(message.clone()).await.unwrap();
        drop(sender);
        let failed = Cell::new(0);
        let export = export(url.parse().unwrap(), receiver, |count| failed.set(failed.get() + count));
        let collect = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(&message.encode_to_vec()) {
                stream.read_buf(&mut got).await.unwrap();
            }
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(export, collect);
        (got, failed.get())
    }

    #[tokio::test]
    async fn spans_are_posted_and_refusals_counted() {
        let (got, failed) = exported("200 OK").await;
        let text = String::from_utf8_lossy(&got);
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n") && text.contains("Content-Length: 2\r\n"), "{text}");
        assert_eq!(failed, 0);
        assert_eq!(exported("503 Service Unavailable").await.1, 1);
    }
}
