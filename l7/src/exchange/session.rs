//! Session stickiness of one request (R2.2-5, R2.2-6, R11.3): finds the cookie that tells the
//! session, has its member picked, and afterwards binds the session to the member that answered:
//! by a cookie of Weir's own, or in the pool's table of bindings. Which member is bound to what,
//! and what a value may look like, is `weir_core::pool::sticky`'s.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use weir_core::control::{By, Stickiness};
use weir_core::obs::Sticky;
use weir_core::pool::sticky::token;
use weir_core::rt;
use weir_core::table::{Held, Member, Pool};
use weir_core::time::clock;

use crate::message::{Request, Response, append_decimal};

/// What stickiness has to do with a request.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Of its pool; `None` = the pool has none.
    stickiness: Option<Arc<Stickiness>>,
    /// What came of the request's cookie.
    pub(super) found: Sticky,
    /// What stands for the application's cookie in the request; 0 = there is none.
    told: u64,
}

impl Session {
    /// What `request` says about its session, and the member that it is bound to, if there is one
    /// that may be used. Otherwise the pool's algorithm decides.
    #[inline]
    pub(super) fn find(request: &Request<'_>, pool: &Pool) -> (Session, Option<Held>) {
        match pool.stickiness() {
            None => (Session::default(), None),
            Some(stickiness) => Session::look(request, pool, stickiness),
        }
    }

    fn look(
        request: &Request<'_>,
        pool: &Pool,
        stickiness: Arc<Stickiness>,
    ) -> (Session, Option<Held>) {
        let mut values = request.cookies(stickiness.cookie.as_bytes()).peekable();
        let cookie = values.peek().is_some();
        let mut told = 0;
        let (found, held) = match &stickiness.by {
            By::Balancer => {
                let now = calendar_seconds();
                let alias = values.find_map(|v| token::verify(&stickiness.key, v, now).ok());
                let held = alias.and_then(|alias| pool.bound(&stickiness, alias));
                (outcome(cookie, held.is_some()), held)
            }
            // Without a cookie there is nothing to tell the session by, unless the answer sets one.
            By::Table(bindings) => match values.find(|value| !value.is_empty()) {
                None => (Sticky::None, None),
                Some(value) => {
                    told = stickiness.key.session(value);
                    let bound = bindings.find(told, seconds());
                    let held = bound.and_then(|mark| pool.bound(&stickiness, u64::from(mark)));
                    let found = outcome(bound.is_some(), held.is_some());
                    (found, held.or_else(|| pool.prefer(&stickiness, told)))
                }
            },
        };
        drop(values);
        (Session { stickiness: Some(stickiness), found, told }, held)
    }

    /// The request goes to another member than the one that it is bound to.
    pub(super) fn leave(&mut self) {
        if self.found == Sticky::Hit {
            self.found = Sticky::Miss;
        }
    }

    /// `member` has given the final answer: binds the session to it from now on. Appends the field
    /// line that the answer gets for that, if any; `secure` = the client came by TLS.
    #[inline]
    pub(super) fn bind(
        &mut self,
        member: &Member,
        answer: &Response<'_>,
        out: &mut Vec<u8>,
        secure: bool,
    ) {
        let Some(stickiness) = self.stickiness.as_ref() else { return };
        let timeout = stickiness.timeout.as_secs();
        match &stickiness.by {
            By::Balancer => {
                let alias = stickiness.key.alias(member.id());
                let until = calendar_seconds().saturating_add(timeout);
                let token = token::mint(&stickiness.key, alias, until);
                write_cookie(out, &stickiness.cookie, &token, timeout, secure);
            }
            By::Table(bindings) => {
                let set = answer.sets_cookie(stickiness.cookie.as_bytes());
                let set = set.filter(|value| !value.is_empty());
                let set = set.map(|value| stickiness.key.session(value));
                if set.is_some() && self.told == 0 {
                    self.found = Sticky::New;
                }
                // The low half tells members of a process apart: handles count up from 1.
                let mark = member.handle.number() as u32;
                let now = seconds();
                let end = now.saturating_add(u32::try_from(timeout).unwrap_or(u32::MAX));
                let told = Some(self.told).filter(|&told| told != 0);
                for session in told.into_iter().chain(set) {
                    bindings.bind(session, mark, end, now);
                }
            }
        }
    }
}

fn outcome(bound: bool, followed: bool) -> Sticky {
    match (bound, followed) {
        (_, true) => Sticky::Hit,
        (true, false) => Sticky::Miss,
        (false, false) => Sticky::New,
    }
}

/// `Set-Cookie: LBSTICKY=…; Path=/; Max-Age=1200; HttpOnly; SameSite=Lax`
///
/// The cookie proves nothing and grants nothing, so it may go along wherever browsers let it:
/// behind TLS also with requests from other sites, since a payment provider that posts back has to
/// reach the session's member. Without TLS they take SameSite=None from nobody.
fn write_cookie(out: &mut Vec<u8>, name: &str, token: &token::Token, age: u64, secure: bool) {
    out.extend_from_slice(b"Set-Cookie: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(token.as_bytes());
    out.extend_from_slice(b"; Path=/; Max-Age=");
    append_decimal(out, age);
    let site: &[u8] = if secure { b"Secure; SameSite=None" } else { b"SameSite=Lax" };
    out.extend_from_slice(b"; HttpOnly; ");
    out.extend_from_slice(site);
    out.extend_from_slice(b"\r\n");
}

/// Seconds since 1970: cookies outlive the process.
fn calendar_seconds() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds of the turn's clock.
fn seconds() -> u32 {
    u32::try_from(Duration::from_nanos(rt::now().nanos()).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use weir_core::model::Id;
    use weir_core::pool::sticky::Secret;

    use super::*;

    /// R11.4-3: the attributes.
    #[test]
    fn the_cookie_as_written() {
        let key = Secret::default().key(Id::from_u128(1));
        let token = token::mint(&key, 1, 2);
        let value = std::str::from_utf8(token.as_bytes()).unwrap();
        for (secure, end) in [(false, "SameSite=Lax"), (true, "Secure; SameSite=None")] {
            let mut out = Vec::new();
            write_cookie(&mut out, "LBSTICKY", &token, 1_200, secure);
            let wanted =
                format!("Set-Cookie: LBSTICKY={value}; Path=/; Max-Age=1200; HttpOnly; {end}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }

    #[test]
    fn outcomes() {
        assert_eq!(outcome(false, false), Sticky::New);
        assert_eq!(outcome(true, true), Sticky::Hit);
        assert_eq!(outcome(true, false), Sticky::Miss);
    }
}
