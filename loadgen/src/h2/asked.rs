//! Pure: the request on one stream, judged (RFC 9113, 8.1 and 8.3): its head, the body's length,
//! trailers. Used by `service`.

use super::fields::{self, Length};

/// A request that is being received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// The method is HEAD.
    pub(super) is_head: bool,
    length: Option<u64>,
    /// Bytes of the body.
    got: u64,
    /// Its head is read: a second one is trailers.
    begun: bool,
}

/// What one block of fields says.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<bool>,
    scheme: bool,
    path: bool,
    authority: bool,
    connect: bool,
    length: Length,
    regular: bool,
    fault: Option<&'static str>,
}

impl Fields {
    /// Takes a field.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8], is_trailer: bool) {
        let Some(pseudo) = name.strip_prefix(b":") else {
            self.regular = true;
            let wrong = match name {
                b"content-length" if !is_trailer => self.length.take(value).err(),
                b"te" if value != b"trailers" => Some("TE that says more than trailers"),
                _ => fields::fault(name),
            };
            self.fault = self.fault.or(wrong);
            return;
        };
        let twice = match pseudo {
            _ if self.regular || is_trailer => true,
            b"method" => {
                self.connect = value == b"CONNECT";
                self.method.replace(value == b"HEAD").is_some()
            }
            b"scheme" => std::mem::replace(&mut self.scheme, true),
            b"authority" => std::mem::replace(&mut self.authority, true),
            b"path" => std::mem::replace(&mut self.path, true) || value.is_empty(),
            _ => true,
        };
        if twice {
            self.fault = Some("a pseudo-field where there must be none");
        }
    }
}

impl Asked {
    /// A block of fields is whole.
    pub(super) fn head(&mut self, fields: &Fields, end: bool) -> Result<(), &'static str> {
        if let Some(fault) = fields.fault {
            return Err(fault);
        }
        if self.begun {
            return if end { Ok(()) } else { Err("trailers that do not end the request") };
        }
        match fields.method {
            None => Err("a request without :method"),
            Some(_) if fields.connect => Err("CONNECT, which is not served here"),
            Some(_) if !(fields.scheme && fields.path) => Err("a request without scheme or path"),
            Some(is_head) => {
                (self.is_head, self.length, self.begun) = (is_head, fields.length.0, true);
                Ok(())
            }
        }
    }

    /// A block that comes now is trailers.
    pub(super) fn has_head(&self) -> bool {
        self.begun
    }

    /// So many bytes of the body came.
    pub(super) fn data(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.got += bytes as u64;
        match self.length.is_some_and(|length| self.got > length) {
            true => Err("more bytes in the body than Content-Length says"),
            false => Ok(()),
        }
    }

    /// The client has said all.
    pub(super) fn end(&self) -> Result<(), &'static str> {
        match self.length.is_some_and(|length| self.got < length) {
            true => Err("fewer bytes in the body than Content-Length says"),
            false => Ok(()),
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

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];

    #[test]
    fn heads() {
        let head = |more: &[(&str, &str)]| {
            let all = [&GET[..], more].concat();
            Asked::default().head(&fields(&all, false), true)
        };
        assert_eq!(head(&[(":authority", "a"), ("te", "trailers"), ("a", "b")]), Ok(()));
        for (more, part) in [
            (&[("a", "b"), (":authority", "x")][..], "pseudo"),
            (&[(":path", "/")], "pseudo"),
            (&[(":status", "200")], "pseudo"),
            (&[("A", "b")], "capital"),
            (&[("connection", "close")], "forbids"),
            (&[("te", "gzip")], "trailers"),
            (&[("content-length", "x")], "not a number"),
        ] {
            let why = head(more).unwrap_err();
            assert!(why.contains(part), "{more:?}: {why}");
        }
        for (pairs, part) in [
            (&GET[1..], "without :method"),
            (&GET[..2], "scheme or path"),
            (&[(":method", "CONNECT"), (":authority", "x")], "CONNECT"),
        ] {
            let why = Asked::default().head(&fields(pairs, false), true).unwrap_err();
            assert!(why.contains(part), "{pairs:?}: {why}");
        }
    }

    #[test]
    fn bodies() {
        let mut asked = Asked::default();
        let head = [&GET[..], &[("content-length", "3")]].concat();
        assert_eq!(asked.head(&fields(&head, false), false), Ok(()));
        assert!(asked.has_head() && !asked.is_head);
        assert!(asked.end().unwrap_err().contains("fewer"));
        assert_eq!((asked.data(3), asked.end()), (Ok(()), Ok(())));
        assert_eq!(asked.head(&fields(&[("x", "y")], true), true), Ok(()), "trailers");
        assert!(asked.head(&fields(&[("x", "y")], true), false).is_err());
        assert!(asked.head(&fields(&[(":path", "/")], true), true).is_err());
        assert!(asked.data(1).unwrap_err().contains("more"));
    }
}
