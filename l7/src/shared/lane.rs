//! One request on a connection that many share. Towards the exchange it is a connection of its own
//! that speaks HTTP/1.1; towards the link a stream of HTTP/2: the head's text becomes a block of
//! fields, the body leaves its framing, and of what comes the same is made the other way round.
//! Bounded by the two windows of the stream.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_core::control::Limits;
use weir_core::limits::MAX_HEADERS;
use weir_core::rt::{Lease, Payload};

use super::link::Link;
use crate::body::Decoder;
use crate::h2::connection::{Connection, StreamRef};
use crate::h2::head::Head;
use crate::limits::{LANE_WINDOW_STEP, MAX_INTERIM};
use crate::message::{Field, Request, RequestFacts, append_decimal, append_hex, trailer_fields};

/// The exchange's end of a stream. Dropping it gives the stream up.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) inner: Rc<Inner>,
    pub(super) link: Rc<Link>,
}

/// A stream, as lane and link share it.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// `None` until its head is sent.
    pub(super) stream: Cell<Option<StreamRef>>,
    pub(super) up: RefCell<Up>,
    down: RefCell<Down>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// What is for the member.
#[derive(Debug, Default)]
pub(super) struct Up {
    /// The head has been posted …
    pub(super) begun: bool,
    /// … and its text waits here until it can be sent.
    pub(super) head: Option<Vec<u8>>,
    /// Finds the body in what follows the head.
    decoder: Decoder,
    /// The body without its framing; the first `gone` bytes have been sent.
    body: Vec<u8>,
    gone: usize,
    /// Lines of the trailer section.
    trailer: Vec<u8>,
    /// All of it has been sent.
    ended: bool,
    /// Bytes that have left.
    sent: u64,
    to_head: bool,
}

/// What has come from the member.
#[derive(Debug, Default)]
struct Down {
    /// Text for the exchange, each piece with the bytes of the window that it stands for.
    queue: VecDeque<(Lease, u32)>,
    chunked: bool,
    /// The head of the final answer has come.
    begun: bool,
    /// It has no body, whatever comes.
    bodiless: bool,
    /// Bytes of body to come, as far as the head told.
    left: Option<u64>,
    /// Heads before it.
    interim: u8,
    end: Option<End>,
    /// Of the window, what the exchange has taken and the link was not told of.
    owed: u32,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken(io::ErrorKind),
}

/// What is wrong with what has come.
type Told = Result<(), io::ErrorKind>;

impl Lane {
    /// As of a stream of its own.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let mut down = self.inner.down.borrow_mut();
        if let Some((lease, flow)) = down.queue.pop_front() {
            down.owed += flow;
            if down.owed >= LANE_WINDOW_STEP {
                self.link.consumed(&self.inner, std::mem::take(&mut down.owed));
            }
            return Poll::Ready(Ok(Some(lease)));
        }
        match down.end {
            Some(End::Whole) => Poll::Ready(Ok(None)),
            Some(End::Broken(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                keep(&self.inner.reader, cx);
                Poll::Pending
            }
        }
    }

    /// As of a stream of its own: ready once all that was posted has left.
    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(End::Broken(kind)) = self.inner.down.borrow().end {
            return Poll::Ready(Err(kind.into()));
        }
        if self.inner.up.borrow().is_empty() {
            return Poll::Ready(Ok(()));
        }
        keep(&self.inner.writer, cx);
        Poll::Pending
    }

    /// As of a stream of its own. The first payload begins with the whole head.
    pub(crate) fn post(&self, payload: &Payload) -> io::Result<()> {
        self.link.post(&self.inner, payload)
    }

    /// Bytes that have left, or may have.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.inner.up.borrow().sent
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.link.give_up(&self.inner);
    }
}

impl Up {
    fn is_empty(&self) -> bool {
        self.head.is_none() && self.gone == self.body.len()
    }

    /// No body follows what has been sent.
    fn is_sent_whole(&self) -> bool {
        self.decoder.ended() && self.gone == self.body.len()
    }

