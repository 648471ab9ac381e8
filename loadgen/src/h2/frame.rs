//! Pure: frames of HTTP/2 (RFC 9113, section 4) in bytes that arrive in any pieces, and the few
//! that loadgen sends. The content of DATA is handed on as it comes, everything else once it is
//! whole. Used by `session`.

/// Longest payload that the target may send: the protocol's own, so that we needn't ask.
const MAX_PAYLOAD: u32 = 16_384;
/// Bytes before a payload.
pub(super) const HEAD: usize = 9;

/// Types of frames (RFC 9113, section 6).
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A whole frame that isn't DATA.
    Frame { kind: u8, flags: u8, stream: u32, payload: &'a [u8] },
    /// A part of a DATA frame: its content, what it counts for flow control (padding too), and
    /// whether the stream ends with it.
    Data { stream: u32, content: &'a [u8], counted: u32, end: bool },
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The DATA frame that is being received.
#[derive(Clone, Copy, Debug)]
struct Data {
    head: Head,
    left: u32,
    /// Length of the padding; `None` = its byte is still to come.
    padding: Option<u32>,
}

/// Cuts one connection's bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// A frame that came in parts.
    partial: Vec<u8>,
    data: Option<Data>,
}

impl Frames {
    /// The next item of `rest`, which is cut down to what follows; `None` = more is needed.
    ///
    /// # Errors
    /// A frame that is too long, or padded beyond its end.
    pub(super) fn next<'f, 'd: 'f>(
        &'f mut self,
        rest: &mut &'d [u8],
    ) -> Result<Option<Item<'f>>, &'static str> {
        if let Some(data) = self.data {
            return self.content(data, rest);
        }
        if !self.partial.is_empty() && self.partial_is_whole() {
            self.partial.clear();
        }
        if self.partial.is_empty() {
            let Some(head) = head(rest)? else { return Ok(self.gather(rest, HEAD)) };
            if head.kind == kind::DATA {
                *rest = rest.get(HEAD..).unwrap_or_default();
                return self.begin(head, rest);
            }
            let whole = HEAD + head.length as usize;
            if let Some((frame, after)) = rest.split_at_checked(whole) {
                *rest = after;
                return Ok(Some(item(head, frame)));
            }
        }
        if self.partial.len() < HEAD {
            self.gather(rest, HEAD);
        }
        let Some(head) = head(&self.partial)? else { return Ok(None) };
        if head.kind == kind::DATA {
            self.partial.clear();
            return self.begin(head, rest);
        }
        self.gather(rest, HEAD + head.length as usize);
        Ok(self.partial_is_whole().then(|| item(head, &self.partial)))
    }

    /// Keeps bytes of `rest` until `whole` are there.
    fn gather(&mut self, rest: &mut &[u8], whole: usize) -> Option<Item<'static>> {
        let wanted = whole.saturating_sub(self.partial.len()).min(rest.len());
        let (taken, after) = rest.split_at(wanted);
        self.partial.extend_from_slice(taken);
        *rest = after;
        None
    }

    fn partial_is_whole(&self) -> bool {
        let head = head(&self.partial).ok().flatten();
        head.is_some_and(|head| self.partial.len() == HEAD + head.length as usize)
    }

    fn begin<'d>(
        &mut self,
        head: Head,
        rest: &mut &'d [u8],
    ) -> Result<Option<Item<'d>>, &'static str> {
        let padded = head.flags & flag::PADDED != 0;
        self.content(Data { head, left: head.length, padding: (!padded).then_some(0) }, rest)
    }

    fn content<'d>(
        &mut self,
        mut data: Data,
        rest: &mut &'d [u8],
    ) -> Result<Option<Item<'d>>, &'static str> {
        const PADDING: &str = "a DATA frame is padded beyond its end";
        let before = data.left;
        let padding = match (data.padding, rest.split_first()) {
            (Some(padding), _) => padding,
            (None, _) if data.left == 0 => return Err(PADDING),
            (None, None) => {
                self.data = Some(data);
                return Ok(None);
            }
            (None, Some((&padding, after))) => {
                *rest = after;
                data.left -= 1;
                *data.padding.insert(u32::from(padding))
            }
        };
        let length = data.left.saturating_sub(padding) as usize;
        let (content, after) = rest.split_at(length.min(rest.len()));
        data.left -= content.len() as u32;
        let dropped = match data.left <= padding {
            true => (data.left as usize).min(after.len()),
            false => 0,
        };
        *rest = after.get(dropped..).unwrap_or_default();
        data.left -= dropped as u32;
        if data.padding.is_some_and(|padding| padding >= data.head.length && padding > 0) {
            return Err(PADDING);
        }
        let whole = data.left == 0;
        self.data = (!whole).then_some(data);
        let counted = before - data.left;
        let end = whole && data.head.flags & flag::END_STREAM != 0;
        let stream = data.head.stream;
        let some = whole || counted > 0;
        Ok(some.then_some(Item::Data { stream, content, counted, end }))
    }
}

