//! Pure but for the name lookup: the URL that is tested. Called by `cli` and library users.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// What is spoken with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 inside TLS.
    Https,
    /// WebSocket.
    Ws,
    /// WebSocket inside TLS.
    Wss,
    /// Bytes over TCP.
    Tcp,
    /// Bytes over TCP inside TLS.
    Tls,
    /// Datagrams.
    Udp,
}

impl Scheme {
    const ALL: [Scheme; 7] = [
        Scheme::Http,
        Scheme::Https,
        Scheme::Ws,
        Scheme::Wss,
        Scheme::Tcp,
        Scheme::Tls,
        Scheme::Udp,
    ];

    /// Its name in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Udp => "udp",
        }
    }

    /// Inside TLS.
    pub const fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Wss | Scheme::Tls)
    }

    /// Requests and answers of HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Scheme::Http | Scheme::Https)
    }

    /// Bytes that mean nothing to anybody, over TCP.
    pub const fn is_bytes(self) -> bool {
        matches!(self, Scheme::Tcp | Scheme::Tls)
    }

    const fn port(self) -> Option<u16> {
        match self {
            Scheme::Http | Scheme::Ws => Some(80),
            Scheme::Https | Scheme::Wss => Some(443),
            Scheme::Tcp | Scheme::Tls | Scheme::Udp => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where requests go: `scheme://host[:port][/path][?query]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL as it was given; for reports.
    pub url: String,
    /// What is spoken.
    pub scheme: Scheme,
    /// The Host field's value: host and, when given, port.
    pub authority: String,
    /// The request target in origin form, at least `/`.
    pub path: String,
    /// Name or address literal, without brackets.
    host: String,
    port: u16,
}

impl Target {
    /// Reads a URL. The scheme may be left out (`127.0.0.1:8080/x` is http).
    ///
    /// # Errors
    /// A message with cause and cure: an unknown scheme, user information, no host, a bad port, a
    /// byte that may not stand in a request target, or a path where the scheme has none.
    pub fn parse(url: &str) -> Result<Target, String> {
        let wrong = |why: &str| format!("`{url}`: {why}");
        let (scheme, rest) = match url.split_once("://") {
            None => (Scheme::Http, url),
            Some((name, rest)) => {
                let known = Scheme::ALL.into_iter().find(|scheme| scheme.name() == name);
                let known = known.ok_or_else(|| {
                    wrong(&format!("unknown scheme `{name}`; use http https ws wss tcp tls or udp"))
                })?;
                (known, rest)
            }
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(wrong(&format!("{bad:?} may not stand in a URL; percent-encode it")));
        }
        if (scheme.is_bytes() || scheme == Scheme::Udp) && path != "/" {
            return Err(wrong(&format!("{scheme} has no path; leave it out")));
        }
        let (host, port) = split_authority(authority).map_err(|why| wrong(&why))?;
        let port = port.or(scheme.port()).ok_or_else(|| wrong("there is no port"))?;
        Ok(Target {
            url: url.to_string(),
            scheme,
            authority: authority.to_string(),
            path,
            host,
            port,
        })
    }

    /// The address to connect to: the literal, or the first that the system's resolver gives.
    ///
    /// # Errors
    /// A message when the name has no address.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let mut found = found.map_err(|e| format!("cannot resolve `{}`: {e}", self.host))?;
        found.next().ok_or_else(|| format!("`{}` has no address", self.host))
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Both lead to the same place by the same protocol.
    pub fn is_same_place(&self, other: &Target) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target {
            url: format!("http://{addr}/"),
            scheme: Scheme::Http,
            authority: addr.to_string(),
            path: "/".to_string(),
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), String> {
    if authority.contains('@') {
        return Err("user and password are not supported; send a --header instead".to_string());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the [ has no ]")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("`{host}` is not an IPv6 address"));
            }
            let port = if after.is_empty() { None } else { Some(after) };
            (host, port.map(|p| p.strip_prefix(':').unwrap_or("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._:".contains(c));
    if host.is_empty() {
        return Err("there is no host".to_string());
    }
    if let Some(bad) = host.chars().find(|&c| odd(c)) {
        return Err(format!("{bad:?} may not stand in a host"));
    }
    let port = match port {
        None => None,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("`{text}` is not a port (1–65535)")),
        },
    };
    Ok((host.to_string(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let t = Target::parse("http://127.0.0.1:8080/a/b?c=d#frag").unwrap();
        assert_eq!((t.authority.as_str(), t.path.as_str()), ("127.0.0.1:8080", "/a/b?c=d"));
        assert_eq!(t.resolve().unwrap(), "127.0.0.1:8080".parse().unwrap());
        let t = Target::parse("http://example.org?x").unwrap();
        assert_eq!((t.authority.as_str(), t.path.as_str(), t.port), ("example.org", "/?x", 80));
        let t = Target::parse("[::1]:9000").unwrap();
        assert_eq!(t.authority, "[::1]:9000");
        assert_eq!(t.resolve().unwrap(), "[::1]:9000".parse().unwrap());
        assert_eq!(Target::parse("http://[::1]").unwrap().port, 80);
        assert_eq!(Target::parse("https://x/").unwrap().port, 443);
        assert_eq!(Target::parse("udp://x:7").unwrap().scheme, Scheme::Udp);
        let addr: SocketAddr = "127.0.0.1:81".parse().unwrap();
        assert_eq!(Target::from(addr), Target::parse("http://127.0.0.1:81/").unwrap());
    }

    #[test]
    fn faults_are_named() {
        for (url, part) in [
            ("udp://x", "no port"),
            ("tcp://x:1/path", "no path"),
            ("tls://x:1/path", "no path"),
            ("tls://x", "no port"),
            ("gopher://x", "unknown scheme"),
            ("http://", "no host"),
            ("http://u:p@x/", "--header"),
            ("http://x:0/", "port"),
            ("http://x:70000/", "port"),
            ("http://[::1/", "no ]"),
            ("http://[::1]9/", "port"),
            ("http://[x]/", "IPv6"),
            ("http://x/a b", "percent-encode"),
            ("http://x\r\n/", "may not stand"),
        ] {
            let message = Target::parse(url).unwrap_err();
            assert!(message.contains(part), "{url}: {message}");
        }
    }
}
