//! Pure: the calendar time as text, made once a second, and durations in decimal seconds.

use std::time::Duration;

use crate::message::{DAY, append_decimal, calendar, put_digits};

/// The length of `2026-11-25T22:54:11+00:00`.
const LENGTH: usize = 25;

/// A second in ISO 8601, UTC. Kept, since most lines fall into the same second as the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    second: u64,
    text: [u8; LENGTH],
}

impl Default for Stamp {
    fn default() -> Self {
        Stamp { second: 0, text: *b"1970-01-01T00:00:00+00:00" }
    }
}

impl Stamp {
    /// The text for a time since 1970.
    pub(crate) fn at(&mut self, wall: Duration) -> &[u8] {
        let second = wall.as_secs();
        if second != self.second {
            self.second = second;
            self.make();
        }
        &self.text
    }

    fn make(&mut self) {
        let (days, left) = (self.second / DAY, self.second % DAY);
        let (year, month, day) = calendar(days);
        let mut put = |at, digits, number| put_digits(&mut self.text, at, digits, number);
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, left / 3_600);
        put(14, 2, left / 60 % 60);
        put(17, 2, left % 60);
    }
}

/// Appends seconds with `digits` decimals (3 or 6), cut off, not rounded.
pub(super) fn append_seconds(out: &mut Vec<u8>, time: Duration, digits: usize) {
    append_decimal(out, time.as_secs());
    out.push(b'.');
    let mut rest = time.subsec_micros();
    let mut unit = 100_000;
    for _ in 0..digits {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        unit = (unit / 10).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(second: u64) -> String {
        let mut stamp = Stamp::default();
        String::from_utf8(stamp.at(Duration::from_secs(second)).to_vec()).unwrap()
    }

    #[test]
    fn seconds_as_dates() {
        for (second, expected) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (951_782_399, "2000-02-28T23:59:59+00:00"),
            (951_782_400, "2000-02-29T00:00:00+00:00"),
            (951_868_800, "2000-03-01T00:00:00+00:00"),
            (1_709_164_800, "2024-02-29T00:00:00+00:00"),
            (1_764_111_251, "2025-11-25T22:54:11+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00+00:00"),
            (253_402_300_799, "9999-12-31T23:59:59+00:00"),
        ] {
            assert_eq!(text(second), expected);
        }
    }

    #[test]
    fn a_stamp_follows_the_time() {
        let mut stamp = Stamp::default();
        assert_eq!(stamp.at(Duration::from_secs(60)), b"1970-01-01T00:01:00+00:00");
        assert_eq!(stamp.at(Duration::from_millis(60_999)), b"1970-01-01T00:01:00+00:00");
        assert_eq!(stamp.at(Duration::from_secs(61)), b"1970-01-01T00:01:01+00:00");
    }

    #[test]
    fn decimals() {
        let mut out = Vec::new();
        append_seconds(&mut out, Duration::from_micros(1_234_567), 3);
        out.push(b' ');
        append_seconds(&mut out, Duration::from_micros(7), 6);
        out.push(b' ');
        append_seconds(&mut out, Duration::from_micros(999), 3);
        assert_eq!(out, b"1.234 0.000007 0.000");
    }
}
