use pingferry_tunnel::control::{
    Answer, Client, ConnectionDetails, ControlError, Frames, MAX_MESSAGE, Peer, Refuser, Request, Server,
};

/// Lets each end of the tunnel's RPC sessions read an arbitrary stream.
///
/// The first byte is the length of the pieces that the stream comes in. No input may cause a panic. Whatever an end is told, it
/// sends whole messages only, and not many more than it received.
pub fn control(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let _ = read(&mut Server::default(), stream, piece, answer);
    let _ = read(&mut Refuser::default(), stream, piece, |_, event| match event {});
    let mut client = Client::default();
    client.unregister();
    client.advertise(&[]);
    let _ = read(&mut client, stream, piece, |_, _: Answer| {});
}

/// The largest answer to a message. Texts of a message are in it at most once.
const MAX_ANSWER: usize = MAX_MESSAGE + 4096;

fn read<P: Peer>(
    peer: &mut P,
    stream: &[u8],
    piece: usize,
    mut answer: impl FnMut(&mut P, P::Event),
) -> Result<(), ControlError> {
    let mut frames = Frames::default();
    let _ = peer.take_output();
    for bytes in stream.chunks(piece) {
        frames.push(bytes);
        while let Some(frame) = frames.next_frame()? {
            assert!(frame.len() <= MAX_MESSAGE);
            let handled = peer.handle(&frame);
            if let Ok(Some(event)) = handled {
                answer(peer, event);
                assert_whole(&peer.take_output());
            } else {
                assert_whole(&peer.take_output());
                handled?;
            }
        }
    }
    Ok(())
}

fn answer(server: &mut Server, request: Request) {
    match request {
        Request::Register(call, _) => server.registered(call, Ok(&ConnectionDetails::default())),
        Request::Advertise(call, prefixes) => server.accepted(call, &prefixes),
        Request::Unregister(call) | Request::UpdateConfiguration(call, _) => server.done(call),
        _ => {}
    }
}

fn assert_whole(output: &[u8]) {
    assert!(output.len() <= MAX_ANSWER);
    let mut frames = Frames::default();
    frames.push(output);
    while frames.next_frame().expect("a message of our own").is_some() {}
    assert!(frames.is_empty());
}
