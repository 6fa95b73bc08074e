//! The driver: it moves packets between ingresses and ping sockets, and lets the endpoint decide on each.
//!
//! # Theory of operation
//!
//! A worker has one endpoint with its sockets and paths, and two directions. A round of a direction is always the same:
//!
//! * *Uplink* ([`uplink`]): read a batch of packets from the paths that are ready → with the worker's lock
//!   ([`core`]): `Endpoint::handle_packet` for each, then take the outputs → without it: one `sendmmsg` for each socket
//!   ([`outbound`]).
//! * *Downlink* ([`downlink`]): read a batch of replies from the sockets that are ready → with the lock: read error queues,
//!   `Endpoint::handle_reply` for each, then take the outputs → without it: packets to their paths ([`outbound`]).
//!
//! Each direction owns its buffers, and is one thread's for a whole round. So the packets of a flow keep their order: they come
//! by one path and leave by one socket, and the other way round. Between paths there is no order.
//!
//! The worker's thread does both directions, and the helper thread takes the downlink when there is work for two ([`helper`]).
//! Every round is bounded, and what was not read is reported as ready again, so no path or socket starves another.
//!
//! Only a broken `epoll` or the loss of an essential ingress ends a worker. Everything else is counted.

mod busy_poll;
mod control;
mod core;
mod downlink;
mod error_queue;
mod helper;
mod inbox;
mod outbound;
mod packet_log;
mod poller;
mod probes;
mod rejected;
mod sockets;
mod uplink;
mod worker;

pub(crate) use self::control::Remote;
pub(crate) use self::inbox::Inbox;
pub(crate) use self::worker::Worker;
