//! One stream, as its exchange sees it: the request's body comes out of it, the answer goes into
//! it. Owns what of either is under way: body that has come (bounded by the stream's window) and
//! one piece of the answer. What is small goes straight into the connection's next send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_core::net::relay::Side;
use weir_core::rt::{Lease, Payload, SendBuf};

use super::ready::{Places, Ready};
use crate::client::Front;
use crate::h2::block::BlockWriter;
use crate::h2::connection::{Connection, StreamRef};
use crate::h2::frame::{Code, HEAD};
use crate::h2::head::Head;
use crate::limits::{MUX_OWED_BYTES, MUX_SEND_BYTES, MUX_WHOLE_LEASES};
use crate::message::trailer_fields;

/// What a connection's streams share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) front: Front,
    pub(super) wire: RefCell<Wire>,
    pub(super) ready: std::sync::Arc<Ready>,
    /// Leases that came with body and wait as they are.
    pub(super) whole: Cell<usize>,
}

/// The protocol's state, and what is to be sent.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) connection: Connection,
    /// Frames for the next send; `None` = nothing.
    pub(super) out: Option<SendBuf>,
    /// Streams that wait for room in it.
    pub(super) choked: Places,
}

impl Wire {
    /// Bytes for the next send.
    pub(super) fn owed(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }
}

/// A stream among others.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Rc<Shared>,
    place: usize,
    /// `None`: nobody is served here.
    stream: Cell<Option<StreamRef>>,
    input: RefCell<Input>,
    out: RefCell<Option<Held>>,
    /// Nothing follows behind `out`.
    last: Cell<bool>,
    /// All of the answer is in frames.
    said: Cell<bool>,
    /// Lines of the fields that end it, if there are any.
    trailer: RefCell<Option<Vec<u8>>>,
    arrived: Cell<u64>,
    departed: Cell<u64>,
    /// Added to what it has taken while the client isn't what holds it up.
    grace: Cell<u64>,
}

/// What has come of a body.
#[derive(Debug, Default)]
struct Input {
    /// Each with whether it is one that waits as it came.
    queue: VecDeque<(Lease, bool)>,
    /// Field lines behind it.
    trailer: Vec<u8>,
    ended: bool,
    /// Nobody takes any more of it.
    unwanted: bool,
}

/// Bytes of an answer that wait for their turn.
#[derive(Debug)]
enum Held {
    Static(&'static [u8]),
    Lease(Lease),
    /// The first bytes have gone.
    Buf(SendBuf, usize),
}

impl Held {
    fn of(payload: Payload) -> Held {
        match payload {
            Payload::Static(bytes) => Held::Static(bytes),
            Payload::Lease(lease) => Held::Lease(lease),
            Payload::Buf(buf) => Held::Buf(buf, 0),
            other => {
                let mut buf = SendBuf::new();
                other.append_to(&mut buf);
                Held::Buf(buf, 0)
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Held::Static(bytes) => bytes,
            Held::Lease(lease) => lease,
            Held::Buf(buf, gone) => buf.get(*gone..).unwrap_or_default(),
        }
    }

    fn advance(&mut self, len: usize) {
        match self {
            Held::Static(bytes) => *bytes = bytes.get(len..).unwrap_or_default(),
            Held::Lease(lease) => lease.advance(len),
            Held::Buf(_, gone) => *gone += len,
        }
    }
}

/// The exchange's side.
impl Lane {
    /// The connection.
    #[inline]
    pub(crate) fn front(&self) -> &Front {
        &self.shared.front
    }

