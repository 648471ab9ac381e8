//! From the bytes of the wire to the text of a connection: finds records in what arrives, opens
//! them where they lie, and draws the texts of one arrival together. Only a record that comes in
//! several arrivals is copied, into a buffer that it leaves with. Pure: arrivals are whatever
//! [`Piece`] says, control records go to a handler.

use std::ops::DerefMut;

use rustls::ProtocolVersion;

use super::alert::{Alert, Trouble};
use super::keys::{DATA, HANDSHAKE, HEADER, Key, record_len};
use crate::limits::TLS_QUIET_RECORDS;
use crate::rt::Lease;

/// Bytes that arrived, owned.
pub(super) trait Piece: DerefMut<Target = [u8]> + Sized {
    /// Drops the first `n` bytes.
    fn advance(&mut self, n: usize);
    /// Keeps the first `n` bytes.
    fn truncate(&mut self, n: usize);
    /// An empty one with room for a whole record.
    fn gather() -> Option<Self>;
    /// Appends `bytes`.
    fn push(&mut self, bytes: &[u8]);
}

impl Piece for Lease {
    fn advance(&mut self, n: usize) {
        Lease::advance(self, n);
    }

    fn truncate(&mut self, n: usize) {
        Lease::truncate(self, n);
    }

    fn gather() -> Option<Lease> {
        Lease::gather()
    }

    fn push(&mut self, bytes: &[u8]) {
        Lease::push(self, bytes);
    }
}

/// What becomes of a connection after a control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    GoesOn,
    /// A message has begun that the next record goes on with.
    Amid,
    /// The peer has ended its side in order.
    Ended,
}

/// How the text of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By close_notify.
    Notified,
    /// By this.
    Broken(Trouble),
}

/// What an arrival came to.
#[derive(Debug)]
pub(super) struct Arrived<P> {
    /// Text, if there was any.
    pub(super) text: Option<P>,
    /// What has not been looked at yet.
    pub(super) rest: Option<P>,
    /// No more comes behind the text.
    pub(super) end: Option<End>,
}

/// The receiving direction of one connection.
#[derive(Debug)]
pub(super) struct Incoming<P> {
    pub(super) key: Key,
    version: ProtocolVersion,
    /// The beginning of a header.
    head: [u8; HEADER],
    head_len: u8,
    /// Records since the last text.
    quiet: u8,
    /// A handshake message goes on in the next record.
    amid: bool,
    /// A record that has not come whole, and its length.
    gathered: Option<P>,
    len: usize,
}

impl<P: Piece> Incoming<P> {
    pub(super) fn new(key: Key, version: ProtocolVersion) -> Incoming<P> {
        let head = [0; HEADER];
        Incoming { key, version, head, head_len: 0, quiet: 0, amid: false, gathered: None, len: 0 }
    }

    /// Nothing of a record has come that is not whole.
    pub(super) fn is_between_records(&self) -> bool {
        self.head_len == 0 && self.gathered.is_none()
    }

    /// Opens what `piece` holds. `control` is told of records that are no text; it may change the
    /// key.
    pub(super) fn take(
        &mut self,
        piece: P,
        mut control: impl FnMut(&mut Key, u8, &[u8]) -> Result<Verdict, Trouble>,
    ) -> Arrived<P> {
        if self.is_between_records() {
            self.take_whole(piece, &mut control)
        } else {
            self.finish(piece, &mut control)
        }
    }

    /// Goes on with the record that has begun.
    fn finish(
        &mut self,
        mut piece: P,
        control: &mut impl FnMut(&mut Key, u8, &[u8]) -> Result<Verdict, Trouble>,
    ) -> Arrived<P> {
        let mut arrived = Arrived { text: None, rest: None, end: None };
        match self.fill(&mut piece) {
            Ok(None) => return arrived,
            Ok(Some(mut record)) => match self.open(&mut record, control) {
                Ok((text, verdict)) => {
                    record.truncate(text.end);
                    record.advance(text.start);
                    arrived.text = (!record.is_empty()).then_some(record);
                    arrived.end = (verdict == Verdict::Ended).then_some(End::Notified);
                }
                Err(trouble) => arrived.end = Some(End::Broken(trouble)),
            },
            Err(trouble) => arrived.end = Some(End::Broken(trouble)),
        }
        arrived.rest = (arrived.end.is_none() && !piece.is_empty()).then_some(piece);
        arrived
    }

