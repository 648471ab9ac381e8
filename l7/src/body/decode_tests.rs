//! Tests of the body decoder: cases, and any split of any stream.

use proptest::prelude::*;

use super::*;

/// The trailer section that `step`s point out, in pieces.
fn trailer_of(pieces: &[&[u8]]) -> Vec<u8> {
    let mut decoder = Decoder::new(Framing::Chunked, u64::MAX);
    let mut trailer = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.ended() {
            let step = decoder.step(rest).unwrap();
            trailer.extend_from_slice(&rest[step.skip - step.trailer..step.skip]);
            rest = &rest[step.skip + step.data..];
        }
    }
    trailer
}

/// Decodes pieces; returns the data and what stands behind the end (`None`: no end yet).
fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<Vec<u8>>), BadBody> {
    decode_at_most(framing, u64::MAX, pieces)
}

fn decode_at_most(
    framing: Framing,
    most: u64,
    pieces: &[&[u8]],
) -> Result<(Vec<u8>, Option<Vec<u8>>), BadBody> {
    let mut decoder = Decoder::new(framing, most);
    let mut data = Vec::new();
    let mut behind = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.ended() {
            let step = decoder.step(rest)?;
            assert!(step.skip + step.data > 0, "no progress");
            data.extend_from_slice(&rest[step.skip..step.skip + step.data]);
            rest = &rest[step.skip + step.data..];
        }
        behind.extend_from_slice(rest);
    }
    Ok((data, decoder.ended().then_some(behind)))
}

fn chunked(input: &str) -> Result<(String, Option<String>), BadBody> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (data, behind) = decode(Framing::Chunked, &[input.as_bytes()])?;
    Ok((text(data), behind.map(text)))
}

#[test]
fn good_chunks() {
    for (input, data, behind) in [
        ("0\r\n\r\n", "", Some("")),
        ("5\r\nhello\r\n0\r\n\r\nGET", "hello", Some("GET")),
        ("00000005\r\nhello\r\n000\r\n\r\n", "hello", Some("")),
        ("5\r\nhel", "hel", None),
        ("5\r\nhello", "hello", None),
        ("a;x=y\r\n0123456789\r\n0;z\r\n\r\n", "0123456789", Some("")),
        ("A ;x\r\n0123456789\r\n0\r\n\r\n", "0123456789", Some("")),
        ("1;x=\"a;\\\"b\"\r\na\r\n0\r\n\r\n", "a", Some("")),
        ("1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\nB", "a", Some("B")),
        ("1\r\na\r\n0\r\nX: y", "a", None),
    ] {
        let behind = behind.map(str::to_owned);
        assert_eq!(chunked(input), Ok((data.to_owned(), behind)), "{input:?}");
    }
}

/// R2.3-400a.
#[test]
fn bad_chunks() {
    for input in [
        "\r\n",
        ";x\r\n",
        " 5\r\nhello",
        "5 \r\nhello",
        "5\nhello",
        "5\rhello",
        "5\r\nhello5",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x5\r\nhello",
        "5h\r\nhello",
        "5_0\r\n",
        "g\r\n",
        "11111111111111111\r\n",
        "5;x\ny\r\nhello",
        "5;x\ry\r\nhello",
        "5;x=\"a\r\nb\"\r\nhello",
        "5;x=\"a\n\"\r\nhello",
        "5;\0\r\nhello",
        "5 6\r\nhello",
        "0\r\nX\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\nX: y\0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\rX",
    ] {
        assert_eq!(chunked(input), Err(BadBody::Malformed), "{input:?}");
    }
    let long = format!("5;{}\r\nhello", "x".repeat(MAX_CHUNK_LINE));
    assert_eq!(chunked(&long), Err(BadBody::Malformed));
    let many = "x: y\r\n".repeat(MAX_TRAILER_BYTES as usize / 6 + 1);
    assert_eq!(chunked(&format!("0\r\n{many}\r\n")), Err(BadBody::Malformed));
}

/// R2.3-413: the running total; exactly the limit passes, and a chunk that goes beyond it is
/// refused before its data.
#[test]
fn limited_chunks() {
    let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let at_most = |most, input: &[u8]| decode_at_most(Framing::Chunked, most, &[input]);
    assert_eq!(at_most(5, input), Ok((b"abcde".to_vec(), Some(vec![]))));
    assert_eq!(at_most(4, input), Err(BadBody::TooLarge));
    assert_eq!(at_most(5, b"6\r\n"), Err(BadBody::TooLarge));
    assert_eq!(at_most(0, b"0\r\n\r\n"), Ok((vec![], Some(vec![]))));
    assert_eq!(at_most(u64::MAX, b"ffffffffffffffff\r\n"), Ok((vec![], None)));
}

#[test]
fn other_framings() {
    assert_eq!(decode(Framing::None, &[b"ab"]), Ok((vec![], Some(b"ab".to_vec()))));
    assert_eq!(decode(Framing::Length(0), &[b"ab"]), Ok((vec![], Some(b"ab".to_vec()))));
    assert_eq!(
        decode(Framing::Length(3), &[b"ab", b"cd"]),
        Ok((b"abc".to_vec(), Some(b"d".to_vec())))
    );
    assert_eq!(decode(Framing::Length(3), &[b"ab"]), Ok((b"ab".to_vec(), None)));
    assert_eq!(decode(Framing::UntilClose, &[b"ab", b"c"]), Ok((b"abc".to_vec(), None)));
    let largest = chunked("ffffffffffffffff\r\nabc").unwrap();
    assert_eq!(largest, ("abc".to_owned(), None));
}

/// Cuts `input` into pieces at the given places.
fn split<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

proptest! {
    /// However a chunked stream is split, data and end are the same.
    #[test]
    fn any_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        extension in "(;[a-z]{1,5}(=[a-z]{1,5})?)?",
        trailer in "([A-Z][a-z]{0,5}: [ -~]{0,10}\r\n){0,2}",
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        upper: bool,
    ) {
        let mut input = Vec::new();
        for chunk in &chunks {
            let len = chunk.len();
            let size = if upper { format!("{len:X}") } else { format!("{len:x}") };
            input.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            input.extend_from_slice(chunk);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(format!("0\r\n{trailer}\r\nNEXT").as_bytes());
        let decoded = decode(Framing::Chunked, &split(&input, &cuts));
        prop_assert_eq!(decoded, Ok((chunks.concat(), Some(b"NEXT".to_vec()))));
        let found = trailer_of(&split(&input, &cuts));
        prop_assert_eq!(found, format!("{trailer}\r\n").into_bytes());
    }

    #[test]
    fn random_bytes_never_panic(
        input in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let _ = decode(Framing::Chunked, &split(&input, &cuts));
    }

    /// Nearly valid input: what is refused or accepted does not depend on the split either.
    #[test]
    fn verdict_is_independent_of_the_split(
        input in "[0-9a-f; \r\n\"x:]{0,60}",
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let whole = decode(Framing::Chunked, &[input.as_bytes()]);
        prop_assert_eq!(decode(Framing::Chunked, &split(input.as_bytes(), &cuts)), whole);
    }

    /// Data framed anew decodes to itself.
    #[test]
    fn frame_and_decode(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
    ) {
        let mut frame = crate::body::Frame::Chunked { open: false };
        let mut out = Vec::new();
        for piece in &pieces {
            frame.begin(&mut out, piece.len());
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(frame.end());
        let decoded = decode(Framing::Chunked, &[&out]);
        prop_assert_eq!(decoded, Ok((pieces.concat(), Some(vec![]))));
    }
}
