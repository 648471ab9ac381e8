//! What this host may run out of when a socket is opened, and the words about it. Owns which errors
//! say so, and the cures; who meets such an error decides what it means: to the runtime something
//! to count, to a check that it is no verdict on a member.

use std::fmt;
use std::io;

/// What this host has too little of. `Display`: that it is missing, and the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// No port of our own is left, or no address of ours is there any more.
    Ports,
    /// No descriptor is left.
    Descriptors,
    /// No memory is left for sockets.
    Memory,
}

impl Shortage {
    /// What an error of opening, binding, connecting or accepting a socket says of this host;
    /// `None` = it is about something else.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Shortage> {
        match error.raw_os_error()? {
            libc::EADDRNOTAVAIL => Some(Shortage::Ports),
            libc::EMFILE | libc::ENFILE => Some(Shortage::Descriptors),
            libc::ENOBUFS | libc::ENOMEM => Some(Shortage::Memory),
            _ => None,
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shortage::Ports => {
                "no port of our own is left (EADDRNOTAVAIL): widen net.ipv4.ip_local_port_range, \
                 name more source_addresses, or look whether those named are still addresses of \
                 this host"
            }
            Shortage::Descriptors => {
                "no descriptor is left (EMFILE): raise LimitNOFILE= or ulimit -n, or lower \
                 max_connections"
            }
            Shortage::Memory => {
                "the kernel has no memory left for sockets (ENOBUFS): raise net.ipv4.tcp_mem or \
                 the memory limit, or lower max_connections"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_is_told_from_what_members_do() {
        let of = |code| Shortage::of(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EADDRNOTAVAIL), Some(Shortage::Ports));
        assert_eq!(of(libc::EMFILE), Some(Shortage::Descriptors));
        assert_eq!(of(libc::ENOBUFS), Some(Shortage::Memory));
        for code in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ECONNRESET] {
            assert_eq!(of(code), None);
        }
    }
}