    /// The next part of the body; `None` at its end. Whoever waits is woken by the connection.
    pub(crate) fn poll_recv(&self) -> Poll<io::Result<Option<Lease>>> {
        let mut input = self.input.borrow_mut();
        if let Some((lease, whole)) = input.queue.pop_front() {
            self.whole_gone(usize::from(whole));
            self.give_credit(lease.len());
            return Poll::Ready(Ok(Some(lease)));
        }
        if input.ended { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    /// Ready when `post` may be called.
    pub(crate) fn poll_send_ready(&self) -> Poll<io::Result<()>> {
        let free = self.out.borrow().is_none() && self.has_room();
        if free { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether the connection takes more; if it doesn't, this stream is woken when it does.
    pub(crate) fn has_room(&self) -> bool {
        let wire = &mut *self.shared.wire.borrow_mut();
        let room = wire.owed() < MUX_OWED_BYTES;
        if !room && let Some(word) = wire.choked.get_mut(self.place / 64) {
            *word |= 1 << (self.place % 64);
        }
        room
    }

    /// The connection takes no more for now.
    pub(crate) fn is_choked(&self) -> bool {
        self.shared.wire.borrow().owed() >= MUX_OWED_BYTES
    }

    /// Sends a head, an interim one perhaps; `end`: no body follows. Returns how long it became.
    pub(crate) fn send_head(&self, end: bool, fields: impl FnOnce(&mut BlockWriter<'_>)) -> usize {
        let Some(stream) = self.stream.get() else { return 0 };
        let wire = &mut *self.shared.wire.borrow_mut();
        let out = wire.out.get_or_insert_default();
        let before = out.len();
        wire.connection.send_head(stream, end, out, fields);
        self.said.set(self.said.get() || end);
        out.len() - before
    }

    /// Takes body, behind which nothing follows if it is the `last`.
    pub(crate) fn post(&self, payload: Payload, last: bool) {
        let Some(stream) = self.stream.get() else { return };
        if payload.is_empty() && !last {
            return;
        }
        let mut held = Held::of(payload);
        self.last.set(last);
        let wire = &mut *self.shared.wire.borrow_mut();
        let len = held.bytes().len();
        // An end without bytes needs no window, so it never waits for one.
        let small = len == 0 || wire.owed() + HEAD + len <= MUX_SEND_BYTES;
        if !small || !self.put(wire, &mut held, len) {
            wire.connection.want(stream, true);
            self.out.replace(Some(held));
        }
    }

    /// What ends the answer behind its last byte: field lines.
    pub(crate) fn set_trailer(&self, lines: Vec<u8>) {
        self.trailer.replace(Some(lines));
    }

    /// The answer ends here, unless it has already.
    pub(super) fn end(&self) {
        self.last.set(true);
        if !self.said.get() && self.out.borrow().is_none() {
            self.post(Payload::Static(&[]), true);
        }
    }

    /// The lines behind the request's body.
    pub(crate) fn take_trailer(&self) -> Vec<u8> {
        std::mem::take(&mut self.input.borrow_mut().trailer)
    }

    /// Bytes of the body that have come.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.arrived.get()
    }

    /// Bytes of the answer that have left.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.departed.get()
    }

    /// Bytes of the answer that the client has taken, as far as it is what holds them up: when it
    /// isn't its window, it is the connection, which has a limit of its own.
    pub(crate) fn bytes_taken(&self) -> u64 {
        let wire = self.shared.wire.borrow();
        let stalled = self.stream.get().is_some_and(|stream| wire.connection.is_stalled(stream));
        if !stalled {
            self.grace.set(self.grace.get() + (1 << 32));
        }
        self.departed.get() + self.grace.get()
    }

    fn give_credit(&self, bytes: usize) {
        let Some(stream) = self.stream.get() else { return };
        let Wire { connection, out, .. } = &mut *self.shared.wire.borrow_mut();
        connection.consumed(stream, bytes, out.get_or_insert_default());
    }
}

/// Of a tunnel.
impl Side for Lane {
    fn poll_recv(&self, _: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        Lane::poll_recv(self)
    }

    fn poll_send_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Lane::poll_send_ready(self)
    }

    fn post(&self, payload: Payload) -> io::Result<()> {
        Lane::post(self, payload, false);
        Ok(())
    }

    fn poll_shutdown_write(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds() {
            return Poll::Pending;
        }
        self.end();
        Poll::Ready(Ok(()))
    }
}

/// The connection's side.
impl Lane {
    pub(super) fn new(shared: &Rc<Shared>, place: usize) -> Lane {
        Lane {
            shared: Rc::clone(shared),
            place,
            stream: Cell::new(None),
            input: RefCell::default(),
            out: RefCell::new(None),
            last: Cell::new(false),
            said: Cell::new(false),
            trailer: RefCell::new(None),
            arrived: Cell::new(0),
            departed: Cell::new(0),
            grace: Cell::new(0),
        }
    }

    /// A request begins; `ended`: it has no body.
    pub(super) fn begin(&self, stream: StreamRef, ended: bool) {
        self.stream.set(Some(stream));
        self.last.set(false);
        self.said.set(false);
        self.trailer.replace(None);
        let mut input = self.input.borrow_mut();
        input.ended = ended;
        input.unwanted = false;
        input.trailer.clear();
    }

    /// Whether it serves this stream.
    pub(super) fn is(&self, stream: StreamRef) -> bool {
        self.stream.get() == Some(stream)
    }

    /// Nobody is served here any more; what is under way is dropped. The stream, if it lives, is
    /// given up.
    pub(super) fn clear(&self, code: Code) {
        let Some(stream) = self.stream.take() else { return };
        let gone = std::mem::take(&mut self.input.borrow_mut().queue);
        self.whole_gone(gone.iter().filter(|(_, whole)| *whole).count());
        self.out.replace(None);
        let Wire { connection, out, .. } = &mut *self.shared.wire.borrow_mut();
        connection.reset(stream, code, out.get_or_insert_default());
    }

    /// Something of the answer has not left.
    pub(super) fn holds(&self) -> bool {
        self.out.borrow().is_some()
    }

    /// Part of the body has come, as a whole lease. False: there is no room for it.
    pub(super) fn take_lease(&self, lease: Lease, end: bool) -> bool {
        let waiting = self.shared.whole.get();
        if waiting >= MUX_WHOLE_LEASES {
            return self.take(&lease, end);
        }
        let len = lease.len();
        let mut input = self.input.borrow_mut();
        self.arrived.set(self.arrived.get() + len as u64);
        input.ended = end;
        if input.unwanted {
            drop(input);
            self.give_credit(len);
        } else {
            self.shared.whole.set(waiting + 1);
            input.queue.push_back((lease, true));
        }
        true
    }

    fn whole_gone(&self, leases: usize) {
        self.shared.whole.set(self.shared.whole.get().saturating_sub(leases));
    }

    /// Part of the body has come. False: there is no room for it.
    pub(super) fn take(&self, mut bytes: &[u8], end: bool) -> bool {
        let mut input = self.input.borrow_mut();
        self.arrived.set(self.arrived.get() + bytes.len() as u64);
        input.ended = end;
        if input.unwanted {
            drop(input);
            self.give_credit(bytes.len());
            return true;
        }
        while !bytes.is_empty() {
            if let Some((lease, _)) = input.queue.back_mut() {
                let taken = lease.push(bytes);
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if !bytes.is_empty() {
                let Some(lease) = Lease::gather() else { return false };
                input.queue.push_back((lease, false));
            }
        }
        true
    }

    /// The body has ended, with these fields behind it.
    pub(super) fn take_end(&self, fields: &Head) {
        let mut input = self.input.borrow_mut();
        input.ended = true;
        for (name, value) in trailer_fields(fields.bytes()) {
            [name, b": ", value, b"\r\n"].iter().for_each(|p| input.trailer.extend_from_slice(p));
        }
    }

    /// The exchange is over: what still comes of the body is of no use.
    pub(super) fn refuse_input(&self) {
        let mut input = self.input.borrow_mut();
        input.unwanted = true;
        let rest = std::mem::take(&mut input.queue);
        drop(input);
        self.whole_gone(rest.iter().filter(|(_, whole)| *whole).count());
        self.give_credit(rest.iter().map(|(lease, _)| lease.len()).sum());
    }

    /// Puts up to `room` bytes of what is held into a frame. True: all of it has gone.
    pub(super) fn fill(&self, wire: &mut Wire, room: usize) -> bool {
        let mut out = self.out.borrow_mut();
        let Some(held) = &mut *out else { return true };
        let gone = self.put(wire, held, room);
        if gone {
            *out = None;
            if let Some(stream) = self.stream.get() {
                wire.connection.want(stream, false);
            }
        }
        gone
    }

    fn put(&self, wire: &mut Wire, held: &mut Held, room: usize) -> bool {
        let Some(stream) = self.stream.get() else { return true };
        let bytes = held.bytes();
        let len = bytes.len().min(room);
        let whole = len == bytes.len();
        let out = wire.out.get_or_insert_default();
        let last = whole && self.last.get();
        let trails = last && self.trailer.borrow().is_some();
        let all = len > 0 || !trails;
        if all && !wire.connection.send_data(stream, len, last && !trails, out) {
            return false;
        }
        out.extend_from_slice(bytes.get(..len).unwrap_or_default());
        held.advance(len);
        self.departed.set(self.departed.get() + len as u64);
        if trails && let Some(lines) = self.trailer.take() {
            wire.connection.send_trailers(stream, out, |block| {
                trailer_fields(&lines).for_each(|(name, value)| block.field(name, value));
            });
        }
        self.said.set(last);
        whole
    }
}
