//! The messages of the RPC protocol: `rpc.capnp` of Cap'n Proto, as far as level 0 needs it.

use super::layout::{Fields, FieldsMut, Slot, write_message};

/// A message of the peer.
pub(super) enum Message<'a> {
    /// It wants the bootstrap capability as the result of this question.
    Bootstrap {
        question: u32,
    },
    Call(Call<'a>),
    /// It answers a question.
    Return {
        question: u32,
        outcome: Outcome<'a>,
    },
    /// It needs the result of this question no more.
    Finish {
        question: u32,
    },
    /// It holds capabilities less often.
    Release,
    /// It ends the session.
    Abort(Exception),
    /// It does not know a message of ours.
    Unimplemented,
    /// Something that level 0 does not have.
    Other,
}

pub(super) struct Call<'a> {
    pub(super) question: u32,
    pub(super) target: Target,
    pub(super) interface: u64,
    pub(super) method: u16,
    /// The structure of parameters.
    pub(super) params: Fields<'a>,
}

/// What a call is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A capability that the callee exported.
    Export(u32),
    /// The result of a question, which may not have been answered yet.
    Answer(u32),
    /// A part of a result, or something unknown.
    Other,
}

pub(super) enum Outcome<'a> {
    /// The structure of results.
    Results(Fields<'a>),
    Exception(Exception),
    Other,
}

/// Why a call failed, or a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) kind: ExceptionKind,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExceptionKind {
    Failed = 0,
    Overloaded = 1,
    Disconnected = 2,
    Unimplemented = 3,
}

const UNIMPLEMENTED: u16 = 0;
const ABORT: u16 = 1;
const CALL: u16 = 2;
const RETURN: u16 = 3;
const FINISH: u16 = 4;
const RELEASE: u16 = 6;
const BOOTSTRAP: u16 = 8;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 256;

impl<'a> Message<'a> {
    pub(super) fn parse(message: Fields<'a>) -> capnp::Result<Self> {
        let body = || message.fields(0);
        Ok(match message.u16(0) {
            UNIMPLEMENTED => Self::Unimplemented,
            ABORT => Self::Abort(Exception::parse(body()?)?),
            CALL => Self::Call(Call::parse(body()?)?),
            RETURN => {
                let body = body()?;
                Self::Return { question: body.u32(0), outcome: Outcome::parse(body)? }
            }
            FINISH => Self::Finish { question: body()?.u32(0) },
            RELEASE => Self::Release,
            BOOTSTRAP => Self::Bootstrap { question: body()?.u32(0) },
            _ => Self::Other,
        })
    }
}

impl<'a> Call<'a> {
    fn parse(call: Fields<'a>) -> capnp::Result<Self> {
        Ok(Self {
            question: call.u32(0),
            target: Target::parse(call.fields(0)?)?,
            interface: call.u64(1),
            method: call.u16(2),
            params: call.fields(1)?.fields(0)?,
        })
    }
}

impl Target {
    fn parse(target: Fields<'_>) -> capnp::Result<Self> {
        match target.u16(2) {
            0 => Ok(Self::Export(target.u32(0))),
            1 => {
                let answer = target.fields(0)?;
                let is_whole = answer.is_empty_list(0)?;
                Ok(if is_whole { Self::Answer(answer.u32(0)) } else { Self::Other })
            }
            _ => Ok(Self::Other),
        }
    }
}

impl<'a> Outcome<'a> {
    fn parse(body: Fields<'a>) -> capnp::Result<Self> {
        Ok(match body.u16(3) {
            // The result of a bootstrap is a capability, not a structure. It is not looked at.
            0 => body.fields(0)?.fields(0).map_or(Self::Other, Self::Results),
            1 => Self::Exception(Exception::parse(body.fields(0)?)?),
            _ => Self::Other,
        })
    }
}

impl Exception {
    pub(super) fn new(kind: ExceptionKind, reason: &str) -> Self {
        Self { kind, reason: reason.into() }
    }

