//! The heart: one request on one client connection and one member. Owns the order of things (read
//! the head, choose a member, get a connection, relay both ways at once, answer for what went
//! wrong). A state machine polled by the connection's task; its box is used again for the next
//! request. `upload` and `download` are its two directions, `haul` takes large answers past it,
//! `wait` sets every wait's time limit, `answer` speaks for Weir, `tunnel` is what comes after a
//! 101, `stream` is what HTTP/2 does otherwise, `note` remembers what the log and the metrics say.

mod answer;
mod attempt;
mod download;
mod haul;
mod head;
mod note;
mod retry;
mod session;
mod stream;
mod tunnel;
mod upload;
mod wait;

use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_core::rt::{Lease, SendBuf};
use weir_core::table::{Held, Pool};

use crate::client::Client;
use crate::error::Error;
use crate::identity::{Identity, RequestId};
use crate::limits::{KEPT_REPLAY_BYTES, PIECES_PER_TURN};
use crate::message::{Key, RequestFacts};
use crate::upstream::Connection;
use attempt::Attempt;
pub(crate) use attempt::Record as AttemptRecord;
use download::{Down, Download};
use note::Note;
use session::Session;
use tunnel::Tunnel;
use upload::Upload;
use wait::{Waits, Watch};

/// How a client connection goes on after an exchange.
#[derive(Debug)]
pub(crate) enum End {
    /// With the next request, of which these bytes are here already.
    Next(Option<Lease>),
    /// Send what is posted, then close.
    Close,
    /// The same, but the client may still be sending: listen for a while.
    Linger,
    /// Reset: the client must not take what it got for the whole answer.
    Abort,
}

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Reading the request's head.
    #[default]
    Head,
    /// Opening a connection to the member.
    Connect,
    /// Both directions at once.
    Relay,
    /// Weir's own answer is to be sent.
    Answer,
    /// The member has switched protocols: bytes both ways, no HTTP any more.
    Tunnel,
}

/// What a phase came to.
enum Step {
    Go(Phase),
    End(End),
}

/// The state of one request; one per request that is being served, kept for reuse.
#[derive(Default)]
pub(crate) struct Exchange {
    phase: Phase,
    /// A head that came in several leases.
    gathered: Option<SendBuf>,
    /// Client bytes that nobody has dealt with: head, body, or the next request.
    rest: Option<Lease>,
    /// The client has sent FIN; it may still read.
    client_ended: bool,
    facts: RequestFacts,
    /// Client and id of the request; the id from its first byte on, the client from its head on.
    pub(crate) identity: Identity,
    /// The head for the member, and body bytes that came with it, until there is a connection.
    first: Option<SendBuf>,
    /// Whom a stream's request is for, until it is polled first: by then some of its body may be
    /// here, too.
    held: Option<Held>,
    /// The same, and the body that followed, kept to be sent again; see `retry`.
    replay: Vec<u8>,
    /// The host it asks for, in lower case and without a port; only where members speak TLS.
    host: String,
    /// Where members are chosen for it.
    pool: Option<Rc<Pool>>,
    session: Session,
    /// The present attempt; after the answer, the last one.
    attempt: Option<Attempt>,
    /// Those before it, at most [`MAX_ATTEMPTS`](weir_core::limits::MAX_ATTEMPTS) less one. The
    /// usual request has none, so that it costs no memory.
    former: Vec<AttemptRecord>,
    /// Connections that ended before the member looked at the request.
    left: u8,
    upload: Upload,
    download: Download,
    /// What the timer is set for.
    waiting: Option<Waits>,
    watch: Watch,
    /// Something moved since the timer was set.
    moved: bool,
    /// The connection may go on after Weir's own answer.
    answer_persistent: bool,
    /// The protocol that the member may switch to.
    upgrade: Option<Box<[u8]>>,
    /// What the answer to it has to fit, if the key is ours.
    key: Option<Key>,
    /// After the 101.
    tunnel: Option<Box<Tunnel>>,
    /// For the log and the metrics.
    note: Note,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("phase", &self.phase)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Makes a cleared exchange begin with the first bytes of a request; a stream's has a head.
    #[inline]
    pub(crate) fn begin(&mut self, lease: Option<Lease>, id: RequestId, client: &Client) {
        debug_assert!(self.attempt.is_none() && self.phase == Phase::Head);
        self.note.begin(client, lease.as_ref().map_or(0, |lease| lease.len()));
        self.rest = lease;
        self.identity.id = id;
    }

    /// Lets go of everything but the memory that the next request can use.
    pub(crate) fn clear(&mut self) {
        let (mut replay, mut former) = (mem::take(&mut self.replay), mem::take(&mut self.former));
        let mut host = mem::take(&mut self.host);
        host.clear();
        replay.clear();
        replay.shrink_to(KEPT_REPLAY_BYTES);
        former.clear();
        let mut note = mem::take(&mut self.note);
        note.clear();
        *self = Exchange { replay, former, host, note, ..Exchange::default() };
    }

    /// What is known about all attempts, in their order; none for a request that no member got.
    fn attempts(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.former.iter().chain(self.attempt.as_ref().map(|attempt| &attempt.record))
    }

    /// The connection of the present attempt.
    #[inline]
    fn upstream(&self) -> Option<&Connection> {
        self.attempt.as_ref().and_then(|attempt| attempt.connection.as_ref())
    }

