//! Why a probe failed, as a code with its words. What is this host's own fault is no verdict on a
//! member.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use libc::{EACCES, EADDRINUSE, EPERM};
use weir_core::model::Codes;
use weir_core::net::source;
use weir_core::rt::Shortage;
use weir_core::tls::Failure;

/// Why a check failed, in the words of the ELB (`reason_code` of a member in its API).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No answer to the connect, or to the echo, within the timeout.
    ConnectTimeout,
    /// Nobody listens on the port.
    ConnectRefused,
    /// The network does not let it be reached.
    ConnectFailed,
    /// The connection was reset.
    ConnectInterrupt,
    /// The handshake of TLS failed, or took too long.
    SslHandshakeError,
    /// The connection ended before a whole answer.
    RecvResponseFailed,
    /// Nothing, or no whole answer, within the timeout.
    RecvResponseTimeout,
    /// The connection did not take the request.
    SendRequestFailed,
    /// The member's host did not acknowledge the request within the timeout.
    SendRequestTimeout,
    /// What came is no answer of the protocol.
    ResponseFormatError,
    /// A whole answer that says something else than expected.
    ResponseMismatch,
}

impl Code {
    /// All of them, in the order of their numbers.
    pub const ALL: [Code; 11] = [
        Code::ConnectTimeout,
        Code::ConnectRefused,
        Code::ConnectFailed,
        Code::ConnectInterrupt,
        Code::SslHandshakeError,
        Code::RecvResponseFailed,
        Code::RecvResponseTimeout,
        Code::SendRequestFailed,
        Code::SendRequestTimeout,
        Code::ResponseFormatError,
        Code::ResponseMismatch,
    ];

    /// The ELB's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::ConnectTimeout => "CONNECT_TIMEOUT",
            Code::ConnectRefused => "CONNECT_REFUSED",
            Code::ConnectFailed => "CONNECT_FAILED",
            Code::ConnectInterrupt => "CONNECT_INTERRUPT",
            Code::SslHandshakeError => "SSL_HANDSHAKE_ERROR",
            Code::RecvResponseFailed => "RECV_RESPONSE_FAILED",
            Code::RecvResponseTimeout => "RECV_RESPONSE_TIMEOUT",
            Code::SendRequestFailed => "SEND_REQUEST_FAILED",
            Code::SendRequestTimeout => "SEND_REQUEST_TIMEOUT",
            Code::ResponseFormatError => "RESPONSE_FORMAT_ERROR",
            Code::ResponseMismatch => "RESPONSE_MISMATCH",
        }
    }
}

/// Why a member's probe failed. `Display` gives the ELB's code, then what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody listens on the port.
    ConnectRefused,
    /// No answer to the connect within the timeout: filtered, overloaded, or gone.
    ConnectTimeout,
    /// The network says that the host or network can't be reached. Over IPv4 a filter that
    /// prohibits it says the same.
    Unreachable,
    /// A filter on the way prohibits it (ICMPv6).
    Prohibited,
    /// The connection was reset.
    Reset,
    /// The connection did not take the request.
    SendFailed,
    /// The member's host did not acknowledge the request within the timeout.
    SendTimeout,
    /// Connected, but no (whole) answer within the timeout.
    ResponseTimeout,
    /// The handshake of TLS failed.
    TlsHandshake(Failure),
    /// The handshake of TLS did not end within the timeout.
    TlsTimeout,
    /// The connection ended before a whole status line.
    ClosedEarly,
    /// What came is no HTTP answer.
    InvalidResponse,
    /// An answer with another status.
    UnexpectedStatus {
        /// What counts as success.
        expected: Codes,
        /// What came.
        actual: u16,
    },
    /// The member says that its service is not up (gRPC).
    NotServing,
    /// No ICMP echo came back within the timeout (R8.4-1).
    EchoTimeout,
    /// Nobody listens on the port (UDP; R8.4-2).
    PortUnreachable,
    /// Another error of the network.
    Other(io::ErrorKind),
}

impl Reason {
    /// The ELB's code for it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Reason::ConnectRefused | Reason::PortUnreachable => Code::ConnectRefused,
            Reason::ConnectTimeout | Reason::EchoTimeout => Code::ConnectTimeout,
            Reason::Unreachable | Reason::Prohibited | Reason::Other(_) => Code::ConnectFailed,
            Reason::Reset => Code::ConnectInterrupt,
            Reason::SendFailed => Code::SendRequestFailed,
            Reason::SendTimeout => Code::SendRequestTimeout,
            Reason::ResponseTimeout => Code::RecvResponseTimeout,
            Reason::TlsHandshake(_) | Reason::TlsTimeout => Code::SslHandshakeError,
            Reason::ClosedEarly => Code::RecvResponseFailed,
            Reason::InvalidResponse => Code::ResponseFormatError,
            Reason::UnexpectedStatus { .. } | Reason::NotServing => Code::ResponseMismatch,
        }
    }

    /// A finer word than the code, as stable, for logs and metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Reason::ConnectRefused => "connect_refused",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::Unreachable => "unreachable",
            Reason::Prohibited => "prohibited",
            Reason::Reset => "reset",
            Reason::SendFailed => "send_failed",
            Reason::SendTimeout => "send_timeout",
            Reason::ResponseTimeout => "response_timeout",
            Reason::TlsHandshake(failure) => failure.name(),
            Reason::TlsTimeout => "ssl_handshake_timeout",
            Reason::ClosedEarly => "closed_early",
            Reason::InvalidResponse => "invalid_response",
            Reason::UnexpectedStatus { .. } => "unexpected_status",
            Reason::NotServing => "not_serving",
            Reason::EchoTimeout => "echo_timeout",
            Reason::PortUnreachable => "port_unreachable",
            Reason::Other(_) => "other",
        }
    }

    /// What was expected and what came, where answers were compared.
    #[must_use]
    pub fn compared(&self) -> Option<(String, String)> {
        match self {
            Reason::UnexpectedStatus { expected, actual } => {
                Some((expected.to_string(), actual.to_string()))
            }
            Reason::NotServing => Some(("SERVING".to_owned(), "another state".to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.code().name(), self.cause())?;
        if let Some((expected, actual)) = self.compared() {
            write!(f, ": expected {expected}, got {actual}")?;
        }
        if let Reason::Other(kind) = self {
            write!(f, ": {kind}")?;
        }
        f.write_str(")")
    }
}

/// Why a probe could not be made: this host's own trouble. The member keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// Something ran out.
    Lacks(Shortage),
    /// Not allowed, by a route, packet filter or security module of this host.
    NotAllowed,
    /// Neither kind of socket for ICMP echoes is allowed.
    NoEcho,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Local::Lacks(shortage) => return shortage.fmt(f),
            Local::NotAllowed => {
                "this host forbids it: a packet filter on its output, a route, or a security module"
            }
            Local::NoEcho => {
                "checks of UDP pools begin with an ICMP echo, which this process may not send; let \
                 net.ipv4.ping_group_range include its group, or give it CAP_NET_RAW"
            }
        })
    }
}

