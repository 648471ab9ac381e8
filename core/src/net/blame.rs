//! Whose fault it is that a connect failed.

use std::io::ErrorKind;

/// Is it the member's, or that of the way to it? What this host lacks (descriptors, ports, memory,
/// permission) is nobody else's; an error that is not known to be theirs counts as ours.
#[must_use]
pub fn of_member(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_this_host_lacks_is_not_the_members_fault() {
        let blamed = |code| of_member(io::Error::from_raw_os_error(code).kind());
        for code in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOMEM, libc::ENOBUFS] {
            assert!(!blamed(code), "{code}");
        }
        assert!(!blamed(libc::EPERM) && !blamed(libc::EACCES));
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert!(blamed(code), "{code}");
        }
    }
}
