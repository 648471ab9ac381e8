//! The request on its way: from the client to the member.

use std::task::{Context, Poll};

use weir_core::rt::{Lease, Payload};

use super::Exchange;
use crate::body::{Frame, Framing, Relay};
use crate::client::Client;
use crate::error::Error;
use crate::message::RequestFacts;

/// State of the upload.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) relay: Relay,
    /// To be posted to the member as soon as it takes more.
    pub(super) out: Option<Payload>,
    /// Bytes of the body that the replay has, beyond those that came with the head.
    pub(super) kept: usize,
    /// Body bytes were sent that the replay has not: it can't be used any more.
    pub(super) lost: bool,
    /// The member's connection takes no more. It may have answered all the same.
    pub(super) broken: bool,
    /// The client waits for 100 Continue before it sends the body.
    pub(super) expecting: bool,
    /// The client's stream was told to use large leases.
    bulk: bool,
}

impl Upload {
    /// The upload of a request whose body may have `most` bytes.
    pub(super) fn new(facts: RequestFacts, most: u64) -> Upload {
        let (framing, frame) = match facts.framing {
            // It comes as it is, until its stream ends.
            Framing::Chunked if facts.http2 => {
                (Framing::UntilClose, Frame::Chunked { open: false })
            }
            Framing::Chunked => (Framing::Chunked, Frame::Chunked { open: false }),
            other => (other, Frame::Plain),
        };
        let relay = Relay::new(framing, most, frame);
        let expecting = facts.expects_continue && !relay.ended();
        Upload { relay, expecting, ..Upload::default() }
    }

    /// All of the request has come from the client.
    pub(super) fn ended(&self) -> bool {
        self.relay.ended()
    }

    /// All of the request has come and was posted.
    #[inline]
    pub(super) fn done(&self) -> bool {
        self.relay.finished() && self.out.is_none()
    }

    /// Nothing can go on before the client sends.
    pub(super) fn waits_for_client(&self) -> bool {
        !self.relay.ended() && self.out.is_none() && !self.expecting && !self.broken
    }
}

impl Exchange {
    /// Moves the request on until the member or the client has to be waited for.
    pub(super) fn drive_upload(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        budget: &mut usize,
    ) -> Result<(), Error> {
        while *budget > 0 {
            if self.upload.out.is_some() && !self.post_to_member(cx) {
                return Ok(());
            }
            if self.upload.broken {
                return Ok(());
            }
            if let Some(end) = self.upload.relay.take_end() {
                self.send_body(end.into(), client);
                continue;
            }
            if self.upload.ended() {
                return Ok(());
            }
            let Some(lease) = self.next_of_body(cx, client)? else {
                match self.upload.relay.take_chunk_end() {
                    Some(end) => self.send_body(end.into(), client),
                    None if self.upload.out.is_some() => {}
                    None => return Ok(()),
                }
                continue;
            };
            *budget -= 1;
            self.upload.expecting = false;
            self.moved = true;
            let piece = self.upload.relay.push(None, lease)?;
            if let Some(payload) = piece.payload {
                self.send_body(payload, client);
            }
            self.rest = piece.rest;
            let bulk = self.upload.relay.is_bulk();
            if bulk != self.upload.bulk {
                self.upload.bulk = bulk;
                client.expect_bulk(bulk);
            }
        }
        Ok(())
    }

    fn send_body(&mut self, payload: Payload, client: &Client) {
        self.keep(&payload, client);
        self.upload.out = Some(payload);
    }

    fn next_of_body(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Result<Option<Lease>, Error> {
        if let Some(lease) = self.rest.take() {
            return Ok(Some(lease));
        }
        match client.poll_recv(cx) {
            Poll::Ready(Ok(Some(lease))) => {
                self.note.hear();
                Ok(Some(lease))
            }
            Poll::Ready(Ok(None)) => match self.end_of_stream(client) {
                Some(end) => {
                    self.send_body(end, client);
                    Ok(None)
                }
                None => {
                    self.client_ended = true;
                    Err(Error::BodyCut)
                }
            },
            Poll::Ready(Err(_)) => Err(Error::ClientGone),
            Poll::Pending => Ok(None),
        }
    }

    /// Posts what is ready; false when the member's connection has to be waited for.
    fn post_to_member(&mut self, cx: &mut Context<'_>) -> bool {
        let attempt = self.attempt.as_ref();
        let Some(connection) = attempt.and_then(|attempt| attempt.connection.as_ref()) else {
            return false;
        };
        let posted = match connection.stream.poll_send_ready(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => match self.upload.out.take() {
                Some(payload) => {
                    let len = payload.len() as u64;
                    connection.member.counters.bytes_sent.add(len);
                    connection.stream.post(payload)
                }
                None => Ok(()),
            },
        };
        if posted.is_err() {
            // What the member may have said before stands in the stream: the download decides.
            self.upload.broken = true;
            self.upload.out = None;
        }
        self.moved = true;
        true
    }
}
