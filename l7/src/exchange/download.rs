//! The answer on its way: from the member to the client.

use std::io;
use std::task::{Context, Poll};

use weir_core::limits::MAX_HEAD_BYTES;
use weir_core::net::haul::Haul;
use weir_core::rt::{Lease, Payload, SendBuf};

use super::Exchange;
use crate::body::{Frame, Framing, Relay};
use crate::client::{Client, Then};
use crate::error::Error;
use crate::limits::MAX_INTERIM;
use crate::message::{ClientSide, Response, ResponseFacts};

/// State of the download.
#[derive(Debug, Default)]
pub(super) struct Download {
    pub(super) relay: Relay,
    /// The body's rest goes through a pipe, or is about to.
    pub(super) haul: Option<Haul>,
    /// To be posted to the client as soon as it takes more.
    pub(super) out: Option<Payload>,
    /// A head that came in several leases.
    gathered: Option<SendBuf>,
    /// Member bytes that nobody has dealt with.
    rest: Option<Lease>,
    /// Some byte of the answer has come.
    touched: bool,
    /// The final head is on its way to the client: from here on an error can only cut.
    pub(super) started: bool,
    /// The client's connection goes on after this answer.
    pub(super) persistent: bool,
    /// The member's connection can carry another request.
    pub(super) reusable: bool,
    /// The member's stream was told to use large leases.
    bulk: bool,
    /// The answer is a 101: what follows is no HTTP.
    switched: bool,
    interim: u8,
}

impl Download {
    /// Nothing but `out`.
    pub(super) fn only(out: Option<Payload>) -> Download {
        Download { out, ..Download::default() }
    }

    /// The client has to take something before anything else can happen.
    pub(super) fn blocked(&self) -> bool {
        self.out.is_some() || self.haul.as_ref().is_some_and(Haul::is_blocked)
    }

    /// Some byte of an answer has come.
    pub(super) fn touched(&self) -> bool {
        self.touched
    }

    /// The client has been sent something, if only an interim answer.
    pub(super) fn begun(&self) -> bool {
        self.started || self.interim > 0
    }

    /// How long it will be was told nobody.
    pub(super) fn is_open_ended(&self) -> bool {
        self.started && self.relay.is_open_ended()
    }

    fn ended(&self) -> bool {
        self.started && self.relay.ended()
    }
}

/// A head of the member's, read.
struct Head {
    /// Its length, in bytes.
    len: usize,
    status: u16,
    /// What the client gets for it; none for an interim answer that it cannot understand, and where
    /// its stream has it already.
    out: Option<SendBuf>,
}

/// How far the download came.
pub(super) enum Down {
    /// It has to wait.
    Waits,
    /// The whole answer has been posted.
    Ended,
    /// The member has switched to another protocol; the head that says so is in `out`.
    Switched,
    /// The member's connection failed before any byte of the answer.
    Failed(Error),
}

impl Exchange {
    /// Moves the answer on until the member or the client has to be waited for.
    pub(super) fn drive_download(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        budget: &mut usize,
    ) -> Result<Down, Error> {
        while *budget > 0 {
            if self.download.switched {
                return Ok(Down::Switched);
            }
            if self.download.ended() {
                self.received(client);
            }
            if self.download.out.is_some() && !self.post_to_client(cx, client)? {
                return Ok(Down::Waits);
            }
            if self.download.haul.is_some() && self.drive_haul(cx, client, budget)?.is_pending() {
                return Ok(Down::Waits);
            }
            if self.download.ended() {
                match self.download.relay.take_end() {
                    Some(end) => self.download.out = Some(end.into()),
                    None => return Ok(Down::Ended),
                }
                continue;
            }
            if !self.download.started && client.lane().is_some_and(|lane| !lane.has_room()) {
                return Ok(Down::Waits);
            }
            let lease = match self.next_of_answer(cx) {
                Poll::Pending => match self.download.relay.take_chunk_end() {
                    Some(end) => {
                        self.download.out = Some(end.into());
                        continue;
                    }
                    None => return Ok(Down::Waits),
                },
                Poll::Ready(Ok(Some(lease))) => lease,
                Poll::Ready(Ok(None)) => match self.end_of_member()? {
                    Some(error) => return Ok(Down::Failed(error)),
                    None => continue,
                },
                Poll::Ready(Err(error)) => {
                    let error = Error::of_member(error.kind());
                    return if self.download.touched {
                        Err(error)
                    } else {
                        Ok(Down::Failed(error))
                    };
                }
            };
            *budget -= 1;
            self.moved = true;
            self.download.touched = true;
            if self.download.started {
                self.relay_answer(None, lease)?;
            } else {
                self.read_answer_head(lease, client)?;
            }
            self.end_with_member();
        }
        Ok(Down::Waits)
    }

