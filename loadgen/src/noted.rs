//! Pure: what the fields of an answer tell a judge besides its framing: which member answered, what
//! the balancer measured (Server-Timing), which cookies were set. Filled by `response`, read by
//! `client`.

use std::fmt;
use std::time::Duration;

/// Bytes of a member's name that are kept.
const NAME: usize = 30;

/// The name of a member, cut to 30 bytes; empty when nobody told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; NAME],
}

impl Name {
    /// The beginning of `text`.
    pub fn new(text: &[u8]) -> Name {
        let text = &text[..text.len().min(NAME)];
        let mut bytes = [0; NAME];
        bytes[..text.len()].copy_from_slice(text);
        Name { length: text.len() as u8, bytes }
    }

    /// Nobody told.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]))
    }
}

/// What the balancer says it took (W3C Server Timing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTiming {
    /// `connect`: until there was a connection to the member.
    pub connect: Option<Duration>,
    /// `header`: until the head of the member's answer was there.
    pub header: Option<Duration>,
}

/// Told by the fields of one answer. One per connection.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Name of the field that tells the member; empty = none.
    pub(crate) member_field: Box<str>,
    /// Whether cookies are kept.
    pub(crate) wants_cookies: bool,
    pub(crate) member: Name,
    pub(crate) timing: ServerTiming,
    /// `name=value` of each Set-Cookie, separated by line ends.
    pub(crate) cookies: Vec<u8>,
}

impl Noted {
    /// Reads the fields of a head.
    pub(crate) fn read(&mut self, fields: &[httparse::Header<'_>]) {
        self.clear();
        fields.iter().for_each(|field| self.field(field.name.as_bytes(), field.value));
    }

    /// Prepares for the fields of another answer.
    pub(crate) fn clear(&mut self) {
        self.member = Name::default();
        self.timing = ServerTiming::default();
        self.cookies.clear();
    }

    /// Reads one field.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let member = self.member_field.as_bytes();
        if name.len() == member.len() && name.eq_ignore_ascii_case(member) {
            self.member = Name::new(value);
        } else if name.len() == 13 && name.eq_ignore_ascii_case(b"server-timing") {
            self.timing.read(value);
        } else if self.wants_cookies && name.eq_ignore_ascii_case(b"set-cookie") {
            let pair = value.split(|&b| b == b';').next().unwrap_or_default();
            self.cookies.extend_from_slice(pair.trim_ascii());
            self.cookies.push(b'\n');
        }
    }
}

impl ServerTiming {
    fn read(&mut self, value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        for metric in value.split(',') {
            let mut parts = metric.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let took = parts.find_map(|part| part.strip_prefix("dur="));
            let took = took.and_then(|took| took.parse::<f64>().ok());
            let took = took.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
            match name {
                "connect" => self.connect = took,
                "header" => self.header = took,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(fields: &[(&str, &str)]) -> Noted {
        let mut noted =
            Noted { member_field: "X-Origin".into(), wants_cookies: true, ..Noted::default() };
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| httparse::Header { name, value: value.as_bytes() })
            .collect();
        noted.read(&fields);
        noted
    }

    #[test]
    fn what_fields_tell() {
        let noted = noted(&[
            ("x-origin", "a"),
            ("Server-Timing", "connect;dur=0.412, header;desc=x;dur=12.080, odd"),
            ("Set-Cookie", "k=v; Path=/; HttpOnly"),
            ("Set-Cookie", "l=w"),
        ]);
        assert_eq!(noted.member.to_string(), "a");
        assert_eq!(noted.timing.connect, Some(Duration::from_micros(412)));
        assert_eq!(noted.timing.header, Some(Duration::from_micros(12_080)));
        assert_eq!(noted.cookies, b"k=v\nl=w\n");
    }

    #[test]
    fn odd_values_are_no_trap() {
        let long = "n".repeat(500);
        let noted =
            noted(&[("X-Origin", &long), ("Server-Timing", "connect;dur=-1, header;dur=x")]);
        assert_eq!(noted.member.to_string().len(), NAME);
        assert_eq!(noted.timing, ServerTiming::default());
        assert!(Name::default().is_empty());
    }
}
