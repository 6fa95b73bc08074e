//! Drives the core without sockets and with a virtual clock: one ping, its reply, and the end of its flow a minute later, all at
//! once.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{echo_reply, echo_request};
use pingferry_proto::{Config, Endpoint, Output, Outputs, PathConfig, Received};

/// The identifier of the only socket.
const IDENT: u16 = 77;

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
                println!("  open a socket; it gets identifier {IDENT}");
                endpoint.socket_opened(now, *socket, IDENT);
            }
            Output::Transmit(transmit) => {
                println!("  send to {} with hop limit {}", transmit.header.destination, transmit.hop_limit);
                now += Duration::from_millis(20);
                let message = echo_reply(client, host, IDENT, outputs.bytes(&transmit.message));
                let received =
                    Received { from: host, hop_limit: 60, traffic_class: 0, waited: Duration::ZERO, message: &message };
                println!("the host replies: {:?}", endpoint.handle_reply(now, transmit.socket, received));
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
        println!("  {} flows and {} sockets are open", endpoint.flows(), endpoint.sockets());
    }
    Ok(())
}