    /// All of the answer has come.
    fn received(&mut self, client: &Client) {
        if let Some(attempt) = &mut self.attempt {
            attempt.received();
        }
        if let Some(lane) = client.lane()
            && let Some(lines) = self.download.relay.take_trailer()
        {
            lane.set_trailer(lines);
        }
    }

    fn next_of_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        if let Some(lease) = self.download.rest.take() {
            return Poll::Ready(Ok(Some(lease)));
        }
        let Some(connection) = self.upstream() else { return Poll::Ready(Ok(None)) };
        let polled = connection.stream.poll_recv(cx);
        if let Poll::Ready(Ok(Some(lease))) = &polled {
            connection.member.counters.bytes_received.add(lease.len() as u64);
        }
        polled
    }

    /// The member has ended its side: that ends some bodies, and cuts everything else.
    fn end_of_member(&mut self) -> Result<Option<Error>, Error> {
        if !self.download.touched {
            return Ok(Some(Error::MemberClosed));
        }
        if !self.download.started {
            return Err(Error::MemberClosed);
        }
        let end = self.download.relay.end_by_close().ok_or(Error::MemberClosed)?;
        if !end.is_empty() {
            self.download.out = Some(end.into());
        }
        Ok(None)
    }

    /// A body that the member's end delimits: where that has come with the last bytes, they take
    /// the answer's end along.
    fn end_with_member(&mut self) {
        let open = self.download.started && self.download.relay.is_open_ended();
        if !open || !self.upstream().is_some_and(|connection| connection.stream.is_through()) {
            return;
        }
        self.download.relay.end_behind();
        if let Some(Payload::Buf(out)) = &mut self.download.out {
            out.extend_from_slice(self.download.relay.take_end().unwrap_or_default());
        }
    }

    /// Posts what is ready; false when the client has to be waited for.
    fn post_to_client(&mut self, cx: &mut Context<'_>, client: &Client) -> Result<bool, Error> {
        match client.poll_send_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(Error::ClientGone),
            Poll::Ready(Ok(())) => {}
        }
        if let Some(payload) = self.download.out.take() {
            let then = self.then();
            client.post(payload, then).map_err(|_| Error::ClientGone)?;
        }
        self.moved = true;
        Ok(true)
    }

    /// What follows the payload that is to be posted.
    fn then(&self) -> Then {
        if !self.download.ended() {
            Then::More
        } else if self.download.relay.finished() && self.ends_with(self.download.persistent) {
            Then::End
        } else {
            Then::Others
        }
    }

    /// Takes more of the answer's head; once it is whole, writes it for the client.
    fn read_answer_head(&mut self, mut lease: Lease, client: &Client) -> Result<(), Error> {
        match self.download.gathered.take() {
            None => match self.answer_head(&lease, client)? {
                Some(head) => {
                    lease.advance(head.len);
                    self.answer_head_done(head, lease, client)
                }
                None => {
                    let mut gathered = SendBuf::new();
                    gathered.extend_from_slice(&lease);
                    self.download.gathered = Some(gathered);
                    Ok(())
                }
            },
            Some(mut gathered) => {
                let before = gathered.len();
                gathered.extend_from_slice(&lease);
                let due = lease.contains(&b'\n') || gathered.len() > MAX_HEAD_BYTES;
                let found = if due { self.answer_head(&gathered, client)? } else { None };
                let Some(head) = found else {
                    self.download.gathered = Some(gathered);
                    return Ok(());
                };
                lease.advance(head.len.saturating_sub(before).min(lease.len()));
                self.answer_head_done(head, lease, client)
            }
        }
    }

    /// Behind a head: of the final answer the body, of an interim one the next head.
    fn answer_head_done(
        &mut self,
        Head { status, out, .. }: Head,
        lease: Lease,
        client: &Client,
    ) -> Result<(), Error> {
        if self.download.switched {
            self.count_status(status, client);
            self.download.out = match out {
                Some(head) => Some((head, lease).into()),
                None => (!lease.is_empty()).then(|| lease.into()),
            };
            return Ok(());
        }
        if self.download.started {
            if let Some(connection) = self.upstream()
                && self.download.relay.is_bulk()
            {
                connection.stream.expect_bulk(true);
                self.download.bulk = true;
                self.begin_haul(client);
            }
            let told = self.facts.http2;
            let head_bytes = out.as_ref().map_or(0, |head| head.len());
            let relayed = self.relay_answer(out, lease);
            if relayed.is_err() && !told {
                // The body is wrong from its beginning, and the head has not left: the client is
                // to hear of that in place of it.
                self.download.started = false;
                self.note.heads_sent -= head_bytes as u64;
                return relayed;
            }
            self.count_status(status, client);
            client.site().counters.sticky.count(self.session.found);
            return relayed;
        }
        self.download.out = out.map(Into::into);
        self.download.rest = (!lease.is_empty()).then_some(lease);
        Ok(())
    }

    /// Parses; if the head is whole, writes it for the client.
    fn answer_head(&mut self, raw: &[u8], client: &Client) -> Result<Option<Head>, Error> {
        let service = client.service();
        let fields = &mut *service.fields.borrow_mut();
        let parsed = Response::parse(raw, self.facts.is_head, fields);
        let Some(response) = parsed.map_err(|_| Error::BadAnswer)? else { return Ok(None) };
        let facts = response.facts;
        let side = if facts.status == 101 {
            self.take_switch(&response)?;
            ClientSide { http11: true, persistent: true, chunked: false, upgrade: true }
        } else if facts.status < 200 {
            self.take_interim(facts.status)?;
            ClientSide { http11: true, persistent: true, chunked: false, upgrade: false }
        } else if self.facts.http2 && self.upgrade.is_some() && facts.status < 300 {
            // To CONNECT it would mean that there is a tunnel.
            return Err(Error::BadAnswer);
        } else {
            self.take_final(facts, client)
        };
        let out = if self.facts.http2 {
            let mut more = SendBuf::new();
            self.append_own(&response, &mut more, client);
            let end = self.download.ended() && !self.download.switched;
            self.send_stream_head(&response, &more, end, client);
            None
        } else if facts.status >= 200 || self.facts.http11 {
            let mut out = SendBuf::new();
            response.write_with(&mut out, side, |out| self.append_own(&response, out, client));
            self.note.heads_sent += out.len() as u64;
            Some(out)
        } else {
            None
        };
        Ok(Some(Head { len: response.len(), status: facts.status, out }))
    }

    /// Appends the field lines that a final answer gets from us.
    fn append_own(&mut self, response: &Response<'_>, out: &mut Vec<u8>, client: &Client) {
        if response.facts.status < 200 {
            return;
        }
        if !response.has_date {
            client.service().append_date(out);
        }
        let Exchange { attempt, session, .. } = self;
        if let Some(attempt) = attempt {
            session.bind(attempt.member(), response, out, client.site().is_tls());
        }
        if client.site().server_timing() {
            self.append_timing(out);
        }
    }

    fn take_interim(&mut self, status: u16) -> Result<(), Error> {
        self.download.interim += 1;
        if self.download.interim > MAX_INTERIM {
            return Err(Error::BadAnswer);
        }
        if status == 100 {
            self.upload.expecting = false;
        }
        Ok(())
    }

    /// A 101 is the last answer of this connection, if it gives what was asked for.
    fn take_switch(&mut self, response: &Response<'_>) -> Result<(), Error> {
        let asked = self.upgrade.as_deref().is_some_and(|protocol| response.switches_to(protocol))
            && self.key.as_ref().is_none_or(|key| response.accepts(key));
        // A member that answers before it has the whole request didn't read it.
        if !asked || !self.upload.done() {
            return Err(Error::BadAnswer);
        }
        self.download.started = true;
        self.download.switched = true;
        self.note_answer(response.facts.status);
        Ok(())
    }

    fn note_answer(&mut self, status: u16) {
        if let Some(attempt) = &mut self.attempt {
            attempt.answered(status);
        }
    }

    /// Decides how the final answer goes out.
    fn take_final(&mut self, facts: ResponseFacts, client: &Client) -> ClientSide {
        let until_close = facts.framing == Framing::UntilClose;
        let delimited = !until_close && facts.framing != Framing::Chunked;
        let chunked = !delimited && self.facts.http11 && !self.facts.http2;
        let persistent = self.facts.persistent
            && self.upload.ended()
            && (delimited || chunked || self.facts.http2)
            && !client.site().keepalive_timeout().is_zero()
            && !client.service().is_draining();
        let frame = if chunked { Frame::Chunked { open: false } } else { Frame::Plain };
        let relay = Relay::new(facts.framing, u64::MAX, frame);
        self.download.relay = if self.facts.http2 { relay.with_trailer() } else { relay };
        self.download.started = true;
        self.download.persistent = persistent;
        self.download.reusable = facts.persistent && !until_close;
        self.note_answer(facts.status);
        ClientSide { http11: self.facts.http11, persistent, chunked, upgrade: false }
    }

    /// Turns body bytes into the next payload, behind the head if it is still here.
    fn relay_answer(&mut self, head: Option<SendBuf>, lease: Lease) -> Result<(), Error> {
        let download = &mut self.download;
        if download.relay.ended() || lease.is_empty() {
            // More than the answer: whatever it is, nobody asked for it.
            download.reusable &= lease.is_empty();
            download.out = head.map(Into::into);
            return Ok(());
        }
        let len = lease.len();
        let piece = download.relay.push(head, lease).map_err(|_| Error::BadAnswer)?;
        if let Some(haul) = &mut download.haul {
            haul.pass(len);
        }
        download.out = piece.payload;
        download.reusable &= piece.rest.is_none();
        if download.bulk && download.relay.ended() {
            download.bulk = false;
            if let Some(connection) = self.upstream() {
                connection.stream.expect_bulk(false);
            }
        }
        Ok(())
    }
}
