//! The edge's end of a control stream.

use ipnet::IpNet;

use super::ControlError;
use super::callee::{CallId, Callee};
use super::layout::Frame;
use super::message::{ExceptionKind, return_results};
use super::schema::{
    ADVERTISE, ConnectionDetails, PREFIX_EXCHANGE, REGISTER_CONNECTION, REGISTRATION_SERVER, Refusal, Registration,
    UNREGISTER_CONNECTION, UPDATE_LOCAL_CONFIGURATION, read_prefixes, write_prefixes, write_registered,
};
use super::stream::Peer;

/// Answers the calls of a connector.
///
/// Each [`Request`] is to be answered with the method that it names.
#[derive(Debug, Default)]
pub struct Server(Callee);

/// What a connector asks for.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// To be registered. Answered by [`Server::registered`].
    Register(CallId, Box<Registration>),
    /// To get no new packets. Answered by [`Server::done`].
    Unregister(CallId),
    /// To take note of its configuration, a JSON text. Answered by [`Server::done`].
    UpdateConfiguration(CallId, Vec<u8>),
    /// To get the packets for these prefixes. Answered by [`Server::accepted`].
    Advertise(CallId, Vec<IpNet>),
}

impl Server {
    /// Answers [`Request::Register`].
    pub fn registered(&mut self, call: CallId, result: Result<&ConnectionDetails, &Refusal>) {
        self.0.answer_with(call, |question| return_results(question, |slot| write_registered(slot, result)));
    }

    /// Answers [`Request::Unregister`] or [`Request::UpdateConfiguration`].
    pub fn done(&mut self, call: CallId) {
        self.0.answer_with(call, |question| return_results(question, |slot| _ = slot.fields(0, 0)));
    }

    /// Answers [`Request::Advertise`] with the prefixes that the connector gets packets for.
    pub fn accepted(&mut self, call: CallId, prefixes: &[IpNet]) {
        self.0.answer_with(call, |question| return_results(question, |slot| write_prefixes(slot, prefixes)));
    }

    /// Answers any request with an error.
    pub fn failed(&mut self, call: CallId, reason: &str) {
        self.0.fail(call, ExceptionKind::Failed, reason);
    }

    /// Ends the session. The stream is to be finished after this was sent.
    pub fn abort(&mut self, reason: &str) {
        self.0.abort(reason);
    }
}

impl Peer for Server {
    type Event = Request;

    fn handle(&mut self, frame: &[u8]) -> Result<Option<Request>, ControlError> {
        let frame = Frame::open(frame)?;
        let Some(call) = self.0.handle(frame.root()?)? else { return Ok(None) };
        let (id, params) = (call.id, call.params);
        // What is wrong with parameters concerns the call, not the session.
        let read = match (call.interface, call.method) {
            (REGISTRATION_SERVER, REGISTER_CONNECTION) => Registration::read(params).map(Parameters::Registration),
            (REGISTRATION_SERVER, UNREGISTER_CONNECTION) => Ok(Parameters::None),
            (REGISTRATION_SERVER, UPDATE_LOCAL_CONFIGURATION) => {
                params.data(0).map(|json| Parameters::Configuration(json.into()))
            }
            (PREFIX_EXCHANGE, ADVERTISE) => read_prefixes(params).map(Parameters::Prefixes),
            _ => {
                self.0.refuse(id);
                return Ok(None);
            }
        };
        match read {
            Ok(parameters) => Ok(Some(parameters.of(id))),
            Err(error) => {
                self.0.fail(id, ExceptionKind::Failed, &error.to_string());
                Ok(None)
            }
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.0.take_output()
    }
}

enum Parameters {
    Registration(Registration),
    Configuration(Vec<u8>),
    Prefixes(Vec<IpNet>),
    None,
}

impl Parameters {
    fn of(self, call: CallId) -> Request {
        match self {
            Self::Registration(registration) => Request::Register(call, Box::new(registration)),
            Self::Configuration(json) => Request::UpdateConfiguration(call, json),
            Self::Prefixes(prefixes) => Request::Advertise(call, prefixes),
            Self::None => Request::Unregister(call),
        }
    }
}