    /// Goes on until the exchange has ended or has to wait.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<End> {
        self.note.resume();
        let polled = self.go_on(cx, client);
        match &polled {
            Poll::Pending => self.note.pause(),
            Poll::Ready(end) => self.conclude(end, client),
        }
        polled
    }

    fn go_on(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<End> {
        loop {
            let polled = match self.phase {
                Phase::Head => self.poll_head(cx, client),
                Phase::Connect => self.poll_connect(cx, client),
                Phase::Relay => self.poll_relay(cx, client),
                Phase::Answer => self.poll_answer(cx, client),
                Phase::Tunnel => self.poll_tunnel(cx, client),
            };
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Step::Go(phase))) => self.phase = phase,
                Poll::Ready(Ok(Step::End(end))) => return Poll::Ready(end),
                Poll::Ready(Err(error)) => match self.recover(error, client) {
                    Step::Go(phase) => self.phase = phase,
                    Step::End(end) => return Poll::Ready(end),
                },
            }
        }
    }

    /// Has the request sent to a member: on an idle connection if there is one.
    fn dispatch(&mut self, client: &Client, held: Held) -> Phase {
        let mut attempt = Attempt::new(held);
        if attempt.member().is_shared() {
            attempt.join(&self.host, client);
            self.attempt = Some(attempt);
            return Phase::Connect;
        }
        match client.service().idle.take(attempt.member(), &self.host) {
            Some(connection) => {
                attempt.launch(connection, true);
                self.attempt = Some(attempt);
                self.begin_relay()
            }
            None => {
                attempt.connect(&self.host, client);
                self.attempt = Some(attempt);
                Phase::Connect
            }
        }
    }

    fn poll_connect(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<Result<Step, Error>> {
        // The limit is in the future itself.
        let Some(attempt) = &mut self.attempt else {
            return Poll::Ready(Err(Error::MemberClosed));
        };
        match attempt.poll_connected(cx) {
            Poll::Ready(connected) => {
                let joins = attempt.joins();
                attempt.launch(connected?, joins);
                Poll::Ready(Ok(Step::Go(self.begin_relay())))
            }
            Poll::Pending => {
                if self.upload.ended() {
                    self.watch_client(cx, client)?;
                }
                Poll::Pending
            }
        }
    }

    /// There is a connection: the request goes out on it.
    fn begin_relay(&mut self) -> Phase {
        self.upload.out = self.first.take().map(Into::into);
        self.moved = true;
        Phase::Relay
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<Result<Step, Error>> {
        let mut budget = PIECES_PER_TURN;
        if !self.upload.done() {
            self.drive_upload(cx, client, &mut budget)?;
            if self.upload.done()
                && let Some(attempt) = &mut self.attempt
            {
                attempt.sent();
            }
        }
        match self.drive_download(cx, client, &mut budget)? {
            Down::Waits => {}
            Down::Switched => {
                return Poll::Ready(Ok(Step::Go(self.begin_tunnel(client))));
            }
            Down::Ended => return Poll::Ready(Ok(Step::End(self.finish(client)))),
            Down::Failed(error) => return Poll::Ready(self.try_again(client, error)),
        }
        if self.upload.done() {
            self.watch_client(cx, client)?;
        }
        if budget == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.wait(cx, client)
    }

    /// While nothing is due from the client: keeps what it sends for later, and finds out when it
    /// leaves. The end of its side counts as that when it comes while the answer is waited for
    /// (R2.3-499): a client that has closed can't be told from one that still reads. Right behind
    /// the request, or once the answer has begun, it is a half-close and only noted.
    fn watch_client(&mut self, cx: &mut Context<'_>, client: &Client) -> Result<(), Error> {
        // Of a stream its connection says when it is given up.
        if self.rest.is_some() || self.client_ended || self.facts.http2 {
            return Ok(());
        }
        match client.poll_recv(cx) {
            Poll::Ready(Ok(Some(lease))) => self.rest = Some(lease),
            Poll::Ready(Ok(None)) if self.download.started || self.note.heard_lately() => {
                self.client_ended = true;
            }
            Poll::Ready(Ok(None) | Err(_)) => return Err(Error::ClientGone),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// The answer is out: parts with the member's connection and the client's in the right way.
    fn finish(&mut self, client: &Client) -> End {
        if let Some(attempt) = &mut self.attempt {
            if let Some(connection) = attempt.connection.take()
                && self.download.reusable
                && self.upload.done()
                && !self.upload.broken
            {
                client.service().idle.put(connection, client.site().member_timeout());
            }
            attempt.end(None);
        }
        let ends = self.ends_with(self.download.persistent);
        let more = self.rest.take();
        if !ends {
            End::Next(more)
        } else if !self.upload.ended()
            || more.is_some()
            || (self.facts.persistent && !self.client_ended)
        {
            // It is still sending, or didn't ask for the close, so that a request of it may be on
            // its way.
            End::Linger
        } else {
            End::Close
        }
    }

    /// Does the client's connection end with an answer whose head said whether it is `persistent`?
    /// What decides is what came from the client, as it did when that head was written: a tail that
    /// the member hasn't taken changes nothing.
    fn ends_with(&self, persistent: bool) -> bool {
        let nothing_more = self.client_ended && self.rest.is_none();
        !persistent || !self.upload.ended() || nothing_more
    }
}
