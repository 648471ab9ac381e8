//! Pure: writing a block of fields: a head, or trailers. Handed by `h2::connection` to whoever has
//! the fields.

use super::hpack::Encoder;

/// Writes the fields of a block, those with a colon first. Their names may have capital letters.
/// That they have a place in HTTP/2 (RFC 9113, 8.2.2) is for the caller to see to.
#[derive(Debug)]
pub(crate) struct BlockWriter<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
    interim: bool,
}

impl<'a> BlockWriter<'a> {
    pub(super) fn new(encoder: &'a mut Encoder, out: &'a mut Vec<u8>) -> BlockWriter<'a> {
        encoder.begin(out);
        BlockWriter { encoder, out, interim: false }
    }

    /// The status of a response. One below 200 makes it an interim one.
    #[inline]
    pub(crate) fn status(&mut self, status: u16) {
        self.interim = status < 200;
        self.encoder.status(status, self.out);
    }

    /// A field.
    #[inline]
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.encoder.field(name, value, self.out);
    }

    pub(super) fn is_interim(&self) -> bool {
        self.interim
    }
}
