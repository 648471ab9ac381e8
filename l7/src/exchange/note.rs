//! What is remembered of a request for its line in the access log and for the metrics: texts of its
//! head, counts and moments. Owns the line's making at the end; how a line looks is `record`'s.
//!
//! Moments: what arrives has the time of its turn, which is when the kernel handed it over; what
//! leaves has the clock's own time. So `proxy_time` covers the request's way through the turn.

use std::rc::Rc;
use std::time::Duration;

use weir_core::rt;
use weir_core::table::{Pool, SiteLog};
use weir_core::time::clock::{self, Mono};

use super::{End, Exchange};
use crate::client::Client;
use crate::h2::head::Head;
use crate::limits::{HALF_CLOSE, KEPT_TEXT_BYTES};
use crate::message::{AddressText, Request, RequestFacts, Span, append_decimal};
use crate::record::{Asked, Record};

/// Texts that a line quotes from the request's head.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Method,
    Host,
    Target,
    Protocol,
    UserAgent,
    Referer,
    ForwardedFor,
}

/// What a request of HTTP/2 says of its version.
const HTTP2: &[u8] = b"HTTP/2.0";
/// The status after which a request is a tunnel.
const SWITCHED: u16 = 101;
/// How many texts there are.
const TEXTS: usize = Text::ForwardedFor as usize + 1;

/// The memory of one request.
#[derive(Default)]
pub(super) struct Note {
    /// Where it will be logged; `None` = nowhere.
    log: Option<Rc<SiteLog>>,
    /// The first byte was here.
    begun: Mono,
    /// The last bytes of it came.
    heard: Mono,
    /// What the connection had received and sent before.
    received_before: u64,
    sent_before: u64,
    /// Bytes of the request's head.
    header_length: u64,
    /// Bytes of the answers' heads.
    pub(super) heads_sent: u64,
    /// Pending since then; only kept for the log.
    paused: Option<Mono>,
    /// How long it was pending: waiting for the client, for members, for its own next turn.
    waited: Duration,
    /// The status that the client was told, or 499; 0 = none yet.
    status: u16,
    /// Why Weir answered itself, or cut.
    reason: &'static str,
    /// What was done with it.
    pub(super) action: &'static str,
    /// The pool that it was for.
    pool: Option<Rc<Pool>>,
    /// Some head was read, at least its first line.
    asked: bool,
    bytes: Vec<u8>,
    spans: [(u32, u32); TEXTS],
}

impl Note {
    /// The next request begins, of which `len` bytes are here.
    #[inline]
    pub(super) fn begin(&mut self, client: &Client, len: usize) {
        self.log = client.site().log();
        self.begun = rt::now();
        self.heard = self.begun;
        self.received_before = client.received.get().saturating_sub(len as u64);
        self.sent_before = client.sent.get();
    }

