//! One request on a connection that many share. Towards the exchange it is a connection of its own
//! that speaks HTTP/1.1; towards the link a stream of HTTP/2: the head's text is kept until it
//! becomes a block of fields, the body leaves its framing, and of what comes the same is made the
//! other way round. Bounded by the two windows of the stream.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_core::control::Limits;
use weir_core::limits::MAX_HEADERS;
use weir_core::rt::{Lease, Payload};

use super::link::Link;
use super::wire::Wire;
use crate::body::Decoder;
use crate::h2::frame::Code;
use crate::limits::{LANE_WINDOW, LANE_WINDOW_STEP, MAX_INTERIM};
use crate::message::{Field, Request, append_decimal, append_hex};

/// The exchange's end of a stream. Dropping it gives the stream up.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) inner: Rc<Inner>,
    pub(super) link: Rc<Link>,
}

/// A stream, as lane and link share it.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Its number; 0 until its head is sent.
    pub(super) stream: Cell<u32>,
    up: RefCell<Up>,
    down: RefCell<Down>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    /// It stands in the link's order of those that have something to send.
    pub(super) queued: Cell<bool>,
}

/// What is for the member.
#[derive(Debug, Default)]
struct Up {
    /// The text of the head until it is sent.
    head: Option<Vec<u8>>,
    /// Finds the body in what follows the head.
    decoder: Decoder,
    /// The body without its framing; the first `gone` bytes have been sent.
    body: Vec<u8>,
    gone: usize,
    window: i64,
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
    /// Heads before it.
    interim: u8,
    end: Option<End>,
    /// Bytes that the member has sent and was not given back.
    used: u32,
    /// Of these, what the exchange has taken.
    owed: u32,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken(io::ErrorKind),
}

