//! One attempt at having a request answered: the member, its connection, and what became of it.
//! Owns the connection from the moment it is asked for until the answer is out or the attempt is
//! given up; decides nothing. The exchange holds the present attempt, and of earlier ones their
//! records, which say what the access log and the metrics want to know.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_core::rt;
use weir_core::table::{Held, Member};
use weir_core::time::clock::{self, Mono};

use crate::client::Client;
use crate::error::{Error, Side};
use crate::shared::Terms;
use crate::upstream::{self, Connecting, Connection};

/// An attempt that is under way.
pub(super) struct Attempt {
    /// Counts as the member's load until the attempt ends.
    _held: Held,
    connecting: Option<Connecting>,
    /// The connection that is asked for carries others' requests already.
    joins: bool,
    /// Open: the request is on its way, or was given up.
    pub(super) connection: Option<Connection>,
    /// What the connection had sent before this request.
    sent_before: u64,
    /// What is known about it so far.
    pub(super) record: Record,
}

impl Attempt {
    /// An attempt at `held`'s member, which begins now and has no connection yet.
    #[inline]
    pub(super) fn new(held: Held) -> Attempt {
        let record = Record::new(Rc::clone(held.member()), clock::mono());
        Attempt {
            _held: held,
            connecting: None,
            joins: false,
            connection: None,
            sent_before: 0,
            record,
        }
    }

    /// Whom it is made at.
    #[inline]
    pub(super) fn member(&self) -> &Rc<Member> {
        &self.record.member
    }

    /// Begins to open a connection for a request that asks for `host`; what was there before is
    /// dropped.
    pub(super) fn connect(&mut self, host: &str, client: &Client) {
        self.connection = None;
        self.record.reused = false;
        self.record.connected = None;
        self.record.sent = None;
        self.joins = false;
        let member = Rc::clone(self.member());
        let (limit, keepalive) = (client.site().connect_timeout(), client.service().keepalive());
        self.connecting = Some(if member.is_shared() {
            let terms = Terms { limit, patience: client.site().member_timeout(), keepalive };
            client.service().links.connect(member, host, &terms)
        } else {
            upstream::connect(member, host, limit, keepalive)
        });
    }

    /// The same, on a connection that is there if it has room.
    pub(super) fn join(&mut self, host: &str, client: &Client) {
        let joins = client.service().links.has_room(self.member(), host);
        self.connect(host, client);
        self.joins = joins;
    }

    /// Others' requests have gone the same way before.
    pub(super) fn joins(&self) -> bool {
        self.joins
    }

    /// The connection that was begun, once it is open.
    pub(super) fn poll_connected(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Connection, Error>> {
        let Some(connecting) = &mut self.connecting else {
            return Poll::Ready(Err(Error::MemberClosed));
        };
        let polled = connecting.as_mut().poll(cx);
        if polled.is_ready() {
            self.connecting = None;
        }
        polled
    }

    /// Gives it an open connection, one that has carried requests before (`reused`) or a fresh one.
    #[inline]
    pub(super) fn launch(&mut self, connection: Connection, reused: bool) {
        connection.member.counters.requests.add(1);
        self.sent_before = connection.stream.bytes_sent();
        self.record.reused = reused;
        self.record.connected = Some(rt::now());
        self.connection = Some(connection);
    }

    /// Not a byte of the request was handed to the kernel.
    pub(super) fn unsent(&self) -> bool {
        let sent = |connection: &Connection| connection.stream.bytes_sent() != self.sent_before;
        !self.connection.as_ref().is_some_and(sent)
    }

    /// All of the request was handed to the connection.
    #[inline]
    pub(super) fn sent(&mut self) {
        if self.record.sent.is_none() {
            self.record.sent = Some(rt::now());
        }
    }

    /// The head of the final answer is here.
    #[inline]
    pub(super) fn answered(&mut self, status: u16) {
        self.record.status = Some(status);
        self.record.answered = Some(rt::now());
        self.record.member.counters.statuses.count(status);
    }

    /// All of the answer has come from the member; the client may still have to take some.
    #[inline]
    pub(super) fn received(&mut self) {
        self.record.ended.get_or_insert_with(rt::now);
    }

    /// It is over, in the way of `error` if there is one: the connection is dropped.
    pub(super) fn end(&mut self, error: Option<Error>) {
        self.connection = None;
        self.connecting = None;
        self.record.end(error);
    }
}

/// What is known about an attempt. The beginning is the clock's; what came later has the time of
/// the turn in which the kernel handed it over.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Whom it was made at.
    pub(crate) member: Rc<Member>,
    /// The connection had carried requests before. One that turned out to be dead and was replaced
    /// by a fresh one belongs to the same attempt.
    pub(crate) reused: bool,
    /// The member was chosen.
    pub(crate) begun: Mono,
    /// There was a connection.
    pub(crate) connected: Option<Mono>,
    /// All of the request was handed to it.
    pub(crate) sent: Option<Mono>,
    /// The head of the final answer was there.
    pub(crate) answered: Option<Mono>,
    /// The answer was there, or the attempt was given up.
    pub(crate) ended: Option<Mono>,
    /// What the member answered; 502 or 504 for one that failed without an answer (C17); `None` as
    /// long as it is open, and when the client left before.
    pub(crate) status: Option<u16>,
}

impl Record {
    fn new(member: Rc<Member>, begun: Mono) -> Record {
        Record {
            member,
            reused: false,
            begun,
            connected: None,
            sent: None,
            answered: None,
            ended: None,
            status: None,
        }
    }

    fn end(&mut self, error: Option<Error>) {
        let ended = *self.ended.get_or_insert_with(rt::now);
        let verdict = error.map(Error::verdict).filter(|verdict| verdict.side == Side::Member);
        if self.status.is_none() {
            self.status = verdict.map(|verdict| verdict.status);
            // What could not be had counts as the member's own (R14.2-4).
            self.status.inspect(|status| self.member.counters.statuses.count(*status));
        }
        if self.status.is_some() {
            let time = u64::try_from(ended.since(self.begun).as_micros()).unwrap_or(u64::MAX);
            self.member.counters.response_us.add(time);
        }
        match error {
            None if !self.status.is_some_and(is_gateway_error) => self.member.succeeded(),
            Some(error) if !error.is_about_member() => {}
            _ => self.member.failed(ended),
        }
    }

    /// Until there was a connection; `None` = there never was one (C17). Zero for a reused one.
    pub(crate) fn connect_time(&self) -> Option<Duration> {
        self.connected.map(|at| at.since(self.begun))
    }

    /// Until the answer's head was there; `None` = it never was (C17).
    pub(crate) fn header_time(&self) -> Option<Duration> {
        self.answered.map(|at| at.since(self.begun))
    }

    /// Until it ended; `None` if there never was a connection (C17), or it is still open.
    pub(crate) fn response_time(&self) -> Option<Duration> {
        self.connected.and(self.ended).map(|at| at.since(self.begun))
    }
}

/// What gateways answer for what stands behind them: a member that does can't do its work.
fn is_gateway_error(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// For the program's own log.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.unwrap_or_default();
        write!(f, "{}: status {status}", self.member.address)?;
        let times = [
            ("connected", self.connect_time()),
            ("sent", self.sent.map(|at| at.since(self.begun))),
            ("answered", self.header_time()),
            ("ended", self.response_time()),
        ];
        for (what, time) in times {
            if let Some(time) = time {
                write!(f, ", {what} after {time:?}")?;
            }
        }
        f.write_str(if self.reused { ", reused" } else { "" })
    }
}