    fn parse(exception: Fields<'_>) -> capnp::Result<Self> {
        let kind = match exception.u16(2) {
            1 => ExceptionKind::Overloaded,
            2 => ExceptionKind::Disconnected,
            3 => ExceptionKind::Unimplemented,
            _ => ExceptionKind::Failed,
        };
        Ok(Self { kind, reason: exception.text(0)?.chars().take(MAX_REASON).collect() })
    }

    fn write(&self, slot: Slot<'_>) {
        let mut exception = slot.fields(1, 2);
        exception.slot(0).text(&self.reason);
        exception.set_u16(2, self.kind as u16);
    }
}

fn message(kind: u16, write: impl FnOnce(Slot<'_>)) -> Vec<u8> {
    write_message(|slot| {
        let mut message = slot.fields(1, 1);
        message.set_u16(0, kind);
        write(message.slot(0));
    })
}

pub(super) fn bootstrap(question: u32) -> Vec<u8> {
    message(BOOTSTRAP, |slot| slot.fields(1, 1).set_u32(0, question))
}

/// A call of the capability that a question asked for.
pub(super) fn call(
    question: u32,
    of: u32,
    interface: u64,
    method: u16,
    write_params: impl FnOnce(Slot<'_>),
) -> Vec<u8> {
    message(CALL, |slot| {
        let mut call = slot.fields(3, 3);
        call.set_u32(0, question);
        call.set_u16(2, method);
        call.set_u64(1, interface);
        let mut target = call.slot(0).fields(1, 1);
        target.set_u16(2, 1);
        target.slot(0).fields(1, 1).set_u32(0, of);
        write_params(call.slot(1).fields(0, 2).slot(0));
    })
}

pub(super) fn finish(question: u32) -> Vec<u8> {
    message(FINISH, |slot| {
        let mut finish: FieldsMut<'_> = slot.fields(1, 0);
        finish.set_u32(0, question);
    })
}

pub(super) fn abort(exception: &Exception) -> Vec<u8> {
    message(ABORT, |slot| exception.write(slot))
}

pub(super) fn return_exception(question: u32, exception: &Exception) -> Vec<u8> {
    message(RETURN, |slot| {
        let mut body = slot.fields(2, 1);
        body.set_u32(0, question);
        body.set_u16(3, 1);
        exception.write(body.slot(0));
    })
}

pub(super) fn return_results(question: u32, write_results: impl FnOnce(Slot<'_>)) -> Vec<u8> {
    message(RETURN, |slot| {
        let mut body = slot.fields(2, 1);
        body.set_u32(0, question);
        write_results(body.slot(0).fields(0, 2).slot(0));
    })
}

/// The return of the bootstrap capability, as export 0. The builder of the `capnp` crate writes capabilities only for an object
/// system, so this one message is written word by word.
pub(super) fn return_bootstrap(question: u32) -> Vec<u8> {
    let words: [u64; 12] = [
        // One segment of 11 words.
        11 << 32,
        // Pointer to Message: one data word, one pointer.
        0x0001_0001_0000_0000,
        u64::from(RETURN),
        // Pointer to Return: two data words, one pointer.
        0x0001_0002_0000_0000,
        u64::from(question),
        0,
        // Pointer to Payload: two pointers.
        0x0002_0000_0000_0000,
        // Its content: capability 0 of the table.
        3,
        // The table: a list of structures with two words in all.
        0x0000_0017_0000_0001,
        // One element: one data word, one pointer.
        0x0001_0001_0000_0004,
        // CapDescriptor: `senderHosted`, export 0.
        1,
        0,
    ];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The answer to a message that level 0 does not have. It has only the kind of the message, not all of it.
pub(super) fn unimplemented(kind: u16) -> Vec<u8> {
    message(UNIMPLEMENTED, |slot| slot.fields(1, 1).set_u16(0, kind))
}