/// What an error of a connect or send says about.
pub(crate) fn judge(error: &io::Error) -> Result<Reason, Local> {
    match error.raw_os_error() {
        Some(EPERM | EACCES) => return Err(Local::NotAllowed),
        // So the kernel says of a socket of datagrams that asked for any port, and found none.
        Some(EADDRINUSE) => return Err(Local::Lacks(Shortage::Ports)),
        _ => {}
    }
    if let Some(shortage) = Shortage::of(error) {
        return Err(Local::Lacks(shortage));
    }
    Ok(match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Reason::Reset,
        kind => Reason::Other(kind),
    })
}

/// As [`judge`], of a connect to `address`. "Prohibited" comes from a filter on the way (RFC 4443,
/// 3.1) or from this host: a route that forbids it, a security module. The latter forbid a socket
/// of datagrams the same, without a packet.
pub(crate) fn judge_connect(
    error: &io::Error,
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<Reason, Local> {
    if error.raw_os_error() == Some(EACCES) && !is_forbidden_here(address, source) {
        return Ok(Reason::Prohibited);
    }
    judge(error)
}

fn is_forbidden_here(address: SocketAddr, source: Option<IpAddr>) -> bool {
    let socket = UdpSocket::bind(source::own(source, address.ip()));
    socket.and_then(|socket| socket.connect(address)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prober's own exhaustion is never a member's fault.
    #[test]
    fn own_trouble_is_no_reason() {
        let judge = |code| judge(&io::Error::from_raw_os_error(code));
        assert_eq!(judge(libc::EMFILE), Err(Local::Lacks(Shortage::Descriptors)));
        assert_eq!(judge(libc::ENOMEM), Err(Local::Lacks(Shortage::Memory)));
        for code in [libc::EADDRNOTAVAIL, EADDRINUSE] {
            assert_eq!(judge(code), Err(Local::Lacks(Shortage::Ports)));
        }
        assert_eq!(judge(libc::ECONNREFUSED), Ok(Reason::ConnectRefused));
        assert_eq!(judge(libc::EHOSTUNREACH), Ok(Reason::Unreachable));
    }

    /// Every code of the ELB stands for something, under its own name; expected and actual codes
    /// are told.
    #[test]
    fn reasons_have_the_codes_of_the_elb() {
        let status = Reason::UnexpectedStatus { expected: Codes::one(200), actual: 503 };
        let text = "RESPONSE_MISMATCH (unexpected_status: expected 200, got 503)";
        assert_eq!(status.to_string(), text);
        let handshake = Reason::TlsHandshake(Failure::CertificateExpired);
        assert_eq!(handshake.to_string(), "SSL_HANDSHAKE_ERROR (certificate_expired)");
        let reasons = [
            Reason::ConnectTimeout,
            Reason::ConnectRefused,
            Reason::Prohibited,
            Reason::Reset,
            handshake,
            Reason::ClosedEarly,
            Reason::ResponseTimeout,
            Reason::SendFailed,
            Reason::SendTimeout,
            Reason::InvalidResponse,
            status,
        ];
        assert_eq!(reasons.map(|reason| reason.code()), Code::ALL);
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at, "{code:?}");
        }
    }

    /// A filter of this host says so to every socket, before a packet is sent; one on the way
    /// doesn't.
    #[test]
    fn prohibited_is_the_networks_word_unless_this_host_says_it_too() {
        let prohibited = io::Error::from_raw_os_error(EACCES);
        let open = "127.0.0.1:9".parse().unwrap();
        assert_eq!(judge_connect(&prohibited, open, None), Ok(Reason::Prohibited));
        // A broadcast address may not be connected to without leave, which stands for any
        // objection of this host.
        let barred = "255.255.255.255:9".parse().unwrap();
        assert_eq!(judge_connect(&prohibited, barred, None), Err(Local::NotAllowed));
        let not_permitted = io::Error::from_raw_os_error(EPERM);
        assert_eq!(judge_connect(&not_permitted, open, None), Err(Local::NotAllowed));
    }
}
