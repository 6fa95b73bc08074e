//! The side that is called: which questions are open, and what calls are addressed to.

use std::collections::HashMap;

use super::ControlError;
use super::layout::Fields;
use super::message::{self, Call, Exception, ExceptionKind, Message, Target};

/// How many questions of the peer may be open. Each is open until it is answered and the peer has finished it.
const MAX_QUESTIONS: usize = 16;

/// A call that waits for its answer.
#[derive(Debug, PartialEq, Eq)]
pub struct CallId(u32);

#[derive(Clone, Copy, Debug, Default)]
struct Question {
    is_bootstrap: bool,
    is_answered: bool,
    is_finished: bool,
}

/// What a peer calls, with its bootstrap capability as the only export, number 0.
#[derive(Debug, Default)]
pub(super) struct Callee {
    questions: HashMap<u32, Question>,
    /// Messages to send.
    output: Vec<u8>,
}

/// A call of the bootstrap capability.
pub(super) struct Incoming<'a> {
    pub(super) id: CallId,
    pub(super) interface: u64,
    pub(super) method: u16,
    pub(super) params: Fields<'a>,
}

impl Callee {
    /// Handles a message. The call must be answered, now or later.
    pub(super) fn handle<'a>(&mut self, root: Fields<'a>) -> Result<Option<Incoming<'a>>, ControlError> {
        match Message::parse(root)? {
            Message::Bootstrap { question } => {
                self.open(question, true)?;
                self.answer(CallId(question), &message::return_bootstrap(question));
            }
            Message::Call(call) => return self.call(call),
            Message::Finish { question } => {
                let open = self.questions.get_mut(&question);
                open.ok_or(ControlError::Protocol("a question is finished that is not open"))?.is_finished = true;
                self.forget_if_done(question);
            }
            Message::Abort(exception) => return Err(ControlError::Aborted(exception.reason)),
            Message::Return { .. } => return Err(ControlError::Protocol("a question is answered that was not asked")),
            Message::Release | Message::Unimplemented => {}
            Message::Other => self.output.extend(message::unimplemented(root.u16(0))),
        }
        Ok(None)
    }

    fn call<'a>(&mut self, call: Call<'a>) -> Result<Option<Incoming<'a>>, ControlError> {
        self.open(call.question, false)?;
        let id = CallId(call.question);
        let is_bootstrap = match call.target {
            Target::Export(export) => export == 0,
            Target::Answer(question) => self.questions.get(&question).is_some_and(|question| question.is_bootstrap),
            Target::Other => false,
        };
        if is_bootstrap {
            return Ok(Some(Incoming { id, interface: call.interface, method: call.method, params: call.params }));
        }
        self.fail(id, ExceptionKind::Failed, "the call is not addressed to the bootstrap capability");
        Ok(None)
    }

    fn open(&mut self, question: u32, is_bootstrap: bool) -> Result<(), ControlError> {
        if self.questions.len() >= MAX_QUESTIONS {
            return Err(ControlError::Protocol("too many questions are open"));
        }
        let opened = Question { is_bootstrap, ..Question::default() };
        match self.questions.insert(question, opened) {
            None => Ok(()),
            Some(_) => Err(ControlError::Protocol("the number of a question is in use")),
        }
    }

    fn forget_if_done(&mut self, question: u32) {
        if self.questions.get(&question).is_some_and(|open| open.is_answered && open.is_finished) {
            self.questions.remove(&question);
        }
    }

    /// Answers a call with a message that `write` makes for its question.
    pub(super) fn answer_with(&mut self, call: CallId, write: impl FnOnce(u32) -> Vec<u8>) {
        let message = write(call.0);
        self.answer(call, &message);
    }

    fn answer(&mut self, CallId(question): CallId, message: &[u8]) {
        self.output.extend(message);
        if let Some(open) = self.questions.get_mut(&question) {
            open.is_answered = true;
        }
        self.forget_if_done(question);
    }

    /// Answers a call with an exception.
    pub(super) fn fail(&mut self, call: CallId, kind: ExceptionKind, reason: &str) {
        let exception = Exception::new(kind, reason);
        self.answer_with(call, |question| message::return_exception(question, &exception));
    }

    /// Answers a call that the bootstrap capability does not have.
    pub(super) fn refuse(&mut self, call: CallId) {
        self.fail(call, ExceptionKind::Unimplemented, "the method is not implemented");
    }

    /// Ends the session.
    pub(super) fn abort(&mut self, reason: &str) {
        self.output.extend(message::abort(&Exception::new(ExceptionKind::Failed, reason)));
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}
