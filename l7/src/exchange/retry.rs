//! What follows from an error: the request goes once more, or Weir answers. Owns the rules of
//! retries (R6.7-11 to R6.7-13, C13, C14) and the copy of the request that they need; which error
//! allows what stands in `error`.

use weir_core::limits::MAX_ATTEMPTS;
use weir_core::rt::{Payload, SendBuf};
use weir_core::table::Held;

use super::{Exchange, Phase, Step};
use crate::client::Client;
use crate::error::{Error, Retry};
use crate::limits::{LINKS_LEFT, REPLAY_BODY_BYTES};

impl Exchange {
    /// After `error`: an attempt at another member where that is allowed, else Weir's answer or a
    /// cut.
    #[cold]
    pub(super) fn recover(&mut self, error: Error, client: &Client) -> Step {
        match self.other_member(error, client) {
            Some(held) => Step::Go(self.go_over(held, error, client)),
            None => self.fail(error, client),
        }
    }

    /// A connection failed before any byte of the answer. If it was a reused one it may just have
    /// been closed by the member, and the request goes once more, to a fresh connection of the same
    /// member; so it does when the member, by its own word, has not looked at it.
    pub(super) fn try_again(&mut self, client: &Client, error: Error) -> Result<Step, Error> {
        let left = error == Error::MemberLeft && self.left < LINKS_LEFT;
        self.left += u8::from(left);
        let reused = self.attempt.as_ref().is_some_and(|attempt| attempt.record.reused);
        if !(reused || left) || !self.may_repeat(error, client) {
            return Err(error);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.member().counters.reuse_retries.add(1);
            attempt.connect(&self.host, client);
        }
        self.rewind();
        Ok(Step::Go(Phase::Connect))
    }

    /// A member that was not tried yet, if the request may go there.
    fn other_member(&self, error: Error, client: &Client) -> Option<Held> {
        let limit = usize::from(client.site().retry().attempts).min(MAX_ATTEMPTS);
        // An interim answer has been the client's first byte.
        if self.former.len() + 1 >= limit || self.download.begun() {
            return None;
        }
        if !self.may_repeat(error, client) {
            return None;
        }
        let tried = self.attempts().map(|attempt| attempt.member.handle);
        self.pool.as_ref()?.pick_other(self.identity.hash(), tried).ok()
    }

    /// May the request be sent once more after `error`?
    fn may_repeat(&self, error: Error, client: &Client) -> bool {
        let unsent = self.attempt.as_ref().is_none_or(super::Attempt::unsent);
        let harmless = unsent || self.facts.idempotent || client.site().retry().non_idempotent;
        let allowed = match error.verdict().retry {
            Retry::Never => false,
            Retry::Unanswered => harmless && !self.download.touched(),
            Retry::Unbound => harmless && !self.pool.as_ref().is_some_and(|pool| pool.is_sticky()),
            Retry::Always => true,
        };
        allowed && !self.upload.lost
    }

    /// Gives the present attempt up and begins one at `held`'s member.
    fn go_over(&mut self, held: Held, error: Error, client: &Client) -> Phase {
        if let Some(mut attempt) = self.attempt.take() {
            let (from, to) = (attempt.member().address, held.member().address);
            let id = self.identity.id.text();
            tracing::debug!(request = %id, %from, %to, %error, "goes to another member");
            attempt.end(Some(error));
            attempt.member().counters.retries.add(1);
            if self.facts.names_member {
                rename_host(&mut self.replay, &attempt.member().host, &held.member().host);
            }
            self.former.push(attempt.record);
        }
        self.session.leave();
        self.rewind();
        self.dispatch(client, held)
    }

    /// Back to where nothing of the request was sent, and nothing of an answer had come.
    fn rewind(&mut self) {
        let mut first = SendBuf::new();
        first.extend_from_slice(&self.replay);
        self.first = Some(first);
        self.upload.out = None;
        self.upload.broken = false;
        self.download = super::Download::default();
        self.waiting = None;
    }

    /// The request's head, and body bytes that came with it, are `first`: kept to be sent again.
    #[inline]
    pub(super) fn keep_first(&mut self, first: &[u8]) {
        self.replay.clear();
        self.replay.extend_from_slice(first);
    }

    /// Keeps body bytes that are to be sent for another attempt, as long as all of them are kept.
    pub(super) fn keep(&mut self, body: &Payload, client: &Client) {
        if self.upload.lost {
            return;
        }
        // A member of HTTP/2 may say that it has not looked at a request, so that any may go again.
        let shared = self.attempt.as_ref().is_some_and(|attempt| attempt.member().is_shared());
        let repeatable = shared || self.facts.idempotent || client.site().retry().non_idempotent;
        let len = self.upload.kept + body.len();
        if repeatable && len <= REPLAY_BODY_BYTES {
            self.upload.kept = len;
            body.append_to(&mut self.replay);
        } else {
            self.upload.lost = true;
        }
    }
}

/// A request that came without Host names its member there: puts another member's in its place.
fn rename_host(request: &mut Vec<u8>, former: &str, other: &str) {
    let line = format!("\r\nHost: {former}\r\n");
    // It is the only Host of the head, which stands in front of any body.
    let found = request.windows(line.len()).position(|part| part == line.as_bytes());
    if let Some(at) = found {
        request.splice(at..at + line.len(), format!("\r\nHost: {other}\r\n").into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_follows_the_member() {
        let mut request = b"GET / HTTP/1.1\r\nA: 1\r\nHost: 1.2.3.4:5\r\nB: 2\r\n\r\n".to_vec();
        rename_host(&mut request, "1.2.3.4:5", "10.20.30.40:50");
        let wanted = &b"GET / HTTP/1.1\r\nA: 1\r\nHost: 10.20.30.40:50\r\nB: 2\r\n\r\n"[..];
        assert_eq!(request, wanted);
        rename_host(&mut request, "1.2.3.4:5", "x");
        assert_eq!(request, wanted);
    }
}
