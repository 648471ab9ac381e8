//! Weir's own answers: what a client hears when the member's answer can't be had.

use std::task::{Context, Poll};

use weir_core::rt::SendBuf;

use super::download::Download;
use super::{End, Exchange, Phase, Step};
use crate::client::Client;
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
        if let Some(attempt) = &mut self.attempt {
            attempt.end(Some(error));
        }
        self.attempts().for_each(|attempt| tracing::debug!("attempt at {attempt}"));
        self.gathered = None;
        self.note.failed(verdict.reason);
        if self.download.started {
            // Its status has been counted. Never a short body that looks whole.
            return Step::End(End::Abort);
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
        write_page(&mut page, &Page { verdict, id: id.as_bytes(), to_head, persistent }, date);
        // An interim answer that was not posted yet stays in front.
        self.download = Download::only(self.download.out.take());
        self.first = Some(page);
        self.moved = true;
        Step::Go(Phase::Answer)
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
                client.post(before, false).is_ok()
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
        client.post(page.into(), true).is_ok()
    }

    fn end_after_answer(&mut self) -> End {
        let more = self.rest.take();
        if self.answer_persistent {
            if self.client_ended && more.is_none() { End::Close } else { End::Next(more) }
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
}