    /// Forgets all but the memory that the next request can use.
    pub(super) fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.shrink_to(KEPT_TEXT_BYTES);
        *self = Note { bytes, ..Note::default() };
    }

    /// More of the request has come.
    #[inline]
    pub(super) fn hear(&mut self) {
        self.heard = rt::now();
    }

    /// The client's last bytes came just now: what ends its side belongs to them.
    pub(super) fn heard_lately(&self) -> bool {
        rt::now().since(self.heard) <= HALF_CLOSE
    }

    /// It goes on after a wait, if it was waiting.
    #[inline]
    pub(super) fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            self.waited += rt::now().since(paused);
        }
    }

    /// It has to wait.
    #[inline]
    pub(super) fn pause(&mut self) {
        if self.log.is_some() {
            self.paused = Some(clock::mono());
        }
    }

    /// The head is whole and right.
    #[inline]
    pub(super) fn take_head(&mut self, request: &Request<'_>) {
        self.header_length = request.len() as u64;
        if self.log.is_some() {
            self.take_texts(request);
        }
    }

    fn take_texts(&mut self, request: &Request<'_>) {
        self.asked = true;
        self.put(Text::Method, request.method());
        self.put(Text::Host, request.host());
        self.put(Text::Target, &[]);
        request.target().iter().for_each(|part| self.extend(Text::Target, part));
        self.put(
            Text::Protocol,
            match request.facts {
                RequestFacts { http2: true, .. } => HTTP2,
                RequestFacts { http11: true, .. } => b"HTTP/1.1",
                _ => b"HTTP/1.0",
            },
        );
        for (name, value) in request.all_fields() {
            let text = match name.len() {
                7 if name.eq_ignore_ascii_case(b"referer") => Text::Referer,
                10 if name.eq_ignore_ascii_case(b"user-agent") => Text::UserAgent,
                15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => Text::ForwardedFor,
                _ => continue,
            };
            if self.text(text).is_empty() {
                self.put(text, value);
            }
        }
    }

    /// The head was refused: keeps its first line, if it has the form of one.
    #[cold]
    pub(super) fn take_refused(&mut self, raw: &[u8]) {
        if self.log.is_none() {
            return;
        }
        let line = raw.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(protocol), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return;
        };
        if !method.is_empty() && !target.is_empty() && protocol.starts_with(b"HTTP/") {
            self.asked = true;
            self.put(Text::Method, method);
            self.put(Text::Target, target);
            self.put(Text::Protocol, protocol);
        }
    }

    /// The same of a head of HTTP/2.
    #[cold]
    pub(super) fn take_refused_head(&mut self, head: &Head) {
        let pseudo = head.pseudo();
        let get = |span: Option<Span>| span.map(|span| span.get(head.bytes()));
        if let Some(method) = get(pseudo.method).filter(|_| self.log.is_some()) {
            self.asked = true;
            self.put(Text::Method, method);
            self.put(Text::Host, get(pseudo.authority).unwrap_or_default());
            self.put(Text::Target, get(pseudo.path).unwrap_or_default());
            self.put(Text::Protocol, HTTP2);
        }
    }

    /// Makes the text that was kept last longer.
    fn extend(&mut self, text: Text, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        if let Some(span) = self.spans.get_mut(text as usize) {
            span.1 = self.bytes.len() as u32;
        }
    }

    /// Keeps a text, in place of one that was kept before.
    pub(super) fn put(&mut self, text: Text, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        if let Some(span) = self.spans.get_mut(text as usize) {
            *span = (start as u32, self.bytes.len() as u32);
        }
    }

    fn text(&self, text: Text) -> &[u8] {
        let (start, end) = self.spans.get(text as usize).copied().unwrap_or_default();
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The request goes to a member of `pool`, if there is one.
    #[inline]
    pub(super) fn forwarded_to(&mut self, pool: Option<&Rc<Pool>>) {
        if let Some(pool) = pool.filter(|_| self.log.is_some()) {
            self.action = "forward";
            self.pool = Some(Rc::clone(pool));
        }
    }

    /// Why Weir answered itself, or cut; a fixed text.
    pub(super) fn failed(&mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Exchange {
    /// Counts the answer to the client, which is decided (499: nobody hears it, C26). Once a
    /// request.
    pub(super) fn count_status(&mut self, status: u16, client: &Client) {
        self.note.status = status;
        let counters = &client.site().counters;
        counters.requests.add(1);
        counters.statuses.count(status);
        if self.attempt.is_some() || !self.former.is_empty() {
            counters.forwarded.add(1);
        } else {
            counters.local.count(status);
        }
    }

    /// The request has ended: counts its times and logs it. One that had no answer, since its head
    /// never came, is no request.
    pub(super) fn conclude(&mut self, end: &End, client: &Client) {
        client.requests.set(client.requests.get().saturating_add(1));
        if self.note.status == 0 {
            return;
        }
        let time = clock::mono().since(self.note.begun);
        if self.note.status != SWITCHED {
            self.observe(time, client);
        }
        if let Some(log) = self.note.log.take() {
            self.former.extend(self.attempt.take().map(|attempt| attempt.record));
            self.log(&log, time, end, client);
        }
    }

    /// Not for tunnels, whose time is their life.
    fn observe(&self, time: Duration, client: &Client) {
        let times = &client.site().counters.times;
        times.request.observe(time);
        for record in self.attempts() {
            let all = [
                (&times.connect, record.connect_time()),
                (&times.header, record.header_time()),
                (&times.response, record.response_time()),
            ];
            for (histogram, time) in all {
                time.inspect(|time| histogram.observe(*time));
            }
        }
    }

    fn log(&self, log: &SiteLog, request_time: Duration, end: &End, client: &Client) {
        let note = &self.note;
        let wall = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // What belongs to the next request.
        let rest = if let End::Next(Some(rest)) = end { rest.len() as u64 } else { 0 };
        let received = client.received.get().saturating_sub(note.received_before);
        let bytes_sent = client.sent.get().saturating_sub(note.sent_before);
        let asked = Asked {
            method: note.text(Text::Method),
            host: note.text(Text::Host),
            target: note.text(Text::Target),
            protocol: note.text(Text::Protocol),
        };
        let (address, id) = (self.client_text(client), self.identity.id.text());
        let stamp = &mut *client.service().stamp.borrow_mut();
        let record = Record {
            wall,
            stamp: stamp.at(wall),
            log,
            client: address.as_bytes(),
            port: client.front().port,
            status: note.status,
            asked: note.asked.then_some(asked),
            user_agent: note.text(Text::UserAgent),
            referer: note.text(Text::Referer),
            forwarded_for: note.text(Text::ForwardedFor),
            request_id: id.as_bytes(),
            request_length: received.saturating_sub(rest),
            header_length: note.header_length,
            bytes_sent,
            body_bytes_sent: bytes_sent.saturating_sub(note.heads_sent),
            request_time,
            proxy_time: request_time.saturating_sub(note.waited),
            attempts: &self.former,
            pool: note.pool.as_deref(),
            rtt_us: client.front().stream.tcp_summary().ok().map(|it| it.rtt_us),
            tls: client.front().stream.tls(),
            action: note.action,
            reason: note.reason,
            sticky: self.session.found,
            connection_requests: u64::from(client.requests.get()),
        };
        log.pipe.line(|out| record.write(out));
    }

    /// The client's address as text: the connection's, unless a trusted proxy has named another.
    fn client_text(&self, client: &Client) -> AddressText {
        match self.identity.address {
            named if named != client.front().address && !named.is_unspecified() => {
                AddressText::new(named)
            }
            _ => client.front().peer,
        }
    }

    /// Appends the field line that tells when the attempt had a connection, and when the answer
    /// began, in milliseconds (W3C Server Timing).
    #[cold]
    pub(super) fn append_timing(&self, out: &mut Vec<u8>) {
        let Some(record) = self.attempts().last() else { return };
        out.extend_from_slice(b"Server-Timing: connect;dur=");
        append_millis(out, record.connect_time().unwrap_or_default());
        out.extend_from_slice(b", header;dur=");
        append_millis(out, record.header_time().unwrap_or_default());
        out.extend_from_slice(b"\r\n");
    }
}

fn append_millis(out: &mut Vec<u8>, time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    append_decimal(out, us / 1_000);
    let digit = |n: u64| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(us / 100), digit(us / 10), digit(us)]);
}
