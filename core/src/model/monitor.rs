//! `healthmonitor`: how the members of a pool are checked.

use std::time::Duration;

/// How the members of a pool are checked (R8.9-3 for the numbers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The kind of probe.
    pub kind: MonitorKind,
    /// Between the starts of two probes of a member: 1–50 s (default 5 s).
    pub delay: Duration,
    /// Until a probe without an answer has failed: 1–50 s (default 3 s; UDP 10 s).
    pub timeout: Duration,
    /// Successes in a row that bring a member up: 1–10 (default 3, R8.7-1).
    pub rise: u8,
    /// Failures in a row that take it down: 1–10 (default: as many as `rise`).
    pub fall: u8,
    /// Port of the probe; `None` = the member's own (R8.1-13).
    pub port: Option<u16>,
}

/// The kind of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorKind {
    /// A connection is opened and reset.
    Tcp,
    /// ICMP echo, then a datagram (R8.4-1).
    UdpConnect,
    /// A request in clear text.
    Http {
        /// Its method (R8.1-21).
        method: MonitorMethod,
        /// Absolute path, with a query where there is one (R8.1-15).
        path: String,
        /// Host; empty = the member's address with its port (R8.1-11).
        host: String,
        /// Answers that count as success.
        codes: Codes,
    },
    /// The same inside TLS.
    Https {
        /// Its method.
        method: MonitorMethod,
        /// Absolute path.
        path: String,
        /// Host and server name; empty = the member's address.
        host: String,
        /// Answers that count as success.
        codes: Codes,
    },
    /// grpc.health.v1.
    Grpc {
        /// Service name; empty = the server as a whole.
        path: String,
        /// Host.
        host: String,
        /// gRPC status codes that count as success.
        codes: Codes,
    },
}

/// Method of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitorMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
    /// POST without a body.
    Post,
}

/// A set of status codes, as ranges; never empty, ascending, none overlapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes(Vec<(u16, u16)>);

impl Codes {
    /// The set of all codes in `ranges` (both ends included); `None` when there are none or a
    /// range ends before it begins.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = (u16, u16)>) -> Option<Codes> {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        if ranges.is_empty() || ranges.iter().any(|(low, high)| low > high) {
            return None;
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Some(Codes(merged))
    }

    /// One code alone.
    #[must_use]
    pub fn one(code: u16) -> Codes {
        Codes(vec![(code, code)])
    }

    /// Does this code count as success?
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&code))
    }
}

impl std::fmt::Display for Codes {
    /// As in a file: `200`, `200,202,401`, `200-204`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, &(low, high)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match high - low {
                0 => write!(f, "{comma}{low}")?,
                _ => write!(f, "{comma}{low}-{high}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Codes;

    /// R8.2-23: a list of codes.
    #[test]
    fn codes_are_merged_and_printed() {
        let codes = Codes::new([(401, 401), (200, 200), (202, 204), (203, 206)]).unwrap();
        assert_eq!(codes.to_string(), "200,202-206,401");
        assert!(codes.contains(200) && codes.contains(205) && codes.contains(401));
        assert!(!codes.contains(201) && !codes.contains(302));
        assert_eq!(Codes::new([(204, 200)]), None);
        assert_eq!(Codes::new([]), None);
        assert_eq!(Codes::one(200).to_string(), "200");
    }
}
