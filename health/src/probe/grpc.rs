//! The gRPC probe: one call of grpc.health.v1.Health/Check. Who speaks HTTP/2 is told from outside,
//! since this package doesn't.

use std::io;
use std::pin::Pin;

use weir_core::model::Codes;
use weir_core::rt::Elapsed;
use weir_core::tls::Stream;

use crate::patience::Patience;
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

/// Asks and judges the answer.
pub(super) async fn ask(
    stream: Stream,
    ask: AskGrpc,
    call: GrpcCall,
    codes: &Codes,
    patience: &mut Patience,
) -> Result<(), Reason> {
    let answer = match patience.wait(ask(stream, call)).await {
        Ok(answer) => answer,
        Err(Elapsed) => return Err(Reason::ResponseTimeout),
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
