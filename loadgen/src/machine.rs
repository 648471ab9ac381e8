//! What the kernel of this host says about its own limits: client ports, TIME_WAIT, accept queues.
//! Keeps no state. Called by `engine`, put into words by `report`.

use std::fs;

use serde::{Deserialize, Serialize};

/// Counts of this host (this network namespace) at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    time_wait: u64,
    overflows: u64,
    drops: u64,
    syn_retransmits: u64,
}

impl Reading {
    pub(crate) fn take() -> Reading {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let netstat = read("/proc/net/netstat");
        Reading {
            time_wait: time_wait(&read("/proc/net/sockstat")).unwrap_or(0),
            overflows: extended(&netstat, "ListenOverflows").unwrap_or(0),
            drops: extended(&netstat, "ListenDrops").unwrap_or(0),
            syn_retransmits: extended(&netstat, "TCPSynRetrans").unwrap_or(0),
        }
    }
}

/// Limits of this host that load can run into (R4.5-3, R4.5-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Sockets in TIME_WAIT before the run.
    pub time_wait_before: u64,
    /// The same after it.
    pub time_wait: u64,
    /// First and last client port (net.ipv4.ip_local_port_range).
    pub ports: (u16, u16),
    /// Connects that found no free port (EADDRNOTAVAIL).
    pub out_of_ports: u64,
    /// Connects that found no free descriptor (EMFILE, ENFILE).
    pub out_of_files: u64,
    /// Connections that a listener of this host had no room for (ListenOverflows) during the run.
    pub listen_overflows: u64,
    /// All SYNs that its listeners dropped (ListenDrops) during the run.
    pub listen_drops: u64,
    /// SYNs of connections that loadgen has opened which were sent again (TCP_INFO, of connects
    /// that took 0.9 s or longer). Of connections that were given up nobody can be asked.
    #[serde(default)]
    pub own_syn_retransmits: u64,
    /// SYNs and SYN-ACKs that this host (this network namespace) sent again during the run, of all
    /// programs (TCPSynRetrans).
    #[serde(default)]
    pub syn_retransmits: u64,
    /// Upper bound of accept queues (net.core.somaxconn).
    pub somaxconn: u64,
}

impl Limits {
    pub(crate) fn between(before: Reading, after: Reading) -> Limits {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let range = read("/proc/sys/net/ipv4/ip_local_port_range");
        let mut range = range.split_whitespace().filter_map(|word| word.parse().ok());
        Limits {
            time_wait_before: before.time_wait,
            time_wait: after.time_wait,
            ports: (range.next().unwrap_or(0), range.next().unwrap_or(0)),
            out_of_ports: 0,
            out_of_files: 0,
            own_syn_retransmits: 0,
            listen_overflows: after.overflows.saturating_sub(before.overflows),
            listen_drops: after.drops.saturating_sub(before.drops),
            syn_retransmits: after.syn_retransmits.saturating_sub(before.syn_retransmits),
            somaxconn: read("/proc/sys/net/core/somaxconn").trim().parse().unwrap_or(0),
        }
    }

    /// What was run into, each with its cure.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let (first, last) = self.ports;
        if self.out_of_ports > 0 {
            notes.push(format!(
                "client ports ran out {} times (EADDRNOTAVAIL): {} sockets are in TIME_WAIT and \
                 net.ipv4.ip_local_port_range has {} ports for each of our addresses; give more \
                 addresses by --source, widen the range, or keep connections alive",
                self.out_of_ports,
                self.time_wait,
                u32::from(last).saturating_sub(u32::from(first)) + 1,
            ));
        }
        if self.out_of_files > 0 {
            notes.push(format!(
                "no more open files were allowed, {} times (EMFILE): raise the limit (ulimit -n)",
                self.out_of_files
            ));
        }
        if self.listen_overflows > 0 || self.listen_drops > 0 {
            notes.push(format!(
                "a listener of this host had a full accept queue: ListenOverflows {}, ListenDrops \
                 {}; clients then wait a second or more for a connection. Raise its backlog (Weir: \
                 [runtime] backlog) and net.core.somaxconn (now {})",
                self.listen_overflows, self.listen_drops, self.somaxconn
            ));
        }
        let who = match self.listen_overflows + self.listen_drops {
            0 => "no listener of this host dropped one: look at packet filters and the target",
            _ => "listeners of this host dropped some, as said above",
        };
        match (self.own_syn_retransmits, self.syn_retransmits) {
            (0, 0) => {}
            (0, all) => notes.push(format!(
                "{all} SYNs or SYN-ACKs were sent again on this machine (TCPSynRetrans counts all \
                 programs), but none of a connection that loadgen has opened: they are other \
                 programs', or of connections that were given up"
            )),
            (own, all) => notes.push(format!(
                "{own} SYNs of loadgen's connections were sent again (TCP_INFO), because the first \
                 or its answer was dropped; each such connection took a second or more longer, \
                 which is in `connect`: {who} (this machine sent {all} again, by TCPSynRetrans, \
                 which counts all programs)"
            )),
        }
        notes
    }
}

/// `TCP: inuse 5 orphan 0 tw 12 alloc 7 mem 1`.
fn time_wait(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "tw").skip(1);
    words.next()?.parse().ok()
}

/// A value of the `TcpExt:` pair of lines: names, then numbers.
fn extended(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables() {
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 12 alloc 7 mem 1\nUDP: inuse 1\n";
        assert_eq!(time_wait(sockstat), Some(12));
        let netstat = "TcpExt: A ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: X\nIpExt: 4\n";
        assert_eq!(extended(netstat, "ListenDrops"), Some(3));
        assert_eq!(extended(netstat, "Nothing"), None);
        assert_eq!(time_wait(""), None);
        let here = Limits::between(Reading::take(), Reading::take());
        assert!(here.somaxconn > 0 && here.ports.0 < here.ports.1, "{here:?}");
    }

    /// R4.5-3, R4.5-4: what was run into is named with its cure.
    #[test]
    fn limits_have_cures() {
        let mut limits = Limits { ports: (1000, 1999), somaxconn: 128, ..Limits::default() };
        assert!(limits.notes().is_empty());
        (limits.out_of_ports, limits.time_wait) = (3, 990);
        (limits.listen_overflows, limits.out_of_files) = (5, 1);
        (limits.own_syn_retransmits, limits.syn_retransmits) = (7, 9);
        let notes = limits.notes().join("\n");
        for part in [
            "EADDRNOTAVAIL",
            "990 sockets are in TIME_WAIT",
            "1000 ports",
            "ListenOverflows 5",
            "somaxconn (now 128)",
            "ulimit",
            "7 SYNs of loadgen's",
            "sent 9 again",
            "dropped some",
        ] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
        let lost = Limits { own_syn_retransmits: 1, syn_retransmits: 1, ..Limits::default() };
        let lost = lost.notes().join("\n");
        assert!(lost.contains("packet filters"), "{lost}");
        // What other programs do is not told as ours.
        let others = Limits { syn_retransmits: 5, ..Limits::default() }.notes().join("\n");
        assert!(others.contains("none of a connection that loadgen has opened"), "{others}");
        assert!(!others.contains("took a second"), "{others}");
    }
}
