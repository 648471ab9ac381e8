//! Tests of the encoder, with the decoder and with examples of RFC 7541.

use proptest::prelude::*;

use super::super::Decoder;
use super::super::decode::tests::decoded;
use super::*;

fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    fields.iter().for_each(|(n, v)| encoder.field(n.as_bytes(), v.as_bytes(), &mut out));
    out
}

fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(n, v)| format!("{}: {v}\n", n.to_ascii_lowercase())).collect()
}

/// RFC 7541, C.1.
#[test]
fn integers() {
    for (number, mask, bytes) in
        [(10, 0x1f, &[0x0a][..]), (1337, 0x1f, &[0x1f, 0x9a, 0x0a]), (42, 0xff, &[0x2a])]
    {
        let mut out = Vec::new();
        integer(number, mask, 0, &mut out);
        assert_eq!(out, bytes, "{number}");
    }
}

/// A head that is sent again is a byte a field from the third time on.
#[test]
fn repeated_heads() {
    let fields = [
        ("Server", "nginx/1.26.3"),
        ("Date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", "1234"),
        ("X-Own", "a value of its own"),
    ];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let sizes: Vec<usize> = (0..4)
        .map(|_| {
            let block = block(&mut encoder, &fields);
            assert_eq!(decoded(&mut decoder, &block).unwrap(), lines(&fields));
            block.len()
        })
        .collect();
    assert_eq!(sizes[2..], [5, 5]);
    assert!(sizes[..2].iter().all(|&size| size < 90), "{sizes:?}");
}

/// What is different every time leaves the table to what is not.
#[test]
fn unique_values_are_not_kept() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for round in 0..2_000 {
        let unique = format!("{round:032x}");
        let fields = [("X-Request-Id", unique.as_str()), ("Server", "origin")];
        let block = block(&mut encoder, &fields);
        assert_eq!(decoded(&mut decoder, &block).unwrap(), lines(&fields));
        assert!(round < 2 || block.last() == Some(&0xbe), "{round}");
    }
    assert_eq!(encoder.table.len(), 1);
}

/// RFC 7541, 7.1.3.
#[test]
fn secrets_are_never_indexed() {
    let mut encoder = Encoder::new();
    for name in ["authorization", "Cookie", "Set-Cookie", "Proxy-Authorization"] {
        for _ in 0..3 {
            let block = block(&mut encoder, &[(name, "secret")]);
            assert_eq!(block[0] & 0xf0, 0x10, "{name}");
        }
    }
    assert_eq!(encoder.table.len(), 0);
}

#[test]
fn static_entries() {
    for (name, value, byte) in [
        (":method", "GET", 0x82),
        (":method", "POST", 0x83),
        (":path", "/", 0x84),
        (":path", "/index.html", 0x85),
        (":scheme", "https", 0x87),
        (":status", "500", 0x8e),
        ("Accept-Encoding", "gzip, deflate", 0x90),
    ] {
        assert_eq!(block(&mut Encoder::new(), &[(name, value)]), [byte], "{name}");
    }
    for (status, bytes) in
        [(200, &[0x88][..]), (404, &[0x8d]), (500, &[0x8e]), (302, &[0x08, 0x82, 0x64, 0x02])]
    {
        let mut out = Vec::new();
        Encoder::new().status(status, &mut out);
        assert_eq!(out, bytes, "{status}");
    }
    for (place, (name, value)) in STATIC.iter().enumerate() {
        let found = static_field(static_name(name), value);
        assert_eq!(found, Some(place + 1), "{}", name.escape_ascii());
    }
}

/// RFC 7541, 4.2: the smallest size is told, then the last.
#[test]
fn sizes() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    encoder.allow(65_536);
    assert!(block(&mut encoder, &[]).is_empty(), "no more than the default is used");
    let fields = [("a", "b")];
    (0..3).for_each(|_| drop(decoded(&mut decoder, &block(&mut encoder, &fields)).unwrap()));
    encoder.allow(0);
    encoder.allow(100);
    let resized = block(&mut encoder, &fields);
    assert_eq!(resized[..3], [0x20, 0x3f, 69]);
    assert_eq!(decoded(&mut decoder, &resized).unwrap(), "a: b\n");
    encoder.allow(0);
    for _ in 0..3 {
        let resized = block(&mut encoder, &fields);
        assert_eq!(decoded(&mut decoder, &resized).unwrap(), "a: b\n");
    }
    assert_eq!(encoder.table.len(), 0);
}

proptest! {
    /// Whatever is encoded is decoded, with any table sizes between.
    #[test]
    fn round_trips(
        heads in prop::collection::vec(
            (
                prop::collection::vec(
                    ("[a-d]{1,3}|server|Date|cookie", "[ -~]{0,2}|[!-~]{9,40}"),
                    0..6,
                ),
                prop::option::of(0u32..300),
            ),
            1..30,
        ),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (fields, size) in &heads {
            if let Some(size) = size {
                encoder.allow(*size);
            }
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let block = block(&mut encoder, &fields);
            prop_assert_eq!(decoded(&mut decoder, &block).unwrap(), lines(&fields));
            prop_assert_eq!(table_text(&encoder), decoder.entries().to_ascii_lowercase());
        }
    }
}

fn table_text(encoder: &Encoder) -> String {
    let entry = |index| {
        let (name, value, _) = encoder.table.get(index)?;
        Some(format!("{}: {}\n", name.escape_ascii(), value.escape_ascii()).to_ascii_lowercase())
    };
    (0..).map_while(entry).collect()
}
