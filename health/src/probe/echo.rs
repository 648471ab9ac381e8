//! An ICMP echo, without waiting: opens a socket for it, asks, and looks at what has come. Owns the
//! form of the two messages (RFC 792, RFC 4443) and which kind of socket this host allows; when to
//! look is `udp`'s business.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use libc::{EACCES, EPERM};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of an echo message before its data.
const HEAD: usize = 8;

/// What is asked to come back, besides the two numbers.
const DATA: &[u8] = b"weir check";

/// Tells the probes of this process apart.
static NUMBER: AtomicU16 = AtomicU16::new(0);

/// Why there is no socket for echoes.
#[derive(Debug)]
pub(super) enum NoSocket {
    /// Neither kind is allowed.
    NotAllowed,
    /// Another error.
    Failed(io::Error),
}

impl From<io::Error> for NoSocket {
    fn from(error: io::Error) -> NoSocket {
        NoSocket::Failed(error)
    }
}

/// An echo on its way.
#[derive(Debug)]
pub(super) struct Echo {
    socket: Socket,
    asked: Asked,
}

/// What was asked, by which the answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    ipv6: bool,
    /// All ICMP of the host comes here, and with IPv4 behind the header of IP; otherwise the kernel
    /// sees to the identifier, and that nothing else comes.
    raw: bool,
    ident: u16,
    number: u16,
}

impl Echo {
    /// Asks `member` for an echo, from `source` if given.
    pub(super) fn ask(member: IpAddr, source: Option<IpAddr>) -> Result<Echo, NoSocket> {
        let (socket, raw) = open(member.is_ipv6())?;
        socket.set_nonblocking(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        // Connected, it hears errors about this member, and from nobody else.
        socket.connect(&SocketAddr::new(member, 0).into())?;
        let asked = Asked {
            ipv6: member.is_ipv6(),
            raw,
            ident: std::process::id() as u16,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        };
        socket.send(&asked.message())?;
        Ok(Echo { socket, asked })
    }

    /// Has the answer come? Looks at all that is here.
    pub(super) fn is_answered(&self) -> io::Result<bool> {
        let mut message = [0; 256];
        loop {
            match (&self.socket).read(&mut message) {
                Ok(len) if self.asked.is_answer(message.get(..len).unwrap_or_default()) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Echo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket for echoes, and whether it is a raw one. Those that need no privilege come first.
fn open(ipv6: bool) -> Result<(Socket, bool), NoSocket> {
    let (domain, protocol) = match ipv6 {
        true => (Domain::IPV6, Protocol::ICMPV6),
        false => (Domain::IPV4, Protocol::ICMPV4),
    };
    match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => return Ok((socket, false)),
        Err(error) if is_forbidden(&error) => {}
        Err(error) => return Err(error.into()),
    }
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket, true)),
        Err(error) if is_forbidden(&error) => Err(NoSocket::NotAllowed),
        Err(error) => Err(error.into()),
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EACCES | EPERM))
}

impl Asked {
    /// The request. Of IPv6 the kernel writes the checksum, since addresses are part of it.
    fn message(self) -> Vec<u8> {
        let kind = if self.ipv6 { 128 } else { 8 };
        let mut message = vec![kind, 0, 0, 0];
        message.extend_from_slice(&self.ident.to_be_bytes());
        message.extend_from_slice(&self.number.to_be_bytes());
        message.extend_from_slice(DATA);
        if !self.ipv6 {
            let sum = checksum(&message).to_be_bytes();
            message.splice(2..4, sum);
        }
        message
    }

    fn is_answer(self, packet: &[u8]) -> bool {
        let header = match packet.first() {
            Some(first) if self.raw && !self.ipv6 => usize::from(first & 15) * 4,
            _ => 0,
        };
        let message = packet.get(header..).unwrap_or_default();
        let Some((head, data)) = message.split_at_checked(HEAD) else { return false };
        let kind = if self.ipv6 { 129 } else { 0 };
        let is_own = !self.raw || head.get(4..6) == Some(&self.ident.to_be_bytes());
        head.starts_with(&[kind, 0])
            && is_own
            && head.ends_with(&self.number.to_be_bytes())
            && data == DATA
    }
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), low]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { ipv6: false, raw: false, ident: 0x1234, number: 7 };

    #[test]
    fn a_request_with_its_checksum() {
        let message = ASKED.message();
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(message[4..8], [0x12, 0x34, 0, 7]);
        assert_eq!(checksum(&message), 0, "with its checksum the sum is zero (RFC 1071)");
        let six = Asked { ipv6: true, ..ASKED }.message();
        assert_eq!(six[..4], [128, 0, 0, 0]);
        assert_eq!(checksum(&[1]), !0x0100, "an odd byte counts as if a zero followed");
    }

    #[test]
    fn only_its_own_answer_counts() {
        let answer = |asked: Asked| {
            let mut message = asked.message();
            message[0] = if asked.ipv6 { 129 } else { 0 };
            message
        };
        assert!(ASKED.is_answer(&answer(ASKED)));
        assert!(!ASKED.is_answer(&ASKED.message()), "on loopback a raw socket hears the request");
        assert!(!ASKED.is_answer(&answer(Asked { number: 8, ..ASKED })));
        let raw = Asked { raw: true, ..ASKED };
        let mut packet = vec![0x46; 24];
        packet.extend_from_slice(&answer(raw));
        assert!(raw.is_answer(&packet), "behind 24 bytes of IP");
        packet[24 + 4] ^= 1;
        assert!(!raw.is_answer(&packet), "somebody else's ping");
        for len in 0..packet.len() {
            assert!(!raw.is_answer(&packet[..len]), "{len}");
        }
        let six = Asked { ipv6: true, raw: true, ..ASKED };
        assert!(six.is_answer(&answer(six)));
    }

    /// Both kinds of sockets, as far as this host allows them, over real ICMP.
    #[test]
    fn this_host_answers_itself() {
        for address in ["127.0.0.1", "::1"] {
            let echo = Echo::ask(address.parse().unwrap(), None).unwrap();
            let answered = std::iter::repeat_with(|| echo.is_answered().unwrap());
            // Loopback: what is sent has been answered when the call returns.
            assert!(answered.take(3).any(|is| is), "{address} {echo:?}");
        }
    }
}
