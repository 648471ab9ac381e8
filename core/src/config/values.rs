//! Pure: turns the text of one value into a typed one. Each error is a pair: what is wrong, and
//! how to mend it. Owns no key and no place; `document` adds those.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::bounds::{MAX_CORE, MAX_NAME_CHARS, MAX_TEXT};
use crate::model::{Codes, CoreChoice, Id, LogTarget, PortRange};

/// What is wrong with a value, and the cure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub what: String,
    pub cure: String,
    /// The row that states the rule, where it isn't the key's own.
    pub row: Option<&'static str>,
}

/// An error without a row of its own.
pub(super) fn fault<T>(what: impl Into<String>, cure: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { what: what.into(), cure: cure.into(), row: None })
}

/// An object's name: 1–255 characters, none of them a control character. (Names become labels of
/// metrics and parts of ids, which are joined by a control character.)
pub(super) fn name(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return fault("is empty", "give it a name");
    }
    if text.chars().any(char::is_control) {
        return fault("has a control character", "use printable characters");
    }
    let length = text.chars().count();
    if length > MAX_NAME_CHARS {
        let cure = format!("shorten it to at most {MAX_NAME_CHARS}");
        return fault(format!("has {length} characters"), cure);
    }
    Ok(text.to_owned())
}

/// A UUID in any of its usual forms; the nil UUID identifies nothing and is refused.
pub(super) fn id(text: &str) -> Result<Id, Fault> {
    const CURE: &str = "write it as 01234567-89ab-cdef-0123-456789abcdef, or leave id out";
    match Id::parse_str(text) {
        Ok(id) if id.is_nil() => fault("is the nil UUID", CURE),
        Ok(id) => Ok(id),
        Err(_) => fault("is not a UUID", CURE),
    }
}

/// An IP address that can be bound or connected to.
pub(super) fn address(text: &str) -> Result<IpAddr, Fault> {
    match text.parse::<IpAddr>() {
        Ok(address) => usable(address),
        Err(_) => Err(not_an_address(text)),
    }
}

/// As `address`, but not the one that stands for all; `cure` is for who wrote that.
pub(super) fn one_address(text: &str, cure: &str) -> Result<IpAddr, Fault> {
    match address(text)? {
        all if all.is_unspecified() => fault("stands for all addresses", cure),
        one => Ok(one),
    }
}

fn usable(address: IpAddr) -> Result<IpAddr, Fault> {
    if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        return fault("is a multicast or broadcast address", "use an address of one host");
    }
    if let IpAddr::V6(v6) = address {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return fault("is an IPv4 address in IPv6 form", format!("write \"{v4}\""));
        }
        if v6.is_unicast_link_local() {
            let cure = "use an address that is valid on every link, global or unique local";
            return fault("is a link-local address, which needs a zone", cure);
        }
    }
    Ok(address)
}

fn not_an_address(text: &str) -> Fault {
    let (what, cure) = if text.parse::<SocketAddr>().is_ok() {
        ("has a port in it", "write the address alone; the port goes into protocol_port")
    } else if text.starts_with('[') && text.ends_with(']') {
        ("has brackets around it", "write the IPv6 address without brackets")
    } else if text.parse::<ipnet::IpNet>().is_ok() {
        ("is a network, not an address", "write the address of one host, without /length")
    } else if text.chars().any(char::is_alphabetic) && !text.contains(':') {
        ("is a name, not an IP address", "write the IP address; names are not looked up")
    } else {
        ("is not an IP address", "write one such as 192.0.2.1 or 2001:db8::1")
    };
    Fault { what: what.to_owned(), cure: cure.to_owned(), row: None }
}

/// An address with a port, such as `127.0.0.1:9180` or `[::1]:9180`.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Fault> {
    const CURE: &str = "write address:port, such as \"127.0.0.1:9180\" or \"[::1]:9180\"";
    match text.parse::<SocketAddr>() {
        Ok(socket) => usable(socket.ip()).map(|_| socket),
        Err(_) if text.parse::<IpAddr>().is_ok() => fault("has no port", CURE),
        Err(_) => fault("is not an IP address with a port", CURE),
    }
}

