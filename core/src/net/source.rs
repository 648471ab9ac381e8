//! Our own addresses towards members: which one the next connection uses, and what is done when one
//! has no port left. Owns the turns among several; who may use which addresses is the
//! configuration's business. Used by the data path of Layer 4 and 7, and by checks.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::SHORTAGE_LOG_MS;
use crate::rt::{self, ConnectOptions, Payload, Shortage, TcpStream, Unconnected};
use crate::time::clock::Mono;

/// The addresses that connections to one member may come from, on one shard. The turn is the
/// member's own: with one for all of them, members that are served in turn would see one address
/// each.
#[derive(Debug, Default)]
pub struct Sources {
    all: Arc<[IpAddr]>,
    /// Whose turn it is.
    turn: Cell<usize>,
}

impl Sources {
    /// These; none = the kernel chooses.
    #[must_use]
    pub fn new(all: Arc<[IpAddr]>) -> Sources {
        Sources { all, turn: Cell::new(0) }
    }

    /// Are they these?
    #[must_use]
    pub fn is(&self, all: &Arc<[IpAddr]>) -> bool {
        Arc::ptr_eq(&self.all, all) || self.all == *all
    }

    /// May this address of ours still be used?
    #[must_use]
    pub fn allows(&self, own: IpAddr) -> bool {
        self.all.is_empty() || self.all.contains(&own)
    }

    /// Those that reach `member`, beginning with the one whose turn it is; one `None` when the
    /// kernel is to choose.
    pub fn towards(&self, member: IpAddr) -> impl Iterator<Item = Option<IpAddr>> + use<> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        in_turn(&self.all, member, turn)
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all.is_empty() {
            return f.write_str("any address");
        }
        f.debug_list().entries(self.all.iter()).finish()
    }
}

/// What a socket towards `member` is bound to for an address and a port of the kernel's choice, or
/// for a port of `source`.
#[must_use]
pub fn own(source: Option<IpAddr>, member: IpAddr) -> SocketAddr {
    let any = || match member {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(source.unwrap_or_else(any), 0)
}

/// Those of `all` that reach `member`, beginning with number `turn`; one `None` when there are
/// none.
pub fn in_turn(
    all: &Arc<[IpAddr]>,
    member: IpAddr,
    turn: usize,
) -> impl Iterator<Item = Option<IpAddr>> + use<> {
    let all = Arc::clone(all);
    let fits = move |ip: &&IpAddr| ip.is_ipv6() == member.is_ipv6();
    let count = all.iter().filter(fits).count();
    (0..count.max(1)).map(move |step| {
        let at = turn.wrapping_add(step).checked_rem(count)?;
        all.iter().filter(fits).nth(at).copied()
    })
}

/// Connects to `member` from one of `sources`, from another one if that has no port left. What ran
/// out at last is logged, now and then.
///
/// # Errors
/// Those of [`TcpStream::connect`].
pub async fn connect(
    member: SocketAddr,
    sources: &Sources,
    options: ConnectOptions,
) -> io::Result<TcpStream> {
    let connected = connect_with(member, sources, options, None).await;
    connected.map_err(|unconnected| unconnected.error)
}

/// As [`connect`]; the connection begins with `first`.
///
/// # Errors
/// Those of [`TcpStream::connect_with`].
pub async fn connect_with(
    member: SocketAddr,
    sources: &Sources,
    mut options: ConnectOptions,
    mut first: Option<Payload>,
) -> Result<TcpStream, Unconnected> {
    let mut last = None;
    for source in sources.towards(member.ip()) {
        options.source = source.map(|ip| SocketAddr::new(ip, 0));
        match TcpStream::connect_with(member, &options, first.take()).await {
            Err(Unconnected { error, first: back })
                if Shortage::of(&error) == Some(Shortage::Ports) =>
            {
                (last, first) = (Some(error), back);
            }
            other => {
                note(member, other.as_ref().err().map(|unconnected| &unconnected.error));
                return other;
            }
        }
    }
    note(member, last.as_ref());
    let error = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(Unconnected { error, first })
}

/// Logs what this host lacked for a socket towards `member`, if it was that; each of the shortages
/// at most so often a shard.
pub fn note(member: SocketAddr, error: Option<&io::Error>) {
    thread_local! {
        static NOTED: [Cell<Option<Mono>>; 3] = const { [const { Cell::new(None) }; 3] };
    }
    let Some(shortage) = error.and_then(Shortage::of) else { return };
    let now = rt::now();
    let due = NOTED.with(|noted| {
        let pause = Duration::from_millis(SHORTAGE_LOG_MS);
        let is_due =
            |last: &&Cell<Option<Mono>>| last.get().is_none_or(|last| now.since(last) >= pause);
        noted.get(shortage as usize).filter(is_due).map(|last| last.set(Some(now)))
    });
    if due.is_some() {
        tracing::error!("cannot connect to member {member}, and maybe others: {shortage}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(all: &[&str]) -> Arc<[IpAddr]> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    /// R2.1-10: each of a family in turn, and nothing else.
    #[test]
    fn turns_go_round_within_a_family() {
        let sources = Sources::new(list(&["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3"]));
        let towards = |member: &str| -> Vec<String> {
            let all = sources.towards(member.parse().unwrap());
            all.map(|ip| ip.map_or("any".to_owned(), |ip| ip.to_string())).collect()
        };
        assert_eq!(towards("10.9.9.9"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(towards("10.9.9.9"), ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(towards("fd00::9"), ["fd00::1"]);
        assert_eq!(towards("10.9.9.9"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let none = Sources::default();
        assert_eq!(none.towards("fd00::9".parse().unwrap()).collect::<Vec<_>>(), [None]);
        assert!(none.allows("10.0.0.9".parse().unwrap()));
        assert!(!sources.allows("10.0.0.9".parse().unwrap()));
        assert!(sources.is(&list(&["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3"])));
    }
}
