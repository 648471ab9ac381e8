//! Target: connections of HTTP/2, in both roles.

use weir_core::time::clock::Mono;

use super::reference::strict;
use super::{Outcome, promise};
use crate::h2::block::BlockWriter;
use crate::h2::connection::{Connection, Event, StreamRef};
use crate::h2::frame::{self, FrameHead, HEAD, PREFACE};
use crate::h2::head::{Head, HeadLimits};

const LIMITS: HeadLimits = HeadLimits { bytes: 4_096, fields: 50 };
/// Bytes that answer a request.
const ANSWER: &[u8] = b"an answer";

/// What a connection has made of its input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Everything but where body was cut.
    events: Vec<Event>,
    body: Vec<u8>,
    out: Vec<u8>,
    /// Why it has ended.
    fault: Option<&'static str>,
}

/// The frames behind the first byte, which chooses the role (its lowest bit: of a client, with
/// three requests under way) and how the input is cut. A server's are read behind the preface.
///
/// # Errors
/// However the input is cut, the same has to come of it; what is sent has to be whole frames, and
/// not many for few; heads that are taken have to be such that they can be sent on in HTTP/1.
pub fn frames(data: &[u8]) -> Outcome {
    let Some((&seed, data)) = data.split_first() else { return Ok(false) };
    let client = seed & 1 == 1;
    let whole = run(client, &[data])?;
    let mut pieces = Vec::new();
    let (mut rest, mut state) = (data, u32::from(seed));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(u32::from(seed));
        let (piece, more) = rest.split_at((1 + (state >> 24) as usize % 40).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    let cut = run(client, &pieces)?;
    promise(cut == whole, &format!("cut, it means something else: {cut:?} {whole:?}"), data)?;
    promise(whole.body.len() <= data.len(), "more body than bytes", data)?;
    check_sent(client, &whole, data)?;
    Ok(whole.fault.is_none())
}

/// Whole frames, and not too many.
fn check_sent(client: bool, seen: &Seen, data: &[u8]) -> Result<(), String> {
    let mut rest = &seen.out[..];
    if client {
        rest = rest.strip_prefix(PREFACE).ok_or("no preface")?;
    }
    while !rest.is_empty() {
        let head = FrameHead::parse(rest).ok_or("half a frame's head was sent")?;
        let behind = rest.get(HEAD + head.len as usize..);
        rest = behind.ok_or("half a frame was sent")?;
    }
    // A ping or a small request is answered with a little more than its own size.
    promise(seen.out.len() <= 400 + 4 * data.len(), "far more is sent than was received", data)
}

fn run(client: bool, pieces: &[&[u8]]) -> Result<Seen, String> {
    let now = Mono::from_nanos(1);
    let mut seen = Seen::default();
    let mut head = Head::default();
    let mut connection =
        if client { Connection::client(LIMITS, now) } else { Connection::server(LIMITS, now) };
    connection.start(&mut seen.out);
    if client {
        for (to_head, end) in [(false, true), (false, false), (true, true)] {
            connection.open(to_head, end, &mut seen.out, get);
        }
    }
    let preface = if client { &[][..] } else { &[PREFACE][..] };
    for piece in preface.iter().chain(pieces) {
        let mut rest = *piece;
        loop {
            let step = match connection.step(rest, &mut head, &mut seen.out, now) {
                Ok(step) => step,
                Err(fault) => {
                    seen.fault = Some(fault.reason);
                    return Ok(seen);
                }
            };
            rest = rest.get(step.used..).ok_or("more was used than there is")?;
            match step.event {
                None => break,
                Some(Event::Data { stream, len, end }) => {
                    let (body, behind) = rest.split_at_checked(len).ok_or("no such body")?;
                    seen.body.extend_from_slice(body);
                    rest = behind;
                    if end {
                        seen.events.push(Event::Data { stream, len: 0, end });
                    }
                }
                Some(event) => {
                    seen.events.push(event);
                    check_head(client, event, &head)?;
                    if let Event::Head { stream, .. } = event {
                        answer(&mut connection, stream, &mut seen.out);
                    }
                }
            }
        }
        promise(rest.is_empty(), "input is left", rest)?;
    }
    Ok(seen)
}

fn get(block: &mut BlockWriter<'_>) {
    block.field(b":method", b"GET");
    block.field(b":scheme", b"https");
    block.field(b":path", b"/");
}

/// Answers of several kinds, by the stream's number; they mean nothing in a client.
fn answer(connection: &mut Connection, stream: StreamRef, out: &mut Vec<u8>) {
    let kind = stream.id() / 2 % 4;
    if kind == 3 {
        return connection.reset(stream, frame::Code::INTERNAL, out);
    }
    if !connection.send_head(stream, kind == 0, out, |block| block.status(200)) {
        return;
    }
    let len = connection.room(stream).min(ANSWER.len());
    if kind == 1 && connection.send_data(stream, len, true, out) {
        out.extend_from_slice(ANSWER.get(..len).unwrap_or_default());
    }
}

/// A head of HTTP/1 with the same fields has to be a sound one.
fn check_head(client: bool, event: Event, head: &Head) -> Result<(), String> {
    if !matches!(event, Event::Head { .. } | Event::Trailers { .. }) {
        return Ok(());
    }
    let text = |span: Option<crate::message::Span>| span.map(|span| span.get(head.bytes()));
    let mut lines = b"GET / HTTP/1.1\r\n".to_vec();
    if matches!(event, Event::Head { .. }) && !client && head.excess().is_none() {
        let pseudo = head.pseudo();
        let method = text(pseudo.method).ok_or("a request without a method")?;
        // That of CONNECT is its authority, which is looked at where hosts are.
        let target = text(pseudo.path).unwrap_or(b"*");
        lines = [method, b" ", target, b" HTTP/1.1\r\n"].concat();
    }
    let first = lines.len();
    for (name, value) in head.lines() {
        lines.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    lines.extend_from_slice(b"\r\n");
    let read = strict(&lines)?;
    let spaces = read.first.iter().filter(|&&byte| byte == b' ').count();
    promise(spaces == 2, "a request line in more parts", lines.get(..first).unwrap_or_default())?;
    promise(read.fields.len() == head.fields().len(), "other fields than it has", &lines)?;
    for name in ["Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive"] {
        promise(read.all(name).is_empty(), name, &lines)?;
    }
    promise(read.all("Content-Length").len() <= 1, "two lengths", &lines)
}
