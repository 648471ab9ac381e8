//! Pure: the answer on one stream, judged (RFC 9113, 8.1 to 8.3): heads, the body's length,
//! trailers. Used by `session`.

use super::fields::{self, Length};

/// How far an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing came yet.
    #[default]
    Nothing,
    /// An interim answer (1xx) came.
    Interim,
    /// The final head came.
    Body,
}

/// An answer that is being received.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) stage: Stage,
    pub(super) status: u16,
    /// Content-Length.
    length: Option<u64>,
    /// Bytes of the body.
    got: u64,
    /// The request was HEAD.
    is_head: bool,
}

/// What one block of fields says.
#[derive(Debug, Default)]
pub(super) struct Fields {
    status: Option<u16>,
    length: Length,
    regular: bool,
    fault: Option<&'static str>,
}

impl Fields {
    /// Takes a field; true when it is one of a final head, worth telling.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8], is_trailer: bool) -> bool {
        if let Some(pseudo) = name.strip_prefix(b":") {
            match (pseudo, parse_status(value)) {
                (b"status", Some(status)) if !(is_trailer || self.regular) => {
                    if self.status.replace(status).is_some() {
                        self.fault = Some("two fields :status");
                    }
                }
                (b"status", None) => self.fault = Some("the status is not between 100 and 599"),
                _ => self.fault = Some("a pseudo-field where there must be none"),
            }
            return false;
        }
        self.regular = true;
        let wrong = match name {
            b"content-length" if !is_trailer => self.length.take(value).err(),
            _ => fields::fault(name),
        };
        self.fault = self.fault.or(wrong);
        !is_trailer && self.status.is_some_and(|status| status >= 200)
    }
}

fn parse_status(value: &[u8]) -> Option<u16> {
    let &[a, b, c] = value else { return None };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let status = digit(a)? * 100 + digit(b)? * 10 + digit(c)?;
    (100..600).contains(&status).then_some(status)
}

impl Reply {
    pub(super) fn new(is_head: bool) -> Reply {
        Reply { is_head, ..Reply::default() }
    }

    /// A block of fields is whole; true when it was the final head.
    pub(super) fn head(&mut self, fields: &Fields, end: bool) -> Result<bool, &'static str> {
        if let Some(fault) = fields.fault {
            return Err(fault);
        }
        if self.stage == Stage::Body {
            return if end { Ok(false) } else { Err("a second head after the final one") };
        }
        match fields.status {
            None => Err("a head without :status"),
            Some(101) => Err("101, which HTTP/2 does not know"),
            Some(100..=199) if end => Err("the answer ended with an interim head"),
            Some(100..=199) => {
                self.stage = Stage::Interim;
                Ok(false)
            }
            Some(status) => {
                (self.stage, self.status, self.length) = (Stage::Body, status, fields.length.0);
                Ok(true)
            }
        }
    }

    /// So many bytes of the body came.
    pub(super) fn data(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.got += bytes as u64;
        match self.stage {
            Stage::Body if self.length.is_some_and(|length| self.got > length) && !self.is_head => {
                Err("more bytes in the body than Content-Length says")
            }
            Stage::Body if self.is_head && bytes > 0 => Err("a body in the answer to HEAD"),
            Stage::Body => Ok(()),
            _ => Err("DATA before the answer's head"),
        }
    }

    /// The stream has ended.
    pub(super) fn end(&self) -> Result<(), &'static str> {
        let bodiless = self.is_head || matches!(self.status, 204 | 304);
        match self.length {
            _ if self.stage != Stage::Body => Err("the stream ended before the answer's head"),
            Some(length) if length != self.got && !bodiless => {
                Err("fewer bytes in the body than Content-Length says")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)], is_trailer: bool) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.take(name.as_bytes(), value.as_bytes(), is_trailer);
        }
        fields
    }

    fn head(pairs: &[(&str, &str)]) -> Result<bool, &'static str> {
        Reply::new(false).head(&fields(pairs, false), false)
    }

    #[test]
    fn heads() {
        assert_eq!(head(&[(":status", "200"), ("content-length", "3")]), Ok(true));
        assert_eq!(head(&[(":status", "103"), ("link", "x")]), Ok(false));
        for (pairs, part) in [
            (&[][..], "without :status"),
            (&[("a", "b"), (":status", "200")], "pseudo"),
            (&[(":status", "200"), (":status", "200")], "two fields :status"),
            (&[(":status", "20")], "between"),
            (&[(":path", "/")], "pseudo"),
            (&[(":status", "101")], "101"),
            (&[(":status", "200"), ("A", "b")], "capital"),
            (&[(":status", "200"), ("connection", "close")], "forbids"),
            (&[(":status", "200"), ("content-length", "+1")], "not a number"),
            (&[(":status", "200"), ("content-length", "1"), ("content-length", "2")], "differ"),
        ] {
            let why = head(pairs).unwrap_err();
            assert!(why.contains(part), "{pairs:?}: {why}");
        }
        let mut told = Fields::default();
        assert!(!told.take(b":status", b"103", false) && !told.take(b"a", b"b", false));
    }

    #[test]
    fn bodies() {
        let begun = |is_head: bool| {
            let mut reply = Reply::new(is_head);
            let fields = fields(&[(":status", "200"), ("content-length", "3")], false);
            assert_eq!(reply.head(&fields, false), Ok(true));
            reply
        };
        let mut good = begun(false);
        assert_eq!((good.data(2), good.data(1), good.end()), (Ok(()), Ok(()), Ok(())));
        assert_eq!(good.head(&fields(&[("x", "y")], true), true), Ok(false), "trailers");
        assert!(good.data(1).unwrap_err().contains("more bytes"));
        assert!(begun(false).end().unwrap_err().contains("fewer bytes"));
        assert_eq!(begun(true).end(), Ok(()));
        assert!(begun(true).data(1).unwrap_err().contains("HEAD"));
        assert!(begun(false).head(&fields(&[], true), false).unwrap_err().contains("second head"));
        assert!(begun(false).head(&fields(&[(":status", "200")], true), true).is_err());
        assert!(Reply::new(false).data(1).unwrap_err().contains("before"));
        assert!(Reply::new(false).end().unwrap_err().contains("before"));
    }
}