    /// The head is all that is to be sent.
    pub(super) fn is_head_alone(&self) -> bool {
        self.is_sent_whole() && !self.has_trailer()
    }

    /// The head of the request has come.
    pub(super) fn begin(&mut self, facts: RequestFacts) {
        self.begun = true;
        self.decoder = Decoder::new(facts.framing, u64::MAX);
        self.to_head = facts.is_head;
    }

    /// Takes what follows the head.
    pub(super) fn take(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() && !self.decoder.ended() {
            let step = self.decoder.step(text).map_err(|_| io::ErrorKind::InvalidInput)?;
            let (framing, rest) = text.split_at(step.skip);
            let (data, behind) = rest.split_at(step.data);
            let trailer = framing.get(step.skip - step.trailer..).unwrap_or_default();
            self.trailer.extend_from_slice(trailer);
            self.body.extend_from_slice(data);
            text = behind;
        }
        Ok(())
    }

    /// The head has left, and with it perhaps the whole request.
    pub(super) fn left(&mut self, bytes: usize, end: bool) {
        self.sent += bytes as u64;
        self.ended = end;
    }

    /// Has what is to be sent of the body sent when its turn comes; an end alone needs no window.
    pub(super) fn offer(&mut self, stream: StreamRef, to: &mut Connection, out: &mut Vec<u8>) {
        if self.gone < self.body.len() {
            to.want(stream, true);
        } else if self.is_sent_whole() && !self.ended {
            self.end(stream, to, out);
        }
    }

    /// Behind the last byte of the body: its trailers, or an end alone.
    fn end(&mut self, stream: StreamRef, to: &mut Connection, out: &mut Vec<u8>) {
        self.ended = if self.has_trailer() {
            to.send_trailers(stream, out, |block| {
                trailer_fields(&self.trailer).for_each(|(name, value)| block.field(name, value));
            })
        } else {
            to.send_data(stream, 0, true, out)
        };
    }

    fn has_trailer(&self) -> bool {
        trailer_fields(&self.trailer).next().is_some()
    }
}

/// The head that we have written ourselves.
pub(super) fn parse<'a>(text: &'a [u8], fields: &'a mut Vec<Field>) -> Option<Request<'a>> {
    let most = usize::MAX / 2;
    let limits = Limits { head: most, fields: MAX_HEADERS, uri: most, body: u64::MAX };
    Request::parse(text, &limits, fields).ok().flatten()
}

impl Inner {
    /// Is its head to be sent?
    pub(super) fn has_head(&self) -> bool {
        self.up.borrow().head.is_some()
    }

    /// Sends a frame of the body, of at most `room` bytes.
    pub(super) fn send(
        &self,
        stream: StreamRef,
        room: usize,
        to: &mut Connection,
        out: &mut Vec<u8>,
    ) {
        let up = &mut *self.up.borrow_mut();
        let body = up.body.get(up.gone..).unwrap_or_default();
        let now = body.get(..room.min(body.len())).unwrap_or_default();
        let whole = up.decoder.ended() && now.len() == body.len();
        let end = whole && !up.has_trailer();
        if !up.ended && to.send_data(stream, now.len(), end, out) {
            out.extend_from_slice(now);
            up.sent += now.len() as u64;
            up.gone += now.len();
            up.ended = end;
            if whole && !end {
                up.end(stream, to, out);
            }
        }
        if up.gone == up.body.len() {
            up.body.clear();
            up.gone = 0;
            to.want(stream, false);
        }
        self.tell_writer(up);
    }

    pub(super) fn tell_writer(&self, up: &Up) {
        if up.is_empty() {
            wake(&self.writer);
        }
    }

    /// Both sides have said all.
    pub(super) fn is_over(&self) -> bool {
        let down = self.down.borrow();
        matches!(down.end, Some(End::Broken(_)))
            || down.end == Some(End::Whole) && self.up.borrow().ended
    }

