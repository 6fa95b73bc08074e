//! The handles of a proxy: what can be done from anywhere, and what becomes of packets at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use pingferry::ingress::TunIngress;
use pingferry::{
    AttachError, Config, Control, CoreConfig, DropReason, Offer, Path, PathConfig, Policy, Proxy, Rate, RunError,
    SendError,
};
use pingferry_proto::wire::{IpHeader, IpPacket, echo_request};
use pingferry_sys::netlink::Netlink;
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::{eventually, isolated, require_tun};

const PATIENCE: Duration = Duration::from_secs(10);

fn request(ident: u16, seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), ident, seq, b"")
}

fn loopback() -> Policy {
    Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] }
}

/// A proxy that may ping loopback.
fn open(processors: usize) -> Proxy {
    let core = CoreConfig::default().with_policy(loopback());
    Proxy::open(Config::default().with_core(core).with_processors(processors)).unwrap()
}

fn attach(control: &Control) -> (Path, Receiver<Vec<u8>>) {
    let (back, replies) = channel();
    let path = control.attach(PathConfig::default(), move |packet: &[u8]| back.send(packet.to_vec())).unwrap();
    (path, replies)
}

#[test]
fn what_was_taken_before_the_end_is_sent() {
    isolated(|| {
        for closes_path_first in [false, true] {
            let proxy = open(1);
            let (path, _replies) = attach(&proxy);
            (0..1000).for_each(|seq| path.send(&request(1, seq)).unwrap());
            let path = if closes_path_first { None } else { Some(path) };
            let stats = proxy.close().unwrap();
            assert_eq!(stats.counters.requests_sent(), 1000, "{stats:?}");
            assert!(stats.counters.add_up());
            assert!(path.is_none_or(|path| path.send(&request(1, 1)) == Err(SendError::Closed)));
        }
    });
}

#[test]
fn what_does_not_fit_into_a_queue_is_counted() {
    isolated(|| {
        let proxy = open(1);
        let (busy, at_work) = channel();
        let (go_on, wait) = channel::<()>();
        let path = proxy.attach(PathConfig::default(), move |_: &[u8]| {
            busy.send(()).unwrap();
            // Ends when the test drops its end.
            let _ = wait.recv();
        });
        let path = path.unwrap();
        path.set_queue_length(10);
        path.send(&request(1, 0)).unwrap();
        at_work.recv_timeout(PATIENCE).unwrap();
        let full = (0..1000).filter(|seq| path.send(&request(1, *seq)) == Err(SendError::Full)).count();
        assert_eq!(full, 990);
        drop((at_work, go_on));
        let stats = proxy.close().unwrap();
        assert_eq!(stats.counters.request_drops[DropReason::QueueFull], 990);
        assert_eq!((stats.counters.packets, stats.counters.add_up()), (1001, true));
        assert_eq!((path.stats().packets, path.stats().drops), (1001, 990));
    });
}

/// Everything that a handle can do, from a callback that runs on a thread of the proxy and takes a lock.
#[test]
fn a_callback_can_use_its_proxy() {
    isolated(|| {
        for processors in [1, 2] {
            let proxy = open(processors);
            let control: Arc<OnceLock<Control>> = Arc::default();
            // Locked here while the proxy is changed, and by the callback.
            let lock = Arc::new(Mutex::new(()));
            let (back, replies) = channel();
            let callback = {
                let (control, lock) = (Arc::clone(&control), Arc::clone(&lock));
                move |_: &[u8]| {
                    let _locked = lock.lock().unwrap();
                    let control = control.get().unwrap();
                    control.set_policy(&loopback()).unwrap();
                    let (other, _) = attach(control);
                    other.configure(&PathConfig::default().with_mtu(1400)).unwrap();
                    let _ = other.send(&request(2, 1));
                    let _ = (control.stats(), other.stats());
                    other.detach();
                    assert!(matches!(control.wait(), Err(RunError::WouldDeadlock)));
                    let _ = back.send(());
                }
            };
            let path = proxy.attach(PathConfig::default(), callback).unwrap();
            control.set(proxy.control()).unwrap();
            for seq in 0..300 {
                path.send(&request(1, seq)).unwrap();
            }
            for _ in 0..300 {
                let _locked = lock.lock().unwrap();
                proxy.set_policy(&loopback()).unwrap();
                let (other, _) = attach(&proxy);
                let _ = (proxy.stats(), path.stats());
                drop(other);
            }
            (0..300).for_each(|_| replies.recv_timeout(PATIENCE).unwrap());
            // The last handle of the callback stops the proxy, under the lock.
            let locked = lock.lock().unwrap();
            path.send(&request(1, 0)).unwrap();
            let control = proxy.control();
            drop(proxy);
            drop(locked);
            assert!(control.wait().unwrap().counters.add_up());
        }
    });
}

