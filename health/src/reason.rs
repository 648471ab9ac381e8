//! Why a probe failed, as a code with its words. What is this host's own fault is no verdict on a
//! member.

use std::fmt;
use std::io;

use libc::{EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
use weir_core::model::Codes;
use weir_core::tls::Failure;

/// Why a member's probe failed. `Display` gives the code, then what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody listens on the port.
    ConnectRefused,
    /// No answer to the connect within the timeout: filtered, overloaded, or gone.
    ConnectTimeout,
    /// The network says that the host or network can't be reached.
    Unreachable,
    /// The connection was reset.
    Reset,
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
    /// Its stable name, for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Reason::ConnectRefused => "connect_refused",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::Unreachable => "unreachable",
            Reason::Reset => "reset",
            Reason::ResponseTimeout => "response_timeout",
            Reason::TlsHandshake(_) => "ssl_handshake_error",
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
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())?;
        match self {
            Reason::UnexpectedStatus { expected, actual } => {
                write!(f, " (expected {expected}, got {actual})")
            }
            Reason::TlsHandshake(failure) => write!(f, " ({})", failure.name()),
            Reason::Other(kind) => write!(f, " ({kind})"),
            _ => Ok(()),
        }
    }
}

/// Why a probe could not be made: this host's own trouble. The member keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// No descriptor was left.
    NoDescriptors,
    /// No source port was left, or the source address is not this host's.
    NoAddress,
    /// No memory was left.
    NoMemory,
    /// Not allowed, by a packet filter or security module of this host.
    NotAllowed,
    /// Neither kind of socket for ICMP echoes is allowed.
    NoEcho,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Local::NoDescriptors => "no descriptor is left; raise LimitNOFILE= or ulimit -n",
            Local::NoAddress => {
                "no source port or address is left; widen net.ipv4.ip_local_port_range, or \
                 correct source_addresses"
            }
            Local::NoMemory => "no memory is left for sockets",
            Local::NotAllowed => {
                "this host forbids it: a packet filter on its output, or a security module"
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
        Some(code) if code == EMFILE || code == ENFILE => return Err(Local::NoDescriptors),
        Some(code) if code == EADDRNOTAVAIL => return Err(Local::NoAddress),
        Some(code) if code == ENOMEM || code == ENOBUFS => return Err(Local::NoMemory),
        Some(code) if code == EPERM || code == EACCES => return Err(Local::NotAllowed),
        _ => {}
    }
    Ok(match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Reason::Reset,
        kind => Reason::Other(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prober's own exhaustion is never a member's fault.
    #[test]
    fn own_trouble_is_no_reason() {
        let judge = |code| judge(&io::Error::from_raw_os_error(code));
        assert_eq!(judge(EMFILE), Err(Local::NoDescriptors));
        assert_eq!(judge(EADDRNOTAVAIL), Err(Local::NoAddress));
        assert_eq!(judge(libc::ECONNREFUSED), Ok(Reason::ConnectRefused));
        assert_eq!(judge(libc::EHOSTUNREACH), Ok(Reason::Unreachable));
        let status = Reason::UnexpectedStatus { expected: Codes::one(200), actual: 503 };
        assert_eq!(status.to_string(), "unexpected_status (expected 200, got 503)");
    }
}
