//! A request that comes as a stream of HTTP/2: its head, which `h2` has decoded and judged already.
//! What differs from HTTP/1 once the head is known stands where it differs.

use std::task::{Context, Poll};

use weir_core::rt::{Payload, SendBuf};
use weir_core::table::Held;

use super::head::Routed;
use super::upload::Upload;
use super::{End, Exchange, Phase, Step};
use crate::client::{Client, Then};
use crate::error::Error;
use crate::h2::head::Head;
use crate::message::{Request, Response, own_lines};
use crate::mux::Lane;

impl Exchange {
    /// Takes the head of a request; `end`: nothing follows it. An end: the exchange is over.
    pub(crate) fn take_head(&mut self, head: &Head, end: bool, client: &Client) -> Option<End> {
        let step = match self.read_stream_head(head, end, client) {
            Ok(phase) => Step::Go(phase),
            Err(error) => self.recover(error, client),
        };
        match step {
            Step::Go(phase) => {
                self.phase = phase;
                None
            }
            Step::End(end) => {
                self.conclude(&end, client);
                Some(end)
            }
        }
    }

    /// The client has given the stream up, or its connection is gone.
    #[cold]
    pub(crate) fn abandon(&mut self, client: &Client) {
        self.note.resume();
        self.break_tunnel();
        let end = match self.fail(Error::ClientGone, client) {
            Step::End(end) => end,
            Step::Go(_) => End::Abort,
        };
        self.conclude(&end, client);
    }

    fn read_stream_head(
        &mut self,
        head: &Head,
        end: bool,
        client: &Client,
    ) -> Result<Phase, Error> {
        let limits = client.site().limits();
        // A refusal, too, has no body in answer to HEAD.
        let method = head.pseudo().method.map(|method| method.get(head.bytes()));
        self.facts.is_head = method == Some(b"HEAD");
        let request = Request::from_head(head, end, &limits);
        let request = request.inspect_err(|_| self.note.take_refused_head(head))?;
        self.note.take_head(&request);
        self.facts = request.facts;
        self.upload = Upload::new(self.facts, limits.body);
        match self.choose(&request, client)? {
            Routed::Member(held, first) => {
                self.first = Some(first);
                self.held = Some(held);
                Ok(Phase::Head)
            }
            Routed::Own(own) => Ok(self.answer_own(own, client)),
        }
    }

    /// Has the request sent to `held`'s member, with what there is of its body by now.
    pub(super) fn begin_stream(
        &mut self,
        held: Held,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Result<Phase, Error> {
        let mut first = self.first.take().unwrap_or_default();
        while !self.upload.ended() && self.rest.is_none() {
            match client.poll_recv(cx) {
                Poll::Ready(Ok(Some(lease))) => {
                    self.rest = Some(lease);
                    self.load_body(&mut first)?;
                }
                Poll::Ready(Ok(None)) => {
                    let end = self.end_of_stream(client).ok_or(Error::BodyCut)?;
                    end.append_to(&mut first);
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.keep_first(&first);
        self.first = Some(first);
        Ok(self.dispatch(client, held))
    }

    /// The client has said all of its request: what ends the body for the member, if its length
    /// didn't say that.
    pub(super) fn end_of_stream(&mut self, client: &Client) -> Option<Payload> {
        let end = self.upload.relay.end_by_close()?;
        let trailers = client.lane().map(Lane::take_trailer).unwrap_or_default();
        let Some(before) = end.strip_suffix(b"\r\n").filter(|_| !trailers.is_empty()) else {
            return Some(end.into());
        };
        let mut out = SendBuf::new();
        [before, &trailers, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
        Some(out.into())
    }

    /// Sends the answer `page` of Weir's own, which has the form of HTTP/1. False: the stream is
    /// gone.
    pub(super) fn post_own(&mut self, mut page: SendBuf, client: &Client) -> bool {
        let Some(lane) = client.lane() else { return false };
        let (head, sent) = {
            let fields = &mut *client.service().fields.borrow_mut();
            let parsed = Response::parse(&page, self.facts.is_head, fields);
            let Ok(Some(response)) = parsed else { return false };
            let end = response.len() == page.len();
            (response.len(), lane.send_head(end, |block| response.write_block(block)))
        };
        client.count_sent(sent as u64);
        self.note.heads_sent += sent as u64;
        if head < page.len() {
            page.drain(..head);
            return client.post(page.into(), Then::Others).is_ok();
        }
        true
    }

    /// Sends the head of an answer, with the field lines of ours that are `more`.
    pub(super) fn send_stream_head(
        &mut self,
        response: &Response<'_>,
        more: &[u8],
        end: bool,
        client: &Client,
    ) {
        let Some(lane) = client.lane() else { return };
        let sent = lane.send_head(end, |block| {
            response.write_block(block);
            own_lines(more).for_each(|(name, value)| block.field(name, value));
        });
        client.count_sent(sent as u64);
        self.note.heads_sent += sent as u64;
    }
}
