//! The threads of a proxy: what ends them, and that none waits for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use pingferry::ingress::{PacketBatch, PacketSink, PacketSource};
use pingferry::{Config, CoreConfig, Path, PathConfig, Policy, Proxy, RunError};
use pingferry_proto::wire::echo_request;
use pingferry_testnet::{eventually, isolated};

const PATIENCE: Duration = Duration::from_secs(10);

fn request(ident: u16, seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), ident, seq, b"")
}

/// A proxy that may ping loopback.
fn open(processors: usize) -> Proxy {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    let core = CoreConfig::default().with_policy(policy);
    Proxy::open(Config::default().with_core(core).with_processors(processors)).unwrap()
}

fn attach(proxy: &Proxy) -> (Path, Receiver<Vec<u8>>) {
    let (back, replies) = channel();
    let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| drop(back.send(packet.to_vec()))).unwrap();
    (path, replies)
}

/// Packets of clients are datagrams.
struct Datagrams(UnixDatagram);

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketSource for Datagrams {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        batch.fill(|buffer| Ok(self.0.recv(buffer).ok()))
    }

    fn name(&self) -> String {
        "datagrams".into()
    }
}

/// A sink that panics in the thread with this name.
struct PanicsIn(&'static str);

impl PacketSink for PanicsIn {
    fn send(&mut self, _packet: &[u8]) -> io::Result<()> {
        assert_ne!(thread::current().name(), Some(self.0), "in a sink");
        Ok(())
    }
}

#[test]
fn a_thread_that_panics_ends_the_proxy() {
    isolated(|| {
        for (processors, name) in [(1, "pingferry-0"), (2, "pingferry-0"), (2, "pingferry-down")] {
            let proxy = open(processors);
            let (client, server) = UnixDatagram::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            proxy.attach_ingress(PathConfig::default(), (Datagrams(server), PanicsIn(name))).unwrap();
            let waits = thread::spawn(move || proxy.wait());
            // Bursts that are worth a helper thread, until the proxy has closed its end.
            let mut seq = 0;
            while client.send(&request(1, seq)).is_ok() {
                seq = seq.wrapping_add(1);
            }
            let ended = waits.join().unwrap();
            assert!(matches!(ended, Err(RunError::Panicked)), "{name} of {processors}: {ended:?}");
        }
    });
}

#[test]
fn a_proxy_under_load_can_be_closed() {
    isolated(|| {
        for _ in 0..20 {
            let proxy = open(2);
            let (path, replies) = attach(&proxy);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for seq in (0..u16::MAX).cycle() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        // A full queue loses packets, and an ended proxy takes none.
                        let _ = path.send(&request(seq % 7, seq));
                    }
                });
                (0..100).for_each(|_| drop(replies.recv_timeout(PATIENCE).unwrap()));
                assert!(proxy.close().unwrap().counters.add_up());
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn a_single_echo_is_answered_after_a_burst() {
    isolated(|| {
        let proxy = open(2);
        let (path, replies) = attach(&proxy);
        for round in 0..20 {
            // Enough for the helper thread.
            (0..300).for_each(|seq| path.send(&request(1, seq)).unwrap());
            (0..300).for_each(|_| drop(replies.recv_timeout(PATIENCE).unwrap()));
            // The helper parks meanwhile, and the worker's thread watches the sockets again.
            for seq in 0..30 {
                path.send(&request(2, seq)).unwrap();
                replies.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no reply in round {round}"));
                thread::yield_now();
            }
        }
    });
}

#[test]
fn statistics_can_be_read_under_load_and_only_grow() {
    isolated(|| {
        let proxy = open(2);
        let (path, replies) = attach(&proxy);
        let sent = 20_000u16;
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut before, mut reads) = (0, 0);
                while before < u64::from(sent) {
                    let counters = proxy.stats().counters;
                    assert!(counters.add_up(), "{counters:?}");
                    assert!(counters.packets >= before);
                    before = counters.packets;
                    reads += 1;
                }
                reads
            });
            for seq in 0..sent {
                path.send(&request(1, seq)).unwrap();
                replies.recv_timeout(PATIENCE).unwrap();
            }
            assert!(reader.join().unwrap() > 0);
        });
        eventually("the statistics of the path", || Ok(path.stats().packets == u64::from(sent))).unwrap();
        assert_eq!(path.stats().delivered(), u64::from(sent));
    });
}
