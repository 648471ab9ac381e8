//! One probe: asks a member once. The kinds have a file each; all are bounded by the timeout.

mod http;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weir_core::model::{Monitor, MonitorKind};
use weir_core::rt::{ConnectOptions, TcpStream};

use crate::reason::{Local, Reason, judge};

/// What a probe found: success, the member's failure, or nothing at all.
pub(crate) type Outcome = Result<Result<(), Reason>, Local>;

/// Can this version make this kind of probe?
pub(crate) fn is_supported(kind: &MonitorKind) -> bool {
    matches!(kind, MonitorKind::Tcp | MonitorKind::Http { .. })
}

/// Asks the member at `address` once; ends within the monitor's timeout.
pub(crate) async fn probe(
    address: SocketAddr,
    monitor: &Monitor,
    source: Option<IpAddr>,
) -> Outcome {
    let stream = match connect(address, source, monitor.timeout).await? {
        Ok((stream, left)) => (stream, left),
        Err(reason) => return Ok(Err(reason)),
    };
    let (stream, left) = stream;
    match &monitor.kind {
        MonitorKind::Http { method, path, host, codes } => {
            let request = http::request(*method, path, host, address);
            Ok(http::ask(stream, &request, codes, left).await)
        }
        // The others are never probed.
        _ => {
            tcp::end(stream);
            Ok(Ok(()))
        }
    }
}

/// Connects; the stream and what is left of the timeout.
async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    timeout: Duration,
) -> Result<Result<(TcpStream, Duration), Reason>, Local> {
    let begin = weir_core::rt::now();
    let source = source.filter(|ip| ip.is_ipv4() == address.is_ipv4());
    let source = source.map(|ip| SocketAddr::new(ip, 0));
    let options = ConnectOptions { source, timeout: Some(timeout), keepalive: None };
    match TcpStream::connect(address, &options).await {
        Ok(stream) => {
            let left = timeout.saturating_sub(weir_core::rt::now().since(begin));
            Ok(Ok((stream, left)))
        }
        Err(error) => judge(&error).map(Err),
    }
}
