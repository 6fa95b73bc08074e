//! Refuses the streams that an edge opens, each in the way its protocol has for that.

use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncWriteExt;

use crate::control::{Refuser, RpcStream, refuse_connection};

/// How a stream begins on which the edge calls.
const RPC: [u8; 6] = [0x52, 0xbb, 0x82, 0x5c, 0xdb, 0x65];
/// How a stream begins that carries data of a client. The version follows.
const DATA: [u8; 6] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];
const DATA_VERSION: &[u8] = b"01";
/// How long a stream is listened to. A stock edge needs 5 seconds to see that a UDP session failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Refuses a stream and ends it.
pub(super) async fn refuse(mut send: SendStream, mut receive: RecvStream) {
    let refusal = async {
        let mut preamble = [0; 6];
        receive.read_exact(&mut preamble).await.ok()?;
        match preamble {
            RPC => {
                let mut session = RpcStream::new(Refuser::default(), &mut receive, &mut send);
                // It has no events, so this waits for the edge to end the session.
                session.next().await.ok()?;
                session.finish().await.ok()
            }
            DATA => {
                let answer = [&DATA, DATA_VERSION, &refuse_connection()].concat();
                send.write_all(&answer).await.ok()?;
                send.shutdown().await.ok()
            }
            _ => None,
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refusal).await.ok().flatten();
    if refused.is_none() {
        // It fails if the edge has ended the stream.
        let _ = send.reset(VarInt::from_u32(0));
    }
    let _ = receive.stop(VarInt::from_u32(0));
}
