//! Pure but for the name lookup: the URL that is tested. Called by `cli` and library users.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Where requests go: `http://host[:port][/path][?query]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL as it was given; for reports.
    pub url: String,
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
    /// A message with cause and cure: an unknown or not yet supported scheme, user information,
    /// no host, a bad port, or a byte that may not stand in a request target.
    pub fn parse(url: &str) -> Result<Target, String> {
        let rest = match url.split_once("://") {
            None => url,
            Some(("http", rest)) => rest,
            Some((s @ ("https" | "ws" | "wss" | "tcp" | "udp"), _)) => {
                return Err(format!("`{url}`: scheme {s} is not supported yet; use http"));
            }
            Some((s, _)) => return Err(format!("`{url}`: unknown scheme `{s}`; use http")),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("`{url}`: {bad:?} may not stand in a URL; percent-encode it"));
        }
        let (host, port) = split_authority(authority).map_err(|why| format!("`{url}`: {why}"))?;
        Ok(Target { url: url.to_string(), authority: authority.to_string(), path, host, port })
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
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target {
            url: format!("http://{addr}/"),
            authority: addr.to_string(),
            path: "/".to_string(),
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

fn split_authority(authority: &str) -> Result<(String, u16), String> {
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
        None => 80,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
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
        let addr: SocketAddr = "127.0.0.1:81".parse().unwrap();
        assert_eq!(Target::from(addr), Target::parse("http://127.0.0.1:81/").unwrap());
    }

    #[test]
    fn faults_are_named() {
        for (url, part) in [
            ("https://x/", "not supported yet"),
            ("udp://x:1", "not supported yet"),
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
