//! Redirects: the URL that a client is sent to, made of the request's own (R5.5-2).

use std::io::Write;

use super::template::{Part, Piece, parse, push_escaped};
use crate::limits::MAX_LOCATION_BYTES;
use crate::model::RedirectUrl;

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `None`: the request's own.
    scheme: Option<Scheme>,
    host: Box<[Piece]>,
    port: Port,
    path: Box<[Piece]>,
    query: Box<[Piece]>,
    to_listener: bool,
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// Inside TLS.
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that goes without saying.
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// The one of the request's URL; none if none stands there.
    Asked,
    /// This one.
    Given(u16),
}

/// The URL of a request, as sent. Nothing in it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct AskedUrl<'a> {
    /// By the listener.
    pub scheme: Scheme,
    /// Without port; an IPv6 address in brackets; empty = none was named.
    pub host: &'a [u8],
    /// The port that was named.
    pub port: Option<u16>,
    /// The path, or `*`.
    pub path: &'a [u8],
    /// Without `?`; empty = none.
    pub query: &'a [u8],
}

/// Why there is no URL to send a client to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// The host is the request's, and it named none (HTTP/1.0).
    NoHost,
    /// It would have more than [`MAX_LOCATION_BYTES`].
    TooLong,
}

/// Characters that end a path.
const ENDS_PATH: &[u8] = b"?#";
/// Characters that end a query.
const ENDS_QUERY: &[u8] = b"#";

impl Redirect {
    /// To an HTTPS listener on `port`: 301, with host, path and query kept. Port 0 stands for a
    /// port that is not known: the scheme's.
    pub(super) fn to_https(port: u16) -> Redirect {
        let scheme = Some(Scheme::Https);
        let port = Port::Given(if port == 0 { Scheme::Https.port() } else { port });
        Redirect { scheme, port, to_listener: true, ..Redirect::new(&RedirectUrl::default()) }
    }

    pub(super) fn new(model: &RedirectUrl) -> Redirect {
        Redirect {
            status: model.status_code,
            scheme: match model.protocol.as_str() {
                "http" => Some(Scheme::Http),
                "https" => Some(Scheme::Https),
                _ => None,
            },
            host: parse(&bracketed(&model.host), b"/?#@"),
            port: model.port.parse().map_or(Port::Asked, Port::Given),
            path: parse(&model.path, ENDS_PATH),
            query: parse(&model.query, ENDS_QUERY),
            to_listener: false,
        }
    }

    /// Is it REDIRECT_TO_LISTENER, which goes before all?
    #[must_use]
    pub fn to_listener(&self) -> bool {
        self.to_listener
    }

    /// Appends the URL. Only bytes that a URL may hold are written, whatever the request had.
    ///
    /// # Errors
    /// [`Unwritable`]; what was appended then is of no use.
    pub fn write(&self, out: &mut Vec<u8>, asked: &AskedUrl<'_>) -> Result<(), Unwritable> {
        let end = out.len() + MAX_LOCATION_BYTES;
        let scheme = self.scheme.unwrap_or(asked.scheme);
        out.extend_from_slice(scheme.name().as_bytes());
        out.extend_from_slice(b"://");
        write_pieces(out, &self.host, asked, b"/?#@", end)?;
        let port = match self.port {
            Port::Asked => asked.port,
            Port::Given(port) => Some(port),
        };
        if let Some(port) = port.filter(|port| *port != scheme.port()) {
            out.push(b':');
            push_number(out, port);
        }
        write_pieces(out, &self.path, asked, ENDS_PATH, end)?;
        let mark = out.len();
        out.push(b'?');
        write_pieces(out, &self.query, asked, ENDS_QUERY, end)?;
        if out.len() == mark + 1 {
            out.truncate(mark);
        }
        Ok(())
    }
}

/// An IPv6 address of the configuration as it stands in a URL.
fn bracketed(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    }
}

fn push_number(out: &mut Vec<u8>, number: u16) {
    // Cannot fail: a vector takes everything.
    let _ = write!(out, "{number}");
}

