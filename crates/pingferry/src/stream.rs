//! Replies as a [`Stream`], and a path as a [`Sink`], for programs that are made of such.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;

use crate::error::SendError;
use crate::handle::Path;
use crate::ingress::Replies;

/// The packets of [`Replies`], without their tags. All packets of a batch share one buffer.
#[derive(Debug)]
pub struct ReplyStream {
    replies: Replies,
    batch: Bytes,
    lengths: VecDeque<usize>,
}

impl Replies {
    /// The packets that are left as a stream, which ends when the path or the proxy is closed.
    pub fn into_stream(self) -> ReplyStream {
        ReplyStream { replies: self, batch: Bytes::new(), lengths: VecDeque::new() }
    }
}

impl Stream for ReplyStream {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.lengths.is_empty() {
            ready!(self.replies.poll_ready(context));
            let (bytes, lengths) = self.replies.take_batch();
            self.lengths.extend(lengths);
            self.batch = bytes.into();
        }
        let Some(length) = self.lengths.pop_front() else { return Poll::Ready(None) };
        Poll::Ready(Some(self.batch.split_to(length)))
    }
}

/// Waits for room in the path's queue, so no packet finds it full unless others send too.
impl Sink<Bytes> for Path {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_room(context)
    }

    fn start_send(self: Pin<&mut Self>, packet: Bytes) -> Result<(), SendError> {
        self.send(&packet)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }
}
