//! The two ends of a control stream, against each other and against what a stock connector sends.

use std::time::Duration;

use super::*;
use crate::wire::Secret;

/// What a stock connector sends first, with a bootstrap and a pipelined call.
const STOCK_FIRST_FLIGHT: &str = "\
    0000000005000000000000000100010008000000000000000000000001000100000000000000000000000000000000000000000040000000000000000100010002000000000000000000000003000300\
    01000000000000009754e87fec9516f700000000000000000800000001000100180000000000020000000000000000000000000001000000000000000100010000000000000000000100000007000000\
    00000000010000000400000001000300bd000000070000000000000000000000080000000000020025000000820000002800000001000200050000006200000009000000020100006c61622d6163636f\
    756e7400000000007365637265742d7365637265742d7365637265742d7365637265742d3332627900112233445566778899aabbccddeeff000000000000000004000000000004007100000082000000\
    0d00000082000000110000002e00000059000000220000005900000062000000448380ebb3b54dd3a5be9ac81a80a83c110000009a00000019000000a2000000210000008a0000002900000082000000\
    2d000000a200000073657269616c697a65645f68656164657273000000000000737570706f72745f646174616772616d5f76320000000000737570706f72745f717569635f656f660000000000000000\
    6d616e6167656d656e745f6c6f677300616c6c6f775f72656d6f74655f636f6e666967000000000044455600000000006c696e75785f616d643634000000000000000000000000000000ffff7f000001\
    0000000001000100";