fn write_pieces(
    out: &mut Vec<u8>,
    pieces: &[Piece],
    asked: &AskedUrl<'_>,
    apart: &[u8],
    end: usize,
) -> Result<(), Unwritable> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Part(Part::Host) if asked.host.is_empty() => return Err(Unwritable::NoHost),
            Piece::Part(Part::Host) => push_escaped(out, asked.host, apart),
            Piece::Part(Part::Path) if asked.path == b"*" => out.push(b'/'),
            Piece::Part(Part::Path) => push_escaped(out, asked.path, apart),
            Piece::Part(Part::Query) => push_escaped(out, asked.query, apart),
            Piece::Part(Part::Protocol) => out.extend_from_slice(asked.scheme.name().as_bytes()),
            Piece::Part(Part::Port) => {
                let port = asked.port.unwrap_or(asked.scheme.port());
                push_number(out, port);
            }
        }
        if out.len() > end {
            return Err(Unwritable::TooLong);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: AskedUrl<'_> = AskedUrl {
        scheme: Scheme::Http,
        host: b"a.example",
        port: Some(8080),
        path: b"/p/%2e",
        query: b"q=1",
    };

    fn url(redirect: &Redirect, asked: AskedUrl<'_>) -> Result<String, Unwritable> {
        let mut out = Vec::new();
        redirect.write(&mut out, &asked)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// R5.5-2: scheme and port of the HTTPS listener; host, path and query as sent.
    #[test]
    fn to_an_https_listener() {
        let to = |port, asked| url(&Redirect::to_https(port), asked).unwrap();
        assert_eq!(to(443, ASKED), "https://a.example/p/%2e?q=1");
        assert_eq!(to(8443, ASKED), "https://a.example:8443/p/%2e?q=1");
        assert_eq!(to(0, ASKED), "https://a.example/p/%2e?q=1");
        let bare = AskedUrl { host: b"[::1]", port: None, path: b"*", query: b"", ..ASKED };
        assert_eq!(to(8443, bare), "https://[::1]:8443/");
        assert_eq!(Redirect::to_https(443).status, 301);
        assert_eq!(
            url(&Redirect::to_https(443), AskedUrl { host: b"", ..ASKED }),
            Err(Unwritable::NoHost)
        );
    }

    #[test]
    fn by_template() {
        let model = |change: &dyn Fn(&mut RedirectUrl)| {
            let mut model = RedirectUrl::default();
            change(&mut model);
            Redirect::new(&model)
        };
        let own = model(&|_| {});
        assert_eq!(url(&own, ASKED).unwrap(), "http://a.example:8080/p/%2e?q=1");
        let tls = model(&|m| m.protocol = "https".into());
        let implied = AskedUrl { port: None, ..ASKED };
        assert_eq!(url(&tls, implied).unwrap(), "https://a.example/p/%2e?q=1");
        let all = model(&|m| {
            m.host = "www.${host}".into();
            m.port = "81".into();
            m.path = "/x${path}/${protocol}/\u{fc}?".into();
            m.query = "from=${host}&port=${port}&${query}".into();
        });
        assert_eq!(
            url(&all, ASKED).unwrap(),
            "http://www.a.example:81/x/p/%2e/http/%C3%BC%3F?from=a.example&port=8080&q=1"
        );
        let gone = model(&|m| (m.query, m.host) = (String::new(), "::1".into()));
        assert_eq!(url(&gone, ASKED).unwrap(), "http://[::1]:8080/p/%2e");
    }

    /// Nothing of a request ends the line or the URL's part, and no template multiplies it without
    /// bound.
    #[test]
    fn hostile_requests() {
        let own = Redirect::new(&RedirectUrl::default());
        let evil = AskedUrl { path: b"/a\r\nX: y\"<\xff", query: b"#a b", ..ASKED };
        assert_eq!(
            url(&own, evil).unwrap(),
            "http://a.example:8080/a%0D%0AX:%20y%22%3C%FF?%23a%20b"
        );
        let path = "/a".repeat(8_000);
        let many = RedirectUrl { path: "${path}".repeat(100), ..RedirectUrl::default() };
        let long = AskedUrl { path: path.as_bytes(), ..ASKED };
        assert_eq!(url(&Redirect::new(&many), long), Err(Unwritable::TooLong));
        assert!(url(&own, long).is_ok());
    }
}
