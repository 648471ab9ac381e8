//! Members that speak no HTTP: what comes is sent back, thrown away, or bytes are sent for as long
//! as somebody takes them; and the echo of a WebSocket. Called by `origin` and `origin_conn`.

use weir_core::rt::SendBuf;
use weir_core::tls::Stream;

use crate::origin::OriginStats;
use crate::pattern;
use crate::sending::send;
use crate::websocket::{CLOSE, CONTINUATION, Frames, PING, PONG, TEXT, head, mask};

/// Sends back what comes, until the client ends.
pub(crate) async fn echo(stream: &Stream, stats: &OriginStats) {
    while let Ok(Some(lease)) = stream.recv().await {
        stats.requests.add(1);
        if send(stream, lease).await.is_err() {
            return;
        }
    }
    // Who ended in order gets the rest.
    let _ = stream.flush().await;
}

/// Throws away what comes.
pub(crate) async fn sink(stream: &Stream, stats: &OriginStats) {
    while let Ok(Some(_)) = stream.recv().await {
        stats.requests.add(1);
    }
}

/// Sends until nobody takes it any more.
pub(crate) async fn source(stream: &Stream, stats: &OriginStats) {
    while send(stream, pattern::piece(u64::MAX)).await.is_ok() {
        stats.requests.add(1);
    }
}

/// Sends back the messages of a WebSocket.
pub(crate) async fn echo_messages(stream: &Stream, stats: &OriginStats) {
    let mut frames = Frames::default();
    while let Ok(Some(mut lease)) = stream.recv().await {
        while !lease.is_empty() {
            let Ok(Some(part)) = frames.feed(&lease) else { break };
            let frame = part.frame;
            // RFC 6455, 5.1: whoever doesn't mask is cut off.
            let Some(key) = frame.key else { return };
            let mut out = SendBuf::new();
            if part.offset == 0 {
                let opcode = if frame.opcode == PING { PONG } else { frame.opcode };
                if matches!(opcode, CONTINUATION..TEXT | TEXT..CLOSE) && frame.last {
                    stats.requests.add(1);
                }
                head(&mut out, opcode, frame.length, None);
                if !frame.last {
                    // The head that was written says that its message ends.
                    out[0] &= 0x7f;
                }
            }
            let start = out.len();
            out.extend_from_slice(&lease[part.start..part.used]);
            mask(&mut out[start..], key, part.offset);
            let ends = frame.opcode == CLOSE && part.whole;
            let wanted = frame.opcode != PONG;
            lease.advance(part.used);
            if wanted && send(stream, out).await.is_err() {
                return;
            }
            if ends {
                let _ = stream.flush().await;
                return;
            }
        }
    }
}
