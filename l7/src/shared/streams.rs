//! The requests on one connection to a member: what `h2` says of a stream goes to the lane that it
//! belongs to, and what lanes have to send into one buffer, in turns. Knows no socket; called by
//! `link`, which has one.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use weir_core::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use weir_core::rt::{Payload, SendBuf};
use weir_core::time::clock::Mono;

use super::lane::{Inner, Up, parse};
use crate::h2::block::BlockWriter;
use crate::h2::connection::{Connection, Event, Fault, StreamRef};
use crate::h2::frame::Code;
use crate::h2::head::{Head, HeadLimits};
use crate::limits::{LINK_PARTING, LINK_SEND_BYTES};
use crate::message::{Field, Request};

/// What a member's answer may have.
pub(super) const LIMITS: HeadLimits = HeadLimits { bytes: MAX_HEAD_BYTES, fields: MAX_HEADERS };

/// The streams of a link, and those to come.
#[derive(Debug)]
pub(super) struct Streams {
    connection: Connection,
    secure: bool,
    head: Head,
    /// To be sent.
    out: Option<SendBuf>,
    /// Not begun yet.
    fresh: VecDeque<Rc<Inner>>,
    /// By the places of their streams.
    seats: Vec<Option<Rc<Inner>>>,
    /// Seats that are taken.
    taken: usize,
    /// Streams that nobody waits for, of which all but the end has come; the oldest first.
    parting: VecDeque<StreamRef>,
    /// Memory for the fields of a request.
    fields: Vec<Field>,
}

impl Streams {
    /// Of a connection that is not open yet, inside TLS or not.
    pub(super) fn new(secure: bool, now: Mono) -> Streams {
        Streams {
            connection: Connection::client(LIMITS, now),
            secure,
            head: Head::default(),
            out: None,
            fresh: VecDeque::new(),
            seats: Vec::new(),
            taken: 0,
            parting: VecDeque::new(),
            fields: Vec::new(),
        }
    }

    /// The connection is open: what comes first.
    pub(super) fn start(&mut self) {
        self.connection.start(self.out.get_or_insert_default());
    }

    /// Has it room for one more request?
    pub(super) fn has_room(&self) -> bool {
        !self.connection.is_spent() && self.taken + self.fresh.len() < self.connection.capacity()
    }