impl Lane {
    /// As of a stream of its own.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let mut down = self.inner.down.borrow_mut();
        if let Some((lease, flow)) = down.queue.pop_front() {
            down.owed += flow;
            if down.owed >= LANE_WINDOW_STEP && down.end.is_none() {
                down.used -= down.owed;
                self.link.give_back(self.inner.stream.get(), std::mem::take(&mut down.owed));
            }
            return Poll::Ready(Ok(Some(lease)));
        }
        match down.end {
            Some(End::Whole) => Poll::Ready(Ok(None)),
            Some(End::Broken(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                self.inner.reader.replace(Some(cx.waker().clone()));
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
        self.inner.writer.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// As of a stream of its own. The first payload begins with the whole head.
    pub(crate) fn post(&self, payload: &Payload) -> io::Result<()> {
        self.inner.up.borrow_mut().take(payload)?;
        self.link.has_more(&self.inner);
        Ok(())
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

    /// The body has come whole.
    fn is_whole(&self) -> bool {
        self.decoder.ended()
    }

    fn take(&mut self, payload: &Payload) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::InvalidInput);
        let mut text = Vec::with_capacity(payload.len());
        payload.append_to(&mut text);
        let mut at = 0;
        if self.head.is_none() && self.sent == 0 {
            let mut fields = Vec::new();
            let request = parse(&text, &mut fields).ok_or_else(broken)?;
            at = request.len();
            self.decoder = Decoder::new(request.facts.framing, u64::MAX);
            self.to_head = request.facts.is_head;
            self.head = Some(text.get(..at).unwrap_or_default().to_vec());
        }
        while at < text.len() && !self.decoder.ended() {
            let input = text.get(at..).unwrap_or_default();
            let step = self.decoder.step(input).map_err(|_| broken())?;
            let data = input.get(step.skip..step.skip + step.data).unwrap_or_default();
            self.body.extend_from_slice(data);
            at += step.skip + step.data;
        }
        Ok(())
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

    /// Sends the head, which makes it a stream.
    pub(super) fn open(&self, wire: &mut Wire, scheme: &[u8], out: &mut Vec<u8>) {
        let up = &mut *self.up.borrow_mut();
        let Some(head) = up.head.take() else { return };
        let mut fields = Vec::new();
        let Some(request) = parse(&head, &mut fields) else { return };
        up.ended = up.is_whole() && up.body.is_empty();
        let (stream, window) = wire.open(&request, scheme, up.ended, out);
        up.window = window;
        up.sent += head.len() as u64;
        self.stream.set(stream);
        self.tell_writer(up);
    }

    /// Is there something to send, and may it be sent?
    pub(super) fn can_send(&self) -> bool {
        let up = self.up.borrow();
        let left = up.body.len() - up.gone;
        !up.ended && (left > 0 && up.window > 0 || left == 0 && up.is_whole())
    }

    /// Sends a frame of the body.
    pub(super) fn send(&self, wire: &mut Wire, out: &mut Vec<u8>) {
        let up = &mut *self.up.borrow_mut();
        let most = usize::try_from(up.window).unwrap_or_default();
        let body = up.body.get(up.gone..).unwrap_or_default();
        let (whole, len) = (up.is_whole(), body.len());
        let sent = wire.send(self.stream.get(), body, most, whole, out);
        up.ended = whole && sent == len;
        up.gone += sent;
        up.window -= sent as i64;
        up.sent += sent as u64;
        if up.gone == up.body.len() {
            up.body.clear();
            up.gone = 0;
        }
        self.tell_writer(up);
    }

    fn tell_writer(&self, up: &Up) {
        if up.is_empty() {
            wake(&self.writer);
        }
    }

    /// Its window is larger; false when it is too large.
    pub(super) fn widen(&self, more: i64) -> bool {
        let mut up = self.up.borrow_mut();
        up.window += more;
        up.window <= i64::from(crate::h2::frame::MAX_WINDOW)
    }

    /// Both sides have said all.
    pub(super) fn is_over(&self) -> bool {
        let down = self.down.borrow();
        matches!(down.end, Some(End::Broken(_)))
            || down.end == Some(End::Whole) && self.up.borrow().ended
    }

    /// A head has come. False when it makes no sense.
    pub(super) fn head(&self, status: u16, lines: &[u8], end: bool) -> bool {
        let down = &mut *self.down.borrow_mut();
        down.interim += u8::from(status < 200);
        let too_many = down.interim > MAX_INTERIM;
        if down.begun || down.end.is_some() || status == 101 || too_many {
            return false;
        }
        let mut text = b"HTTP/1.1 ".to_vec();
        append_decimal(&mut text, u64::from(status));
        text.extend_from_slice(b" \r\n");
        text.extend_from_slice(lines);
        if status >= 200 {
            down.begun = true;
            let bodiless = self.up.borrow().to_head || status == 204 || status == 304;
            if !bodiless && !has_length(lines) {
                down.chunked = !end;
                text.extend_from_slice(match end {
                    true => b"content-length: 0\r\n",
                    false => b"transfer-encoding: chunked\r\n",
                });
            }
        }
        text.extend_from_slice(b"\r\n");
        let good = down.put(&text, 0);
        if end {
            down.end = Some(End::Whole);
        }
        wake(&self.reader);
        good
    }

    /// Part of the body has come. False when it may not, or when there is no room.
    pub(super) fn data(&self, bytes: &[u8], flow: u32, end: bool) -> bool {
        let down = &mut *self.down.borrow_mut();
        down.used += flow;
        if down.used > LANE_WINDOW || !down.begun || down.end.is_some() {
            return false;
        }
        let mut good = true;
        if down.chunked && !bytes.is_empty() {
            let mut size = Vec::with_capacity(20);
            append_hex(&mut size, bytes.len() as u64);
            size.extend_from_slice(b"\r\n");
            good &= down.put(&size, 0) && down.put(bytes, flow) && down.put(b"\r\n", 0);
        } else {
            good &= down.put(bytes, flow);
        }
        if end {
            good &= !down.chunked || down.put(b"0\r\n\r\n", 0);
            down.end = Some(End::Whole);
        }
        wake(&self.reader);
        good
    }

    /// What stands behind the body has come, and with it the end.
    pub(super) fn trailers(&self, lines: &[u8]) -> bool {
        let down = &mut *self.down.borrow_mut();
        if !down.begun || down.end.is_some() {
            return false;
        }
        let good =
            !down.chunked || down.put(b"0\r\n", 0) && down.put(lines, 0) && down.put(b"\r\n", 0);
        down.end = Some(End::Whole);
        wake(&self.reader);
        good
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
    /// Appends text; false when there is no room for it.
    fn put(&mut self, mut text: &[u8], flow: u32) -> bool {
        let mut flow = flow;
        while !text.is_empty() {
            if let Some((lease, its_flow)) = self.queue.back_mut() {
                let taken = lease.push(text);
                text = text.get(taken..).unwrap_or_default();
                if taken > 0 {
                    *its_flow += std::mem::take(&mut flow);
                }
            }
            if !text.is_empty() {
                let Some(lease) = Lease::gather() else { return false };
                self.queue.push_back((lease, 0));
            }
        }
        // Padding alone.
        self.owed += flow;
        true
    }
}

fn wake(place: &RefCell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

fn has_length(lines: &[u8]) -> bool {
    let name = b"content-length:";
    let starts = |at: usize| lines.get(at..at + name.len()) == Some(name);
    starts(0) || lines.windows(2).enumerate().any(|(at, end)| end == b"\r\n" && starts(at + 2))
}

/// What the exchange is told of a stream that was reset.
pub(super) fn kind_of(code: Code) -> io::ErrorKind {
    match code {
        // Nothing has been done about it (RFC 9113, 8.7).
        Code::REFUSED => io::ErrorKind::ConnectionRefused,
        _ => io::ErrorKind::ConnectionReset,
    }
}
