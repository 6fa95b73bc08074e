//! Looks the names of edges up again, in a process of its own.
//!
//! # Theory of operation
//!
//! A confined process cannot look names up: for that the C library reads files, opens sockets and may load code. So a child is
//! forked first, while there is no other thread and nothing secret in memory. It gives up its privileges, and looks each
//! name up again and again. When the address in use is no longer among those of a name, it writes a line with the number of the
//! name and the new address. It ends with its parent.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::net::SocketAddr;
use std::thread;

use pingferry_sys::process::Child;
use pingferry_sys::sandbox::give_up_privileges;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use tracing::{info, warn};

use super::edges::Edge;
use crate::error::CliError;

/// The pause between two lookups of a name, in seconds.
const INTERVAL: i64 = 10;

/// The child, and where its lines come from.
pub(super) struct Resolver {
    edges: Vec<Edge>,
    lines: BufReader<PipeReader>,
    _child: Child,
}

impl Resolver {
    /// Starts a child that looks the names of `edges` up again. `None` if all of them are addresses.
    pub(super) fn start(edges: &[Edge]) -> Result<Option<Self>, CliError> {
        if edges.iter().all(|edge| edge.name.is_address()) {
            return Ok(None);
        }
        let started = fork(edges.to_vec()).map(|(lines, child)| Self { edges: edges.to_vec(), lines, _child: child });
        started.map(Some).map_err(|error| CliError::runtime(format!("cannot look names up later: {error}")))
    }

    /// Calls `moved` with the number and the address of each edge that gets another one. It does so in a thread of its own.
    pub(super) fn watch(mut self, mut moved: impl FnMut(usize, SocketAddr) + Send + 'static) -> Result<(), CliError> {
        let watch = move || {
            while let Some((number, address)) = self.next() {
                if let Some(edge) = self.edges.get(number) {
                    info!("edge {} is at {address} now", edge.name);
                    moved(number, address);
                }
            }
            warn!("the names of edges are not looked up any more: the process that did so has ended");
        };
        let started = thread::Builder::new().name("resolver".into()).spawn(watch);
        started.map(drop).map_err(|error| CliError::runtime(format!("cannot start: {error}")))
    }

    fn next(&mut self) -> Option<(usize, SocketAddr)> {
        let mut line = String::new();
        self.lines.read_line(&mut line).ok()?;
        let (number, address) = line.trim_end().split_once(' ')?;
        Some((number.parse().ok()?, address.parse().ok()?))
    }
}

fn fork(edges: Vec<Edge>) -> io::Result<(BufReader<PipeReader>, Child)> {
    let (reader, writer) = pipe()?;
    let (reader, writer) = (Cell::new(Some(reader)), Cell::new(Some(writer)));
    let child = Child::fork(|_| {
        // The parent has the only other end, so its end is noticed.
        drop(reader.take());
        for error in give_up_privileges() {
            warn!("the process that looks names up has not given up all rights: could not {error}");
        }
        writer.take().map_or(Ok(()), |writer| look_up(edges, writer))
    })?;
    let reader = reader.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((BufReader::new(reader), child))
}

/// Looks all names up until the parent has ended.
fn look_up(mut edges: Vec<Edge>, mut writer: PipeWriter) -> io::Result<()> {
    while waited(&writer)? {
        for (number, edge) in edges.iter_mut().enumerate() {
            // A server of names that is out of order says nothing about the edge.
            let found = edge.name.resolve().unwrap_or_default();
            if let Some(address) = moved_to(edge.address, &found) {
                edge.address = address;
                writeln!(writer, "{number} {address}")?;
            }
        }
    }
    Ok(())
}

/// Waits until the next lookup. Returns false if nobody will read its result: the pipe has an error as soon as its other end is
/// closed (poll(2)). A signal at the end of the parent would be no way, because a confined process may send none.
fn waited(writer: &PipeWriter) -> io::Result<bool> {
    let interval = Timespec { tv_sec: INTERVAL, tv_nsec: 0 };
    let events = retry_on_intr(|| poll(&mut [PollFd::new(writer, PollFlags::empty())], Some(&interval)))?;
    Ok(events == 0)
}

/// The new address of an edge: the first one that was found, if the old one was not among them. A name with several addresses
/// gives them in any order.
fn moved_to(old: SocketAddr, found: &[SocketAddr]) -> Option<SocketAddr> {
    found.first().copied().filter(|_| !found.contains(&old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_moves_when_its_name_does_not_have_its_address_any_more() {
        let [old, new, other] = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 7844)));
        assert_eq!(moved_to(old, &[]), None, "nothing is known");
        assert_eq!(moved_to(old, &[new, old]), None);
        assert_eq!(moved_to(old, &[new, other]), Some(new));
    }
}