/// A network such as `10.0.0.0/8`, or an address for itself alone.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    const CURE: &str = "write a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    match text.parse::<IpNet>() {
        Ok(network) if network.trunc() != network => {
            let cure = format!("write \"{}\"", network.trunc());
            fault("is an address with a length: bits beyond the length are set", cure)
        }
        Ok(network) => Ok(network),
        Err(_) if text.contains('/') => fault("is not a network", CURE),
        Err(_) => Err(Fault { cure: CURE.to_owned(), ..not_an_address(text) }),
    }
}

/// A whole number with a unit (us, ms, s, m, h), between two numbers of microseconds.
pub(super) fn duration(text: &str, low: u64, high: u64) -> Result<Duration, Fault> {
    const UNITS: [(&str, u64); 5] =
        [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let (Some(factor), Ok(number)) = (factor, number.parse::<u64>()) else {
        let cure = "write a whole number with a unit, us, ms, s, m or h, such as \"500ms\"";
        return fault("is not a time with a unit", cure);
    };
    let micros = number.checked_mul(factor).filter(|micros| (low..=high).contains(micros));
    match micros {
        Some(micros) => Ok(Duration::from_micros(micros)),
        None => {
            let range = format!("{} to {}", in_units(low), in_units(high));
            fault(format!("is out of range: {range}"), "write a time in it, bounds included")
        }
    }
}

/// Microseconds in the largest unit that shows them whole.
pub(super) fn in_units(micros: u64) -> String {
    match micros {
        0 => "0s".to_owned(),
        _ if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        _ if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        _ => format!("{micros}us"),
    }
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    let path = file(text)?;
    if !path.is_absolute() {
        return fault("is not an absolute path", "write the path from the root");
    }
    Ok(path)
}

/// A path of a file.
pub(super) fn file(text: &str) -> Result<PathBuf, Fault> {
    match text {
        "" => fault("is empty", "write a path"),
        _ if text.contains('\0') => fault("has a NUL in it", "write a path"),
        _ => Ok(PathBuf::from(text)),
    }
}

/// A path, or `-` for the standard stream.
pub(super) fn log_target(text: &str) -> Result<LogTarget, Fault> {
    match text {
        "-" => Ok(LogTarget::Standard),
        _ => file(text).map(LogTarget::File),
    }
}

/// Ports such as `3000-3010`, or one port.
pub(super) fn port_range(text: &str) -> Result<PortRange, Fault> {
    const CURE: &str = "write first-last, such as \"3000-3010\", ports 1 to 65535";
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    match (port(first.trim()), port(last.trim())) {
        (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
        (Some(first), Some(last)) => {
            fault("is a range that runs backwards", format!("write \"{last}-{first}\""))
        }
        _ => fault("is not a range of ports", CURE),
    }
}

/// Status codes: one, several by comma, ranges (R8.2-23, R8.9-3).
pub(super) fn codes(text: &str, low: u16, high: u16) -> Result<Codes, Fault> {
    let cure = format!("write codes from {low} to {high}: one, \"200,202\" or \"200-204\"");
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (number(first.trim()), number(last.trim())) {
            (Some(first), Some(last)) if first > last => {
                return fault("has a range that runs backwards", cure);
            }
            (Some(first), Some(last)) if (low..=high).contains(&first) && last <= high => {
                ranges.push((first, last));
            }
            (Some(_), Some(_)) => return fault("has a code out of range", cure),
            _ => return fault("is not a list of status codes", cure),
        }
    }
    Codes::new(ranges).ok_or(Fault { what: "names no code".to_owned(), cure, row: None })
}

/// The path of a probe: absolute, a query included; a whole URL gets the path inside it as a hint
/// (R8.1-15).
pub(super) fn url_path(text: &str) -> Result<String, Fault> {
    let rest = text.split_once("://").map(|(_, rest)| rest);
    if let Some(rest) = rest.filter(|_| !text.starts_with('/')) {
        let path = rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/");
        let cure = format!("write its path alone, \"{path}\"; the host goes into domain_name");
        return fault("is a whole URL", cure);
    }
    if !text.starts_with('/') {
        return fault("is not an absolute path", format!("write \"/{text}\""));
    }
    visible(text, "write it percent-encoded")
}

/// Printable ASCII without blanks.
fn visible(text: &str, cure: &str) -> Result<String, Fault> {
    if text.len() > MAX_TEXT {
        return fault(format!("is longer than {MAX_TEXT} characters"), "shorten it");
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => fault("has a blank or a character that is not ASCII", cure),
    }
}

/// A host as it stands in a Host header: a name or an address; in lower case.
pub(super) fn host(text: &str) -> Result<String, Fault> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.is_empty() || text.len() > 253 || !text.split('.').all(label) {
        let cure = "write a name such as \"www.example.com\", without scheme, port or path";
        return fault("is not a host name", cure);
    }
    Ok(text.to_ascii_lowercase())
}

