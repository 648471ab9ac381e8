//! One probe: asks a member once. The kinds have a file each; all are bounded by the timeout.

mod echo;
mod grpc;
mod http;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};

use weir_core::model::{Monitor, MonitorKind};
use weir_core::rt::{ConnectOptions, Elapsed, TcpStream};
use weir_core::tls::{self, Stream, Trust};

use crate::patience::Patience;
use crate::reason::{Local, Reason, judge_connect};

pub use grpc::{AskGrpc, GrpcAnswering, GrpcCall};

/// What a probe found: success, the member's failure, or nothing at all.
pub(crate) type Outcome = Result<Result<(), Reason>, Local>;

/// Whom to ask, and how.
pub(crate) struct Question<'a> {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub monitor: &'a Monitor,
    /// What a member inside TLS has to show.
    pub trust: Option<&'a Trust>,
    /// Our own address, of the member's family; `None` = the kernel chooses.
    pub source: Option<IpAddr>,
    /// Who speaks gRPC.
    pub grpc: Option<AskGrpc>,
}

/// Can this version make this kind of probe?
pub(crate) fn is_supported(kind: &MonitorKind, grpc: Option<AskGrpc>) -> bool {
    match kind {
        MonitorKind::Grpc { .. } => grpc.is_some(),
        _ => true,
    }
}

/// Asks the member once; ends within the monitor's timeout, of which only time counts in which the
/// prober could look.
pub(crate) async fn probe(question: Question<'_>) -> Outcome {
    let Question { address, monitor, .. } = question;
    let mut patience = Patience::new(monitor.timeout);
    if monitor.kind == MonitorKind::UdpConnect {
        return udp::ask(&question, &mut patience).await;
    }
    let stream = match connect(&question, &mut patience).await? {
        Ok(connected) => connected,
        Err(reason) => return Ok(Err(reason)),
    };
    match &monitor.kind {
        MonitorKind::Http { method, path, host, codes } => {
            let request = http::request(*method, path, host, address, 80);
            Ok(http::ask(stream.into(), &request, codes, &mut patience).await)
        }
        MonitorKind::Https { method, path, host, codes } => {
            let stream = match secure_stream(stream, &question, host, &mut patience).await {
                Ok(secured) => secured,
                Err(reason) => return Ok(Err(reason)),
            };
            let request = http::request(*method, path, host, address, 443);
            Ok(http::ask(stream, &request, codes, &mut patience).await)
        }
        MonitorKind::Grpc { path, host, codes } => {
            let secure = question.trust.is_some();
            let stream = match secure {
                false => stream.into(),
                true => match secure_stream(stream, &question, host, &mut patience).await {
                    Ok(secured) => secured,
                    Err(reason) => return Ok(Err(reason)),
                },
            };
            let Some(ask) = question.grpc else { return Ok(Err(Reason::InvalidResponse)) };
            let authority = if host.is_empty() { address.to_string() } else { host.clone() };
            let call = GrpcCall { secure, authority, service: path.clone() };
            Ok(grpc::ask(stream, ask, call, codes, &mut patience).await)
        }
        MonitorKind::Tcp | MonitorKind::UdpConnect => {
            tcp::end(stream);
            Ok(Ok(()))
        }
    }
}

async fn connect(
    question: &Question<'_>,
    patience: &mut Patience,
) -> Result<Result<TcpStream, Reason>, Local> {
    let Question { address, source, .. } = *question;
    let own = source.map(|ip| SocketAddr::new(ip, 0));
    let options = ConnectOptions { source: own, ..ConnectOptions::default() };
    match TcpStream::connect_unless(address, &options, patience.run_out()).await {
        Ok(stream) => Ok(Ok(stream)),
        Err(error) => judge_connect(&error, address, source).map(Err),
    }
}

/// Shakes hands.
async fn secure_stream(
    stream: TcpStream,
    question: &Question<'_>,
    host: &str,
    patience: &mut Patience,
) -> Result<Stream, Reason> {
    let trust = question.trust.ok_or(Reason::TlsHandshake(tls::Failure::Internal))?;
    let client = trust.once(host, question.address.ip());
    match patience.wait(tls::connect(stream, &client)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(failure)) => Err(Reason::TlsHandshake(failure)),
        Err(Elapsed) => Err(Reason::TlsTimeout),
    }
}
