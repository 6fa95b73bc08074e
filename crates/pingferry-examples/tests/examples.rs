//! The examples of this package, with real `ping`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../../pingferry/tests/pings/mod.rs"]
mod pings;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use pingferry::TunConfig;
use pingferry_testnet::{Host, eventually, isolated, link, require_program, require_tun};
use rustix::event::{PollFd, PollFlags, poll};

use self::pings::{Running, crosses, example, hosts, tun_example};

#[test]
fn a_tokio_program_with_a_tun_device_and_ipstack() {
    isolated(|| {
        if !require_tun() || !require_program("ping") {
            return;
        }
        let (ferry, target) = hosts();
        let _running = tun_example(&ferry, "tokio_ipstack");
        crosses(&ferry);
        // What is no ping is the stack's.
        let listener = target.run(|| TcpListener::bind("192.0.2.1:7").unwrap()).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, client) = listener.accept().unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&said).unwrap();
            client.ip()
        });
        let mut said = [0; 5];
        ferry
            .run(|| {
                let mut stream = TcpStream::connect("192.0.2.1:7").unwrap();
                stream.write_all(b"hello").unwrap();
                stream.read_exact(&mut said).unwrap();
            })
            .unwrap();
        assert_eq!(&said, b"hello");
        assert_eq!(echo.join().unwrap(), Ipv4Addr::new(192, 0, 2, 2), "the stack's own connection");
    });
}

#[test]
fn a_wireguard_peer_without_a_tun_device() {
    isolated(|| {
        if !require_tun() || !require_program("ping") {
            return;
        }
        let (ferry, _target) = hosts();
        let client = Host::new("client").unwrap();
        let [here, there] = ["198.51.100.2/24", "198.51.100.1/24"].map(|address| [address.parse().unwrap()]);
        link(&client, "eth0", &here, &ferry, "eth1", &there, None).unwrap();
        let (ours, theirs) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let keys = [theirs.to_bytes(), PublicKey::from(&ours).to_bytes()]
            .map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let _running = Running(ferry.spawn(example("wireguard").arg("198.51.100.1:51820").args(keys)).unwrap());
        let is_bound = || UdpSocket::bind("198.51.100.1:51820").is_err();
        eventually("the socket", || ferry.run(is_bound)).unwrap();
        start_peer(&client, Tunn::new(ours, PublicKey::from(&theirs), None, None, 1, None));
        client.add_route("192.0.2.0/24".parse().unwrap(), None, "tun0").unwrap();
        crosses(&client);
    });
}

/// The other end: packets of a TUN device, encrypted.
fn start_peer(host: &Host, tunnel: Tunn) {
    let config = TunConfig::new("tun0").with_addresses(vec!["10.0.0.2/24".parse().unwrap()]);
    let (tun, ..) = host.run(|| config.open()).unwrap().unwrap();
    let socket = host.run(|| UdpSocket::bind("198.51.100.2:0").unwrap()).unwrap();
    socket.connect("198.51.100.1:51820").unwrap();
    let shared = Arc::new((Mutex::new(tunnel), tun, socket));
    let reader = Arc::clone(&shared);
    thread::spawn(move || {
        let (tunnel, tun, socket) = &*reader;
        let (mut packet, mut buffer) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            poll(&mut [PollFd::new(tun, PollFlags::IN)], None).unwrap();
            while let Ok(length) = tun.receive(&mut packet) {
                let mut tunnel = tunnel.lock().unwrap();
                if let TunnResult::WriteToNetwork(datagram) = tunnel.encapsulate(&packet[..length], &mut buffer) {
                    let _ = socket.send(datagram);
                }
            }
        }
    });
    thread::spawn(move || {
        let (tunnel, tun, socket) = &*shared;
        let (mut datagram, mut buffer) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let Ok(length) = socket.recv(&mut datagram) else { continue };
            let (mut tunnel, mut input) = (tunnel.lock().unwrap(), &datagram[..length]);
            loop {
                match tunnel.decapsulate(None, input, &mut buffer) {
                    TunnResult::WriteToNetwork(response) => _ = socket.send(response),
                    TunnResult::WriteToTunnelV4(packet, _) => break tun.send(packet).unwrap(),
                    _ => break,
                }
                input = &[];
            }
        }
    });
}
