//! Tests of inserted headers: what members see of who asks, and what clients can't forge.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use weir_core::control::Limits;

use super::*;
use crate::message::Field;

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.b:8080\r\n";

fn parsed<R>(raw: &str, then: impl FnOnce(&Request<'_>) -> R) -> R {
    let mut fields: Vec<Field> = Vec::new();
    then(&Request::parse(raw.as_bytes(), &Limits::default(), &mut fields).unwrap().unwrap())
}

/// The field lines that a member gets behind Host.
fn forwarded(headers: &Headers, fields: &str) -> Vec<String> {
    let address = "198.51.100.7".parse().unwrap();
    let identity = Identity { address, id: RequestId::Own(1, 2) };
    let local = Some("127.0.0.9:8080".parse().unwrap());
    let sides = Sides { port: 4711, local, identity: &identity, tls: None };
    let sides = (!headers.insert.is_empty()).then_some(sides);
    let mut out = Vec::new();
    parsed(&format!("{HEAD}{fields}\r\n"), |request| {
        let (peer, member) = (&b"192.0.2.1"[..], &b"m"[..]);
        request.write(&mut out, Via { peer, member, upgrade: None, key: None, headers, sides });
    });
    let text = String::from_utf8(out).unwrap();
    let lines = text.strip_prefix(HEAD).unwrap().strip_suffix("\r\n\r\n").unwrap_or_default();
    lines.split("\r\n").filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn all() -> Headers {
    let insert = Inserted::ALL.into_iter().fold(Headers::default().insert, |set, h| set.with(h));
    Headers { insert, balancer: "b-id".into(), ..Headers::default() }
}

/// R9.1-4: each mode, without and with what the client sent.
#[test]
fn modes_of_forwarded_for() {
    let sent = "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for:\r\nX-FORWARDED-FOR: 2.2.2.2\r\n";
    let line = |value: &str| vec![format!("X-Forwarded-For: {value}")];
    for (mode, alone, behind) in [
        (ForwardedFor::Append, line("192.0.2.1"), line("1.1.1.1, 2.2.2.2, 192.0.2.1")),
        (ForwardedFor::Replace, line("192.0.2.1"), line("192.0.2.1")),
        (ForwardedFor::Remove, vec![], vec![]),
        (ForwardedFor::Preserve, vec![], line("1.1.1.1, 2.2.2.2")),
    ] {
        let headers = Headers { forwarded_for: mode, ..Headers::default() };
        assert_eq!(forwarded(&headers, ""), alone, "{mode:?}");
        assert_eq!(forwarded(&headers, sent), behind, "{mode:?}");
    }
}

#[test]
fn every_header_has_its_value() {
    let expected = [
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-ELB-IP: 127.0.0.9",
        "X-Forwarded-ELB-ID: b-id",
        "X-Forwarded-Port: 8080",
        "X-Forwarded-For-Port: 4711",
        "X-Forwarded-Host: a.b:8080",
        "X-Forwarded-Proto: http",
        "X-Real-IP: 198.51.100.7",
        "X-Request-ID: 00000000000000010000000000000002",
    ];
    assert_eq!(forwarded(&all(), ""), expected);
    let tls = Headers { tls: true, ..all() };
    assert!(forwarded(&tls, "").contains(&"X-Forwarded-Proto: https".to_owned()));
}

/// R9.1-4: nothing of an inserted header that the client sent reaches the member, however it is
/// spelt, repeated or named in Connection; what isn't inserted passes.
#[test]
fn forged_headers_do_not_pass() {
    let plain = forwarded(&all(), "");
    for header in Inserted::ALL {
        let name = header.name();
        let (lower, twin) = (name.to_lowercase(), name.replace('-', "_"));
        let fields = format!(
            "{name}: forged\r\n{lower}: forged\r\n{twin}: forged\r\nConnection: {name}\r\n"
        );
        assert_eq!(forwarded(&all(), &fields), plain, "{name}");
        let kept = forwarded(&Headers::default(), &format!("{name}: own\r\n"));
        assert_eq!(kept, [format!("{name}: own"), "X-Forwarded-For: 192.0.2.1".into()]);
    }
    let disguised = forwarded(&Headers::default(), "X_Forwarded_For: 6.6.6.6\r\n");
    assert_eq!(disguised, ["X-Forwarded-For: 192.0.2.1"]);
}

#[test]
fn headers_without_a_value_are_left_out() {
    let mut out = Vec::new();
    let identity = Identity::default();
    let (headers, sides) = (all(), Sides { port: 1, local: None, identity: &identity, tls: None });
    parsed("GET / HTTP/1.0\r\nX-Forwarded-Host: forged\r\n\r\n", |request| {
        let sides = Some(sides);
        request.write(
            &mut out,
            Via { peer: b"p", member: b"m", upgrade: None, key: None, headers: &headers, sides },
        );
    });
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\r\nHost: m\r\n") && !text.contains("X-Forwarded-Host"), "{text}");
    assert!(!text.contains("ELB-IP") && !text.contains("X-Forwarded-Port"), "{text}");
}

#[test]
fn the_rightmost_untrusted_hop_is_the_client() {
    let set = |list: &[&str]| PrefixSet::new(list.iter().map(|text| text.parse().unwrap()));
    let trusted = set(&["10.0.0.0/8", "fd00::/8"]);
    for (peer, fields, client) in [
        ("192.0.2.1", "X-Forwarded-For: 1.1.1.1\r\n", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
        ("10.0.0.1", "X-Forwarded-For: 6.6.6.6, 1.1.1.1\r\n", "1.1.1.1"),
        ("10.0.0.1", "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n", "1.1.1.1"),
        ("::ffff:10.0.0.1", "X-Forwarded-For: 1.1.1.1,\t,10.9.9.9 , \r\n", "1.1.1.1"),
        (
            "fd00::1",
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: [2001:db8::7]:99\r\n",
            "2001:db8::7",
        ),
        // The whole chain is trusted: the first of it.
        ("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3"),
        // What can't be read hides everything before it.
        ("10.0.0.1", "X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.2\r\n", "10.0.0.2"),
        ("10.0.0.1", "X-Forwarded-For: unknown\r\n", "10.0.0.1"),
        // A disguised name is another header.
        ("10.0.0.1", "X-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 6.6.6.6\r\n", "1.1.1.1"),
    ] {
        let found = parsed(&format!("{HEAD}{fields}\r\n"), |request| {
            request.client(peer.parse().unwrap(), &trusted).to_canonical()
        });
        assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {fields}");
    }
    let long = format!("{HEAD}X-Forwarded-For: 1.1.1.1{}\r\n\r\n", ", 10.0.0.2".repeat(MAX_HOPS));
    let found = parsed(&long, |request| request.client("10.0.0.1".parse().unwrap(), &trusted));
    assert_eq!(found, "10.0.0.2".parse::<IpAddr>().unwrap(), "the walk is bounded");
}

#[test]
fn one_id_can_be_taken_over() {
    let id = |fields: &str| parsed(&format!("{HEAD}{fields}\r\n"), |request| request.id());
    assert_eq!(id("x-request-id: abc\r\n"), RequestId::keep(b"abc"));
    for none in ["", "X-Request-ID:\r\n", "X-Request-ID: a b\r\n", "X_Request_ID: abc\r\n"] {
        assert_eq!(id(none), None, "{none}");
    }
    assert_eq!(id("X-Request-ID: a\r\nX-Request-ID: b\r\n"), None);
}

proptest! {
    /// Whatever hops clients make up, they stand left of the one that the trusted proxy wrote.
    #[test]
    fn no_chain_moves_the_client(made_up in "[0-9a-f.:, \\[\\]x]{0,60}", last: u32) {
        let trusted = PrefixSet::new(["10.0.0.0/8".parse().unwrap()]);
        let wrote = IpAddr::V4(Ipv4Addr::from_bits(last));
        prop_assume!(!trusted.contains(wrote));
        let raw = format!("{HEAD}X-Forwarded-For: {made_up}\r\nX-Forwarded-For: {wrote}\r\n\r\n");
        let found = parsed(&raw, |request| request.client("10.0.0.1".parse().unwrap(), &trusted));
        prop_assert_eq!(found, wrote);
    }
}
