//! Pure: request targets (RFC 9112, 3.2) and host names with port (RFC 9110, 7.2).

use super::Span;
use crate::error::Error;

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Of an absolute-form target: the authority, which replaces Host.
    pub(super) authority: Option<Span>,
    /// What the member is asked for: path and query. Empty: write `alone`.
    pub(super) path: Span,
    /// What stands in front of `path`, or in its place: "/" or "*" for an absolute form without
    /// path, else nothing.
    pub(super) alone: &'static [u8],
}

/// Takes a target apart. `at` is where it stands in its head.
pub(super) fn parse(method: &[u8], target: &[u8], at: usize) -> Result<Target, Error> {
    // httparse lets bytes above 127 pass as long as they are UTF-8; a fragment is never sent.
    if target.iter().any(|&b| b >= 0x80 || b == b'#') {
        return Err(Error::Target);
    }
    let whole = Span::new(at, at + target.len());
    match target {
        [b'/', ..] => Ok(Target { authority: None, path: whole, alone: b"" }),
        b"*" if method == b"OPTIONS" => Ok(Target { authority: None, path: whole, alone: b"" }),
        _ => absolute(method, target, at),
    }
}

#[cold]
fn absolute(method: &[u8], target: &[u8], at: usize) -> Result<Target, Error> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s)))
        .ok_or(Error::Target)?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_host(authority) {
        return Err(Error::Target);
    }
    let start = at + scheme.len();
    let alone: &[u8] = match path.first() {
        Some(b'/') => b"",
        Some(_) => b"/",
        None if method == b"OPTIONS" => b"*",
        None => b"/",
    };
    Ok(Target {
        authority: Some(Span::new(start, start + end)),
        path: Span::new(start + end, at + target.len()),
        alone,
    })
}

/// Whether `text` is a host, by name or address, with or without a port. User information, white
/// space and the empty host are refused.
pub(super) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => {
            let Some(end) = text.iter().position(|&b| b == b']') else { return false };
            let (host, rest) = text.split_at(end + 1);
            match rest {
                [] => (host, None),
                [b':', port @ ..] => (host, Some(port)),
                _ => return false,
            }
        }
        _ => match text.iter().position(|&b| b == b':') {
            Some(at) => (&text[..at], text.get(at + 1..)),
            None => (text, None),
        },
    };
    let named = match host {
        [b'[', inner @ .., b']'] => is_ip_literal(inner),
        _ => !host.is_empty() && host.iter().all(|&b| is_host_byte(b)),
    };
    named && port.is_none_or(is_port)
}

fn is_ip_literal(inner: &[u8]) -> bool {
    std::str::from_utf8(inner).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_port(port: &[u8]) -> bool {
    let number = port.iter().try_fold(0u32, |n, &b| {
        b.is_ascii_digit().then(|| n.saturating_mul(10).saturating_add(u32::from(b - b'0')))
    });
    number.is_some_and(|n| n <= 65_535)
}

/// reg-name of RFC 3986 but for the comma, which also separates lists.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(method: &str, target: &str) -> Result<(Option<String>, String), Error> {
        let text = |span: Span| String::from_utf8(span.get(target.as_bytes()).to_vec()).unwrap();
        let t = parse(method.as_bytes(), target.as_bytes(), 0)?;
        let path = String::from_utf8(t.alone.to_vec()).unwrap() + &text(t.path);
        Ok((t.authority.map(text), path))
    }

    /// R5.10-1: an absolute form is taken apart, never dialled.
    #[test]
    fn forms() {
        let absolute = |host: &str, path: &str| Ok((Some(host.to_owned()), path.to_owned()));
        let origin = |path: &str| Ok((None, path.to_owned()));
        for (method, target, result) in [
            ("GET", "/", origin("/")),
            ("GET", "/a?b=/c", origin("/a?b=/c")),
            ("GET", "//x/y", origin("//x/y")),
            ("OPTIONS", "*", origin("*")),
            ("GET", "*", Err(Error::Target)),
            ("GET", "http://a.b/c?d", absolute("a.b", "/c?d")),
            ("GET", "HTTP://a.b:80/c", absolute("a.b:80", "/c")),
            ("GET", "https://a", absolute("a", "/")),
            ("GET", "http://a?x", absolute("a", "/?x")),
            ("OPTIONS", "http://a", absolute("a", "*")),
            ("GET", "http://u@a/", Err(Error::Target)),
            ("GET", "http:///x", Err(Error::Target)),
            ("GET", "ftp://a/", Err(Error::Target)),
            ("GET", "a/b", Err(Error::Target)),
            ("GET", "a:80", Err(Error::Target)),
            ("GET", "/a#b", Err(Error::Target)),
            ("GET", "/\u{fc}", Err(Error::Target)),
        ] {
            assert_eq!(taken_apart(method, target), result, "{method} {target}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["a", "A.b-c_d", "1.2.3.4:80", "a:", "[::1]", "[::1]:8080", "a:65535", "x%41"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a,b", "u@a", "a/b", "a:65536", "a:8x", "a:1:2", "[::1", "[::1]x",
            "[]", "[g::]", "::1", "a\"b", "a\\b", "a?b", "a#b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
