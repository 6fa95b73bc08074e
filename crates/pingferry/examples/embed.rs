//! Adds the proxy to a program that has packets of its own: pings a host and prints the reply.
//!
//! ```text
//! cargo run --example embed -- 192.0.2.1
//! ```

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::Duration;

use pingferry::{Config, DropReason, PathConfig, Proxy};
use pingferry_proto::wire::{IpPacket, echo_request};

fn main() -> Result<(), Box<dyn Error>> {
    let host: IpAddr = std::env::args().nth(1).ok_or("usage: embed ADDRESS")?.parse()?;

    // Open it, and attach a path with a callback for the packets that go back.
    let proxy = Proxy::open(Config::default())?;
    let (back, replies) = mpsc::channel();
    let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| {
        // Only the first reply is waited for.
        let _ = back.send(packet.to_vec());
    })?;

    // Hand in what a client sends, and take what comes back.
    let client = Ipv4Addr::new(10, 0, 0, 2).into();
    path.send(&echo_request(client, host, 0x1234, 1, b"hello from the embedding program"))?;
    let reply = replies.recv_timeout(Duration::from_secs(5))?;
    let packet = IpPacket::parse(&reply).map_err(DropReason::label)?;
    println!("{} bytes from {}, hop limit {}", reply.len(), packet.header.source, packet.header.hop_limit);

    let stats = proxy.close()?;
    println!("{} sent, {} returned", stats.counters.requests_sent(), stats.counters.replies_returned());
    Ok(())
}