    /// Both sides have said all, but for the end of an answer that is whole.
    pub(super) fn has_all(&self) -> bool {
        let down = self.down.borrow();
        down.begun && down.left == Some(0) && down.end.is_none() && self.up.borrow().ended
    }

    /// A head has come.
    pub(super) fn head(&self, head: &Head, end: bool) -> Told {
        let down = &mut *self.down.borrow_mut();
        let status = head.status();
        down.interim += u8::from(status < 200);
        if head.excess().is_some() || down.interim > MAX_INTERIM {
            return Err(io::ErrorKind::InvalidData);
        }
        let mut text = b"HTTP/1.1 ".to_vec();
        append_decimal(&mut text, u64::from(status));
        text.extend_from_slice(b" \r\n");
        let final_one = status >= 200;
        let bodiless = self.up.borrow().to_head || matches!(status, 204 | 304);
        let length = head.length().filter(|_| bodiless || end || !is_grpc(head));
        for (name, value) in head.lines() {
            if length.is_some() || !name.eq_ignore_ascii_case(b"content-length") {
                append_line(&mut text, name, value);
            }
        }
        if final_one {
            down.begun = true;
            down.bodiless = bodiless;
            down.left = if bodiless { Some(0) } else { head.length() };
            if !bodiless && length.is_none() {
                down.chunked = !end;
                text.extend_from_slice(match end {
                    true => b"content-length: 0\r\n",
                    false => b"transfer-encoding: chunked\r\n",
                });
            }
        }
        text.extend_from_slice(b"\r\n");
        down.put(&text, 0)?;
        self.went_on(down, end)
    }

    /// Part of the body has come.
    pub(super) fn data(&self, bytes: &[u8], end: bool) -> Told {
        let down = &mut *self.down.borrow_mut();
        let flow = bytes.len() as u32;
        if down.bodiless {
            // To HEAD, say. Nobody takes it, so that its window stays used up.
            return self.went_on(down, end);
        }
        // More than that is what the connection does not let pass.
        down.left = down.left.map(|left| left.saturating_sub(u64::from(flow)));
        if down.chunked && flow > 0 {
            let mut size = Vec::with_capacity(20);
            append_hex(&mut size, u64::from(flow));
            size.extend_from_slice(b"\r\n");
            down.put(&size, 0)?;
            down.put(bytes, flow)?;
            down.put(b"\r\n", 0)?;
        } else {
            down.put(bytes, flow)?;
        }
        if end && down.chunked {
            down.put(b"0\r\n\r\n", 0)?;
        }
        self.went_on(down, end)
    }

    /// What stands behind the body has come, and with it the end. An answer with a length can't
    /// have it in HTTP/1.1.
    pub(super) fn trailers(&self, head: &Head) -> Told {
        let down = &mut *self.down.borrow_mut();
        if down.chunked {
            let mut text = b"0\r\n".to_vec();
            head.lines().for_each(|(name, value)| append_line(&mut text, name, value));
            text.extend_from_slice(b"\r\n");
            down.put(&text, 0)?;
        }
        self.went_on(down, true)
    }

    fn went_on(&self, down: &mut Down, end: bool) -> Told {
        if end {
            down.end = Some(End::Whole);
        }
        wake(&self.reader);
        Ok(())
    }

    /// The stream has ended before its time; an answer that is here whole stays.
    pub(super) fn fail(&self, kind: io::ErrorKind) {
        let mut down = self.down.borrow_mut();
        if down.end.is_none() {
            down.queue.clear();
            down.end = Some(End::Broken(kind));
        }
        wake(&self.reader);
        wake(&self.writer);
    }
}

