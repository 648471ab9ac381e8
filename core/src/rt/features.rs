//! Which optional features of the ring are in use. Owns the list and the environment variable that
//! switches each off; `probe` and `ring` read it.

use std::fmt;

/// Environment variable with a comma-separated list of features to do without, or `all`.
pub const OFF_VARIABLE: &str = "WEIR_RING_OFF";

/// Kernels before have not been seen to tell how much of a cut send they took.
const QUIET_SENDS_FLOOR: (u32, u32) = (6, 12);

/// Optional ring features; each has a slower way around that the test suite runs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// One accept submission serves many connections (else one submission each).
    pub multishot_accept: bool,
    /// One receive submission serves many arrivals (else one submission each).
    pub multishot_recv: bool,
    /// Completions wait until the shard asks (else they interrupt it).
    pub defer_taskrun: bool,
    /// Cancels and closes that succeed post no completion.
    pub cqe_skip: bool,
    /// A receive on a socket known to be empty waits at once instead of trying first.
    pub poll_first: bool,
    /// Bodies are received into large leases (else into small ones only).
    pub large_leases: bool,
    /// The kernel continues short sends by itself (else the shard does).
    pub send_waitall: bool,
    /// Sends that the kernel takes at once, nearly all, post no completion; so that they don't end
    /// a shard's sleep. Needs `cqe_skip`, `send_waitall` and Linux 6.12.
    pub quiet_sends: bool,
    /// Bulk data goes from socket to socket through pipes (else through large leases).
    pub splice: bool,
    /// What a connection is to begin with is sent by the submission that connects it (else by one
    /// of its own).
    pub linked_sends: bool,
}

impl Features {
    /// Everything on.
    pub const ALL: Features = Features {
        multishot_accept: true,
        multishot_recv: true,
        defer_taskrun: true,
        cqe_skip: true,
        poll_first: true,
        large_leases: true,
        send_waitall: true,
        quiet_sends: true,
        splice: true,
        linked_sends: true,
    };

    /// Everything off.
    pub const NONE: Features = Features {
        multishot_accept: false,
        multishot_recv: false,
        defer_taskrun: false,
        cqe_skip: false,
        poll_first: false,
        large_leases: false,
        send_waitall: false,
        quiet_sends: false,
        splice: false,
        linked_sends: false,
    };

    /// The features left on by [`OFF_VARIABLE`].
    ///
    /// # Errors
    /// Names an unknown feature together with those that exist.
    pub fn from_environment() -> Result<Features, String> {
        Self::without(&std::env::var(OFF_VARIABLE).unwrap_or_default())
    }

    /// These features, less what the kernel, of version `kernel`, cannot do.
    pub(super) fn on_kernel(mut self, kernel: Option<(u32, u32)>) -> Features {
        let new = kernel.is_some_and(|version| version >= QUIET_SENDS_FLOOR);
        self.quiet_sends &= new && self.cqe_skip && self.send_waitall;
        self
    }

    /// All features but those of the comma-separated list `off`.
    ///
    /// # Errors
    /// As [`Features::from_environment`].
    pub fn without(off: &str) -> Result<Features, String> {
        let mut features = Features::ALL;
        for name in off.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "all" {
                features = Features::NONE;
                continue;
            }
            let known = features.fields().map(|(known, _)| known).join(", ");
            match features.fields_mut().into_iter().find(|(known, _)| *known == name) {
                Some((_, flag)) => *flag = false,
                None => {
                    return Err(format!(
                        "{OFF_VARIABLE} names the unknown ring feature `{name}`; \
                         there are: all, {known}"
                    ));
                }
            }
        }
        Ok(features)
    }

    fn fields(&self) -> [(&'static str, bool); 10] {
        let mut copy = *self;
        copy.fields_mut().map(|(name, flag)| (name, *flag))
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut bool); 10] {
        [
            ("multishot_accept", &mut self.multishot_accept),
            ("multishot_recv", &mut self.multishot_recv),
            ("defer_taskrun", &mut self.defer_taskrun),
            ("cqe_skip", &mut self.cqe_skip),
            ("poll_first", &mut self.poll_first),
            ("large_leases", &mut self.large_leases),
            ("send_waitall", &mut self.send_waitall),
            ("quiet_sends", &mut self.quiet_sends),
            ("splice", &mut self.splice),
            ("linked_sends", &mut self.linked_sends),
        ]
    }
}

impl fmt::Display for Features {
    /// `multishot_accept multishot_recv …`, a switched-off one with a minus in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, on)) in self.fields().into_iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            let sign = if on { "" } else { "-" };
            write!(f, "{gap}{sign}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_switched_off_by_name() {
        let features = Features::without("multishot_recv, cqe_skip").unwrap();
        let expected = Features { multishot_recv: false, cqe_skip: false, ..Features::ALL };
        assert_eq!(features, expected);
        assert_eq!(Features::without("all"), Ok(Features::NONE));
        assert_eq!(Features::without(""), Ok(Features::ALL));
    }

    #[test]
    fn an_unknown_feature_is_named_with_the_known_ones() {
        let error = Features::without("warp").unwrap_err();
        assert!(error.contains("`warp`") && error.contains("multishot_accept"), "{error}");
    }
}
