//! A stand-in for a collector of OTLP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use pingferry::trace::otlp::{ExportTraceServiceRequest, Span, Value};
use pingferry_testnet::isolated;

use super::support::*;
use super::*;

/// Reads one request and answers it. Returns its head and its body.
fn take_request(mut stream: TcpStream) -> (String, Vec<u8>) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "the request is cut off");
        request.extend_from_slice(&buffer[..len]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(request[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if request.len() - end - 4 == length.parse::<usize>().unwrap() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            return (head, request[end + 4..].to_vec());
        }
    }
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

#[test]
fn spans_of_requests_and_replies_come_to_the_collector() {
    isolated(|| {
        let network = Network::new();
        let collector = network.proxy.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let mut command = pingferry();
        command.args(["run", "--otlp", &endpoint, "--otlp-ratio", "1", "--deny", "192.0.2.9", "--unix"]).arg(&socket);
        let running = Running::start(&network.proxy, &mut command);
        let client = Client::connect(&socket);
        ping(&client, CLIENT, TARGET, 4711);
        client.send(&echo(CLIENT, "192.0.2.9", 1, b""));
        client.receive();
        // The last spans are sent at the end, before the process ends.
        running.signal(rustix::process::Signal::TERM);
        let mut spans: Vec<Span> = Vec::new();
        while spans.len() < 3 {
            let (head, body) = take_request(collector.accept().unwrap().0);
            assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            spans.extend(ExportTraceServiceRequest::parse(&body).unwrap().spans().cloned());
        }
        assert_eq!(running.end().code(), Some(0));
        let [request, reply, refused] = &*spans else { panic!("{spans:#?}") };
        assert_eq!(
            [&*request.name, &*reply.name, &*refused.name],
            ["icmp-echo-request", "icmp-echo-reply", "icmp-echo-request"]
        );
        assert_eq!((request.trace_id.len(), request.span_id.len()), (16, 8));
        assert_eq!((&request.trace_id, request.parent_span_id.len()), (&reply.trace_id, 0));
        assert_ne!(request.trace_id, refused.trace_id);
        assert_eq!(attribute(request, "src"), Some(Value::Text(CLIENT.into())));
        assert_eq!(attribute(request, "originalEchoID"), Some(Value::Int(4711)));
        assert_eq!(attribute(request, "newFlow"), Some(Value::Bool(true)));
        assert_eq!(attribute(request, "port"), attribute(reply, "echoID"));
        let status = refused.status.as_ref().unwrap();
        assert_eq!((status.code, &*status.message), (2, "destination_refused"));
        assert!(
            request.start_time_unix_nano > 1_600_000_000_000_000_000
                && request.start_time_unix_nano <= request.end_time_unix_nano
        );
    });
}

#[test]
fn a_collector_that_is_not_there_costs_one_warning_and_no_ping() {
    isolated(|| {
        let served = Served::start(&["--otlp", "http://127.0.0.1:1", "--otlp-ratio", "1"]);
        let client = served.client();
        (1..100).for_each(|ident| ping(&client, CLIENT, TARGET, ident));
        assert_eq!(served.running.stop()["replies_returned"], 99);
    });
}
