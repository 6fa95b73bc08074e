//! Users of a Unix socket, as another client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use pingferry::ingress::UnixIngress;
use pingferry::{Config, CoreConfig, PathConfig, Policy, Proxy};
use pingferry_proto::wire::echo_request;
use pingferry_testnet::{eventually, isolated};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

const PATIENCE: Duration = Duration::from_secs(10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn request(host: u16) -> Vec<u8> {
    let [high, low] = host.to_be_bytes();
    echo_request(CLIENT.into(), [127, 1, high, low].into(), 7, 1, b"payload")
}

fn connect(path: &Path) -> OwnedFd {
    let client =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&client, &SocketAddrUnix::new(path).unwrap()).unwrap();
    client
}

/// The user opens as many flows as there may be, in 64 domains. The other client has a third of them in one domain.
#[test]
fn a_user_with_many_connections_has_one_share_of_the_flows() {
    isolated(|| {
        const FLOWS: usize = 120;
        let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
        let config = CoreConfig::default().with_policy(policy).with_max_flows(FLOWS);
        let proxy = Proxy::open(Config::default().with_core(config)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        proxy.attach_unix(PathConfig::default(), UnixIngress::bind(&socket).unwrap()).unwrap();

        let (replies, received) = channel();
        let innocent =
            proxy.attach(PathConfig::default(), move |packet: &[u8]| replies.send(packet.to_vec()).unwrap()).unwrap();
        let ping_all = || {
            for host in 0..40 {
                innocent.send(&request(host)).unwrap();
                received.recv_timeout(PATIENCE).unwrap();
            }
        };
        ping_all();
        let user: Vec<OwnedFd> = (0..64).map(|_| connect(&socket)).collect();
        for host in 0..640 {
            let connection = &user[usize::from(host) % user.len()];
            rustix::net::send(connection, &request(1000 + host), SendFlags::empty()).unwrap();
        }
        eventually("all packets are read", || Ok(proxy.stats().counters.packets == 40 + 640)).unwrap();
        assert_eq!(proxy.stats().flows, FLOWS);
        let opened = proxy.stats().counters.flows_opened;
        ping_all();
        assert_eq!(proxy.stats().counters.flows_opened, opened, "the other client has kept its flows");
    });
}
