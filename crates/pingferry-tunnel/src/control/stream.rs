//! An end of an RPC session on a pair of byte streams.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{ControlError, Frames};

/// A state machine that takes messages and returns events.
pub trait Peer {
    /// What the program has to know of.
    type Event;

    /// Handles a message of the other end.
    ///
    /// # Errors
    /// The session has ended, or the message breaks its rules. The stream is to be closed.
    fn handle(&mut self, frame: &[u8]) -> Result<Option<Self::Event>, ControlError>;

    /// Takes the messages to send.
    fn take_output(&mut self) -> Vec<u8>;
}

/// How much is read from a stream at once.
const CHUNK: usize = 4096;

/// An end of a session, and the streams that lead to the other end.
#[derive(Debug)]
pub struct RpcStream<P, R, W> {
    /// The end. What it has to send is sent by the next call of [`next`](Self::next) or [`flush`](Self::flush).
    pub peer: P,
    frames: Frames,
    reader: R,
    writer: W,
    /// What is being written. No more is read until it is, so it is bounded.
    output: Vec<u8>,
}

impl<P: Peer, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> RpcStream<P, R, W> {
    /// A session that has sent and received nothing.
    pub fn new(peer: P, reader: R, writer: W) -> Self {
        Self { peer, frames: Frames::default(), reader, writer, output: Vec::new() }
    }

    /// Sends what is to be sent and waits for the next event; `None` when the other end finished the stream. It may be dropped
    /// while it waits, without loss.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn next(&mut self) -> Result<Option<P::Event>, ControlError> {
        loop {
            self.flush().await?;
            if let Some(frame) = self.frames.next_frame()? {
                match self.peer.handle(&frame)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let mut chunk = [0; CHUNK];
            match self.reader.read(&mut chunk).await? {
                0 if self.frames.is_empty() => return Ok(None),
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                len => self.frames.push(chunk.get(..len).unwrap_or_default()),
            }
        }
    }

    /// Sends what is to be sent. It may be dropped while it waits, without loss.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn flush(&mut self) -> Result<(), ControlError> {
        loop {
            self.output.append(&mut self.peer.take_output());
            if self.output.is_empty() {
                return Ok(());
            }
            let written = self.writer.write(&self.output).await?;
            self.output.drain(..written.min(self.output.len()));
        }
    }

    /// Sends what is to be sent and finishes the stream.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn finish(&mut self) -> Result<(), ControlError> {
        self.flush().await?;
        Ok(self.writer.shutdown().await?)
    }
}
