//! Pure: frames of HTTP/2 (RFC 9113, 4 and 6): their heads and small payloads, read and written.
//! DATA is never touched: whoever has the bytes reads and sends them behind a head. Called by
//! `h2::connection`.

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// Bytes of a frame's payload before anything else is agreed on, and the most that we take.
pub(crate) const DEFAULT_MAX_FRAME: u32 = 16_384;
/// The largest window (RFC 9113, 6.9.1).
pub(crate) const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The largest number of a stream.
pub(crate) const MAX_STREAM: u32 = 0x7fff_ffff;
/// What a client sends first (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113, 6.5.2; RFC 8441, 3).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Why a stream or a connection ended (RFC 9113, 7). A peer may send any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const NO_ERROR: Code = Code(0);
    pub(crate) const PROTOCOL: Code = Code(1);
    pub(crate) const INTERNAL: Code = Code(2);
    pub(crate) const FLOW_CONTROL: Code = Code(3);
    pub(crate) const STREAM_CLOSED: Code = Code(5);
    pub(crate) const FRAME_SIZE: Code = Code(6);
    pub(crate) const REFUSED: Code = Code(7);
    pub(crate) const CANCEL: Code = Code(8);
    pub(crate) const COMPRESSION: Code = Code(9);
    pub(crate) const CONNECT: Code = Code(10);
    pub(crate) const CALM: Code = Code(11);
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of its payload.
    pub(crate) len: u32,
    /// Its kind, of which there may be unknown ones.
    pub(crate) kind: u8,
    /// Its flags.
    pub(crate) flags: u8,
    /// Its stream, without the reserved bit; zero is the connection.
    pub(crate) stream: u32,
}

impl FrameHead {
    /// The head at the start of `bytes`; `None` when there are too few.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<FrameHead> {
        let [a, b, c, kind, flags, s, t, u, v] = *bytes.first_chunk::<HEAD>()?;
        Some(FrameHead {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]) & MAX_STREAM,
        })
    }

    /// The nine bytes; a length beyond 24 bits can't be written.
    #[inline]
    pub(crate) fn bytes(self) -> [u8; HEAD] {
        debug_assert!(self.len < 1 << 24);
        let [_, a, b, c] = self.len.to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s, t, u, v]
    }

    /// Whether it has this flag.
    #[inline]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The block of fields in the payload of HEADERS, without padding and priority (6.2), and the
    /// stream that it depends on. `None`: the padding is as long as the payload.
    pub(crate) fn fields(self, payload: &[u8]) -> Result<(&[u8], Option<u32>), Code> {
        let mut rest = payload;
        if self.has(flag::PADDED) {
            let (&pad, behind) = rest.split_first().ok_or(Code::FRAME_SIZE)?;
            let len = behind.len().checked_sub(usize::from(pad)).ok_or(Code::PROTOCOL)?;
            rest = behind.get(..len).unwrap_or_default();
        }
        if !self.has(flag::PRIORITY) {
            return Ok((rest, None));
        }
        let (priority, rest) = rest.split_first_chunk::<5>().ok_or(Code::FRAME_SIZE)?;
        Ok((rest, number(priority).map(|stream| stream & MAX_STREAM)))
    }
}

/// The first four bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The pairs of a SETTINGS frame whose length is a multiple of six.
pub(crate) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = FrameHead { len: payload.len() as u32, kind, flags, stream };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub(crate) fn put_settings(out: &mut Vec<u8>, pairs: &[(u16, u32)]) {
    put(out, kind::SETTINGS, 0, 0, &[]);
    let start = out.len();
    for (name, value) in pairs {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    let len = (out.len() - start) as u32;
    patch_len(out, start, len);
}

/// Writes the length of the frame whose payload begins at `start`.
pub(crate) fn patch_len(out: &mut [u8], start: usize, len: u32) {
    let place = start.checked_sub(HEAD).and_then(|at| out.get_mut(at..at + 3));
    if let Some(place) = place {
        place.copy_from_slice(&len.to_be_bytes()[1..]);
    }
}

/// Appends the acknowledgement of SETTINGS.
pub(crate) fn put_settings_ack(out: &mut Vec<u8>) {
    put(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// Appends PING or its acknowledgement.
pub(crate) fn put_ping(out: &mut Vec<u8>, ack: bool, data: &[u8]) {
    put(out, kind::PING, if ack { flag::ACK } else { 0 }, 0, data);
}

/// Appends GOAWAY.
pub(crate) fn put_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    let [payload_last, payload_code] = [last, code.0].map(u32::to_be_bytes);
    put(out, kind::GOAWAY, 0, 0, [payload_last, payload_code].as_flattened());
}

/// Appends RST_STREAM.
pub(crate) fn put_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    put(out, kind::RST_STREAM, 0, stream, &code.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE.
pub(crate) fn put_window(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    debug_assert!(bytes > 0 && bytes <= MAX_WINDOW);
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_round_trip(len in 0u32..1 << 24, kind: u8, flags: u8, stream in 0..=MAX_STREAM) {
            let head = FrameHead { len, kind, flags, stream };
            prop_assert_eq!(FrameHead::parse(&head.bytes()), Some(head));
            prop_assert_eq!(FrameHead::parse(&head.bytes()[..8]), None);
        }

        #[test]
        fn settings_round_trip(pairs: Vec<(u16, u32)>) {
            let mut out = Vec::new();
            put_settings(&mut out, &pairs);
            let head = FrameHead::parse(&out).unwrap();
            prop_assert_eq!((head.kind, head.len as usize), (kind::SETTINGS, out.len() - HEAD));
            prop_assert_eq!(settings(&out[HEAD..]).collect::<Vec<_>>(), pairs);
        }
    }

    /// RFC 9113, 4.1: the reserved bit is ignored.
    #[test]
    fn reserved_bit() {
        let head = FrameHead::parse(&[0, 0, 1, 9, 4, 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!(head.stream, MAX_STREAM);
    }

    /// RFC 9113, 6.2.
    #[test]
    fn padding_and_priority() {
        let fields = |flags, payload: &[u8]| {
            let head = FrameHead { flags, ..FrameHead::default() };
            head.fields(payload).map(|(block, stream)| (block.to_vec(), stream))
        };
        let (padded, priority) = (flag::PADDED, flag::PRIORITY);
        assert_eq!(fields(0, b"abc"), Ok((b"abc".to_vec(), None)));
        assert_eq!(fields(padded, b"\x01ab\0"), Ok((b"ab".to_vec(), None)));
        assert_eq!(fields(padded, b"\x03abc"), Ok((vec![], None)));
        assert_eq!(fields(padded, b"\x04abc"), Err(Code::PROTOCOL));
        assert_eq!(fields(padded, b""), Err(Code::FRAME_SIZE));
        assert_eq!(fields(priority, b"\x80\0\0\x05\xffab"), Ok((b"ab".to_vec(), Some(5))));
        assert_eq!(fields(priority, b"\0\0\0\x05"), Err(Code::FRAME_SIZE));
        let both = fields(padded | priority, b"\x02\0\0\0\x07\x01ab\0\0");
        assert_eq!(both, Ok((b"ab".to_vec(), Some(7))));
        assert_eq!(fields(padded | priority, b"\x05\0\0\0\x07\x01ab"), Err(Code::FRAME_SIZE));
    }
}
