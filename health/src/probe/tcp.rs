//! The TCP probe: a connection that comes about is the answer.

use weir_core::rt::TcpStream;

/// Ends it by a reset: neither side keeps a reset connection, while after a FIN one of them would
/// hold each probe in TIME_WAIT for a minute.
pub(super) fn end(stream: TcpStream) {
    stream.reset();
}