/// A host whose first label may be `*`.
pub(super) fn host_pattern(text: &str) -> Result<String, Fault> {
    match text.strip_prefix("*.") {
        Some(rest) => host(rest).map(|rest| format!("*.{rest}")),
        None => host(text),
    }
}

/// A token: the name of a header or a cookie (RFC 9110 section 5.6.2, RFC 6265 section 4.1.1).
pub(super) fn token(text: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) {
        return fault("is not a name", "use letters, digits, `-` and `_`");
    }
    Ok(text.to_owned())
}

/// A protocol that an Upgrade may name: a token, and a version behind a slash (RFC 9110, 7.8). Not
/// those that switch to what the balancer reads itself: requests in it would pass unread.
pub(super) fn upgrade_protocol(text: &str) -> Result<String, Fault> {
    let (name, version) = text.split_once('/').map_or((text, None), |(n, v)| (n, Some(v)));
    if token(name).is_err() || version.is_some_and(|version| token(version).is_err()) {
        return fault("is not a protocol's name", "write a name like `websocket` or `name/1.0`");
    }
    let read_here = ["h2c", "h2", "http", "tls"];
    if read_here.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        let cure = "take it out: requests inside such a tunnel would pass every rule unread";
        return fault("can't be forwarded", cure);
    }
    Ok(text.to_owned())
}

/// Any text of bounded length without control characters; not empty.
pub(super) fn plain(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return fault("is empty", "write at least one character");
    }
    if text.chars().any(char::is_control) {
        return fault("has a control character", "use printable characters");
    }
    if text.chars().count() > MAX_TEXT {
        return fault(format!("is longer than {MAX_TEXT} characters"), "shorten it");
    }
    Ok(text.to_owned())
}

/// As `parse`, with the empty text standing for nothing.
pub(super) fn or_empty<T>(
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> impl Fn(&str) -> Result<Option<T>, Fault> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// The string forms of `cores`: `auto`, or numbers and ranges such as `0-3,8`.
pub(super) fn cores(text: &str) -> Result<CoreChoice, Fault> {
    const CURE: &str = "write \"auto\", a list such as \"0-3,8\", or [0, 2]";
    if text.trim() == "auto" {
        return Ok(CoreChoice::Auto);
    }
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (core_number(first), core_number(last)) else {
            return fault("is not a list of cores", CURE);
        };
        if first > last {
            let cure = format!("write {last}-{first}");
            return fault(format!("has a range that runs backwards: {first}-{last}"), cure);
        }
        if last > MAX_CORE {
            return fault(format!("names core {last}"), format!("the highest is {MAX_CORE}"));
        }
        list.extend(first..=last);
        if list.len() > MAX_CORE + 1 {
            break; // some core is there twice, which core_list says
        }
    }
    core_list(list)
}

