//! A connection after its handshake: text in and out, key updates, tickets, alerts and the end.
//! Owns what is between the socket and the text; the socket is lent to each call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error};

use super::alert::{Alert, Trouble};
use super::facts::Facts;
use super::incoming::{Arrived, End, Incoming, Verdict};
use super::keys::{ALERT, HANDSHAKE, Key};
use super::outgoing;
use crate::limits::TLS_LATE_MESSAGE;
use crate::rt::{Lease, Payload, SendBuf, TcpStream};

/// Handshake messages that may come late (RFC 8446, 4; RFC 5246, 7.4).
const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Records that a key may still seal when it is changed.
const KEY_RESERVE: u64 = 64;

/// What rustls still does after a handshake: it derives the keys that follow, and stores tickets.
pub(super) enum Renewal {
    /// Nothing in TLS 1.2.
    None,
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Renewal {
    fn sealing(&mut self) -> Option<Result<(u64, ConnectionTrafficSecrets), Error>> {
        match self {
            Renewal::None => None,
            Renewal::Server(kernel) => Some(kernel.update_tx_secret()),
            Renewal::Client(kernel) => Some(kernel.update_tx_secret()),
        }
    }

    fn opening(&mut self) -> Option<Result<(u64, ConnectionTrafficSecrets), Error>> {
        match self {
            Renewal::None => None,
            Renewal::Server(kernel) => Some(kernel.update_rx_secret()),
            Renewal::Client(kernel) => Some(kernel.update_rx_secret()),
        }
    }
}

/// What a channel is made of.
pub(super) struct Parts {
    pub(super) opening: Key,
    pub(super) sealing: Key,
    /// Records that one key may seal.
    pub(super) most: u64,
    pub(super) renewal: Renewal,
    pub(super) facts: Facts,
    /// Bytes of the wire that are to go out first.
    pub(super) owed: Option<SendBuf>,
    /// We are the client.
    pub(super) is_client: bool,
}

/// One connection's state beside its socket.
pub(super) struct Channel {
    incoming: RefCell<Incoming<Lease>>,
    sealing: RefCell<Key>,
    most: u64,
    is_client: bool,
    renewal: RefCell<Renewal>,
    pub(super) facts: Facts,
    /// Records that wait for the next send.
    owed: RefCell<Option<SendBuf>>,
    /// There is an answer to a key update among them: one is enough (RFC 8446, 4.6.3).
    update_owed: Cell<bool>,
    /// Arrived and not looked at.
    raw: RefCell<Option<Lease>>,
    /// Text that was put back.
    ready: RefCell<VecDeque<Lease>>,
    /// A late handshake message of which more is to come.
    late: RefCell<Vec<u8>>,
    end: Cell<Option<End>>,
    /// close_notify or a fatal alert has been sealed: nothing may follow.
    said: Cell<bool>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Channel {
    pub(super) fn new(parts: Parts) -> Box<Channel> {
        let Parts { opening, sealing, most, renewal, facts, owed, is_client } = parts;
        Box::new(Channel {
            incoming: RefCell::new(Incoming::new(opening, facts.version)),
            sealing: RefCell::new(sealing),
            most,
            is_client,
            renewal: RefCell::new(renewal),
            facts,
            owed: RefCell::new(owed),
            update_owed: Cell::new(false),
            raw: RefCell::default(),
            ready: RefCell::default(),
            late: RefCell::default(),
            end: Cell::new(None),
            said: Cell::new(false),
        })
    }

    pub(super) fn poll_recv(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Lease>>> {
        loop {
            if let Some(text) = self.ready.borrow_mut().pop_front() {
                return Poll::Ready(Ok(Some(text)));
            }
            match self.end.get() {
                Some(End::Notified) => return Poll::Ready(Ok(None)),
                Some(End::Broken(trouble)) => return Poll::Ready(Err(trouble.into())),
                None => {}
            }
            let kept = self.raw.borrow_mut().take();
            let piece = match kept {
                Some(piece) => piece,
                None => match ready!(tcp.poll_recv(cx))? {
                    Some(piece) => piece,
                    None => {
                        self.end.set(Some(End::Broken(CUT)));
                        continue;
                    }
                },
            };
            let Arrived { text, rest, end } = self
                .incoming
                .borrow_mut()
                .take(piece, |key, kind, text| self.control(tcp, key, kind, text));
            self.raw.replace(rest);
            if let Some(end) = end {
                self.finish(tcp, end);
            }
            if text.is_some() {
                return Poll::Ready(Ok(text));
            }
        }
    }

    pub(super) fn unread(&self, text: Lease) {
        if !text.is_empty() {
            self.ready.borrow_mut().push_front(text);
        }
    }

    /// Bytes, the end or an error are here already, or part of a record.
    pub(super) fn has_event(&self) -> bool {
        self.end.get().is_some()
            || self.raw.borrow().is_some()
            || !self.ready.borrow().is_empty()
            || !self.incoming.borrow().is_between_records()
    }

    pub(super) fn poll_send_ready(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(tcp.poll_send_ready(cx))?;
        // The last record may have found a send under way.
        if self.said.get() && self.owed.borrow().is_some() {
            self.pay(tcp);
            return tcp.poll_send_ready(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals `payload` and posts it.
    pub(super) fn post(&self, tcp: &TcpStream, payload: Payload) -> io::Result<()> {
        match self.sealed(tcp, payload)? {
            Some(sealed) => tcp.post(sealed),
            None => Ok(()),
        }
    }

    /// The same of the last text, with the end behind it.
    pub(super) fn post_last(&self, tcp: &TcpStream, payload: Payload) -> io::Result<()> {
        match self.sealed(tcp, payload)? {
            Some(sealed) => tcp.post_last(self.with_end(sealed)),
            None => Ok(()),
        }
    }

    /// The records of `payload`, behind what is owed; `None` when there is no text.
    fn sealed(&self, tcp: &TcpStream, payload: Payload) -> io::Result<Option<Payload>> {
        if payload.is_empty() {
            return Ok(None);
        }
        if self.said.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !tcp.may_post() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.renew_if_due()?;
        let sealed = outgoing::seal(&mut self.sealing.borrow_mut(), payload)?;
        Ok(Some(self.with_owed(sealed)))
    }

    /// Puts close_notify behind it.
    fn with_end(&self, mut sealed: Payload) -> Payload {
        let frames = match &mut sealed {
            Payload::Buf(records) => records,
            Payload::Framed(framed) => &mut framed.frames,
            // Records have no other form; the end follows by itself.
            _ => return sealed,
        };
        self.append_alert(Alert::CLOSE_NOTIFY, frames);
        sealed
    }

    /// Puts what is owed in front.
    fn with_owed(&self, sealed: Payload) -> Payload {
        let Some(mut owed) = self.take_owed() else { return sealed };
        match sealed {
            Payload::Framed(mut framed) => {
                framed.first += owed.len();
                owed.extend_from_slice(&framed.frames);
                framed.frames = owed;
                framed.into()
            }
            other => {
                other.append_to(&mut owed);
                owed.into()
            }
        }
    }

    /// Says that nothing more comes, unless that was said, or a send is under way; true when there
    /// is something to wait for. It is held back for the FIN.
    pub(super) fn say_end(&self, tcp: &TcpStream) -> bool {
        if self.said.get() || !tcp.may_post() {
            return false;
        }
        self.owe_alert(Alert::CLOSE_NOTIFY);
        if let Some(owed) = self.take_owed() {
            // A connection that fails now has ended all the same.
            let _ = tcp.post_last(owed);
        }
        true
    }

    pub(super) fn poll_shutdown_write(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Not before an alert that waits for its turn.
        ready!(self.poll_send_ready(tcp, cx))?;
        self.say_end(tcp);
        tcp.poll_shutdown_write(cx)
    }

    fn take_owed(&self) -> Option<SendBuf> {
        self.update_owed.set(false);
        self.owed.borrow_mut().take()
    }

    /// Sends what is owed, if the socket is free; else it goes with the next post.
    fn pay(&self, tcp: &TcpStream) {
        if !tcp.may_post() {
            return;
        }
        if let Some(owed) = self.take_owed() {
            // A connection that fails now fails whoever sends or receives next.
            let _ = tcp.post(owed);
        }
    }

    fn owe_alert(&self, alert: Alert) {
        let mut owed = self.owed.borrow_mut();
        self.append_alert(alert, owed.get_or_insert_default());
    }

    fn append_alert(&self, alert: Alert, out: &mut Vec<u8>) {
        let sealing = &mut *self.sealing.borrow_mut();
        let text = alert.bytes();
        // Twice as much would be more than the pool keeps.
        out.reserve_exact(sealing.before() + text.len() + sealing.behind());
        // A key that can't seal leaves the alert unsaid: the connection closes all the same.
        let _ = outgoing::append(sealing, ALERT, &text, out);
        self.said.set(true);
    }

    /// The text ends.
    fn finish(&self, tcp: &TcpStream, end: End) {
        self.end.set(Some(end));
        self.raw.take();
        if let End::Broken(Trouble { alert: Some(alert), .. }) = end
            && !self.said.get()
        {
            self.owe_alert(alert);
            self.pay(tcp);
        }
    }

    /// Changes the sealing key before it has sealed too much.
    fn renew_if_due(&self) -> Result<(), Trouble> {
        if self.sealing.borrow().number() + KEY_RESERVE < self.most {
            return Ok(());
        }
        self.update_sealing(0)
    }

    /// Tells the peer that another key follows, and changes to it.
    fn update_sealing(&self, request: u8) -> Result<(), Trouble> {
        // First: where there is no other key, as in TLS 1.2, nothing may be said of one.
        let next = self.renewal.borrow_mut().sealing().and_then(Result::ok).ok_or(WORN_OUT)?;
        let next = Key::new(self.facts.version, next).ok_or(WORN_OUT)?;
        let mut sealing = self.sealing.borrow_mut();
        let mut owed = self.owed.borrow_mut();
        let owed = owed.get_or_insert_default();
        outgoing::append(&mut sealing, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, request], owed)?;
        *sealing = next;
        Ok(())
    }

    /// A record that is no text.
    fn control(
        &self,
        tcp: &TcpStream,
        key: &mut Key,
        kind: u8,
        text: &[u8],
    ) -> Result<Verdict, Trouble> {
        match kind {
            ALERT => self.alert(text),
            HANDSHAKE => {
                self.handshake(key, text)?;
                if self.update_owed.get() {
                    self.pay(tcp);
                }
                let whole = self.late.borrow().is_empty();
                Ok(if whole { Verdict::GoesOn } else { Verdict::Amid })
            }
            _ => Err(OUT_OF_PLACE),
        }
    }

    fn alert(&self, text: &[u8]) -> Result<Verdict, Trouble> {
        let &[level, what] = text else {
            // RFC 8446, 5.4: nothing but padding is a defect of its own.
            return Err(if text.is_empty() { OUT_OF_PLACE } else { GARBLED });
        };
        let warning = level == 1 && !self.facts.is_tls13();
        match Alert(what) {
            Alert::CLOSE_NOTIFY => Ok(Verdict::Ended),
            Alert::USER_CANCELED => Ok(Verdict::GoesOn),
            _ if warning => Ok(Verdict::GoesOn),
            _ => Err(Trouble::told(io::ErrorKind::ConnectionAborted, "the peer sent an alert")),
        }
    }

    /// Late handshake messages, of which one may come in several records.
    fn handshake(&self, key: &mut Key, text: &[u8]) -> Result<(), Trouble> {
        let mut late = self.late.take();
        if text.is_empty() || late.len() + text.len() > TLS_LATE_MESSAGE {
            return Err(OUT_OF_PLACE);
        }
        let mut left = if late.is_empty() {
            text
        } else {
            late.extend_from_slice(text);
            &late
        };
        while let [kind, high, middle, low, rest @ ..] = left {
            if !self.may_come(*kind) {
                return Err(if *kind == 1 { RENEGOTIATION } else { OUT_OF_PLACE });
            }
            let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if !fits(*kind, len) {
                // Before anything is kept that waits for the rest.
                return Err(GARBLED);
            }
            let Some((body, rest)) = rest.split_at_checked(len) else { break };
            if *kind == KEY_UPDATE && !rest.is_empty() {
                // Nothing may stand under two keys (RFC 8446, 5.1).
                return Err(OUT_OF_PLACE);
            }
            self.message(key, *kind, body)?;
            left = rest;
        }
        if !left.is_empty() {
            self.late.replace(left.to_vec());
        }
        Ok(())
    }

    fn may_come(&self, kind: u8) -> bool {
        match kind {
            KEY_UPDATE => self.facts.is_tls13(),
            NEW_SESSION_TICKET => self.is_client && self.facts.is_tls13(),
            HELLO_REQUEST => self.is_client && !self.facts.is_tls13(),
            _ => false,
        }
    }

    fn message(&self, key: &mut Key, kind: u8, body: &[u8]) -> Result<(), Trouble> {
        match (kind, body) {
            (KEY_UPDATE, &[request @ 0..=1]) => {
                let next = self.renewal.borrow_mut().opening().and_then(Result::ok);
                *key = Key::new(self.facts.version, next.ok_or(WORN_OUT)?).ok_or(WORN_OUT)?;
                if request == 1 && !self.said.get() && !self.update_owed.replace(true) {
                    self.update_sealing(0)?;
                }
                Ok(())
            }
            (KEY_UPDATE, _) => Err(GARBLED),
            (NEW_SESSION_TICKET, ticket) => match &mut *self.renewal.borrow_mut() {
                Renewal::Client(kernel) => {
                    kernel.handle_new_session_ticket(ticket).map_err(|_| GARBLED)
                }
                _ => Err(OUT_OF_PLACE),
            },
            // A request for a handshake that we don't want may be ignored (RFC 5246, 7.4.1.1).
            _ => Ok(()),
        }
    }
}

/// May a message of this kind be so long?
fn fits(kind: u8, len: usize) -> bool {
    match kind {
        KEY_UPDATE => len == 1,
        HELLO_REQUEST => len == 0,
        _ => true,
    }
}

const CUT: Trouble =
    Trouble::told(io::ErrorKind::UnexpectedEof, "the peer closed without close_notify");
const OUT_OF_PLACE: Trouble =
    Trouble::fatal(Alert::UNEXPECTED_MESSAGE, "a message that may not come now");
const RENEGOTIATION: Trouble =
    Trouble::fatal(Alert::NO_RENEGOTIATION, "the peer asks for another handshake");
const GARBLED: Trouble = Trouble::fatal(Alert::DECODE_ERROR, "a malformed message");
const WORN_OUT: Trouble = Trouble::internal("the connection's keys are used up");

#[cfg(test)]
#[path = "channel_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
