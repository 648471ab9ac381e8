//! Target: response heads.

use super::reference::{careless, paired_line_ends, strict};
use super::{Outcome, promise};
use crate::body::Framing;
use crate::message::{ClientSide, Field, Response, ResponseFacts};

/// The response head behind the first byte, whose bits say who asked: to HEAD (1), by HTTP/1.1 (2),
/// on a connection that goes on (4).
///
/// # Errors
/// As for [`request_head`](super::request_head); and what the client is told about the body has to
/// be what is going to be sent.
pub fn response_head(data: &[u8]) -> Outcome {
    let Some((&bits, data)) = data.split_first() else { return Ok(false) };
    let bit = |mask: u8| bits & mask != 0;
    let (to_head, http11, persistent) = (bit(1), bit(2), bit(4));
    let Some((len, facts, _)) = read(data, to_head, None) else { return Ok(false) };
    let head = data.get(..len).ok_or("longer than the input")?;
    let unfinished = read(head.get(..len - 1).unwrap_or_default(), to_head, None);
    promise(unfinished.is_none(), "complete before its end", head)?;
    let delimited = !matches!(facts.framing, Framing::UntilClose | Framing::Chunked);
    let side = ClientSide { http11, persistent, chunked: !delimited && http11, upgrade: false };
    let (_, alone, out) = read(head, to_head, Some(side)).ok_or("depends on what follows")?;
    promise(alone == facts, "means something else without what follows", head)?;
    check_read(head, &facts)?;
    check_written(&out, side, &facts)?;
    let again = read(&out, to_head, Some(side)).ok_or("what was written is refused")?;
    let framing = match facts.framing {
        Framing::Chunked | Framing::UntilClose if side.chunked => Framing::Chunked,
        Framing::Chunked => Framing::UntilClose,
        framing => framing,
    };
    let same = again.1.framing == framing && again.1.status == facts.status;
    promise(same && again.0 == out.len(), "what was written means something else", &out)?;
    promise(again.2 == out, "written again it differs", &out)?;
    Ok(true)
}

/// Length, meaning and, for `side`, what is written.
fn read(
    data: &[u8],
    to_head: bool,
    side: Option<ClientSide>,
) -> Option<(usize, ResponseFacts, Vec<u8>)> {
    let mut fields: Vec<Field> = Vec::new();
    let response = Response::parse(data, to_head, &mut fields).ok()??;
    let mut out = Vec::new();
    if let Some(side) = side {
        response.write(&mut out, side);
    }
    Some((response.len(), response.facts, out))
}

/// What was accepted has one reading.
fn check_read(head: &[u8], facts: &ResponseFacts) -> Result<(), String> {
    promise(paired_line_ends(head), "accepted with a bare CR or LF", head)?;
    let seen = careless(head, false);
    let same = match facts.framing {
        Framing::Length(length) => !seen.chunked && seen.lengths == [length],
        Framing::Chunked => seen.chunked && seen.lengths.is_empty(),
        Framing::UntilClose => !seen.chunked && seen.lengths.is_empty(),
        Framing::None => seen.lengths.len() + usize::from(seen.chunked) <= 1,
    };
    let same = same && seen.early_ends == 0;
    promise(same, "accepted, though a careless reader reads something else", head)
}

fn check_written(out: &[u8], side: ClientSide, facts: &ResponseFacts) -> Result<(), String> {
    let head = strict(out)?;
    let status = format!("HTTP/1.1 {} ", facts.status);
    promise(head.first.starts_with(status.as_bytes()), "another status line", head.first)?;
    for name in ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "Content_Length"] {
        promise(head.all(name).is_empty(), name, out)?;
    }
    let closes = head.all("Connection") == [b"close"];
    promise(closes == (!side.persistent && facts.status >= 200), "another Connection", out)?;
    let seen = careless(out, true);
    promise(seen.chunked == side.chunked && seen.early_ends == 0, "another coding", out)?;
    let lengths = match facts.framing {
        Framing::Length(length) => seen.lengths == [length],
        // To HEAD, or with 304, a length may stand there all the same.
        Framing::None => seen.lengths.len() <= 1,
        Framing::Chunked | Framing::UntilClose => seen.lengths.is_empty(),
    };
    promise(lengths, "another length", out)
}