fn core_number(text: &str) -> Option<usize> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Cores in ascending order; none twice, at least one, none beyond what the kernel can name.
pub(super) fn core_list(mut list: Vec<usize>) -> Result<CoreChoice, Fault> {
    list.sort_unstable();
    if let Some((core, _)) = list.iter().zip(list.iter().skip(1)).find(|(one, next)| one == next) {
        return fault(format!("names core {core} twice"), "name each core once");
    }
    match list.last() {
        None => fault("names no core", "name at least one, or write \"auto\""),
        Some(&last) if last > MAX_CORE => {
            fault(format!("names core {last}"), format!("the highest is {MAX_CORE}"))
        }
        Some(_) => Ok(CoreChoice::List(list)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_in_all_forms() {
        assert_eq!(cores("auto"), Ok(CoreChoice::Auto));
        assert_eq!(cores("8, 0-3"), Ok(CoreChoice::List(vec![0, 1, 2, 3, 8])));
        assert_eq!(cores("1023"), Ok(CoreChoice::List(vec![1023])));
        for bad in ["", "1024", "0-", "-1", "3-1", "0-2,1", "a", "0,,1", "+1", "0-1023,0-1023"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
        assert!(core_list(vec![]).is_err());
        assert!(core_list(vec![2, 2]).is_err());
        assert!(core_list(vec![1024]).is_err());
    }

    #[test]
    fn addresses_say_what_is_wrong() {
        let what = |text| address(text).unwrap_err().what;
        assert!(what("localhost").contains("is a name"));
        assert!(what("10.0.0.1:80").contains("port"));
        assert!(what("[::1]").contains("brackets"));
        assert!(what("10.0.0.0/8").contains("network"));
        assert!(what("1.2.3").contains("not an IP address"));
        assert!(what("").contains("not an IP address"));
        assert!(what("fe80::1").contains("zone"));
        assert!(what("::ffff:1.2.3.4").contains("IPv4"));
        assert!(what("224.0.0.1").contains("multicast"));
        assert!(what("255.255.255.255").contains("broadcast"));
        assert_eq!(address("2001:db8::1").unwrap().to_string(), "2001:db8::1");
        assert!(socket_address("[::1]:0").is_ok());
        assert!(socket_address("::1").unwrap_err().what.contains("no port"));
    }

    /// R8.1-15, R8.2-23
    #[test]
    fn paths_and_codes() {
        for good in ["/", "/chat/try/", "/chat/index.html", "/a?b=c"] {
            assert_eq!(url_path(good), Ok(good.to_owned()));
        }
        let cure = |text| url_path(text).unwrap_err().cure;
        assert!(cure("http://www.example.com/chat/try/").contains("\"/chat/try/\""));
        assert!(cure("http://192.168.63.187:9096").contains("\"/\""));
        assert!(cure("chat").contains("\"/chat\""));
        assert!(url_path("/a b").is_err() && url_path("").is_err());
        let shown = |text| codes(text, 100, 599).map(|codes| codes.to_string());
        assert_eq!(shown("200"), Ok("200".to_owned()));
        assert_eq!(shown("401, 200,202"), Ok("200,202,401".to_owned()));
        assert_eq!(shown("200-204"), Ok("200-204".to_owned()));
        for bad in ["", "99", "600", "204-200", "200,", "2xx", "-200", "200-", "100-600", "+200"] {
            assert!(codes(bad, 100, 599).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_times_ports_and_hosts() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert!(network("10.1.2.3/8").unwrap_err().cure.contains("10.0.0.0/8"));
        assert!(network("10.0.0.0/33").is_err() && network("home").is_err());
        let time = |text| duration(text, 1_000, 60_000_000).ok();
        assert_eq!(time("1ms"), Some(Duration::from_millis(1)));
        assert_eq!(time("1m"), Some(Duration::from_mins(1)));
        for bad in ["1", "999us", "61s", "s", "", "1.5s", "-1s", "99999999999999999999h"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(port_range("80-90"), Ok(PortRange { first: 80, last: 90 }));
        for bad in ["0-1", "90-80", "1-65536", "a", "", "1-2-3"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
        assert_eq!(host("WWW.Example.com"), Ok("www.example.com".to_owned()));
        assert_eq!(host_pattern("*.example.com"), Ok("*.example.com".to_owned()));
        for bad in ["a..b", "http://a", "a:80", "-a", "*.a", ""] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert!(token("X-Real-IP").is_ok() && token("a b").is_err() && token("").is_err());
    }

    #[test]
    fn names_and_ids_have_bounds() {
        assert!(name(&"é".repeat(255)).is_ok());
        assert!(name(&"é".repeat(256)).is_err());
        assert!(name("").is_err() && name("a\nb").is_err());
        assert!(id("01234567-89ab-cdef-0123-456789abcdef").is_ok());
        assert!(id("00000000-0000-0000-0000-000000000000").is_err() && id("web").is_err());
    }
}