fn stock_first_flight() -> Vec<u8> {
    let digits = STOCK_FIRST_FLIGHT.as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub(super) fn stock_registration() -> Registration {
    let features =
        ["serialized_headers", "support_datagram_v2", "support_quic_eof", "management_logs", "allow_remote_config"];
    Registration {
        account_tag: "lab-account".into(),
        secret: Secret::new(b"secret-secret-secret-secret-32by".to_vec()),
        tunnel_id: "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap(),
        connection_index: 0,
        options: ConnectionOptions {
            client: ClientInfo {
                id: "448380eb-b3b5-4dd3-a5be-9ac81a80a83c".parse().unwrap(),
                features: features.map(String::from).into(),
                version: "DEV".into(),
                arch: "linux_amd64".into(),
            },
            origin_local_ip: Some("::ffff:127.0.0.1".parse().unwrap()),
            ..ConnectionOptions::default()
        },
    }
}

/// Passes the messages of `from` to `to`, and returns its events.
fn pass<F: Peer, T: Peer>(from: &mut F, to: &mut T) -> Vec<T::Event> {
    let mut frames = Frames::default();
    frames.push(&from.take_output());
    let mut events = Vec::new();
    while let Some(frame) = frames.next_frame().unwrap() {
        events.extend(to.handle(&frame).unwrap());
    }
    assert!(frames.is_empty());
    events
}

/// The only event of a list.
fn only<E>(events: Vec<E>) -> E {
    let [event] = <[E; 1]>::try_from(events).ok().unwrap();
    event
}

/// A client and a server, registered.
fn registered() -> (Client, Server) {
    let (mut client, mut server) = (Client::default(), Server::default());
    client.register(&stock_registration());
    let Request::Register(call, _) = only(pass(&mut client, &mut server)) else { panic!() };
    server.registered(call, Ok(&ConnectionDetails::default()));
    let answer = only(pass(&mut server, &mut client));
    assert_eq!(answer, Answer::Registered(Ok(ConnectionDetails::default())));
    (client, server)
}

#[test]
fn the_first_flight_of_a_stock_connector_is_understood() {
    let mut frames = Frames::default();
    frames.push(&stock_first_flight());
    let mut server = Server::default();
    let bootstrap = frames.next_frame().unwrap().unwrap();
    assert_eq!(server.handle(&bootstrap).unwrap(), None);
    let call = frames.next_frame().unwrap().unwrap();
    let Some(Request::Register(_, registration)) = server.handle(&call).unwrap() else { panic!() };
    assert_eq!(*registration, stock_registration());
    assert!(frames.is_empty());
}

#[test]
fn a_client_sends_what_a_stock_connector_sends() {
    let mut client = Client::default();
    client.register(&stock_registration());
    let ours = client.take_output();
    let stock = stock_first_flight();
    // The bootstrap is the same. In the call, ours leaves out two empty lists of a word each, and has another order.
    assert_eq!(ours[..48], stock[..48]);
    assert_eq!(ours.len() + 16, stock.len());
    let mut server = Server::default();
    let mut frames = Frames::default();
    frames.push(&ours);
    assert_eq!(server.handle(&frames.next_frame().unwrap().unwrap()).unwrap(), None);
    let Some(Request::Register(_, registration)) = server.handle(&frames.next_frame().unwrap().unwrap()).unwrap()
    else {
        panic!()
    };
    assert_eq!(*registration, stock_registration());
}

#[test]
fn a_registration_succeeds_with_details_or_fails_with_a_refusal() {
    let details = ConnectionDetails {
        uuid: "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap(),
        location: "lab".into(),
        is_remotely_managed: true,
    };
    let refusal =
        Refusal { cause: "no such tunnel".into(), retry_after: Duration::from_millis(1500), should_retry: true };
    for result in [Ok(details), Err(refusal)] {
        let (mut client, mut server) = (Client::default(), Server::default());
        client.register(&stock_registration());
        let Request::Register(call, _) = only(pass(&mut client, &mut server)) else { panic!() };
        server.registered(call, result.as_ref());
        assert_eq!(only(pass(&mut server, &mut client)), Answer::Registered(result));
    }
}

#[test]
fn all_calls_are_answered() {
    let (mut client, mut server) = registered();
    let prefixes = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    client.advertise(&prefixes);
    let Request::Advertise(call, advertised) = only(pass(&mut client, &mut server)) else { panic!() };
    assert_eq!(advertised, prefixes);
    server.accepted(call, &prefixes[..1]);
    assert_eq!(only(pass(&mut server, &mut client)), Answer::Advertised(Some(prefixes[..1].into())));

    client.update_configuration(b"{}");
    let Request::UpdateConfiguration(call, json) = only(pass(&mut client, &mut server)) else { panic!() };
    assert_eq!(json, b"{}");
    server.done(call);
    assert_eq!(only(pass(&mut server, &mut client)), Answer::ConfigurationUpdated);

    client.unregister();
    let Request::Unregister(call) = only(pass(&mut client, &mut server)) else { panic!() };
    server.failed(call, "no");
    assert_eq!(only(pass(&mut server, &mut client)), Answer::Failed("no".into()));
}

#[test]
fn an_edge_without_the_prefix_interface_says_so() {
    // A stock edge answers the call as the refuser does: it does not have the interface.
    let (mut client, mut edge) = (Client::default(), Refuser::default());
    client.advertise(&["10.0.0.0/8".parse().unwrap()]);
    assert!(pass(&mut client, &mut edge).is_empty());
    assert_eq!(only(pass(&mut edge, &mut client)), Answer::Advertised(None));
}

#[test]
fn a_udp_session_is_refused_in_its_result_and_all_else_as_unimplemented() {
    use super::layout::Frame;
    use super::message::{self, ExceptionKind, Message, Outcome};

    let mut refuser = Refuser::default();
    let mut frames = Frames::default();
    frames.push(&message::bootstrap(0));
    frames.push(&message::call(1, 0, 0x8394_45a5_9fb0_1686, 0, |slot| _ = slot.fields(2, 3)));
    frames.push(&message::call(2, 0, 0x8394_45a5_9fb0_1686, 1, |slot| _ = slot.fields(0, 2)));
    while let Some(frame) = frames.next_frame().unwrap() {
        assert!(refuser.handle(&frame).unwrap().is_none());
    }
    frames.push(&refuser.take_output());
    let _bootstrap = frames.next_frame().unwrap().unwrap();
    let bytes = frames.next_frame().unwrap().unwrap();
    let frame = Frame::open(&bytes).unwrap();
    let Ok(Message::Return { question: 1, outcome: Outcome::Results(results) }) = Message::parse(frame.root().unwrap())
    else {
        panic!()
    };
    assert_eq!(results.fields(0).unwrap().text(0).unwrap(), "this connector carries only ICMP");
    let bytes = frames.next_frame().unwrap().unwrap();
    let frame = Frame::open(&bytes).unwrap();
    let Ok(Message::Return { question: 2, outcome: Outcome::Exception(exception) }) =
        Message::parse(frame.root().unwrap())
    else {
        panic!()
    };
    assert_eq!(exception.kind, ExceptionKind::Unimplemented);
}

#[test]
fn an_abort_ends_the_session_with_its_reason() {
    let (mut client, mut server) = registered();
    client.abort("rpc: shutdown");
    let mut frames = Frames::default();
    frames.push(&client.take_output());
    // The finish of the registration is in front of it.
    assert_eq!(server.handle(&frames.next_frame().unwrap().unwrap()).unwrap(), None);
    let aborted = server.handle(&frames.next_frame().unwrap().unwrap());
    assert!(matches!(aborted, Err(ControlError::Aborted(reason)) if reason == "rpc: shutdown"));
}

#[test]
fn open_questions_are_bounded_and_finished_ones_are_forgotten() {
    let (mut client, mut server) = registered();
    for _ in 0..100 {
        client.unregister();
        let Request::Unregister(call) = only(pass(&mut client, &mut server)) else { panic!() };
        server.done(call);
        only(pass(&mut server, &mut client));
    }
    // None of these is answered.
    let mut frames = Frames::default();
    for _ in 0..16 {
        client.unregister();
    }
    frames.push(&client.take_output());
    let handled = std::iter::from_fn(|| frames.next_frame().unwrap()).find_map(|frame| server.handle(&frame).err());
    assert!(matches!(handled, Some(ControlError::Protocol("too many questions are open"))));
}

#[test]
fn texts_lists_and_identifiers_of_a_registration_are_bounded() {
    let refused = |change: &dyn Fn(&mut Registration)| {
        let (mut client, mut server) = (Client::default(), Server::default());
        let mut registration = stock_registration();
        change(&mut registration);
        client.register(&registration);
        assert_eq!(pass(&mut client, &mut server), []);
        matches!(only(pass(&mut server, &mut client)), Answer::Failed(_))
    };
    assert!(refused(&|registration| registration.account_tag = "a".repeat(MAX_TEXT + 1)));
    assert!(refused(&|registration| registration.options.client.version = "a".repeat(MAX_TEXT + 1)));
    assert!(refused(&|registration| registration.options.client.features = vec!["a".into(); 65]));
    assert!(refused(&|registration| registration.options.client.features = vec!["a".repeat(MAX_TEXT + 1)]));
}

#[tokio::test]
async fn both_ends_work_on_byte_streams() {
    let (near, far) = tokio::io::duplex(100);
    let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
    let mut client = RpcStream::new(Client::default(), near_read, near_write);
    let mut server = RpcStream::new(Server::default(), far_read, far_write);
    client.peer.register(&stock_registration());
    let serve = async {
        while let Some(request) = server.next().await? {
            match request {
                Request::Register(call, _) => server.peer.registered(call, Ok(&ConnectionDetails::default())),
                Request::Unregister(call) | Request::UpdateConfiguration(call, _) => server.peer.done(call),
                Request::Advertise(call, prefixes) => server.peer.accepted(call, &prefixes),
            }
        }
        Ok::<(), ControlError>(())
    };
    let call = async {
        assert!(matches!(client.next().await?, Some(Answer::Registered(Ok(_)))));
        client.peer.unregister();
        assert!(matches!(client.next().await?, Some(Answer::Unregistered)));
        client.finish().await
    };
    let (served, called) = tokio::join!(serve, call);
    served.unwrap();
    called.unwrap();
}
