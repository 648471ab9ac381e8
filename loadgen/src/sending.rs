//! Sending on a stream, plain or TLS: one piece after another, as the runtime wants it. Used by
//! whatever speaks on a connection.

use std::io;

use weir_core::rt::{Payload, SendBuf};
use weir_core::tls::Stream;

use crate::limits;
use crate::pattern;

/// Posts `payload` once the one before is out.
pub(crate) async fn send(stream: &Stream, payload: impl Into<Payload>) -> io::Result<()> {
    stream.flush().await?;
    stream.post(payload)
}

/// Posts a copy of `data`, piece after piece.
pub(crate) async fn send_copy(stream: &Stream, data: &[u8]) -> io::Result<()> {
    for piece in data.chunks(limits::SEND_PIECE) {
        let mut buffer = SendBuf::new();
        buffer.extend_from_slice(piece);
        send(stream, buffer).await?;
    }
    Ok(())
}

/// Posts `size` bytes of the pattern.
pub(crate) async fn send_pattern(stream: &Stream, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let piece = pattern::piece(left);
        send(stream, piece).await?;
        left -= piece.len() as u64;
    }
    Ok(())
}
