//! Pure: HPACK's Huffman code (RFC 7541, 5.2 and appendix B). The code is canonical, so the lengths
//! say everything: codes and the decoder's tables are computed from them at compile time.

/// Bits of the code of each byte. The end of string, which is never sent, has 30 ones.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Bits of the longest code.
const LONGEST: usize = 30;
/// Bits that the decoder's first table looks at: enough for nearly all text.
const FIRST: usize = 10;

/// Codes and the decoder's tables.
struct Tables {
    /// The code of each byte, in its lowest bits.
    codes: [u32; 256],
    /// By the next `FIRST` bits: byte, and bits of its code (zero: it is longer).
    first: [(u8, u8); 1 << FIRST],
    /// Of each length: the first code behind those so long, left-aligned in 32 bits (zero: there
    /// are none so long) …
    ends: [u32; LONGEST + 1],
    /// … and the place in `sorted` less the code, both of the first so long.
    offsets: [u32; LONGEST + 1],
    /// The bytes in the order of their codes.
    sorted: [u8; 256],
}

const fn tables() -> Tables {
    let mut tables = Tables {
        codes: [0; 256],
        first: [(0, 0); 1 << FIRST],
        ends: [0; LONGEST + 1],
        offsets: [0; LONGEST + 1],
        sorted: [0; 256],
    };
    let (mut code, mut place, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        tables.offsets[length] = (place as u32).wrapping_sub(code);
        let before = place;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                tables.codes[byte] = code;
                tables.sorted[place] = byte as u8;
                if length <= FIRST {
                    let room = FIRST - length;
                    let mut at = (code as usize) << room;
                    while at < (code as usize + 1) << room {
                        tables.first[at] = (byte as u8, length as u8);
                        at += 1;
                    }
                }
                code += 1;
                place += 1;
            }
            byte += 1;
        }
        if place > before {
            tables.ends[length] = code << (32 - length);
        }
        length += 1;
    }
    tables
}

static TABLES: Tables = tables();

/// Bytes that `text` has in this code.
#[inline]
pub(super) fn encoded_len(text: impl Iterator<Item = u8>) -> usize {
    let bits: usize = text.map(|byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` in this code.
#[inline]
pub(crate) fn encode(text: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0);
    for byte in text {
        let length = LENGTHS[usize::from(byte)];
        bits = bits << length | u64::from(TABLES.codes[usize::from(byte)]);
        count += length;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    while count >= 8 {
        count -= 8;
        out.push((bits >> count) as u8);
    }
    if count > 0 {
        // The rest of the last byte is filled with ones.
        out.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
}

/// Appends what `code` says; `None` when it is malformed, with some of it appended.
pub(crate) fn decode(code: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    // The shortest code has five bits.
    out.resize(start + code.len() * 8 / 5 + 1, 0);
    let mut at = start;
    let mut input = code.iter();
    let (mut bits, mut count) = (0u64, 0u32);
    loop {
        while count <= 56 {
            let Some(&byte) = input.next() else { break };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let (mut byte, length) = TABLES.first[(bits >> (64 - FIRST)) as usize];
        let mut length = u32::from(length);
        if length == 0 {
            (byte, length) = long((bits >> 32) as u32).unwrap_or((0, u32::MAX));
        }
        if length > count {
            break;
        }
        *out.get_mut(at)? = byte;
        at += 1;
        bits <<= length;
        count -= length;
    }
    out.truncate(at);
    // What is left is padding: less than a byte, and ones (RFC 7541, 5.2).
    (count < 8 && bits == !(u64::MAX >> count)).then_some(())
}

/// The byte whose code, longer than `FIRST` bits, stands at the top of `bits`, and its length.
/// `None`: the end of string, or its beginning.
#[inline(never)]
fn long(bits: u32) -> Option<(u8, u32)> {
    let length = (FIRST + 1..=LONGEST).find(|&length| bits < TABLES.ends[length])?;
    let place = (bits >> (32 - length)).wrapping_add(TABLES.offsets[length]);
    Some((*TABLES.sorted.get(place as usize)?, length as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text.iter().copied(), &mut out);
        assert_eq!(out.len(), encoded_len(text.iter().copied()));
        out
    }

    fn decoded(code: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"x".to_vec();
        decode(code, &mut out)?;
        assert_eq!(out.remove(0), b'x');
        Some(out)
    }

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn examples() {
        for (text, code) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            ("https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        ] {
            let hex: String = coded(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, code, "{text}");
            assert_eq!(decoded(&coded(text.as_bytes())).unwrap(), text.as_bytes());
        }
    }

    /// RFC 7541, 5.2: padding longer than seven bits, padding of other bits, and the end of string
    /// are errors.
    #[test]
    fn malformed() {
        for code in [
            &[0xff][..],                     // eight bits of padding
            &[0x1f, 0xff],                   // "a" and eleven bits
            &[0x18],                         // "a" and 000
            &[0x1e],                         // "a" and 110
            &[0xff, 0xff, 0xff, 0xff],       // the end of string
            &[0xff, 0xff, 0xff, 0xfc],       // the same, padded otherwise
            &[0x1f, 0xff, 0xff, 0xff, 0xff], // "a" and the end of string
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xce], // "$" without its last bit
        ] {
            assert_eq!(decoded(code), None, "{code:x?}");
        }
        assert_eq!(decoded(&[0x1f]).unwrap(), b"a");
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&coded(&all)).unwrap(), all);
        for byte in all {
            assert_eq!(decoded(&coded(&[byte])).unwrap(), [byte]);
        }
    }

    proptest! {
        #[test]
        fn round_trip(text: Vec<u8>) {
            prop_assert_eq!(decoded(&coded(&text)).unwrap(), text);
        }

        /// What is accepted is what would be written.
        #[test]
        fn one_code_a_text(code in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(text) = decoded(&code) {
                prop_assert_eq!(coded(&text), code);
            }
        }
    }
}
