//! Pure: turns the text of one value into a typed one. Each error is a pair: what is wrong, and
//! how to mend it. Owns no key and no place; `document` adds those.

use std::net::{IpAddr, SocketAddr};

use super::bounds::{MAX_CORE, MAX_NAME_CHARS};
use crate::model::{CoreChoice, Id};

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

    #[test]
    fn names_and_ids_have_bounds() {
        assert!(name(&"é".repeat(255)).is_ok());
        assert!(name(&"é".repeat(256)).is_err());
        assert!(name("").is_err() && name("a\nb").is_err());
        assert!(id("01234567-89ab-cdef-0123-456789abcdef").is_ok());
        assert!(id("00000000-0000-0000-0000-000000000000").is_err() && id("web").is_err());
    }
}