impl Down {
    /// Appends text that stands for `flow` bytes of the window.
    fn put(&mut self, mut text: &[u8], mut flow: u32) -> Told {
        while !text.is_empty() {
            if let Some((lease, its_flow)) = self.queue.back_mut() {
                let taken = lease.push(text);
                text = text.get(taken..).unwrap_or_default();
                if taken > 0 {
                    *its_flow += std::mem::take(&mut flow);
                }
            }
            if !text.is_empty() {
                let lease = Lease::gather().ok_or(io::ErrorKind::OutOfMemory)?;
                self.queue.push_back((lease, 0));
            }
        }
        Ok(())
    }
}

/// An answer to a gRPC call says in its trailers what came of it, so that it needs chunks.
fn is_grpc(head: &Head) -> bool {
    let known = |(name, value): (&[u8], &[u8])| {
        name == b"content-type" && value.starts_with(b"application/grpc")
    };
    head.lines().any(known)
}

fn append_line(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// Keeps the waker of who waits.
fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let place = &mut *place.borrow_mut();
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(place: &RefCell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use weir_core::time::clock::Mono;

    use super::*;
    use crate::body::Framing;
    use crate::h2::connection::Event;
    use crate::shared::streams::LIMITS;

    /// What a member hears of a request whose chunks are `text`: the head ends it, the body, and
    /// its trailers.
    fn heard(text: &str, pieces: usize) -> (bool, Vec<u8>, Vec<u8>) {
        let now = Mono::from_nanos(1);
        let inner = Inner::default();
        let (mut client, mut out) = (Connection::client(LIMITS, now), Vec::new());
        client.start(&mut out);
        let up = || inner.up.borrow_mut();
        up().begin(RequestFacts { framing: Framing::Chunked, ..RequestFacts::default() });
        let mut parts = text.as_bytes().chunks(text.len().div_ceil(pieces));
        up().take(parts.next().unwrap()).unwrap();
        let alone = up().is_head_alone();
        let stream = client.open(false, alone, &mut out, |block| {
            for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/")] {
                block.field(name.as_bytes(), value.as_bytes());
            }
        });
        let stream = stream.unwrap();
        up().left(1, alone);
        up().offer(stream, &mut client, &mut out);
        for part in parts {
            up().take(part).unwrap();
            up().offer(stream, &mut client, &mut out);
        }
        while let Some((stream, room)) = client.next_sender() {
            inner.send(stream, room.min(2), &mut client, &mut out);
        }
        assert!(up().ended);
        let (mut server, mut head) = (Connection::server(LIMITS, now), Head::default());
        let (mut first, mut body, mut trailers) = (false, Vec::new(), Vec::new());
        let mut input = &out[..];
        loop {
            let step = server.step(input, &mut head, &mut Vec::new(), now).unwrap();
            input = &input[step.used..];
            match step.event {
                Some(Event::Head { end, .. }) => first = end,
                Some(Event::Data { len, .. }) => {
                    body.extend_from_slice(&input[..len]);
                    input = &input[len..];
                }
                Some(Event::Trailers { .. }) => trailers = head.bytes().to_vec(),
                Some(other) => panic!("{other:?}"),
                None => return (first, body, trailers),
            }
        }
    }

    /// In whatever pieces a body comes, its trailers end it; those that have no place there are
    /// left out, and nothing is kept back where none are left.
    #[test]
    fn trailers_of_a_request() {
        for pieces in 1..20 {
            let all = heard("5\r\nabcde\r\n0\r\nX-Sum: 1\r\nTrailer: x\r\n\r\n", pieces);
            assert_eq!(all, (false, b"abcde".to_vec(), b"x-sum: 1\r\n".to_vec()), "{pieces}");
            let all = heard("5\r\nabcde\r\n0\r\nContent-Length: 7\r\n\r\n", pieces);
            assert_eq!(all, (false, b"abcde".to_vec(), Vec::new()), "{pieces}");
            let all = heard("0\r\nx-sum: 1\r\n\r\n", pieces);
            assert_eq!(all, (false, Vec::new(), b"x-sum: 1\r\n".to_vec()), "{pieces}");
        }
        assert_eq!(heard("0\r\n\r\n", 1), (true, Vec::new(), Vec::new()));
    }
}
