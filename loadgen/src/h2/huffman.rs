//! Pure: reads strings in HPACK's Huffman code (RFC 7541, appendix B). Nothing is written in it:
//! what loadgen sends is short, and the target's work is not to depend on it. Used by `hpack`.

/// Bytes in the order of their codes, which grow with the code's length and then with the byte.
#[rustfmt::skip]
const ORDER: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51,
    52, 53, 54, 55, 56, 57, 61, 65, 95, 98, 100, 102, 103, 104, 108, 109,
    110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76,
    77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118,
    119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39,
    43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92,
    195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177,
    179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156, 160,
    163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232,
    233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157,
    158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142,
    144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
    200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211,
    212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254,
    2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20,
    21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
];

/// Bytes whose code has so many bits.
const COUNTS: [u16; LONGEST + 1] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 3,
];

/// Bits of the longest code; 30 ones mean the end and are never sent whole.
const LONGEST: usize = 30;

/// Bits that are looked up at once.
const QUICK: u32 = 9;

/// For each of the next nine bits: the byte and the bits of its code; 0 bits = a longer one.
static TABLE: [(u8, u8); 1 << QUICK] = table();

const fn table() -> [(u8, u8); 1 << QUICK] {
    let mut table = [(0, 0); 1 << QUICK];
    let (mut at, mut place, mut bits) = (0, 0, 1);
    while bits <= QUICK {
        let mut left = COUNTS[bits as usize];
        while left > 0 {
            let end = at + (1 << (QUICK - bits));
            while at < end {
                table[at] = (ORDER[place], bits as u8);
                at += 1;
            }
            place += 1;
            left -= 1;
        }
        bits += 1;
    }
    table
}

/// Appends what `code` says to `out`.
///
/// # Errors
/// Padding of eight bits or more, or of other bits than ones; the code of the end.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const BAD: &str = "a header field is no valid Huffman code";
    let (mut window, mut held) = (0u64, 0u32);
    let mut rest = code.iter();
    loop {
        while held <= 48
            && let Some(&byte) = rest.next()
        {
            window |= u64::from(byte) << (56 - held);
            held += 8;
        }
        let (byte, bits) = match TABLE[(window >> (64 - QUICK)) as usize] {
            (_, 0) => match long(window) {
                Some(found) => found,
                None if held < 8 && is_padding(window, held) => return Ok(()),
                None => return Err(BAD),
            },
            found => found,
        };
        if u32::from(bits) > held {
            return if held < 8 && is_padding(window, held) { Ok(()) } else { Err(BAD) };
        }
        out.push(byte);
        window <<= bits;
        held -= u32::from(bits);
    }
}

fn is_padding(window: u64, held: u32) -> bool {
    window.leading_ones() >= held
}

/// The byte whose code begins `window`, and its bits, by the first code of each length.
fn long(window: u64) -> Option<(u8, u8)> {
    let (mut first, mut place) = (0u64, 0u64);
    for (bits, &count) in COUNTS.iter().enumerate().skip(1) {
        first <<= 1;
        let code = window >> (64 - bits);
        if code < first + u64::from(count) {
            let byte = *ORDER.get(usize::try_from(place + code - first).ok()?)?;
            return Some((byte, bits as u8));
        }
        first += u64::from(count);
        place += u64::from(count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: &[u8]) -> Result<String, &'static str> {
        let mut out = Vec::new();
        decode(code, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_examples_of_the_standard() {
        // RFC 7541, C.4 and C.6.
        let code = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(text(&code).unwrap(), "www.example.com");
        assert_eq!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), "no-cache");
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(text(&date).unwrap(), "Mon, 21 Oct 2013 20:13:21 GMT");
        assert_eq!(text(&[]).unwrap(), "");
    }

    #[test]
    fn every_byte_comes_back() {
        // The codes, counted up as the standard lists them.
        let (mut code, mut place) = (0u32, 0);
        for (bits, &count) in COUNTS.iter().enumerate().skip(1) {
            code <<= 1;
            for _ in 0..count {
                let padded = (u64::from(code) << (64 - bits)) | (u64::MAX >> bits);
                let mut out = Vec::new();
                decode(&padded.to_be_bytes()[..bits.div_ceil(8)], &mut out).unwrap();
                assert_eq!(out, [ORDER[place]], "{bits} bits");
                code += 1;
                place += 1;
            }
        }
        assert_eq!((place, code), (256, (1 << 30) - 1));
    }

    #[test]
    fn bad_codes_are_refused() {
        assert!(text(&[0xff]).is_err(), "eight bits of padding");
        assert!(text(&[0xff, 0xff, 0xff, 0xff]).is_err(), "the end");
        assert!(text(&[0x00]).is_err(), "padding of zeros");
    }
}
