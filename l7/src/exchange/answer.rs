//! Weir's own answers: what a client hears when the member's answer can't be had.

use std::task::{Context, Poll};

use weir_core::rt::SendBuf;

use super::download::Download;
use super::{End, Exchange, Phase, Step};
use crate::client::{Client, Then};
use crate::error::{Error, Side, Verdict};
use crate::message::{self, append_decimal, phrase};
use crate::policy::Own;

impl Exchange {
    /// What follows from `error`: an answer, as long as none has begun, else a cut.
    #[cold]
    pub(super) fn fail(&mut self, error: Error, client: &Client) -> Step {
        let verdict = error.verdict();
        let (id, Verdict { status, side, .. }) = (self.identity.id.text(), verdict);
        tracing::debug!(request = %id, status, ?side, %error, "request failed");
        self.leave_haul(client);
        if let Some(attempt) = &mut self.attempt {
            attempt.end(Some(error));
        }
        self.attempts().for_each(|attempt| tracing::debug!("attempt at {attempt}"));
        self.gathered = None;
        self.note.failed(verdict.reason);
        if self.download.started {
            // Its status has been counted. Never a short body that looks whole.
            return Step::End(self.cut(verdict, client));
        }
        self.count_status(verdict.status, client);
        client.site().counters.sticky.count(self.session.found);
        if verdict.status == 499 {
            return Step::End(End::Abort);
        }
        self.answer_persistent = verdict.side != Side::Client && self.may_go_on(client);
        let mut page = SendBuf::new();
        let (to_head, persistent) = (self.facts.is_head, self.answer_persistent);
        let id = self.identity.id.text();
        let date = |out: &mut Vec<u8>| client.service().append_date(out);
        let what = Page { verdict, id: id.as_bytes(), to_head, persistent };
        let write = if self.facts.grpc { write_grpc } else { write_page };
        write(&mut page, &what, date);
        // An interim answer that was not posted yet stays in front.
        self.download = Download::only(self.download.out.take());
        self.first = Some(page);
        self.moved = true;
        Step::Go(Phase::Answer)
    }

    /// An answer that has begun can't go on. A gRPC client is told so by a status of its own, as
    /// long as no length has been promised.
    fn cut(&mut self, verdict: Verdict, client: &Client) -> End {
        let lane = client.lane().filter(|_| self.facts.grpc && verdict.side != Side::Client);
        let Some(lane) = lane.filter(|_| self.download.is_open_ended()) else {
            return End::Abort;
        };
        let mut lines = Vec::new();
        append_grpc(&mut lines, verdict, self.identity.id.text().as_bytes());
        lane.set_trailer(lines);
        End::Close
    }

    /// A policy has Weir answer.
    #[cold]
    pub(super) fn answer_own(&mut self, own: Own, client: &Client) -> Phase {
        self.count_status(own.status, client);
        self.note.action = if own.status / 100 == 3 { "redirect" } else { "fixed_response" };
        self.answer_persistent = self.may_go_on(client);
        let date = |out: &mut Vec<u8>| client.service().append_date(out);
        let answer = own.finish(self.answer_persistent, date);
        self.first = Some(answer);
        self.moved = true;
        Phase::Answer
    }

    /// May the client's connection go on after an answer of Weir's own? Only when all of the
    /// request has come.
    fn may_go_on(&self, client: &Client) -> bool {
        self.facts.persistent
            && self.facts.http11
            && self.upload.ended()
            && !client.site().keepalive_timeout().is_zero()
            && !client.service().is_draining()
    }

    /// Posts the answer as soon as the client has taken what stands before it.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
    ) -> Poll<Result<Step, Error>> {
        loop {
            match client.poll_send_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(Step::End(End::Abort))),
                Poll::Pending => {
                    if std::mem::take(&mut self.moved) {
                        client.timer.set(client.site().client_timeout());
                    }
                    let over = client.timer.poll_expired(cx);
                    return over.map(|()| Ok(Step::End(End::Abort)));
                }
            }
            let posted = if let Some(before) = self.download.out.take() {
                client.post(before, Then::More).is_ok()
            } else if let Some(page) = self.first.take() {
                self.post_page(page, client)
            } else {
                break;
            };
            if !posted {
                return Poll::Ready(Ok(Step::End(End::Abort)));
            }
        }
        Poll::Ready(Ok(Step::End(self.end_after_answer())))
    }

    fn post_page(&mut self, page: SendBuf, client: &Client) -> bool {
        if client.lane().is_some() {
            return self.post_own(page, client);
        }
        self.note.heads_sent += message::head_len(&page) as u64;
        let then = if self.ends_with(self.answer_persistent) { Then::End } else { Then::Others };
        client.post(page.into(), then).is_ok()
    }

    fn end_after_answer(&mut self) -> End {
        let ends = self.ends_with(self.answer_persistent);
        let more = self.rest.take();
        if !ends {
            End::Next(more)
        } else if self.client_ended && more.is_none() {
            End::Close
        } else {
            End::Linger
        }
    }
}

