//! Replies that the program takes when it likes: by a descriptor, in a task, as a stream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use pingferry::{Config, CoreConfig, DropReason, PathConfig, Policy, Proxy, SendError, Tag, TryRecvError};
use pingferry_proto::wire::echo_request;
use pingferry_testnet::{eventually, isolated};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::Builder;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

fn request(seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), 7, seq, &[7; 1400])
}

fn seq(reply: &[u8]) -> u16 {
    u16::from_be_bytes([reply[26], reply[27]])
}

/// A proxy that may ping loopback.
fn open() -> Proxy {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    Proxy::open(Config::default().with_core(CoreConfig::default().with_policy(policy))).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn replies_are_taken_by_the_descriptor() {
    isolated(|| {
        let proxy = open();
        let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 1000).unwrap();
        (0..500).for_each(|seq| path.send(&request(seq)).unwrap());
        let mut next = 0;
        while next < 500 {
            match replies.try_recv() {
                Ok(reply) => {
                    assert_eq!(seq(&reply), next);
                    next += 1;
                }
                Err(TryRecvError::Empty) => {
                    let timeout = PATIENCE.try_into().unwrap();
                    assert_eq!(poll(&mut [PollFd::new(&replies, PollFlags::IN)], Some(&timeout)), Ok(1));
                }
                Err(TryRecvError::Closed) => panic!("closed"),
            }
        }
        drop(path);
        eventually("the end", || Ok(replies.try_recv() == Err(TryRecvError::Closed))).unwrap();
    });
}

#[test]
fn a_task_receives_replies_with_their_tags() {
    isolated(|| {
        run(async {
            let proxy = open();
            let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 1000).unwrap();
            for number in 1..=100 {
                let tag = Tag(u32::from(number).try_into().unwrap());
                path.send_tagged(&request(number), tag).unwrap();
                let reply = timeout(PATIENCE, replies.recv()).await.unwrap().unwrap();
                assert_eq!((seq(&reply), reply.tag), (number, Some(tag)));
            }
            // A receive that is given up loses nothing.
            assert!(timeout(Duration::from_millis(1), replies.recv()).await.is_err());
            path.send(&request(1)).unwrap();
            assert_eq!(timeout(PATIENCE, replies.recv()).await.unwrap().map(|reply| seq(&reply)), Some(1));
            proxy.stop();
            assert_eq!(timeout(PATIENCE, replies.recv()).await.unwrap(), None);
            assert_eq!(proxy.closed().await.unwrap().counters.replies_returned(), 101);
        });
    });
}

#[test]
fn a_path_is_a_sink_and_replies_are_a_stream() {
    isolated(|| {
        run(async {
            const PACKETS: u16 = 5000;
            let proxy = open();
            let (mut path, replies) = proxy.attach_queue(PathConfig::default(), usize::from(PACKETS)).unwrap();
            // It waits for room.
            path.set_queue_length(3);
            let mut replies = replies.into_stream();
            let receive = async {
                for number in 0..PACKETS {
                    let reply = timeout(PATIENCE, replies.next()).await.unwrap().unwrap();
                    assert_eq!((seq(&reply), reply.len()), (number, 1428));
                }
            };
            let send = async {
                for number in 0..PACKETS {
                    SinkExt::send(&mut path, Bytes::from(request(number))).await.unwrap();
                    // The receive buffer of the socket has room for some only.
                    if number.is_multiple_of(50) {
                        tokio::task::yield_now().await;
                    }
                }
            };
            tokio::join!(receive, send);
            let stats = tokio::task::spawn_blocking(move || proxy.close()).await.unwrap().unwrap();
            assert_eq!(stats.counters.request_drops[DropReason::QueueFull], 0);
            assert_eq!(SinkExt::send(&mut path, Bytes::new()).await, Err(SendError::Closed));
            assert_eq!(replies.next().await, None);
        });
    });
}

#[test]
fn more_than_the_room_is_counted_as_not_delivered() {
    isolated(|| {
        let proxy = open();
        let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 10).unwrap();
        (0..30).for_each(|seq| path.send(&request(seq)).unwrap());
        eventually("all replies", || Ok(path.stats().deliveries_attempted == 30)).unwrap();
        let stats = proxy.close().unwrap();
        assert_eq!(stats.counters.reply_drops[DropReason::DeliveryFailed], 20);
        let received: Vec<u16> = std::iter::from_fn(|| replies.try_recv().ok().map(|reply| seq(&reply))).collect();
        assert!(received.into_iter().eq(0..10));
    });
}