#[test]
fn a_callback_can_close_its_proxy_and_own_it() {
    isolated(|| {
        let owned: Arc<Mutex<Option<Proxy>>> = Arc::default();
        let proxy = open(1);
        let control = proxy.control();
        let (closed, result) = channel();
        let callback = {
            let owned = Arc::clone(&owned);
            move |_: &[u8]| {
                let proxy = owned.lock().unwrap().take();
                closed.send(proxy.map(|proxy| proxy.close())).unwrap();
            }
        };
        let path = proxy.attach(PathConfig::default(), callback).unwrap();
        *owned.lock().unwrap() = Some(proxy);
        path.send(&request(1, 0)).unwrap();
        assert!(matches!(result.recv_timeout(PATIENCE).unwrap(), Some(Err(RunError::WouldDeadlock))));
        assert_eq!(control.wait().unwrap().counters.replies_returned(), 1);
        assert!(matches!(control.attach(PathConfig::default(), |_: &[u8]| {}), Err(AttachError::Closed(_))));
        assert!(control.set_policy(&Policy::default()).is_err());
        assert!(matches!(path.configure(&PathConfig::default()), Err(AttachError::Closed(_))));
    });
}

/// What a callback owns is dropped on a thread of the proxy, and may use the proxy too.
#[test]
fn what_a_callback_owns_can_use_the_proxy_when_it_is_dropped() {
    struct OnDrop(Control, std::sync::mpsc::Sender<bool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.1.send(self.0.set_policy(&Policy::default()).is_ok()).unwrap();
        }
    }
    isolated(|| {
        let (dropped, drops) = channel();
        let proxy = open(1);
        let mut paths: Vec<Path> = (0..3)
            .map(|_| {
                let owned = OnDrop(proxy.control(), dropped.clone());
                proxy.attach(PathConfig::default(), move |_: &[u8]| _ = &owned).unwrap()
            })
            .collect();
        drop(paths.pop());
        assert!(drops.recv_timeout(PATIENCE).unwrap());
        paths[0].detach();
        assert!(drops.recv_timeout(PATIENCE).unwrap());
        proxy.close().unwrap();
        assert!(!drops.recv_timeout(PATIENCE).unwrap(), "the proxy is closed");
    });
}

#[test]
fn a_task_can_wait_for_the_end() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    isolated(|| {
        let proxy = open(1);
        let control = proxy.control();
        let mut closed = pin!(control.closed());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        assert!(closed.as_mut().poll(&mut context).is_pending());
        proxy.stop();
        let stats = loop {
            match closed.as_mut().poll(&mut context) {
                Poll::Ready(stats) => break stats,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(stats.unwrap(), proxy.wait().unwrap());
    });
}

#[test]
fn a_callback_may_refuse_a_packet() {
    isolated(|| {
        let proxy = open(1);
        let (back, replies) = sync_channel(2);
        let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| back.try_send(packet.to_vec())).unwrap();
        (0..10).for_each(|seq| path.send(&request(1, seq)).unwrap());
        eventually("all replies", || Ok(proxy.stats().counters.replies_received == 10)).unwrap();
        let stats = proxy.close().unwrap();
        assert_eq!(stats.counters.reply_drops[DropReason::DeliveryFailed], 8);
        assert_eq!((replies.iter().count(), path.stats().deliveries_failed), (2, 8));
    });
}

#[test]
fn a_slow_callback_loses_its_own_packets() {
    isolated(|| {
        let proxy = open(1);
        let slow = proxy.attach(PathConfig::default(), |_: &[u8]| thread::sleep(Duration::from_millis(20))).unwrap();
        let (path, replies) = attach(&proxy);
        // Two rounds of it and more: the first one only shows that it is slow.
        (0..200).for_each(|seq| slow.send(&request(1, seq)).unwrap());
        (0..200).for_each(|seq| path.send(&request(1, seq)).unwrap());
        (0..200).for_each(|_| drop(replies.recv_timeout(PATIENCE).unwrap()));
        eventually("all replies", || Ok(proxy.stats().counters.replies_received == 400)).unwrap();
        let stats = proxy.close().unwrap();
        let failed = stats.counters.reply_drops[DropReason::DeliveryFailed];
        assert!(0 < failed && failed == slow.stats().deliveries_failed, "{stats:?}");
        assert!(stats.counters.add_up());
    });
}

#[test]
fn a_path_tells_what_is_for_it() {
    isolated(|| {
        let proxy = open(1);
        let (path, replies) = attach(&proxy);
        assert_eq!(path.offer(&request(1, 1)), Offer::Taken);
        let reply = replies.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            (path.offer(&reply), path.offer(b""), path.offer(b"no packet")),
            (Offer::NotMine, Offer::NotMine, Offer::NotMine)
        );
        let config = PathConfig::default();
        let mut header = IpHeader::icmp([10, 0, 0, 2].into(), [127, 0, 0, 1].into());
        (header.protocol, header.hop_limit) = (17, 3);
        let udp = IpPacket { header, payload: &[0; 8] }.to_bytes();
        assert_eq!(path.offer(&udp), Offer::NotMine);
        let probes = config.probes.clone().with_udp(true);
        path.configure(&config.with_probes(probes)).unwrap();
        assert_eq!(path.offer(&udp), Offer::Taken);
        proxy.close().unwrap();
        assert_eq!(path.offer(&request(1, 1)), Offer::Closed);
        assert_eq!(path.stats().packets, 2);
    });
}

