//! The connector's end of a control stream.

use std::collections::HashMap;

use ipnet::IpNet;

use super::ControlError;
use super::layout::{Fields, Frame, Slot};
use super::message::{self, Exception, ExceptionKind, Message, Outcome};
use super::schema::{
    ADVERTISE, ConnectionDetails, PREFIX_EXCHANGE, REGISTER_CONNECTION, REGISTRATION_SERVER, Refusal, Registration,
    UNREGISTER_CONNECTION, UPDATE_LOCAL_CONFIGURATION, read_prefixes, read_registered, write_prefixes,
};
use super::stream::Peer;

/// The question that asked for the bootstrap capability. It is never finished, so that calls can be addressed to its answer.
const BOOTSTRAP: u32 = 0;

/// Calls an edge.
///
/// Its first call goes out together with the question for the capability that it is addressed to.
#[derive(Debug)]
pub struct Client {
    next_question: u32,
    /// The calls that were not answered yet. They are as many as the program makes.
    calls: HashMap<u32, Method>,
    output: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Register,
    Unregister,
    UpdateConfiguration,
    Advertise,
}

/// What an edge answers.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Client::register`].
    Registered(Result<ConnectionDetails, Refusal>),
    /// To [`Client::unregister`].
    Unregistered,
    /// To [`Client::update_configuration`].
    ConfigurationUpdated,
    /// To [`Client::advertise`]: the prefixes that this connector gets packets for. `None` if the edge does not know the call.
    Advertised(Option<Vec<IpNet>>),
    /// A call failed, and the edge says why.
    Failed(String),
}

impl Default for Client {
    fn default() -> Self {
        Self { next_question: BOOTSTRAP + 1, calls: HashMap::new(), output: message::bootstrap(BOOTSTRAP) }
    }
}

impl Client {
    /// Asks to be registered. To be called first.
    pub fn register(&mut self, registration: &Registration) {
        self.call(Method::Register, REGISTRATION_SERVER, REGISTER_CONNECTION, |slot| registration.write(slot));
    }

    /// Asks for no new packets.
    pub fn unregister(&mut self) {
        self.call(Method::Unregister, REGISTRATION_SERVER, UNREGISTER_CONNECTION, |slot| _ = slot.fields(0, 0));
    }

    /// Tells the configuration of the connector, a JSON text.
    pub fn update_configuration(&mut self, json: &[u8]) {
        let write = |slot: Slot<'_>| slot.fields(0, 1).slot(0).data(json);
        self.call(Method::UpdateConfiguration, REGISTRATION_SERVER, UPDATE_LOCAL_CONFIGURATION, write);
    }

    /// Asks for the packets to these prefixes, of which there are at most [`MAX_PREFIXES`](super::MAX_PREFIXES).
    pub fn advertise(&mut self, prefixes: &[IpNet]) {
        self.call(Method::Advertise, PREFIX_EXCHANGE, ADVERTISE, |slot| write_prefixes(slot, prefixes));
    }

    /// Ends the session. The stream is to be finished after this was sent.
    pub fn abort(&mut self, reason: &str) {
        self.output.extend(message::abort(&Exception::new(ExceptionKind::Failed, reason)));
    }

    fn call(&mut self, kind: Method, interface: u64, method: u16, write: impl FnOnce(Slot<'_>)) {
        let question = self.next_question;
        self.next_question = question.wrapping_add(1).max(BOOTSTRAP + 1);
        self.calls.insert(question, kind);
        self.output.extend(message::call(question, BOOTSTRAP, interface, method, write));
    }

    fn answer(&mut self, question: u32, outcome: Outcome<'_>) -> Result<Option<Answer>, ControlError> {
        if question == BOOTSTRAP {
            return match outcome {
                Outcome::Exception(exception) => Err(ControlError::Aborted(exception.reason)),
                Outcome::Results(_) | Outcome::Other => Ok(None),
            };
        }
        let method = self.calls.remove(&question);
        let method = method.ok_or(ControlError::Protocol("a question is answered that was not asked"))?;
        self.output.extend(message::finish(question));
        match outcome {
            Outcome::Results(results) => method.answer(results).map(Some),
            Outcome::Exception(exception) => Ok(Some(method.failed(exception))),
            Outcome::Other => Err(ControlError::Protocol("a call has neither results nor an exception")),
        }
    }
}

impl Method {
    fn answer(self, results: Fields<'_>) -> Result<Answer, ControlError> {
        Ok(match self {
            Self::Register => Answer::Registered(read_registered(results)?),
            Self::Unregister => Answer::Unregistered,
            Self::UpdateConfiguration => Answer::ConfigurationUpdated,
            Self::Advertise => Answer::Advertised(Some(read_prefixes(results)?)),
        })
    }

    fn failed(self, exception: Exception) -> Answer {
        match (self, exception.kind) {
            (Self::Advertise, ExceptionKind::Unimplemented) => Answer::Advertised(None),
            _ => Answer::Failed(exception.reason),
        }
    }
}

impl Peer for Client {
    type Event = Answer;

    fn handle(&mut self, frame: &[u8]) -> Result<Option<Answer>, ControlError> {
        let frame = Frame::open(frame)?;
        let root = frame.root()?;
        match Message::parse(root)? {
            Message::Return { question, outcome } => return self.answer(question, outcome),
            Message::Abort(exception) => return Err(ControlError::Aborted(exception.reason)),
            // A connector has no capability of its own.
            Message::Bootstrap { question } | Message::Call(message::Call { question, .. }) => {
                let exception = Exception::new(ExceptionKind::Unimplemented, "a connector has no bootstrap capability");
                self.output.extend(message::return_exception(question, &exception));
            }
            Message::Finish { .. } | Message::Release | Message::Unimplemented => {}
            Message::Other => self.output.extend(message::unimplemented(root.u16(0))),
        }
        Ok(None)
    }

    fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}
