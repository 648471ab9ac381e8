//! A request as policies see it. Owns nothing: everything is borrowed from who received it.

use std::fmt;
use std::net::IpAddr;

/// The header fields of a request, in whatever form their owner keeps them.
pub trait Fields {
    /// Is there a field line called `name` (lower case) whose value passes `test`? Lines are
    /// offered one by one, in their order, without the space around the value.
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
    /// Is there a cookie called `name` (case counts) whose value passes `test`?
    fn any_cookie(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What policies may look at.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The host in the form of [`normal::host`](super::normal::host); empty = none was named.
    pub host: &'a [u8],
    /// The path in the form of [`normal::path`](super::normal::path).
    pub path: &'a [u8],
    /// The query as sent, without `?`; empty = none.
    pub query: &'a [u8],
    /// The client's address, whichever counts as that.
    pub source: IpAddr,
    /// The header fields.
    pub fields: &'a dyn Fields,
}

impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestView")
            .field("host", &String::from_utf8_lossy(self.host))
            .field("path", &String::from_utf8_lossy(self.path))
            .finish_non_exhaustive()
    }
}
