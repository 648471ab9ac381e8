//! Reading the request's head, over as many leases as it takes, and turning it into the head for
//! the member.

use std::task::{Context, Poll};

use weir_core::control::{Headers, Inserted, Limits};
use weir_core::pool::Ask;
use weir_core::rt::{Lease, SendBuf};
use weir_core::table::Held;
use weir_core::tls::without_port;

use super::session::Session;
use super::upload::Upload;
use super::wait::Waits;
use super::{End, Exchange, Phase, Step};
use crate::body::Relay;
use crate::client::Client;
use crate::error::Error;
use crate::limits::LONG_METHOD;
use crate::message::{self, Key, Request, Sides, Via};
use crate::policy::Own;
use crate::route::{self, Route};

/// What a complete head came to.
struct Prepared {
    /// Bytes of the head, empty lines in front included.
    len: usize,
    /// Where it goes.
    routed: Result<Routed, Error>,
}

/// Where a request goes.
pub(super) enum Routed {
    /// To this member, with this head.
    Member(Held, SendBuf),
    /// Weir answers.
    Own(Own),
}

impl Exchange {
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Poll<Result<Step, Error>> {
        if let Some(held) = self.held.take() {
            return Poll::Ready(self.begin_stream(held, cx, client).map(Step::Go));
        }
        loop {
            if let Some(lease) = self.rest.take() {
                if let Some(phase) = self.read_head(lease, client)? {
                    return Poll::Ready(Ok(Step::Go(phase)));
                }
                if self.waiting.is_none() {
                    // The whole head has to come within one limit from its first byte (R2.3-408).
                    self.waiting = Some(Waits::Head);
                    client.timer.set(client.site().client_timeout());
                }
            }
            match client.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => self.rest = Some(lease),
                Poll::Ready(Ok(None) | Err(_)) => {
                    client.site().counters.silent_closes.add(1);
                    return Poll::Ready(Ok(Step::End(End::Close)));
                }
                Poll::Pending => {
                    return client.timer.poll_expired(cx).map(|()| Err(Error::HeadTimeout));
                }
            }
        }
    }

    /// Takes more of the head. Once it is whole, has it sent; `None` while it isn't.
    fn read_head(&mut self, mut lease: Lease, client: &Client) -> Result<Option<Phase>, Error> {
        let prepared = match self.gathered.take() {
            None => match self.prepare(&lease, client)? {
                Some(prepared) => {
                    lease.advance(prepared.len);
                    prepared
                }
                None => {
                    let mut gathered = SendBuf::new();
                    gathered.extend_from_slice(&lease);
                    self.gathered = Some(gathered);
                    return Ok(None);
                }
            },
            Some(mut gathered) => {
                let before = gathered.len();
                gathered.extend_from_slice(&lease);
                let due = is_due(&gathered, before, &client.site().limits());
                // Empty lines in front are not kept: there may be any number of them.
                let empty = message::empty_lines(&gathered);
                gathered.drain(..empty);
                let prepared = if due { self.prepare(&gathered, client)? } else { None };
                let Some(prepared) = prepared else {
                    self.gathered = Some(gathered);
                    return Ok(None);
                };
                lease.advance((empty + prepared.len).saturating_sub(before).min(lease.len()));
                prepared
            }
        };
        self.rest = (!lease.is_empty()).then_some(lease);
        self.upload = Upload::new(self.facts, client.site().limits().body);
        match prepared.routed? {
            Routed::Member(held, mut first) => {
                self.load_body(&mut first)?;
                self.keep_first(&first);
                self.first = Some(first);
                Ok(Some(self.dispatch(client, held)))
            }
            Routed::Own(own) => {
                // A small body that is here already doesn't cost the client its connection.
                self.load_body(&mut SendBuf::new())?;
                Ok(Some(self.answer_own(own, client)))
            }
        }
    }

    /// Parses; if the head is whole, checks it, picks a member and writes the head for it.
    fn prepare(&mut self, raw: &[u8], client: &Client) -> Result<Option<Prepared>, Error> {
        let empty = message::empty_lines(raw);
        let raw = raw.get(empty..).unwrap_or_default();
        let service = client.service();
        let fields = &mut *service.fields.borrow_mut();
        let limits = client.site().limits();
        let parsed = Request::parse(raw, &limits, fields);
        let parsed = parsed.inspect_err(|_| self.note.take_refused(raw))?;
        let Some(request) = parsed else { return Ok(None) };
        self.note.take_head(&request);
        self.facts = request.facts;
        if client.is_stray() {
            return Err(Error::PlainHttp);
        }
        let routed = self.choose(&request, client);
        Ok(Some(Prepared { len: empty + request.len(), routed }))
    }

    /// Where the request goes, and the head for that.
    pub(super) fn choose(
        &mut self,
        request: &Request<'_>,
        client: &Client,
    ) -> Result<Routed, Error> {
        let headers = &*client.site().headers();
        self.identify(request, client, headers);
        let pool = match route::route(client, request, self.identity.address)? {
            Route::Pool(pool) => pool,
            Route::Own(own) => return Ok(Routed::Own(own)),
        };
        self.pool = pool;
        let ask = Ask { hash: self.identity.hash(), tried: &[] };
        let (session, bound) =
            self.pool.as_deref().map(|pool| Session::find(request, pool)).unwrap_or_default();
        self.session = session;
        let held = bound.map_or_else(|| route::pick(self.pool.as_deref(), ask), Ok)?;
        if held.member().bond().is_some() {
            self.note_host(request);
        }
        let mut first = SendBuf::new();
        let upgrade = request.upgrade(|| client.site().upgrades());
        if request.is_connect() && upgrade.is_none() {
            return Err(Error::Connect);
        }
        self.upgrade = upgrade.map(Box::from);
        // In HTTP/2 clients have none.
        let needs_key = |protocol: &[u8]| protocol.eq_ignore_ascii_case(b"websocket");
        if request.is_connect() && upgrade.is_some_and(needs_key) {
            self.key = Some(Key::of(client.service().ids.number()));
        }
        let key = self.key;
        request.write(&mut first, Via { upgrade, key, ..self.via(client, headers, &held) });
        self.note.forwarded_to(self.pool.as_ref());
        Ok(Routed::Member(held, first))
    }

    /// Keeps the host that the request asks for: members inside TLS are asked for it.
    fn note_host(&mut self, request: &Request<'_>) {
        let host = str::from_utf8(request.host()).unwrap_or_default();
        self.host.clear();
        self.host.push_str(without_port(host));
        self.host.make_ascii_lowercase();
    }

    /// Notes who asks: the connection's client, or whom a trusted proxy names.
    fn identify(&mut self, request: &Request<'_>, client: &Client, headers: &Headers) {
        self.identity.address = client.front().address;
        if let Some(trusted) = headers.trusted.as_deref()
            && trusted.contains(client.front().address)
        {
            self.identity.address = request.client(client.front().address, trusted);
            self.identity.id = request.id().unwrap_or(self.identity.id);
        }
    }

    /// What the head for this member says beside what the client sent.
    fn via<'a>(&'a self, client: &'a Client, headers: &'a Headers, held: &'a Held) -> Via<'a> {
        let insert = headers.insert;
        // A system call, so only where it is needed.
        let local = || client.front().stream.local_addr().ok();
        let needs_local = insert.has(Inserted::ElbIp) || insert.has(Inserted::Port);
        let sides = (!insert.is_empty()).then(|| Sides {
            port: client.front().port,
            local: needs_local.then(local).flatten(),
            identity: &self.identity,
            tls: client.front().stream.tls(),
        });
        let (peer, member) = (client.front().peer.as_bytes(), held.member().host.as_bytes());
        Via { peer, member, upgrade: None, key: None, headers, sides }
    }

    /// Puts body bytes that came with the head behind it, if they are few: one send for all, and
    /// all of it can be sent again.
    pub(super) fn load_body(&mut self, first: &mut SendBuf) -> Result<(), Error> {
        if !self.upload.ended()
            && let Some(lease) = self.rest.take()
        {
            if Relay::fits(first, &lease) {
                self.upload.expecting = false;
                self.rest = self.upload.relay.copy(first, lease)?;
            } else {
                self.rest = Some(lease);
            }
        }
        Ok(())
    }
}

/// Whether a head that had `before` bytes can be judged anew: it may have ended, it passes a limit,
/// or it is twice as long as when it was last judged. So whoever sends it in tiny pieces doesn't
/// cause a parse for each.
fn is_due(gathered: &[u8], before: usize, limits: &Limits) -> bool {
    let new = gathered.get(before.saturating_sub(2)..).unwrap_or_default();
    let ends = new.windows(3).any(|w| w == b"\n\r\n") || new.windows(2).any(|w| w == b"\n\n");
    let passes = |limit: usize| before <= limit && gathered.len() > limit;
    let doubled = before.leading_zeros() != gathered.len().leading_zeros();
    ends || doubled || passes(limits.head) || passes(limits.uri + LONG_METHOD)
}
