//! A connector's end of streams that an edge opens: they are refused, each in the way its protocol has for that.

use super::ControlError;
use super::callee::Callee;
use super::layout::{Frame, write_message};
use super::message::return_results;
use super::stream::Peer;

/// `SessionManager`, which `CloudflaredServer` extends: its method 0 is `registerUdpSession`.
const SESSION_MANAGER: u64 = 0x8394_45a5_9fb0_1686;
const REGISTER_UDP_SESSION: u16 = 0;

/// Why everything but ICMP is refused.
const REASON: &str = "this connector carries only ICMP";

/// Answers the calls of an edge on a stream that the edge opened. UDP sessions are refused with an error in their result, all else
/// as unimplemented.
#[derive(Debug, Default)]
pub struct Refuser(Callee);

impl Peer for Refuser {
    /// There is nothing for the program to do.
    type Event = std::convert::Infallible;

    fn handle(&mut self, frame: &[u8]) -> Result<Option<Self::Event>, ControlError> {
        let frame = Frame::open(frame)?;
        if let Some(call) = self.0.handle(frame.root()?)? {
            match (call.interface, call.method) {
                (SESSION_MANAGER, REGISTER_UDP_SESSION) => self.0.answer_with(call.id, |question| {
                    // The result is a RegisterUdpSessionResponse, whose first pointer is its error.
                    return_results(question, |slot| {
                        slot.fields(0, 1).slot(0).fields(0, 2).slot(0).text(REASON);
                    })
                }),
                _ => self.0.refuse(call.id),
            }
        }
        Ok(None)
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.0.take_output()
    }
}

/// The answer to the `ConnectRequest` of a data stream: a `ConnectResponse` with an error.
pub fn refuse_connection() -> Vec<u8> {
    write_message(|slot| slot.fields(0, 2).slot(0).text(REASON))
}
