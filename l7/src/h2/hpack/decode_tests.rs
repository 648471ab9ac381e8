//! Tests of the decoder: the examples of RFC 7541, what is malformed, and bounds.

use proptest::prelude::*;

use super::*;

/// The fields of a block, as lines.
pub(crate) fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, Error> {
    let mut out = Vec::new();
    decoder.decode(block, &mut out, |out, line| {
        assert_eq!(out[line.name.end..line.value.start], *b": ");
        assert_eq!(out[line.value.end..], *b"\r\n");
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&out).replace("\r\n", "\n"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks(2).map(byte).collect()
}

/// RFC 7541, C.2.
#[test]
fn single_fields() {
    for (block, text, kept) in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header\n",
            true,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", false),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", false),
        ("82", ":method: GET\n", false),
    ] {
        let mut decoder = Decoder::new();
        assert_eq!(decoded(&mut decoder, &bytes(block)).unwrap(), text);
        assert_eq!(decoder.entries(), if kept { text } else { "" });
    }
}

/// RFC 7541, C.3 and C.4: requests, without and with Huffman coding.
#[test]
fn requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        let texts = [
            ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
            ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\
             cache-control: no-cache\n",
            ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
             custom-key: custom-value\n",
        ];
        for (block, text) in blocks.into_iter().zip(texts) {
            assert_eq!(decoded(&mut decoder, &bytes(block)).unwrap(), text);
        }
        let left = "custom-key: custom-value\ncache-control: no-cache\n\
                    :authority: www.example.com\n";
        assert_eq!(decoder.entries(), left);
    }
}

/// RFC 7541, C.5 and C.6: responses with evictions from a table of 256 bytes.
#[test]
fn responses() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let common = "cache-control: private\ndate: Mon, 21 Oct 2013 20:13:2";
    let rest = " GMT\nlocation: https://www.example.com\n";
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        decoder.table.resize(256);
        let texts = [
            format!(":status: 302\n{common}1{rest}"),
            format!(":status: 307\n{common}1{rest}"),
            format!(
                ":status: 200\n{common}2{rest}content-encoding: gzip\nset-cookie: \
                 foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n"
            ),
        ];
        for (block, text) in blocks.into_iter().zip(texts) {
            assert_eq!(decoded(&mut decoder, &bytes(block)).unwrap(), text);
        }
        let left = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n\
                    content-encoding: gzip\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n";
        assert_eq!(decoder.entries(), left);
    }
}

/// RFC 7541, 2.3.3, 4.2, 5.1, 5.2, 6.1, 6.3.
#[test]
fn malformed() {
    for (block, why) in [
        ("80", "index 0"),
        ("be", "an empty dynamic table"),
        ("ff ff ff ff 7f", "an index far beyond it"),
        ("ff 80 80 80 80 00", "an integer of too many octets"),
        ("ff ff ff ff ff ff ff ff ff ff 7f", "an integer that overflows"),
        ("ff", "half an integer"),
        ("ff 80", "half an integer"),
        ("40", "no name"),
        ("40 01", "half a name"),
        ("40 01 61", "no value"),
        ("40 01 61 02 62", "half a value"),
        ("7e 01 61", "the name of index 62"),
        ("40 81 ff 00", "a name of padding"),
        ("00 01 61 84 ff ff ff fc", "the end of string"),
        ("3f e2 1f", "a table of 4,097 bytes"),
        ("82 20", "a size behind a field"),
    ] {
        let result = decoded(&mut Decoder::new(), &bytes(block));
        assert_eq!(result, Err(Error::Malformed), "{why}");
    }
    for block in ["", "3f e1 1f", "20 3f e1 1f", "3f e1 1f 82", "20", "3f e1 9f 80 00 82"] {
        assert!(decoded(&mut Decoder::new(), &bytes(block)).is_ok(), "{block}");
    }
}

/// RFC 9113, 8.2.1: what a field may not hold is told, from the table too.
#[test]
fn validity() {
    for (name, value, wanted) in [
        (&b"a-b_c!1"[..], &b"x y\tz\xe4"[..], true),
        (b":method", b"GET", true),
        (b"a", b"", true),
        (b"", b"x", false),
        (b":", b"x", false),
        (b"::a", b"x", false),
        (b"A", b"x", false),
        (b"a b", b"x", false),
        (b"a:", b"x", false),
        (b"\xe4", b"x", false),
        (b"a", b" x", false),
        (b"a", b"x\t", false),
        (b"a", b"x\r\ny: z", false),
        (b"a", b"x\0", false),
        (b"a", b"x\x7fy", false),
    ] {
        let mut block = vec![0x40, name.len() as u8];
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
        block.push(0xbe);
        let (mut seen, mut out) = (Vec::new(), Vec::new());
        let each = |_: &mut Vec<u8>, line: Line| {
            seen.push(line.valid);
            Ok(())
        };
        Decoder::new().decode(&block, &mut out, each).unwrap();
        assert_eq!(seen, [wanted, wanted], "{} {}", name.escape_ascii(), value.escape_ascii());
    }
}

/// `each` may refuse, and may take fields back.
#[test]
fn refusal() {
    let mut out = Vec::new();
    let block = [0x82, 0x86, 0x84];
    let result = Decoder::new().decode(&block, &mut out, |_, _| Err(Error::TooLarge));
    assert_eq!(result, Err(Error::TooLarge));
    out.clear();
    let drop_schemes = |out: &mut Vec<u8>, line: Line| {
        if out[line.name.clone()] == *b":scheme" {
            out.truncate(line.name.start);
        }
        Ok(())
    };
    Decoder::new().decode(&block, &mut out, drop_schemes).unwrap();
    assert_eq!(out, b":method: GET\r\n:path: /\r\n");
}

proptest! {
    #[test]
    fn random_blocks_never_panic(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
    ) {
        let mut decoder = Decoder::new();
        for block in blocks {
            if decoded(&mut decoder, &block).is_err() {
                break;
            }
        }
    }
}
