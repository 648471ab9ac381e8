//! Pure: the calendar, and the form in which Date tells a second (RFC 9110, 5.6.7).

use std::time::Duration;

/// Seconds of a day.
pub(crate) const DAY: u64 = 86_400;
/// The length of `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;
const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A second as Date has it. Kept, since most answers fall into the same second as the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpDate {
    second: u64,
    text: [u8; LENGTH],
}

impl Default for HttpDate {
    fn default() -> Self {
        HttpDate { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl HttpDate {
    /// The text for a time since 1970.
    pub(crate) fn at(&mut self, wall: Duration) -> &[u8] {
        if wall.as_secs() != self.second {
            self.second = wall.as_secs();
            self.make();
        }
        &self.text
    }

    fn make(&mut self) {
        let (days, left) = (self.second / DAY, self.second % DAY);
        let (year, month, day) = calendar(days);
        let name = |names: &[&'static [u8; 3]], at: u64| names.get(at as usize).copied();
        self.put(0, name(&WEEKDAYS, days % 7).unwrap_or(b"Thu"));
        put_digits(&mut self.text, 5, 2, day);
        self.put(8, name(&MONTHS, month.saturating_sub(1)).unwrap_or(b"Jan"));
        put_digits(&mut self.text, 12, 4, year);
        put_digits(&mut self.text, 17, 2, left / 3_600);
        put_digits(&mut self.text, 20, 2, left / 60 % 60);
        put_digits(&mut self.text, 23, 2, left % 60);
    }

    fn put(&mut self, at: usize, name: &[u8; 3]) {
        if let Some(place) = self.text.get_mut(at..at + name.len()) {
            place.copy_from_slice(name);
        }
    }
}

/// Writes the last `digits` digits of `number` at `at`.
pub(crate) fn put_digits(text: &mut [u8], at: usize, digits: usize, mut number: u64) {
    for place in (at..at + digits).rev() {
        if let Some(digit) = text.get_mut(place) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
    }
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar. Counts in eras of
/// 400 years that begin on 1 March, so that the leap day is a year's last.
pub(crate) fn calendar(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    // From 1 March of year 0 to 1970.
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (month_number, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month_number, day - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_as_dates() {
        let mut date = HttpDate::default();
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
            (1_795_652_377, "Thu, 26 Nov 2026 00:19:37 GMT"),
        ] {
            assert_eq!(date.at(Duration::from_secs(second)), text.as_bytes());
        }
    }
}
