//! Target: request heads.

use weir_core::control::{Headers, Limits};

use super::reference::{Careless, careless, paired_line_ends, strict};
use super::{Outcome, promise};
use crate::body::Framing;
use crate::error::{Error, Retry, Side};
use crate::message::{Field, Request, RequestFacts, Via};

const PEER: &str = "192.0.2.1";
const MEMBER: &str = "192.0.2.2:80";
/// Fields that concern one connection, or that only Weir may write.
const NEVER: [&str; 9] = [
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Upgrade",
    "HTTP2-Settings",
    "Content_Length",
    "Transfer_Encoding",
];

/// The head at the start of the input, if one is there.
///
/// # Errors
/// What is accepted must be complete exactly at its end; what is written for the member must have
/// the strict form, say one thing about its body even to a careless reader, hold no field of one
/// connection, and parse and write again to itself.
pub fn request_head(data: &[u8]) -> Outcome {
    let Some((len, facts, out)) = read(data)? else { return Ok(false) };
    let head = data.get(..len).ok_or("longer than the input")?;
    let alone = read(head)?.ok_or("incomplete without what follows")?;
    promise(alone == (len, facts, out.clone()), "depends on what follows", head)?;
    let unfinished = read(head.get(..len - 1).unwrap_or_default())?;
    promise(unfinished.is_none(), "complete before its end", head)?;
    check_read(head, &facts)?;
    check_written(&out, &facts)?;
    let (again_len, again, twice) = read(&out)?.ok_or("what was written is refused")?;
    promise(again_len == out.len(), "what was written ends early", &out)?;
    let same = RequestFacts { http11: true, persistent: true, names_member: false, ..facts };
    promise(again == same, "what was written means something else", &out)?;
    let stable = without_forwarded_for(&twice)? == without_forwarded_for(&out)?;
    promise(stable, "written again it differs", &out)?;
    Ok(true)
}

/// Length, meaning and what is written for a member; `None` when it is refused as it should be.
fn read(data: &[u8]) -> Result<Option<(usize, RequestFacts, Vec<u8>)>, String> {
    let mut fields: Vec<Field> = Vec::new();
    let request = match Request::parse(data, &Limits::default(), &mut fields) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(None),
        Err(error) => return refusal(error).map(|()| None),
    };
    let mut out = Vec::new();
    let (peer, member, headers) = (PEER.as_bytes(), MEMBER.as_bytes(), Headers::default());
    request.write(
        &mut out,
        Via { peer, member, upgrade: None, key: None, headers: &headers, sides: None },
    );
    Ok(Some((request.len(), request.facts, out)))
}

fn refusal(error: Error) -> Result<(), String> {
    let verdict = error.verdict();
    let blames = verdict.side == Side::Client && verdict.retry == Retry::Never;
    let known = blames && [400, 413, 414, 501].contains(&verdict.status);
    promise(known, "refused with another status", error.to_string().as_bytes())
}

fn check_written(out: &[u8], facts: &RequestFacts) -> Result<(), String> {
    let head = strict(out)?;
    let words: Vec<&[u8]> = head.first.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words.as_slice() else {
        return Err(format!("a start line of other words: {}", head.first.escape_ascii()));
    };
    let origin = target.starts_with(b"/") || (*target == b"*" && *method == b"OPTIONS");
    promise(origin && *method != b"CONNECT", "not an origin form", head.first)?;
    promise(facts.is_head == (*method == b"HEAD"), "another method", head.first)?;
    for name in NEVER {
        promise(head.all(name).is_empty(), name, out)?;
    }
    promise(head.all("X-Forwarded-For").len() == 1, "not one X-Forwarded-For", out)?;
    let seen = careless(out, true);
    let same = framing(&seen) == Some(facts.framing) && (seen.hosts, seen.early_ends) == (1, 0);
    promise(same, "a careless reader reads something else", out)
}

/// What was accepted has one reading: a careless reader finds the same body.
fn check_read(head: &[u8], facts: &RequestFacts) -> Result<(), String> {
    promise(paired_line_ends(head), "accepted with a bare CR or LF", head)?;
    let seen = careless(head, false);
    let same = framing(&seen) == Some(facts.framing) && seen.hosts <= 1 && seen.early_ends == 0;
    promise(same, "accepted, though a careless reader reads something else", head)
}

/// The one framing that a careless reader finds, if there is one.
fn framing(seen: &Careless) -> Option<Framing> {
    match (seen.lengths.as_slice(), seen.chunked) {
        ([], false) => Some(Framing::None),
        ([], true) => Some(Framing::Chunked),
        (&[length], false) => Some(Framing::Length(length)),
        _ => None,
    }
}

/// The start line and all fields but X-Forwarded-For, which grows with each hop.
fn without_forwarded_for(out: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let head = strict(out)?;
    let other = |(name, _): &&(&[u8], &[u8])| !name.eq_ignore_ascii_case(b"x-forwarded-for");
    let lines =
        head.fields.iter().filter(other).map(|(name, value)| [name, value].map(|p| *p).concat());
    Ok(std::iter::once(head.first.to_vec()).chain(lines).collect())
}
