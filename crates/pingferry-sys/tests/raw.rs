//! Raw ICMP sockets.
#![allow(clippy::unwrap_used, reason = "test helpers report failures by panicking")]

use pingferry_proto::wire::write_checksum;
use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use pingferry_testnet::isolated;
use rustix::event::{PollFd, PollFlags, poll};

const HOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn request(ident: u16) -> Vec<u8> {
    let [high, low] = ident.to_be_bytes();
    let mut message = vec![8, 0, 0, 0, high, low, 0, 1, b'x'];
    write_checksum(HOST, HOST, &mut message);
    message
}

#[test]
fn any_ident_is_sent_unchanged_and_replies_include_the_ip_header() {
    isolated(|| {
        let socket = RawSocket::open(1 << 16).unwrap();
        let requests = [request(0), request(7), request(0xffff)];
        let outgoing = requests.iter().map(|message| Outgoing {
            destination: HOST,
            scope_id: 0,
            hop_limit: 33,
            traffic_class: 0,
            message,
        });
        assert_eq!(socket.send(&mut SendBatch::new(), outgoing).unwrap(), 3);

        let mut batch = RawBatch::new();
        let mut idents = Vec::new();
        while idents.len() < 3 {
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).unwrap();
            batch.receive(&socket).unwrap();
            // On loopback the socket also receives the requests.
            for packet in batch.iter().filter(|packet| packet[20] == 0) {
                assert_eq!((packet[0], packet[9], packet.len()), (0x45, 1, 29));
                idents.push(u16::from_be_bytes([packet[24], packet[25]]));
            }
        }
        assert_eq!(idents, [0, 7, 0xffff]);
        assert_eq!(socket.dropped().unwrap(), 0);
    });
}
