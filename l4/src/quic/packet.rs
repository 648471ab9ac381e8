//! Pure: the header of a datagram's first packet, by the invariants of all QUIC versions (RFC 8999,
//! section 5). Packets that follow it in the same datagram have the same destination id (RFC 9000,
//! section 12.2), so that the first one speaks for all.

use weir_core::model::CidSlice;

/// The version of a Version Negotiation packet (RFC 8999, section 6).
const NEGOTIATION: u32 = 0;

/// What can be known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// With both ids: what the handshake uses, Retry and Version Negotiation.
    Long {
        /// 0 = Version Negotiation.
        version: u32,
        /// The id that the receiver has issued, or a client's first one.
        destination: &'a [u8],
        /// The id that the sender has issued.
        source: &'a [u8],
    },
    /// Of a connection that stands.
    Short {
        /// The destination's id, whose length only its issuer knows, and what follows it.
        rest: &'a [u8],
    },
}

/// Reads the first packet's header. `None`: this is no QUIC of any version.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Packet<'_>> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return Some(Packet::Short { rest });
    }
    let (version, rest) = rest.split_first_chunk()?;
    let (destination, rest) = id(rest)?;
    let (source, _) = id(rest)?;
    Some(Packet::Long { version: u32::from_be_bytes(*version), destination, source })
}

/// An id behind its length, and what follows.
fn id(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// The slice of an id; the whole of a shorter one.
fn part(id: &[u8], slice: CidSlice) -> &[u8] {
    let (from, len) = (usize::from(slice.offset), usize::from(slice.len));
    id.get(from..from + len).unwrap_or(id)
}

/// What decides about a client's datagram that belongs to no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim<'a> {
    /// Only whom it is from.
    Source,
    /// What tells the connection that it is about.
    Part(&'a [u8]),
    /// It can begin nothing, and go on with nothing.
    Nowhere,
}

/// Whom a client's packet is for.
#[must_use]
pub fn aim<'a>(packet: &Packet<'a>, slice: CidSlice) -> Aim<'a> {
    match *packet {
        // Only servers send these.
        Packet::Long { version: NEGOTIATION, .. } => Aim::Nowhere,
        Packet::Long { destination: [], .. } => Aim::Source,
        Packet::Long { destination, .. } => Aim::Part(part(destination, slice)),
        Packet::Short { rest } => {
            let (from, len) = (usize::from(slice.offset), usize::from(slice.len));
            rest.get(from..from + len).map_or(Aim::Nowhere, Aim::Part)
        }
    }
}

impl<'a> Packet<'a> {
    /// What tells the connections to come from the id that this packet's sender, a member, has
    /// issued; `None` where it shows none.
    ///
    /// A Version Negotiation packet echoes what the client has sent: whoever learnt from it would
    /// let clients bind what they like.
    #[must_use]
    pub fn issued(&self, slice: CidSlice) -> Option<&'a [u8]> {
        match *self {
            Packet::Long { version: NEGOTIATION, .. } | Packet::Short { .. } => None,
            Packet::Long { source: [], .. } => None,
            Packet::Long { source, .. } => Some(part(source, slice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLICE: CidSlice = CidSlice { len: 3, offset: 1 };

    fn long(version: u32, destination: &[u8], source: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut out = vec![0xc3];
        out.extend_from_slice(&version.to_be_bytes());
        for id in [destination, source] {
            out.push(id.len() as u8);
            out.extend_from_slice(id);
        }
        out.extend_from_slice(rest);
        out
    }

    /// R6.8-6: what begins a connection, Retry, versions that nobody knows, and what follows in the
    /// same datagram.
    #[test]
    fn long_headers_show_both_ids() {
        for version in [1, 0x6b33_43cf, 0x0a0a_0a0a] {
            let mut data = long(version, b"abcdefgh", b"ABCDEF", b"payload");
            data.extend(long(version, b"abcdefgh", b"other", b"the second"));
            let packet = parse(&data).unwrap();
            assert_eq!(
                packet,
                Packet::Long { version, destination: b"abcdefgh", source: b"ABCDEF" }
            );
            assert_eq!(aim(&packet, SLICE), Aim::Part(b"bcd"));
            assert_eq!(packet.issued(SLICE), Some(&b"BCD"[..]));
        }
    }

    #[test]
    fn short_headers_show_the_slice() {
        let packet = parse(b"\x40abcdefgh and what is sealed").unwrap();
        assert_eq!(aim(&packet, SLICE), Aim::Part(b"bcd"));
        assert_eq!(packet.issued(SLICE), None);
        assert_eq!(aim(&parse(b"\x40abcd").unwrap(), SLICE), Aim::Part(b"bcd"));
        assert_eq!(aim(&parse(b"\x40abc").unwrap(), SLICE), Aim::Nowhere, "too short");
    }

    #[test]
    fn short_ids_count_whole_and_empty_ones_not_at_all() {
        let data = long(1, b"abc", b"xy", b"");
        let packet = parse(&data).unwrap();
        assert_eq!(
            (aim(&packet, SLICE), packet.issued(SLICE)),
            (Aim::Part(b"abc"), Some(&b"xy"[..]))
        );
        let data = long(1, b"", b"", b"rest");
        let packet = parse(&data).unwrap();
        assert_eq!((aim(&packet, SLICE), packet.issued(SLICE)), (Aim::Source, None));
    }

    /// What Version Negotiation shows are a client's own words.
    #[test]
    fn nothing_is_learnt_from_version_negotiation() {
        let data = long(0, b"abcdefgh", b"ABCDEFGH", &[0, 0, 0, 1]);
        let packet = parse(&data).unwrap();
        assert_eq!((aim(&packet, SLICE), packet.issued(SLICE)), (Aim::Nowhere, None));
    }

    #[test]
    fn what_ends_too_early_is_no_quic() {
        assert_eq!(parse(b""), None);
        let data = long(1, b"abcdefgh", b"ABCDEF", b"");
        for len in 1..data.len() {
            assert_eq!(parse(&data[..len]), None, "{len}");
        }
        assert!(parse(&data).is_some());
    }

    proptest! {
        /// Any ids, any slice: what is read is what was written, and a part is a piece of the id.
        #[test]
        fn ids_are_read_as_written(
            version: u32,
            destination in prop::collection::vec(any::<u8>(), 0..=255),
            source in prop::collection::vec(any::<u8>(), 0..=255),
            rest in prop::collection::vec(any::<u8>(), 0..50),
            len in 1u8..=20,
            offset in 0u8..20,
        ) {
            let slice = CidSlice { len, offset };
            let data = long(version, &destination, &source, &rest);
            let packet = parse(&data).unwrap();
            let expected = Packet::Long { version, destination: &destination, source: &source };
            prop_assert_eq!(packet, expected);
            let end = usize::from(len) + usize::from(offset);
            if let Some(part) = packet.issued(slice) {
                let whole = source.len() < end;
                prop_assert_eq!(part.len(), if whole { source.len() } else { usize::from(len) });
                // A short header to that id leads to the same.
                if !whole {
                    let mut short = vec![0x40];
                    short.extend_from_slice(&source);
                    prop_assert_eq!(aim(&parse(&short).unwrap(), slice), Aim::Part(part));
                }
            }
        }

        #[test]
        fn anything_is_read_without_harm(data in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(packet) = parse(&data) {
                let _aim = aim(&packet, SLICE);
                prop_assert!(packet.issued(SLICE).is_none_or(|part| part.len() < data.len()));
            }
        }
    }
}
