//! Pure: the chunked coding (RFC 9112 section 7.1), read to be thrown away. Strict: only CRLF
//! ends a line, a size has one to sixteen hexadecimal digits. Used by `response` and `request`.

use crate::limits::MAX_CHUNK_LINE;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Size,
    /// After at least one digit.
    Digits,
    /// In the extension, up to CR.
    Extension,
    /// CR of a size line seen.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// CR of the last empty line seen.
    EndLf,
    Done,
}

/// Follows one chunked body. One per message.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes of the present chunk that are still to come; while in `Digits`, the size so far.
    left: u64,
    /// Bytes of the present line or of all trailers.
    line: usize,
}

impl ChunkDecoder {
    /// True once the last empty line was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes; answers how many belong to the body (all of them, unless it ended).
    ///
    /// # Errors
    /// What is wrong with the coding.
    pub fn feed(&mut self, data: &[u8]) -> Result<usize, &'static str> {
        self.feed_to(data, |_| {})
    }

    /// The same; `sink` is shown the body's own bytes.
    ///
    /// # Errors
    /// As [`ChunkDecoder::feed`].
    pub fn feed_to(
        &mut self,
        data: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < data.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len() - at);
                sink(&data[at..at + take]);
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(data[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        self.count()?;
        match (self.state, byte) {
            (State::Size | State::Digits, b) if b.is_ascii_hexdigit() => self.digit(b),
            (State::Digits, b'\r') | (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Digits, b';' | b' ' | b'\t') => Ok(State::Extension),
            (State::Extension, b'\n') => Err("a chunk-size line ends without CR"),
            (State::Extension, _) => Ok(State::Extension),
            (State::SizeLf, b'\n') => {
                self.line = 0;
                Ok(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::Trailer, b'\n') => Err("a trailer ends without CR"),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerStart | State::Trailer, _) => Ok(State::Trailer),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::Size | State::Digits, _) => Err("a chunk size is not hexadecimal"),
            (State::DataCr | State::DataLf, _) => Err("a chunk is longer than its size"),
            _ => Err("CR without LF in the chunked coding"),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, &'static str> {
        let value = char::from(byte).to_digit(16).unwrap_or(0);
        if self.left >> 60 != 0 {
            return Err("a chunk size is too large");
        }
        self.left = self.left << 4 | u64::from(value);
        // Leading zeros don't change the size, so the digits are bounded by the line's length.
        Ok(State::Digits)
    }

    fn count(&mut self) -> Result<(), &'static str> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE {
            return Err("a chunk-size line or the trailer is too long");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(data: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut decoder = ChunkDecoder::default();
        let used = decoder.feed(data)?;
        Ok((used, decoder.is_done()))
    }

    #[test]
    fn good_bodies() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\r\nhello\r\n0 \r\n\r\n",
            b"A\r\n0123456789\r\n00\r\nX: y\r\nZ: w\r\n\r\n",
        ] {
            assert_eq!(all(body), Ok((body.len(), true)));
            let mut more = body.to_vec();
            more.extend_from_slice(b"HTTP/1.1");
            assert_eq!(all(&more), Ok((body.len(), true)), "what follows is not ours");
        }
    }

    #[test]
    fn bad_bodies() {
        for body in [
            &b"\r\n"[..],
            b"x\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\rX",
            b"5 \n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n\rX",
            b"11111111111111111\r\n",
            b"-1\r\n",
            b" 5\r\n",
        ] {
            assert!(all(body).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
        assert!(all(&[b'0'; MAX_CHUNK_LINE + 1]).is_err());
    }

    #[test]
    fn a_body_that_stops_early_is_not_done() {
        let body = b"5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..body.len() {
            assert_eq!(all(&body[..cut]), Ok((cut, false)));
        }
    }
}
