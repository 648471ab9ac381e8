//! Pure: takes a body out of its framing. One state machine for all framings; fed with whatever
//! pieces arrive, it finds the data in them and the body's end, and refuses malformed chunks and
//! chunks beyond a limit. Trailers are checked and pointed out.

use weir_core::limits::MAX_CHUNK_LINE;

use super::Framing;
use crate::limits::{MAX_CHUNK_DIGITS, MAX_TRAILER_BYTES};

/// Why a body can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// Malformed chunk framing.
    Malformed,
    /// A chunk goes beyond the most that the body may have.
    TooLarge,
}

/// One step through the input: framing to skip, then data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes of framing at the start of the input.
    pub(crate) skip: usize,
    /// Bytes of data behind them. Zero: the input is used up, or the body has ended.
    pub(crate) data: usize,
    /// How many of the skipped bytes, the last of them, are of the trailer section: field lines,
    /// and at its end an empty one.
    pub(crate) trailer: usize,
}

/// Finds the data of one body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes of the present chunk-size line or trailer section.
    line: u32,
    /// Bytes that what is to come may have.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    End,
    UntilClose,
    Length(u64),
    Size {
        value: u64,
        digits: u8,
    },
    /// Space behind a size; only an extension may follow.
    SizeSpace {
        value: u64,
    },
    Extension {
        value: u64,
        quoted: bool,
        /// Behind a backslash within quotes.
        escaped: bool,
    },
    SizeFeed {
        value: u64,
    },
    Data(u64),
    DataReturn,
    DataFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    EndFeed,
}

impl Decoder {
    /// A decoder at the start of a body that may have `most` bytes of data (`u64::MAX` = no limit;
    /// a length is for whoever read it to judge).
    pub(crate) fn new(framing: Framing, most: u64) -> Decoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, line: 0, left: most }
    }

    /// The whole body has been seen.
    #[inline]
    pub(crate) fn ended(&self) -> bool {
        self.state == State::End
    }

    /// The end of the stream is this body's end.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The head told how long it is.
    pub(crate) fn has_length(&self) -> bool {
        matches!(self.state, State::Length(_))
    }

    /// Bytes still to come, as far as the head told.
    pub(crate) fn expected(&self) -> u64 {
        match self.state {
            State::Length(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// So many bytes of a body with a length went another way.
    pub(crate) fn pass(&mut self, bytes: u64) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(bytes);
            self.state = if left == 0 { State::End } else { State::Length(left) };
        }
    }

    /// Takes the next step through `input`, which begins where the step before ended. After the
    /// end it takes nothing.
    #[inline]
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, BadBody> {
        match self.state {
            State::End => Ok(Step::default()),
            State::UntilClose => {
                let left = self.left.checked_sub(input.len() as u64);
                self.left = left.ok_or(BadBody::TooLarge)?;
                Ok(Step { data: input.len(), ..Step::default() })
            }
            State::Length(left) => {
                let data = at_most(left, input.len());
                let left = left - data as u64;
                self.state = if left == 0 { State::End } else { State::Length(left) };
                Ok(Step { data, ..Step::default() })
            }
            _ => self.step_chunked(input),
        }
    }

    fn step_chunked(&mut self, input: &[u8]) -> Result<Step, BadBody> {
        let mut trailer = self.is_in_trailer().then_some(0);
        for (skip, &byte) in input.iter().enumerate() {
            if let State::Data(left) = self.state {
                let data = at_most(left, input.len() - skip);
                let left = left - data as u64;
                self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                return Ok(Step { skip, data, trailer: 0 });
            }
            if self.state == State::End {
                return Ok(Step { skip, data: 0, trailer: skip - trailer.unwrap_or(skip) });
            }
            self.state = self.next(byte)?;
            if trailer.is_none() && self.state == State::TrailerStart {
                trailer = Some(skip + 1);
            }
        }
        let skip = input.len();
        Ok(Step { skip, data: 0, trailer: skip - trailer.unwrap_or(skip) })
    }

    fn is_in_trailer(&self) -> bool {
        matches!(
            self.state,
            State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerFeed
                | State::EndFeed
        )
    }

    /// The state after a byte of framing.
    fn next(&mut self, byte: u8) -> Result<State, BadBody> {
        self.line += 1;
        match self.state {
            State::Size { .. } | State::SizeSpace { .. } | State::Extension { .. } => {
                if self.line as usize > MAX_CHUNK_LINE {
                    return Err(BadBody::Malformed);
                }
                self.next_in_size(byte)
            }
            State::SizeFeed { value } => {
                self.line = 0;
                expect(byte, b'\n')?;
                self.left = self.left.checked_sub(value).ok_or(BadBody::TooLarge)?;
                Ok(if value == 0 { State::TrailerStart } else { State::Data(value) })
            }
            State::DataReturn => expect(byte, b'\r').map(|()| State::DataFeed),
            State::DataFeed => {
                self.line = 0;
                expect(byte, b'\n').map(|()| State::Size { value: 0, digits: 0 })
            }
            State::EndFeed => expect(byte, b'\n').map(|()| State::End),
            _ => self.next_in_trailer(byte),
        }
    }

    /// A chunk's size, and extensions, which are checked and dropped. Each size is kept while its
    /// extension passes; a line break within quotes is refused like any other control byte.
    fn next_in_size(&self, byte: u8) -> Result<State, BadBody> {
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_CHUNK_DIGITS {
                    return Err(BadBody::Malformed);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BadBody::Malformed),
            (State::Size { value, .. } | State::Extension { value, quoted: false, .. }, b'\r') => {
                Ok(State::SizeFeed { value })
            }
            (State::Size { value, .. } | State::SizeSpace { value }, b' ' | b'\t') => {
                Ok(State::SizeSpace { value })
            }
            (State::Size { value, .. } | State::SizeSpace { value }, b';') => {
                Ok(State::Extension { value, quoted: false, escaped: false })
            }
            (State::Extension { value, quoted, escaped }, _) if is_text(byte) => {
                let quoted = quoted != (byte == b'"' && !escaped);
                let escaped = quoted && !escaped && byte == b'\\';
                Ok(State::Extension { value, quoted, escaped })
            }
            _ => Err(BadBody::Malformed),
        }
    }

    /// Trailers are checked: name, colon, value, CR LF; an empty line ends them.
    fn next_in_trailer(&self, byte: u8) -> Result<State, BadBody> {
        if self.line > MAX_TRAILER_BYTES {
            return Err(BadBody::Malformed);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndFeed),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerFeed),
            (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(BadBody::Malformed),
        }
    }
}

fn expect(byte: u8, wanted: u8) -> Result<(), BadBody> {
    if byte == wanted { Ok(()) } else { Err(BadBody::Malformed) }
}

fn at_most(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}

pub(crate) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Bytes of a field value or an extension: no controls but the tab.
fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