#[test]
fn a_path_has_limits_of_its_own() {
    isolated(|| {
        let proxy = open(1);
        let (back, replies) = channel();
        let config = PathConfig::default().with_rate(Some(Rate { per_second: 1, burst: 5 })).with_max_flows(3);
        let limited = proxy.attach(config.clone(), move |packet: &[u8]| back.send(packet.to_vec())).unwrap();
        let (free, of_free) = attach(&proxy);
        for ident in 0..50 {
            limited.send(&request(ident, 1)).unwrap();
            free.send(&request(ident, 1)).unwrap();
        }
        (0..50).for_each(|_| drop(of_free.recv_timeout(PATIENCE).unwrap()));
        eventually("all requests", || Ok(limited.stats().packets == 50)).unwrap();
        let stats = proxy.stats();
        assert!(stats.counters.request_drops[DropReason::RateExceeded] >= 40, "{stats:?}");
        assert_eq!(stats.flows, 53, "3 of one, 50 of the other");
        drop(replies);
        // A wider limit holds from the next packet on.
        limited.configure(&config.with_rate(None)).unwrap();
        let sent = limited.stats().requests_sent();
        (0..20).for_each(|seq| limited.send(&request(1, seq)).unwrap());
        eventually("the requests", || Ok(limited.stats().requests_sent() == sent + 20)).unwrap();
    });
}

#[test]
fn an_mtu_below_that_of_the_protocol_is_refused() {
    isolated(|| {
        let proxy = open(1);
        let config = PathConfig::default();
        let v6 = config.clone().with_sources(vec!["fd00::/64".parse().unwrap()]);
        for (config, is_valid) in [
            (config.clone().with_mtu(67), false),
            (config.clone().with_mtu(68), true),
            (config.clone().with_mtu(65_536), false),
            (v6.clone().with_mtu(1279), false),
            (v6.with_mtu(1280), true),
        ] {
            let attached = proxy.attach(config.clone(), |_: &[u8]| {});
            assert_eq!(attached.is_ok(), is_valid, "{config:?} {attached:?}");
            let (path, _) = attach(&proxy);
            assert_eq!(path.configure(&config).is_ok(), is_valid);
        }
    });
}

#[test]
fn a_device_that_is_not_essential_ends_its_path_only() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let proxy = open(1);
        let (path, replies) = attach(&proxy);
        let open_tun = |name| TunConfig::new(name).open().unwrap().0;
        let delete = |name| {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.index(name).unwrap();
            netlink.delete_link(index).unwrap();
        };
        let tun = TunIngress::new(open_tun("tun0")).with_essential(false);
        proxy.attach_tun(PathConfig::default(), [tun]).unwrap();
        let detached = proxy.attach_tun(PathConfig::default(), [open_tun("tun1")]).unwrap();
        proxy.attach_tun(PathConfig::default(), [open_tun("tun2")]).unwrap();
        delete("tun0");
        detached.detach();
        // The device goes with its last descriptor.
        eventually("the end of the device", || Ok(Netlink::open()?.index("tun1").is_err())).unwrap();
        path.send(&request(1, 1)).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
        delete("tun2");
        assert!(matches!(proxy.wait(), Err(RunError::IngressGone { ingress, .. }) if ingress == "TUN device tun2"));
    });
}

#[test]
fn a_detached_path_counts_what_waits() {
    isolated(|| {
        let proxy = open(1);
        let (busy, at_work) = channel();
        let (go_on, wait) = channel::<()>();
        let callback = move |_: &[u8]| {
            busy.send(()).unwrap();
            let _ = wait.recv();
        };
        let path = proxy.attach(PathConfig::default(), callback).unwrap();
        path.send(&request(1, 0)).unwrap();
        at_work.recv_timeout(PATIENCE).unwrap();
        (0..100).for_each(|seq| path.send(&request(1, seq)).unwrap());
        path.detach();
        drop((go_on, at_work));
        let mut sent = 101;
        eventually("the end of the path", || {
            let result = path.send(&request(1, 0));
            sent += u64::from(result.is_ok());
            Ok(result == Err(SendError::Closed))
        })
        .unwrap();
        let stats = proxy.close().unwrap();
        assert!(stats.counters.add_up());
        assert_eq!(stats.counters.requests_sent() + stats.counters.request_drops[DropReason::PathClosed], sent);
    });
}

#[test]
fn an_idle_path_has_no_descriptor() {
    isolated(|| {
        let proxy = open(1);
        let (first, replies) = attach(&proxy);
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let paths: Vec<Path> = (0..1000).map(|_| attach(&proxy).0).collect();
        assert_eq!(count(), before);
        first.send(&request(1, 1)).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
        drop(paths);
    });
}
