//! Forwarding policies on the way of a request: shows `weir_core::policy` what they look at, and
//! writes the answers that they ask for (`own`). Which policy is met is decided there; `route`
//! asks.

mod own;

use std::net::IpAddr;

use weir_core::policy::{AskedUrl, Fields, RequestView, Scheme, normal};
use weir_core::table::{Routes, Way};

pub(crate) use own::Own;

use crate::message::{Request, cookies};

/// Room for what has to be brought into its normal form; one a shard, so that no request has to
/// ask for memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    host: Vec<u8>,
    path: Vec<u8>,
    value: Vec<u8>,
}

/// The way of `request`, sent by `source`, if it meets a policy.
pub(crate) fn find<'r>(
    routes: &'r Routes,
    request: &Request<'_>,
    source: IpAddr,
    scratch: &mut Scratch,
) -> Option<Way<'r>> {
    let Scratch { host, path, value } = scratch;
    routes.find(&view(request, source, host, path), value).map(|(_, way)| way)
}

/// What policies look at; the buffers hold what has to be changed for that.
pub(crate) fn view<'a>(
    request: &'a Request<'_>,
    source: IpAddr,
    host_buffer: &'a mut Vec<u8>,
    path_buffer: &'a mut Vec<u8>,
) -> RequestView<'a> {
    let (path, query) = request.path_and_query();
    RequestView {
        method: request.method(),
        host: normal::host(request.host(), host_buffer),
        path: normal::path(path, path_buffer),
        query,
        source,
        fields: request,
    }
}

/// The URL that was asked for, as it was sent.
pub(crate) fn asked_url<'a>(request: &Request<'a>, tls: bool) -> AskedUrl<'a> {
    let (path, query) = request.path_and_query();
    let (host, port) = host_and_port(request.host());
    let scheme = if tls { Scheme::Https } else { Scheme::Http };
    AskedUrl { scheme, host, port, path, query }
}

/// Takes apart what `target::is_host` has let pass. An empty port is none.
fn host_and_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let name = match authority {
        [b'[', ..] => authority.iter().position(|&byte| byte == b']').map(|at| at + 1),
        _ => authority.iter().position(|&byte| byte == b':'),
    };
    let (host, rest) = authority.split_at(name.unwrap_or(authority.len()));
    let port = rest.get(1..).and_then(|port| std::str::from_utf8(port).ok());
    (host, port.and_then(|port| port.parse().ok()))
}

impl Fields for Request<'_> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.values(name).any(test)
    }

    fn any_cookie(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.values(b"cookie").any(|line| cookies::values(line, name).any(&mut *test))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (authority, host, port) in [
            ("a.example", "a.example", None),
            ("a.example:80", "a.example", Some(80)),
            ("a.example:", "a.example", None),
            ("[::1]", "[::1]", None),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("", "", None),
        ] {
            let found = host_and_port(authority.as_bytes());
            assert_eq!(found, (host.as_bytes(), port), "{authority}");
        }
    }
}
