//! A connection of HTTP/2 that carries one request and is then held, as `idle` holds many of them.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use weir_core::rt::SendBuf;

use super::link::code_name;
use super::session::{Ear, Ended, Lost, Session};
use crate::client::{Failure, Open};
use crate::slot::{Next, Woken, can_send, wait};
use crate::template::Request;

/// Such a connection.
pub(crate) struct Single<'a> {
    conn: Open,
    session: Session<'a>,
    heard: Heard,
}

/// What came of the request.
#[derive(Debug, Default)]
struct Heard(Option<Result<(), Lost>>);

impl<'a> Single<'a> {
    /// On a fresh connection.
    pub(crate) fn new(conn: Open) -> Single<'a> {
        Single { conn, session: Session::new(1), heard: Heard::default() }
    }

    /// Sends `request`, whose fields are `block`, and reads its answer to the end.
    pub(crate) async fn exchange(
        &mut self,
        request: &'a Request,
        block: &[u8],
    ) -> Result<(), Failure> {
        self.session.open(block, &request.body, request.is_head);
        loop {
            match self.heard.0.take() {
                None => self.step().await?,
                Some(Ok(())) => return Ok(()),
                Some(Err(Lost::Unseen)) => {
                    return Err(Failure::closed("the target left before it answered"));
                }
                Some(Err(Lost::Reset(code))) => {
                    return Err(Failure::coded("the target reset the stream", code_name(code)));
                }
                Some(Err(Lost::Malformed(why))) => return Err(Failure::malformed(why)),
            }
        }
    }

    /// Answers what the target asks for (PING, SETTINGS), until `release`. True when the connection
    /// is there then, and may be used.
    pub(crate) async fn hold(&mut self, release: impl Future<Output = ()>) -> bool {
        let mut release = pin!(release);
        let gone = {
            let mut holding = pin!(async { while self.step().await.is_ok() {} });
            poll_fn(|cx| match release.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => holding.as_mut().poll(cx).map(|()| true),
            })
            .await
        };
        if gone {
            release.await;
        }
        !gone && !self.session.is_leaving()
    }

    /// Sends what there is to say, and takes what comes next.
    async fn step(&mut self) -> Result<(), Failure> {
        let stream = &self.conn.stream;
        let ready = can_send(stream).await.map_err(Failure::reset)?;
        if ready {
            self.session.pump();
            if !self.session.out().is_empty() {
                let mut buffer = SendBuf::new();
                buffer.extend_from_slice(self.session.out());
                self.session.out().clear();
                stream.post(buffer).map_err(Failure::reset)?;
            }
        }
        let blocked = !ready || self.session.has_more();
        match wait(stream, if blocked { Next::Room } else { Next::Nothing }, None).await {
            Woken::Received(Ok(Some(lease))) => {
                self.session.feed(&lease, &mut self.heard).map_err(Failure::malformed)
            }
            Woken::Received(Ok(None)) => Err(Failure::closed("the target closed the connection")),
            Woken::Received(Err(error)) => Err(Failure::reset(error)),
            Woken::Late => Err(Failure::reset(io::ErrorKind::TimedOut.into())),
            Woken::Writable | Woken::Due => Ok(()),
        }
    }
}

impl Ear for Heard {
    fn begun(&mut self, _: usize) {}
    fn head_begins(&mut self) {}
    fn field(&mut self, _: &[u8], _: &[u8]) {}
    fn head(&mut self, _: usize) {}
    fn body(&mut self, _: usize, _: &[u8]) {}

    fn ended(&mut self, _: usize, _: Ended) {
        self.0 = Some(Ok(()));
    }

    fn lost(&mut self, _: usize, why: Lost) {
        self.0 = Some(Err(why));
    }
}
