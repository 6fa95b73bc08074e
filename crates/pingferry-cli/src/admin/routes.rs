//! What is answered to which request.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use pingferry::FlowCursor;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::metrics::Format;
use super::{Observed, flows, metrics};

/// How long an answer may wait for the workers.
const PATIENCE: Duration = Duration::from_secs(2);

const JSON: &str = "application/json";
const PAGE: &str = include_str!("page.html");
/// The page has everything in itself, and reads only from this server.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// An answer before it is a response.
struct Answer(StatusCode, &'static str, String);

impl Answer {
    fn json(status: StatusCode, value: &Value) -> Self {
        Self(status, JSON, format!("{value}\n"))
    }

    fn refused(status: StatusCode, why: &str) -> Self {
        Self::json(status, &json!({"error": why}))
    }
}

/// Answers a request. `any_host` allows all names of the server: see [`is_own_name`].
pub(super) async fn respond<B>(observed: Arc<Observed>, any_host: bool, request: Request<B>) -> Response<Full<Bytes>> {
    let Answer(status, content_type, body) = match *request.method() {
        Method::GET | Method::HEAD if any_host || is_own_name(&request) => answer(observed, &request).await,
        Method::GET | Method::HEAD => {
            Answer::refused(StatusCode::FORBIDDEN, "the host must be an address or localhost")
        }
        _ => Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"),
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    // All headers are valid, so this does not fail.
    response.body(Full::from(body)).unwrap_or_default()
}

/// Whether the request names this server by an address or as `localhost`. A page of another site can make its own name point
/// here (DNS rebinding), and would read what this server tells.
fn is_own_name<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name == "localhost" || name.parse::<std::net::IpAddr>().is_ok())
}

async fn answer<B>(observed: Arc<Observed>, request: &Request<B>) -> Answer {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    match request.uri().path() {
        "/" => Answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned()),
        "/metrics" => waiting(move || metrics(&observed, format)).await,
        "/livez" => waiting(move || alive(observed.role.responds())).await,
        "/readyz" => waiting(move || ready(&observed)).await,
        "/status" => waiting(move || Answer::json(StatusCode::OK, &observed.status())).await,
        "/flows" => match cursor(request.uri().query()) {
            Ok(cursor) => waiting(move || flows(&observed, cursor)).await,
            Err(why) => Answer::refused(StatusCode::BAD_REQUEST, why),
        },
        _ => Answer::refused(StatusCode::NOT_FOUND, "there are /, /metrics, /livez, /readyz, /status and /flows"),
    }
}

/// The answer of a function that waits for the workers.
async fn waiting(answer: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    match timeout(PATIENCE, spawn_blocking(answer)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"),
        Err(_) => Answer::refused(StatusCode::SERVICE_UNAVAILABLE, "the workers do not respond"),
    }
}

fn alive(responds: bool) -> Answer {
    Answer::json(status_of(responds), &json!({"alive": responds}))
}

fn ready(observed: &Observed) -> Answer {
    let (is_ready, value) = observed.health();
    Answer::json(status_of(is_ready), &value)
}

fn metrics(observed: &Arc<Observed>, format: Format) -> Answer {
    match metrics::render(observed, format) {
        Ok(page) => Answer(StatusCode::OK, format.content_type(), page),
        Err(error) => Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn flows(observed: &Observed, cursor: Option<FlowCursor>) -> Answer {
    match observed.role.proxy() {
        Some(control) => Answer::json(StatusCode::OK, &flows::page(control, cursor)),
        None => Answer::refused(StatusCode::NOT_FOUND, "an edge has no flows; its connections are in /status"),
    }
}

fn status_of(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The cursor in a query: `cursor=0.1000`.
fn cursor(query: Option<&str>) -> Result<Option<FlowCursor>, &'static str> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let cursor = query.strip_prefix("cursor=").and_then(|cursor| cursor.parse().ok());
    cursor.map(Some).ok_or("expected ?cursor= with the `next` of another page")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(host: &str) -> bool {
        is_own_name(&Request::builder().header(HOST, host).body(()).unwrap())
    }

    #[test]
    fn another_name_for_this_server_is_refused() {
        for host in ["localhost", "localhost:9090", "127.0.0.1:9090", "[::1]:9090", "[::1]", "192.0.2.1"] {
            assert!(named(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "", "[evil]", "localhost.evil"] {
            assert!(!named(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_query_and_any_host_is_judged_without_a_panic(query in "\\PC*", host in "[ -~]*") {
            let _ = cursor(Some(&query));
            let _ = named(&host);
        }
    }
}
