//! The gRPC probe: one call of grpc.health.v1.Health/Check. Who speaks HTTP/2 is told from outside,
//! since this package doesn't.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use weir_core::model::Codes;
use weir_core::rt;
use weir_core::tls::Stream;

use crate::reason::Reason;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCall {
    /// The connection is inside TLS.
    pub secure: bool,
    /// Host, with a port where it has one.
    pub authority: String,
    /// The service; empty = the server as a whole.
    pub service: String,
}

/// A call under way: the gRPC status code, and whether the message says that the service is up.
pub type GrpcAnswering = Pin<Box<dyn Future<Output = io::Result<(u16, bool)>>>>;

/// Asks over a connection, which is closed then.
pub type AskGrpc = fn(Stream, GrpcCall) -> GrpcAnswering;

/// Asks and judges the answer; ends within `limit`.
pub(super) async fn ask(
    stream: Stream,
    ask: AskGrpc,
    call: GrpcCall,
    codes: &Codes,
    limit: Duration,
) -> Result<(), Reason> {
    let answer = match rt::timeout(limit, ask(stream, call)).await {
        Ok(answer) => answer,
        Err(rt::Elapsed) => return Err(Reason::ResponseTimeout),
    };
    match answer {
        Ok((0, false)) if codes.contains(0) => Err(Reason::NotServing),
        Ok((status, _)) if codes.contains(status) => Ok(()),
        Ok((actual, _)) => Err(Reason::UnexpectedStatus { expected: codes.clone(), actual }),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::InvalidData => Reason::InvalidResponse,
            io::ErrorKind::UnexpectedEof => Reason::ClosedEarly,
            _ => Reason::Reset,
        }),
    }
}
