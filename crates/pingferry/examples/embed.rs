//! Adds the proxy to a program that has packets of its own: pings a host and prints the answer.
//!
//! ```text
//! cargo run --example embed -- 192.0.2.1
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::Duration;

use pingferry::{Config, DropReason, PathConfig, Proxy};
use pingferry_proto::wire::{IPPROTO_ICMP, IpHeader, IpPacket, write_checksum};

fn main() -> Result<(), Box<dyn Error>> {
    let host: Ipv4Addr = std::env::args().nth(1).ok_or("usage: embed ADDRESS")?.parse()?;

    // Open it, and attach a path with a callback for the packets that go back.
    let proxy = Proxy::open(Config::default())?;
    let (back, answers) = mpsc::channel();
    let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| {
        // Nobody waits for more than the first answer.
        let _ = back.send(packet.to_vec());
    })?;

    // Hand in what a client sends, and take what comes back.
    path.send(&echo_request(host))?;
    let answer = answers.recv_timeout(Duration::from_secs(5))?;
    let packet = IpPacket::parse(&answer).map_err(DropReason::label)?;
    println!("{} bytes from {}, hop limit {}", answer.len(), packet.header.source, packet.header.hop_limit);

    let totals = proxy.close()?;
    println!("{} sent, {} returned", totals.counters.requests_sent, totals.counters.answers_returned);
    Ok(())
}

/// What a client in 10.0.0.0/8 might send. A real program has such packets already.
fn echo_request(host: Ipv4Addr) -> Vec<u8> {
    let header = IpHeader {
        source: Ipv4Addr::new(10, 0, 0, 2).into(),
        destination: host.into(),
        protocol: IPPROTO_ICMP,
        hop_limit: 64,
        traffic_class: 0,
        identification: 0,
        dont_fragment: false,
        fragment: None,
    };
    let mut message = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1], &b"hello from the embedding program"[..]].concat();
    write_checksum(header.source, header.destination, &mut message);
    let mut packet = Vec::new();
    header.emit(message.len(), &mut packet);
    packet.extend(message);
    packet
}
