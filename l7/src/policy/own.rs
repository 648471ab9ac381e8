//! Pure: the answers that policies ask for, as bytes. Nothing of a request gets into them but the
//! parts of a redirect's URL, which `weir_core::policy` has made safe.

use weir_core::policy::{AskedUrl, Fixed, Redirect, Unwritable};
use weir_core::rt::SendBuf;

use crate::error::Error;
use crate::message::{append_decimal, phrase};

/// An answer of Weir's own that is no error. Whether the connection goes on is said last, since it
/// is known last.
pub(crate) struct Own {
    /// Its status.
    pub(crate) status: u16,
    /// All of it, as on a connection that goes on.
    page: SendBuf,
    /// Where fields may be put in.
    fields_end: usize,
}

impl Own {
    /// A fixed answer. For HEAD: the head of what GET would get.
    pub(crate) fn fixed(fixed: &Fixed, to_head: bool) -> Own {
        let mut page = begin(fixed.status);
        // 204 says by itself that there is nothing, and must not say it twice (RFC 9110, 8.6).
        if fixed.status != 204 {
            if fixed.status != 205 {
                append_field(&mut page, b"Content-Type: ", fixed.content_type.as_bytes());
            }
            append_length(&mut page, fixed.body.len());
        }
        Own::end(fixed.status, page, if to_head { b"" } else { &fixed.body })
    }

    /// A redirect.
    ///
    /// # Errors
    /// 400 when the URL needs a host and the request names none, 414 when it gets too long.
    pub(crate) fn redirect(redirect: &Redirect, asked: &AskedUrl<'_>) -> Result<Own, Error> {
        let mut page = begin(redirect.status);
        page.extend_from_slice(b"Location: ");
        redirect.write(&mut page, asked).map_err(|why| match why {
            Unwritable::NoHost => Error::Host,
            Unwritable::TooLong => Error::UriTooLong,
        })?;
        page.extend_from_slice(b"\r\n");
        append_length(&mut page, 0);
        Ok(Own::end(redirect.status, page, b""))
    }

    fn end(status: u16, mut page: SendBuf, body: &[u8]) -> Own {
        let fields_end = page.len();
        page.extend_from_slice(b"\r\n");
        page.extend_from_slice(body);
        Own { status, page, fields_end }
    }

    /// The bytes; `date` appends the field line of that name.
    pub(crate) fn finish(mut self, persistent: bool, date: impl FnOnce(&mut Vec<u8>)) -> SendBuf {
        let mut fields = Vec::new();
        date(&mut fields);
        if !persistent {
            fields.extend_from_slice(b"Connection: close\r\n");
        }
        drop(self.page.splice(self.fields_end..self.fields_end, fields));
        self.page
    }
}

fn begin(status: u16) -> SendBuf {
    let mut page = SendBuf::new();
    page.extend_from_slice(b"HTTP/1.1 ");
    append_decimal(&mut page, u64::from(status));
    append_field(&mut page, b" ", phrase(status).as_bytes());
    page
}

fn append_field(page: &mut SendBuf, name: &[u8], value: &[u8]) {
    page.extend_from_slice(name);
    page.extend_from_slice(value);
    page.extend_from_slice(b"\r\n");
}

fn append_length(page: &mut SendBuf, length: usize) {
    page.extend_from_slice(b"Content-Length: ");
    append_decimal(page, length as u64);
    page.extend_from_slice(b"\r\n");
}
