//! The UDP probe (R8.4-1 to R8.4-3): first an ICMP echo, since a host that is gone would say
//! nothing about its ports; then a datagram, which only a port that nobody listens on answers by
//! ICMP. Silence after it means that somebody listens.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use libc::EACCES;
use weir_core::net::source;
use weir_core::rt;

use super::echo::{Echo, NoSocket};
use super::{Outcome, Question};
use crate::patience::Patience;
use crate::reason::{Local, Reason, judge};

/// What the datagram says.
const DATAGRAM: &[u8] = b"weir check\n";

/// Asks; a service that stays silent is known to be well only when the timeout is over.
pub(super) async fn ask(question: &Question<'_>, patience: &mut Patience) -> Outcome {
    let Question { address, source, .. } = *question;
    let echo = match Echo::ask(address.ip(), source) {
        Ok(echo) => echo,
        Err(NoSocket::NotAllowed) => return Err(Local::NoEcho),
        Err(NoSocket::Failed(error)) => return judge(&error).map(Err),
    };
    match until(patience, &echo, || echo.is_answered()).await {
        Ok(true) => {}
        Ok(false) => return Ok(Err(Reason::EchoTimeout)),
        Err(error) => return told(&error),
    }
    drop(echo);
    let socket = match send(address, source) {
        Ok(socket) => socket,
        Err(error) => return judge(&error).map(Err),
    };
    match until(patience, &socket, || has_come(&socket)).await {
        Ok(_) => Ok(Ok(())),
        Err(error) => told(&error),
    }
}

/// What the network says of what was sent.
fn told(error: &io::Error) -> Outcome {
    // "Prohibited" of ICMPv6, which is no word of this host's here (RFC 4443, 3.1).
    if error.raw_os_error() == Some(EACCES) {
        return Ok(Err(Reason::Prohibited));
    }
    judge(error).map(|reason| match reason {
        Reason::ConnectRefused => Err(Reason::PortUnreachable),
        reason => Err(reason),
    })
}

fn send(to: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(source::own(source, to.ip()))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    socket.send(DATAGRAM)?;
    Ok(socket)
}

/// Has any answer come?
fn has_come(socket: &UdpSocket) -> io::Result<bool> {
    match socket.recv(&mut [0; 1]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks whenever something comes, until `patience` is over; false when nothing was it.
async fn until(
    patience: &mut Patience,
    socket: &impl AsFd,
    look: impl Fn() -> io::Result<bool>,
) -> io::Result<bool> {
    let found = async {
        loop {
            if look()? {
                return Ok(true);
            }
            rt::readable(socket.as_fd()).await?;
        }
    };
    patience.wait(found).await.unwrap_or(Ok(false))
}