fn head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = bytes.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]);
    let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
    match length > MAX_PAYLOAD {
        true => Err("a frame is longer than 16 KiB, which nobody allowed"),
        false => Ok(Some(Head { length, kind, flags, stream })),
    }
}

fn item(head: Head, frame: &[u8]) -> Item<'_> {
    let Head { kind, flags, stream, .. } = head;
    Item::Frame { kind, flags, stream, payload: frame.get(HEAD..).unwrap_or_default() }
}

/// The payload without its padding and, in HEADERS, without a priority.
pub(super) fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], &'static str> {
    const SHORT: &str = "a frame is too short for what its flags promise";
    let mut rest = payload;
    if flags & flag::PADDED != 0 {
        let (&padding, after) = rest.split_first().ok_or(SHORT)?;
        let length = after.len().checked_sub(usize::from(padding)).ok_or(SHORT)?;
        rest = after.get(..length).ok_or(SHORT)?;
    }
    match flags & flag::PRIORITY != 0 {
        true => rest.get(5..).ok_or(SHORT),
        false => Ok(rest),
    }
}

/// Appends the head of a frame with `length` bytes of payload, at most 2^24 - 1.
pub(super) fn put_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends a frame whose payload is a number: RST_STREAM, WINDOW_UPDATE.
pub(super) fn put_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    put_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kind, stream, payload, and whether the first flag is set.
    type Seen = (u8, u32, Vec<u8>, bool);

    /// Everything in `bytes`, cut into pieces of `size`; contents of DATA are joined.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<Seen>, &'static str> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        let mut open: Option<(u32, Vec<u8>, u32)> = None;
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            while let Some(item) = frames.next(&mut rest)? {
                match item {
                    Item::Frame { kind, flags, stream, payload } => {
                        found.push((kind, stream, payload.to_vec(), flags & 1 != 0));
                    }
                    Item::Data { stream, content, counted, end } => {
                        let (_, all, sum) = open.get_or_insert((stream, Vec::new(), 0));
                        all.extend_from_slice(content);
                        *sum += counted;
                        if end {
                            let (stream, mut all, sum) = open.take().unwrap();
                            all.extend_from_slice(&sum.to_be_bytes());
                            found.push((kind::DATA, stream, all, true));
                        }
                    }
                }
                assert!(rest.len() <= piece.len());
            }
            assert!(rest.is_empty(), "everything is taken");
        }
        Ok(found)
    }

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        put_head(&mut out, 0, kind::SETTINGS, 0, 0);
        put_head(&mut out, 3, kind::HEADERS, flag::END_HEADERS, 1);
        out.extend_from_slice(b"abc");
        put_head(&mut out, 5, kind::DATA, 0, 1);
        out.extend_from_slice(b"hello");
        put_head(&mut out, 10, kind::DATA, flag::PADDED | flag::END_STREAM, 1);
        out.extend_from_slice(b"\x03 world\0\0\0");
        put_number(&mut out, kind::WINDOW_UPDATE, 7, 0x0102_0304);
        put_head(&mut out, 0, kind::DATA, flag::END_STREAM, 3);
        out
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(size in 1usize..60) {
            let found = read(&sample(), size).unwrap();
            prop_assert_eq!(&found[0], &(kind::SETTINGS, 0, vec![], false));
            prop_assert_eq!(&found[1], &(kind::HEADERS, 1, b"abc".to_vec(), false));
            prop_assert_eq!(&found[2], &(kind::DATA, 1, b"hello world\0\0\0\x0f".to_vec(), true));
            prop_assert_eq!(&found[3], &(kind::WINDOW_UPDATE, 7, vec![1, 2, 3, 4], false));
            prop_assert_eq!(&found[4], &(kind::DATA, 3, vec![0, 0, 0, 0], true));
            prop_assert_eq!(found.len(), 5);
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut frames, mut rest) = (Frames::default(), &data[..]);
            while let Ok(Some(_)) = frames.next(&mut rest) {}
        }
    }

    #[test]
    fn bad_frames_are_refused() {
        let mut long = Vec::new();
        put_head(&mut long, 16_385, kind::DATA, 0, 1);
        assert!(read(&long, 9).is_err());
        for length in [0, 1] {
            let mut padded = Vec::new();
            put_head(&mut padded, length, kind::DATA, flag::PADDED, 1);
            padded.push(1);
            assert!(read(&padded, 99).is_err(), "{length}");
        }
        assert_eq!(unpadded(flag::PADDED | flag::PRIORITY, b"\x01\0\0\0\0\0x."), Ok(&b"x"[..]));
        assert!(unpadded(flag::PADDED, b"\x02x").is_err());
        assert!(unpadded(flag::PRIORITY, b"xxxx").is_err());
    }
}
