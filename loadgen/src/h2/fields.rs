//! Pure: rules that hold for the header fields of requests and answers alike (RFC 9113, 8.2 and
//! 8.1.1). Used by `reply` and `asked`.

/// What is wrong with a field that isn't a pseudo-field.
pub(super) fn fault(name: &[u8]) -> Option<&'static str> {
    match name {
        _ if name.iter().any(u8::is_ascii_uppercase) || name.is_empty() => {
            Some("the name of a field with capital letters, or without any")
        }
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Some("a field about connections, which HTTP/2 forbids")
        }
        _ => None,
    }
}

/// What the Content-Length fields of a head say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Length(pub(super) Option<u64>);

impl Length {
    /// Takes one of them.
    pub(super) fn take(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let digits = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| digits);
        let length = text.and_then(|text| text.parse().ok());
        match (length, self.0) {
            (None, _) => Err("Content-Length is not a number"),
            (Some(new), Some(old)) if new != old => Err("two Content-Length fields that differ"),
            (length, _) => {
                self.0 = length;
                Ok(())
            }
        }
    }
}