    /// Nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0 && self.fresh.is_empty()
    }

    /// No request can begin here any more.
    pub(super) fn is_spent(&self) -> bool {
        self.connection.is_spent()
    }

    /// The member takes so little of what it is owed that nothing more is read from it.
    pub(super) fn is_full(&self) -> bool {
        self.waits() >= 2 * LINK_SEND_BYTES
    }

    /// Bytes that wait to be sent.
    fn waits(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    /// What is to be sent next; `None`: nothing.
    pub(super) fn take_out(&mut self) -> Option<SendBuf> {
        self.out.take().filter(|out| !out.is_empty())
    }

    /// A stream of its own for one request, once its head is posted.
    pub(super) fn enter(&mut self, inner: Rc<Inner>) {
        self.fresh.push_back(inner);
    }

    /// Takes what the exchange has for the member; the first payload begins with the whole head.
    pub(super) fn post(&mut self, inner: &Rc<Inner>, payload: &Payload) -> io::Result<()> {
        let text;
        let [first, second]: [&[u8]; 2] = match payload {
            Payload::Static(bytes) => [bytes, &[]],
            Payload::Buf(buf) => [buf, &[]],
            Payload::Lease(lease) => [lease, &[]],
            Payload::BufLease(buf, lease) => [buf, lease],
            Payload::Framed(_) => {
                let mut all = Vec::with_capacity(payload.len());
                payload.append_to(&mut all);
                text = all;
                [&text, &[]]
            }
        };
        let up = &mut *inner.up.borrow_mut();
        if up.begun {
            up.take(first)?;
            up.take(second)?;
            if let Some(stream) = inner.stream.get() {
                up.offer(stream, &mut self.connection, self.out.get_or_insert_default());
            }
            return Ok(());
        }
        let mut fields = std::mem::take(&mut self.fields);
        let begun = self.begin(inner, up, first, second, &mut fields);
        fields.clear();
        self.fields = fields;
        begun
    }

    /// Takes a request's head, and sends it at once if nothing stands before it.
    fn begin(
        &mut self,
        inner: &Rc<Inner>,
        up: &mut Up,
        first: &[u8],
        second: &[u8],
        fields: &mut Vec<Field>,
    ) -> io::Result<()> {
        let request = parse(first, fields).ok_or(io::ErrorKind::InvalidInput)?;
        let (head, body) = first.split_at(request.len().min(first.len()));
        up.begin(request.facts);
        up.take(body)?;
        up.take(second)?;
        self.fresh.retain(|other| !Rc::ptr_eq(other, inner));
        let first_in_line = !self.fresh.iter().any(|other| other.has_head());
        if first_in_line && self.waits() < LINK_SEND_BYTES && self.may_open() {
            self.open(inner, up, &request);
        } else {
            up.head = Some(head.to_vec());
            self.fresh.push_back(Rc::clone(inner));
        }
        Ok(())
    }

    /// Whether a stream may begin now. Until the member has told how many it takes one is sent
    /// alone, since more might be refused.
    fn may_open(&mut self) -> bool {
        loop {
            let early = !self.connection.is_settled() && self.connection.streams() > 0;
            if self.connection.may_open() && !early {
                return true;
            }
            if self.connection.is_spent() {
                return false;
            }
            let Some(oldest) = self.parting.pop_front() else { return false };
            self.give_up_stream(oldest);
        }
    }

    /// Sends the head, which makes the request a stream.
    fn open(&mut self, inner: &Rc<Inner>, up: &mut Up, request: &Request<'_>) {
        let scheme: &[u8] = if self.secure { b"https" } else { b"http" };
        let end = up.is_head_alone();
        let out = self.out.get_or_insert_default();
        let opened = self.connection.open(request.facts.is_head, end, out, |block| {
            write_head(request, scheme, block);
        });
        let Some(stream) = opened else { return inner.fail(io::ErrorKind::NotConnected) };
        up.left(request.len(), end);
        up.offer(stream, &mut self.connection, out);
        inner.stream.set(Some(stream));
        let place = stream.place();
        if self.seats.len() <= place {
            self.seats.resize(place + 1, None);
        }
        if let Some(seat) = self.seats.get_mut(place) {
            let before = seat.replace(Rc::clone(inner));
            self.taken += usize::from(before.is_none());
        }
        inner.tell_writer(up);
    }

    /// The same for a head that was kept.
    fn open_kept(&mut self, inner: &Rc<Inner>) {
        let up = &mut *inner.up.borrow_mut();
        let head = up.head.take().unwrap_or_default();
        let mut fields = std::mem::take(&mut self.fields);
        match parse(&head, &mut fields) {
            Some(request) => self.open(inner, up, &request),
            None => inner.fail(io::ErrorKind::InvalidInput),
        }
        fields.clear();
        self.fields = fields;
    }

    /// The exchange has taken so much of an answer. True: the member is to be told.
    pub(super) fn consumed(&mut self, inner: &Inner, bytes: u32) -> bool {
        let Some(stream) = inner.stream.get() else { return false };
        self.connection.consumed(stream, bytes as usize, self.out.get_or_insert_default());
        self.waits() > 0
    }

    /// The exchange is done with a stream, or wants no more of it.
    pub(super) fn give_up(&mut self, inner: &Rc<Inner>) {
        self.fresh.retain(|other| !Rc::ptr_eq(other, inner));
        let Some(stream) = inner.stream.get() else { return };
        if self.leave(stream).is_none() {
            return;
        }
        if !inner.has_all() {
            return self.give_up_stream(stream);
        }
        self.parting.push_back(stream);
        if self.parting.len() > LINK_PARTING
            && let Some(oldest) = self.parting.pop_front()
        {
            self.give_up_stream(oldest);
        }
    }

    fn give_up_stream(&mut self, stream: StreamRef) {
        self.connection.reset(stream, Code::CANCEL, self.out.get_or_insert_default());
    }

    /// Whose stream it is.
    fn seat(&self, stream: StreamRef) -> Option<&Rc<Inner>> {
        let inner = self.seats.get(stream.place())?.as_ref();
        inner.filter(|inner| inner.stream.get() == Some(stream))
    }

    /// Frees a stream's seat.
    fn leave(&mut self, stream: StreamRef) -> Option<Rc<Inner>> {
        self.seat(stream)?;
        let inner = self.seats.get_mut(stream.place())?.take();
        self.taken -= usize::from(inner.is_some());
        inner
    }

    /// Takes bytes of the member.
    ///
    /// # Errors
    /// What ends the connection; what tells the member so is in the buffer to be sent.
    pub(super) fn take(&mut self, mut input: &[u8], now: Mono) -> Result<(), Fault> {
        loop {
            let out = self.out.get_or_insert_default();
            let step = self.connection.step(input, &mut self.head, out, now)?;
            input = input.get(step.used..).unwrap_or_default();
            let Some(event) = step.event else { return Ok(()) };
            let taken = self.hear(event, input);
            input = input.get(taken..).unwrap_or_default();
        }
    }

    /// Hands on what happened; returns the bytes of body that belong to it.
    fn hear(&mut self, event: Event, behind: &[u8]) -> usize {
        match event {
            Event::Head { stream, end } => {
                let head = &self.head;
                let told = self.seat(stream).map(|inner| inner.head(head, end));
                self.judge(stream, told);
            }
            Event::Trailers { stream } => {
                let head = &self.head;
                let told = self.seat(stream).map(|inner| inner.trailers(head));
                self.judge(stream, told);
            }
            Event::Data { stream, len, end } => {
                let body = behind.get(..len).unwrap_or_default();
                let told = self.seat(stream).map(|inner| inner.data(body, end));
                if told.is_none() && len > 0 {
                    self.give_up_stream(stream);
                }
                self.judge(stream, told);
                return len;
            }
            Event::Reset { stream, by_peer, unprocessed, .. } => {
                if let Some(inner) = self.leave(stream) {
                    let leaves = self.connection.is_spent();
                    inner.fail(match (by_peer, unprocessed) {
                        // Nothing has been done about it (RFC 9113, 8.7).
                        (true, true) if leaves => io::ErrorKind::NotConnected,
                        (true, true) => io::ErrorKind::ConnectionRefused,
                        (true, false) => io::ErrorKind::ConnectionReset,
                        (false, _) => io::ErrorKind::InvalidData,
                    });
                }
            }
            Event::GoAway { .. } => self.refuse_fresh(),
        }
        0
    }

    /// What a lane made of something: its stream is reset when that was nothing good, and is over
    /// when both sides have said all.
    fn judge(&mut self, stream: StreamRef, told: Option<Result<(), io::ErrorKind>>) {
        match told {
            Some(Err(kind)) => {
                if let Some(inner) = self.leave(stream) {
                    inner.fail(kind);
                }
                let code = match kind {
                    io::ErrorKind::InvalidData => Code::PROTOCOL,
                    _ => Code::CANCEL,
                };
                self.connection.reset(stream, code, self.out.get_or_insert_default());
            }
            Some(Ok(())) => self.leave_if_over(stream),
            None => {}
        }
    }

    fn leave_if_over(&mut self, stream: StreamRef) {
        if self.seat(stream).is_some_and(|inner| inner.is_over()) {
            self.leave(stream);
        }
    }

    /// No more streams can begin here.
    pub(super) fn refuse_fresh(&mut self) {
        for inner in std::mem::take(&mut self.fresh) {
            inner.fail(io::ErrorKind::NotConnected);
        }
    }

    /// Puts together what is to be sent next.
    pub(super) fn fill(&mut self) {
        while self.waits() < LINK_SEND_BYTES
            && let Some(at) = self.fresh.iter().position(|inner| inner.has_head())
            && self.may_open()
        {
            let Some(inner) = self.fresh.remove(at) else { break };
            self.open_kept(&inner);
        }
        if self.connection.is_spent() {
            self.refuse_fresh();
        }
        while self.waits() < LINK_SEND_BYTES
            && let Some((stream, room)) = self.connection.next_sender()
        {
            let Some(inner) = self.seat(stream).cloned() else {
                self.connection.want(stream, false);
                continue;
            };
            let out = self.out.get_or_insert_default();
            inner.send(stream, room, &mut self.connection, out);
            self.leave_if_over(stream);
        }
    }

    /// All is over, for this reason.
    pub(super) fn end(&mut self, kind: io::ErrorKind) {
        for inner in std::mem::take(&mut self.seats).into_iter().flatten() {
            inner.fail(kind);
        }
        self.taken = 0;
        // Not a byte of these has left.
        self.refuse_fresh();
        self.out = None;
    }
}

/// The fields of a request (RFC 9113, 8.3.1).
fn write_head(request: &Request<'_>, scheme: &[u8], block: &mut BlockWriter<'_>) {
    block.field(b":method", request.method());
    block.field(b":scheme", scheme);
    if !request.host().is_empty() {
        block.field(b":authority", request.host());
    }
    match request.target() {
        [alone, []] => block.field(b":path", alone),
        [[], path] => block.field(b":path", path),
        both => block.field(b":path", &both.concat()),
    }
    for (name, value) in request.all_fields().filter(|(name, _)| passes(name)) {
        block.field(name, value);
    }
    // All that comes behind a body is passed on; a gRPC member wants to hear that.
    block.field(b"te", b"trailers");
}

/// A field that is of the message, not of its connection (RFC 9113, 8.2.2). Host has become
/// `:authority`.
fn passes(name: &[u8]) -> bool {
    const CONNECTION: [&[u8]; 7] = [
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    ];
    !CONNECTION.iter().any(|other| name.eq_ignore_ascii_case(other))
}