/// What a small answer says.
struct Page<'a> {
    verdict: Verdict,
    /// The request's id: with it its line is found in the log.
    id: &'a [u8],
    /// To HEAD: the head alone, as if the body followed.
    to_head: bool,
    persistent: bool,
}

/// Writes a small answer: status, reason and the request's id as text. Nothing of the request is
/// repeated in it. `date` appends the field line of that name.
fn write_page(out: &mut Vec<u8>, page: &Page<'_>, date: impl FnOnce(&mut Vec<u8>)) {
    let Verdict { status, reason, .. } = page.verdict;
    out.extend_from_slice(b"HTTP/1.1 ");
    append_decimal(out, u64::from(status));
    out.push(b' ');
    let text: [&[u8]; 5] =
        [phrase(status).as_bytes(), b": ", reason.as_bytes(), b"\nrequest ", page.id];
    out.extend_from_slice(text[0]);
    out.extend_from_slice(b"\r\nContent-Type: text/plain\r\nContent-Length: ");
    // In front of the text three digits and a space, behind it a line end.
    let len = 4 + text.iter().map(|part| part.len()).sum::<usize>() + 1;
    append_decimal(out, len as u64);
    out.extend_from_slice(b"\r\n");
    date(out);
    if !page.persistent {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if page.to_head {
        return;
    }
    append_decimal(out, u64::from(status));
    out.push(b' ');
    text.iter().for_each(|part| out.extend_from_slice(part));
    out.push(b'\n');
}

/// The same for a gRPC client, which hears of it in the fields of an answer that has no body
/// ("Trailers-Only" in gRPC's description of its protocol).
fn write_grpc(out: &mut Vec<u8>, page: &Page<'_>, date: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n");
    date(out);
    append_grpc(out, page.verdict, page.id);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends the field lines that tell a gRPC client what went wrong.
fn append_grpc(out: &mut Vec<u8>, verdict: Verdict, id: &[u8]) {
    out.extend_from_slice(b"grpc-status: ");
    append_decimal(out, grpc_status(verdict.status));
    out.extend_from_slice(b"\r\ngrpc-message: ");
    // Reasons are ASCII without "%", so that nothing has to be encoded.
    out.extend_from_slice(verdict.reason.as_bytes());
    out.extend_from_slice(b", request ");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\r\n");
}

/// What a gRPC client makes of an HTTP status (http-grpc-status-mapping.md of gRPC).
const fn grpc_status(status: u16) -> u64 {
    match status {
        400 => 13,
        404 => 12,
        502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: Error, to_head: bool, persistent: bool) -> String {
        let mut out = Vec::new();
        let page = Page { verdict: error.verdict(), id: b"00af", to_head, persistent };
        write_page(&mut out, &page, |out| out.extend_from_slice(b"Date: x\r\n"));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pages() {
        let body = "404 Not Found: no pool for this request\nrequest 00af\n";
        let head = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Date: x\r\n",
            body.len()
        );
        assert_eq!(written(Error::NoPool, false, true), format!("{head}\r\n{body}"));
        assert_eq!(written(Error::NoPool, true, true), format!("{head}\r\n"));
        let closing = written(Error::NoPool, false, false);
        assert_eq!(closing, format!("{head}Connection: close\r\n\r\n{body}"));
    }

    /// What a gRPC client hears: a status of its own and the reason, in fields alone.
    #[test]
    fn pages_for_grpc() {
        let written = |error: Error| {
            let verdict = error.verdict();
            let page = Page { verdict, id: b"00af", to_head: false, persistent: true };
            let mut out = Vec::new();
            write_grpc(&mut out, &page, |out| out.extend_from_slice(b"Date: x\r\n"));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Error::NoUsableMember),
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nDate: x\r\ngrpc-status: 14\r\n\
             grpc-message: no member is usable, request 00af\r\nContent-Length: 0\r\n\r\n"
        );
        let status = |error| written(error).split("grpc-status: ").nth(1).unwrap()[..2].to_owned();
        assert_eq!([status(Error::AnswerTimeout), status(Error::NoPool)], ["14", "12"]);
        assert_eq!([status(Error::HeadTooLarge), status(Error::BodyTooLarge)], ["13", "2\r"]);
    }
}
