//! Drives the core without sockets and with a clock that moves when told to: one ping, its answer, and the end of its
//! flow a minute later, in no time.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{echo_request, write_checksum};
use pingferry_proto::{Config, Endpoint, Output, Outputs, PathConfig, Received};

fn main() -> Result<(), Box<dyn Error>> {
    let mut now = Instant::now();
    let mut endpoint = Endpoint::new(Config::default());
    let path = endpoint.add_path(PathConfig::default());
    let mut outputs = Outputs::default();

    let (client, host) = (Ipv4Addr::new(10, 0, 0, 2).into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let request = echo_request(client, host, 0x1234, 1, b"");
    println!("a client pings: {:?}", endpoint.handle_packet(now, path, None, &request));
    endpoint.take_outputs(&mut outputs);
    for output in &outputs {
        match output {
            Output::Open(socket) => {
                println!("  open a socket; here it gets the identifier 77");
                endpoint.socket_opened(now, *socket, 77);
            }
            Output::Transmit(transmit) => {
                println!("  send to {} with hop limit {}", transmit.header.destination, transmit.hop_limit);
                now += Duration::from_millis(20);
                let reply = echo_reply(outputs.bytes(&transmit.message));
                let from = transmit.header.destination;
                let received = Received { from, hop_limit: 60, traffic_class: 0, message: &reply };
                println!("the host answers: {:?}", endpoint.handle_reply(now, transmit.socket, received));
            }
            _ => {}
        }
    }
    endpoint.take_outputs(&mut outputs);
    for output in &outputs {
        println!("  {output:?}");
    }

    while let Some(deadline) = endpoint.next_deadline() {
        println!("nothing happens for {:?}", deadline - now);
        now = deadline;
        endpoint.handle_timeout(now);
        println!("  {} flows and {} sockets are left", endpoint.flows(), endpoint.sockets());
    }
    Ok(())
}

/// What the host makes of the request, which left with the socket's identifier.
fn echo_reply(request: &[u8]) -> Vec<u8> {
    let mut reply = vec![0, 0, 0, 0, 0, 77];
    reply.extend(request.iter().skip(6));
    let nobody = Ipv4Addr::UNSPECIFIED.into();
    write_checksum(nobody, nobody, &mut reply);
    reply
}
