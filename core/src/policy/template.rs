//! Texts with `${…}` in them, of which redirects are made.

use super::normal::push_encoded;

/// A part of the request's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Protocol,
    Host,
    Port,
    Path,
    Query,
}

/// The variables, as they are written.
const PARTS: [(&str, Part); 5] = [
    ("${protocol}", Part::Protocol),
    ("${host}", Part::Host),
    ("${port}", Part::Port),
    ("${path}", Part::Path),
    ("${query}", Part::Query),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it goes out.
    Text(Box<[u8]>),
    /// What stands there in the request's URL.
    Part(Part),
}

/// Does every `${` in `text` begin one of the five variables?
#[must_use]
pub fn is_template(text: &str) -> bool {
    let mut after = text.match_indices("${").filter_map(|(at, _)| text.get(at..));
    after.all(|rest| PARTS.iter().any(|(word, _)| rest.starts_with(word)))
}

/// Takes `text` apart. What can't stand in that place of a URL is percent-encoded; `apart` are the
/// characters that would end it.
pub(super) fn parse(text: &str, apart: &[u8]) -> Box<[Piece]> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut plain = Vec::new();
    while let Some(first) = rest.chars().next() {
        let variable = PARTS.iter().find(|(word, _)| rest.starts_with(word));
        if let Some((word, part)) = variable {
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Part(*part));
            rest = rest.get(word.len()..).unwrap_or_default();
        } else {
            let (char, tail) = rest.split_at(first.len_utf8());
            push_escaped(&mut plain, char.as_bytes(), apart);
            rest = tail;
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    pieces.into()
}

/// Appends `bytes` with everything percent-encoded that no URL holds as it is, control characters
/// above all, and what stands in `apart`.
pub(super) fn push_escaped(out: &mut Vec<u8>, bytes: &[u8], apart: &[u8]) {
    for &byte in bytes {
        let sound = byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if sound && !apart.contains(&byte) {
            out.push(byte);
        } else {
            push_encoded(out, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart() {
        let text = |text: &str| Piece::Text(text.as_bytes().into());
        assert_eq!(*parse("", b""), []);
        assert_eq!(
            *parse("/new${path}/\u{fc} ?${x}", b"?#"),
            [text("/new"), Piece::Part(Part::Path), text("/%C3%BC%20%3F$%7Bx%7D")]
        );
        assert_eq!(
            *parse("${host}${port}", b""),
            [Piece::Part(Part::Host), Piece::Part(Part::Port)]
        );
        assert!(is_template("a${query}${path}$") && !is_template("${Path}") && !is_template("${"));
    }
}