    /// Takes what belongs to the begun record out of `piece`; returns the record once it is whole.
    fn fill(&mut self, piece: &mut P) -> Result<Option<P>, Trouble> {
        let have = usize::from(self.head_len);
        if have < HEADER {
            let taken = piece.len().min(HEADER - have);
            self.head[have..have + taken].copy_from_slice(&piece[..taken]);
            self.head_len += taken as u8;
            piece.advance(taken);
            if have + taken < HEADER {
                return Ok(None);
            }
            self.begin()?;
        }
        let Some(gathered) = &mut self.gathered else { return Ok(None) };
        let taken = piece.len().min(self.len - gathered.len());
        gathered.push(&piece[..taken]);
        piece.advance(taken);
        if gathered.len() < self.len {
            return Ok(None);
        }
        self.head_len = 0;
        Ok(self.gathered.take())
    }

    /// The header is whole: makes room for the record.
    fn begin(&mut self) -> Result<(), Trouble> {
        self.len = record_len(self.head, self.version)?;
        let mut gathered = P::gather().ok_or(NO_ROOM)?;
        gathered.push(&self.head);
        self.gathered = Some(gathered);
        Ok(())
    }

    /// Opens all whole records in `piece`, which begins with one, and keeps what is left of it.
    fn take_whole(
        &mut self,
        mut piece: P,
        control: &mut impl FnMut(&mut Key, u8, &[u8]) -> Result<Verdict, Trouble>,
    ) -> Arrived<P> {
        // Where the texts found so far lie, one behind the other.
        let mut texts = 0..0;
        let mut at = 0;
        let mut end = None;
        while let Some(header) = piece[at..].first_chunk::<HEADER>() {
            let next = match record_len(*header, self.version) {
                Ok(len) if piece.len() - at < len => break,
                Ok(len) => at + len,
                Err(trouble) => {
                    end = Some(End::Broken(trouble));
                    break;
                }
            };
            match self.open(&mut piece[at..next], control) {
                Ok((text, verdict)) => {
                    let text = at + text.start..at + text.end;
                    if texts.is_empty() {
                        texts = text;
                    } else if !text.is_empty() {
                        let len = text.len();
                        piece.copy_within(text, texts.end);
                        texts.end += len;
                    }
                    end = (verdict == Verdict::Ended).then_some(End::Notified);
                }
                Err(trouble) => end = Some(End::Broken(trouble)),
            }
            at = next;
            if end.is_some() {
                break;
            }
        }
        if end.is_none()
            && let Err(trouble) = self.keep(&piece[at..])
        {
            end = Some(End::Broken(trouble));
        }
        piece.truncate(texts.end);
        piece.advance(texts.start);
        Arrived { text: (!piece.is_empty()).then_some(piece), rest: None, end }
    }

    /// Keeps the beginning of a record.
    fn keep(&mut self, begun: &[u8]) -> Result<(), Trouble> {
        let head = begun.len().min(HEADER);
        self.head[..head].copy_from_slice(&begun[..head]);
        self.head_len = head as u8;
        if head == HEADER {
            self.begin()?;
            if let Some(gathered) = &mut self.gathered {
                gathered.push(&begun[HEADER..]);
            }
        }
        Ok(())
    }

    /// Opens one record; returns where its text is, an empty range when it has none.
    fn open(
        &mut self,
        record: &mut [u8],
        control: &mut impl FnMut(&mut Key, u8, &[u8]) -> Result<Verdict, Trouble>,
    ) -> Result<(std::ops::Range<usize>, Verdict), Trouble> {
        let (kind, text) = self.key.open(record)?;
        if self.amid && kind != HANDSHAKE {
            return Err(INTERLEAVED);
        }
        if kind == DATA && !text.is_empty() {
            self.quiet = 0;
            return Ok((text, Verdict::GoesOn));
        }
        self.quiet += 1;
        if self.quiet > TLS_QUIET_RECORDS {
            return Err(FLOOD);
        }
        let verdict = match kind {
            DATA => Verdict::GoesOn,
            kind => control(&mut self.key, kind, &record[text])?,
        };
        self.amid = verdict == Verdict::Amid;
        Ok((0..0, verdict))
    }
}

const NO_ROOM: Trouble = Trouble::internal("no buffer is left for a record in pieces");
/// RFC 8446, 5.1.
const INTERLEAVED: Trouble =
    Trouble::fatal(Alert::UNEXPECTED_MESSAGE, "a record within a handshake message");
const FLOOD: Trouble =
    Trouble::fatal(Alert::UNEXPECTED_MESSAGE, "too many records that carry nothing");

#[cfg(test)]
#[path = "incoming_tests.rs"]
mod tests;
