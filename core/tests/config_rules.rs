#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! Rules between objects, each cell of each table. What the format has and this version can't do
//! yet is judged by the same rules; those refusals are left aside here.

use weir_core::config::{Problem, parse};
use weir_core::model::{CidSlice, PersistenceKind};

/// Errors other than "not supported yet".
fn wrong(text: &str) -> Vec<Problem> {
    match parse(text, "f") {
        Ok(_) => Vec::new(),
        Err(failure) => failure
            .into_iter()
            .filter(|problem| !problem.message.contains("is not supported yet"))
            .cloned()
            .collect(),
    }
}

/// The only such error.
fn only(text: &str) -> Problem {
    let mut problems = wrong(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    problems.remove(0)
}

fn right(text: &str) {
    let problems = wrong(text);
    assert!(problems.is_empty(), "{text}\n{problems:#?}");
}

const CERTIFICATE: &str =
    "[[certificate]]\nname='site'\ncertificate='site.pem'\nprivate_key='site.key'\n";

fn balancer(flavor: &str, lines: &str) -> String {
    format!("[[loadbalancer]]\nname='{flavor}'\nflavor='{flavor}'\n{lines}\n")
}

/// A listener of a balancer with its default pool; for HTTPS with the certificate `site`.
fn listener(name: &str, balancer: &str, protocol: &str, pool: &str, lines: &str) -> String {
    let certificate = if protocol == "HTTPS" { "default_certificate='site'" } else { "" };
    format!(
        "[[listener]]\nname='{name}'\nloadbalancer='{balancer}'\nprotocol='{protocol}'\n\
         protocol_port=0\ndefault_pool='{pool}'\n{certificate}\n{lines}\n"
    )
}

fn pool(name: &str, protocol: &str, lines: &str) -> String {
    format!("[[pool]]\nname='{name}'\nprotocol='{protocol}'\n{lines}\n")
}

/// A balancer, a listener and its pool.
fn file(flavor: &str, front: &str, back: &str, lines: &str) -> String {
    balancer(flavor, "")
        + &listener("l", flavor, front, "p", "")
        + &pool("p", back, lines)
        + if front == "HTTPS" { CERTIFICATE } else { "" }
}

/// R6.1-1, R6.1-M1, R6.1-M2, R6.1-M3, R6.1-M4, R6.1-M5, R6.1-M6, R6.1-M7, R6.1-M8, R6.1-M9,
/// R11.4-1, R11.4-2: all 36 cells; "n/a" and "no" are told apart.
#[test]
fn stickiness_follows_the_matrix() {
    let rows = [
        ("ROUND_ROBIN", "SOURCE_IP", "R6.1-M1", ["yes", "no", "yes", "no"]),
        ("ROUND_ROBIN", "HTTP_COOKIE", "R6.1-M2", ["n/a", "yes", "n/a", "yes"]),
        ("ROUND_ROBIN", "APP_COOKIE", "R6.1-M3", ["n/a", "no", "n/a", "yes"]),
        ("LEAST_CONNECTIONS", "SOURCE_IP", "R6.1-M4", ["no", "no", "no", "no"]),
        ("LEAST_CONNECTIONS", "HTTP_COOKIE", "R6.1-M5", ["n/a", "no", "n/a", "no"]),
        ("LEAST_CONNECTIONS", "APP_COOKIE", "R6.1-M6", ["n/a", "no", "n/a", "no"]),
        ("SOURCE_IP", "SOURCE_IP", "R6.1-M7", ["n/a", "no", "n/a", "no"]),
        ("SOURCE_IP", "HTTP_COOKIE", "R6.1-M8", ["n/a", "no", "n/a", "no"]),
        ("SOURCE_IP", "APP_COOKIE", "R6.1-M9", ["n/a", "no", "n/a", "no"]),
    ];
    let columns =
        [("dedicated", "TCP"), ("dedicated", "HTTP"), ("shared", "TCP"), ("shared", "HTTP")];
    let mut cells = 0;
    for (algorithm, kind, row, answers) in rows {
        for ((flavor, protocol), answer) in columns.into_iter().zip(answers) {
            cells += 1;
            let cookie = if kind == "APP_COOKIE" { ", cookie_name='sid'" } else { "" };
            let lines = format!(
                "lb_algorithm='{algorithm}'\nsession_persistence={{type='{kind}'{cookie}}}"
            );
            let text = file(flavor, protocol, protocol, &lines);
            let message = match answer {
                "yes" => {
                    right(&text);
                    continue;
                }
                "no" => "is not allowed at Layer",
                _ => "does not apply at Layer",
            };
            let problem = only(&text);
            assert_eq!(problem.row, Some(row), "{flavor} {protocol}: {problem}");
            assert_eq!(problem.key, "pool[0].session_persistence");
            assert!(problem.message.contains(message), "{flavor} {protocol}: {problem}");
        }
    }
    assert_eq!(cells, 36);
}

/// R6.1-2, R11.4-3: without a type it is the one that fits the layer; cookies have names.
#[test]
fn stickiness_has_defaults_and_bounds() {
    for (protocol, high) in [("TCP", 60), ("HTTP", 1440)] {
        right(&file("dedicated", protocol, protocol, "session_persistence={}"));
        for (minutes, good) in [(0, false), (1, true), (high, true), (high + 1, false)] {
            let line = format!("session_persistence={{persistence_timeout={minutes}}}");
            assert_eq!(wrong(&file("shared", protocol, protocol, &line)).is_empty(), good);
        }
    }
    let app = file("shared", "HTTP", "HTTP", "session_persistence={type='APP_COOKIE'}");
    assert_eq!(only(&app).key, "pool[0].session_persistence.cookie_name");
    let line = "session_persistence={type='SOURCE_IP', cookie_name='x'}";
    assert_eq!(only(&file("shared", "TCP", "TCP", line)).row, Some("R11.4-3"));
    let line = "session_persistence={cookie_name='a b'}";
    assert!(only(&file("shared", "HTTP", "HTTP", line)).message.contains("is not a name"));
}

/// R2.2-6, R6.1-2: what stickiness is where the file says only that there is some: 20 minutes, of
/// the source's address at Layer 4, of the balancer's own cookie at Layer 7.
#[test]
fn stickiness_lasts_for_20_minutes_unless_the_file_says() {
    let of = |flavor: &str, protocol: &str| {
        let text = file(flavor, protocol, protocol, "session_persistence={}");
        parse(&text, "f").unwrap().config.pools[0].persistence.clone().unwrap()
    };
    let kinds = [
        ("dedicated", "TCP", PersistenceKind::SourceIp),
        ("dedicated", "UDP", PersistenceKind::SourceIp),
        ("shared", "TCP", PersistenceKind::SourceIp),
        ("dedicated", "HTTP", PersistenceKind::HttpCookie),
        ("shared", "HTTP", PersistenceKind::HttpCookie),
    ];
    for (flavor, protocol, kind) in kinds {
        let persistence = of(flavor, protocol);
        assert_eq!(persistence.timeout.as_secs(), 1_200, "{flavor} {protocol}");
        assert_eq!(persistence.kind, kind, "{flavor} {protocol}");
    }
}

/// R3.3-1: there is no protocol for FTP, on neither side; what there is is named.
#[test]
fn ftp_is_no_protocol() {
    let right = file("dedicated", "TCP", "TCP", "");
    for section in ["listener", "pool"] {
        let at = right.find(&format!("[[{section}]]")).unwrap();
        for word in ["FTP", "ftp", "FTPS"] {
            let wrong = right[at..].replacen("protocol='TCP'", &format!("protocol='{word}'"), 1);
            let problem = only(&format!("{}{wrong}", &right[..at]));
            assert_eq!(problem.key, format!("{section}[0].protocol"));
            let said = problem.to_string();
            assert!(said.contains(word) && said.contains("TCP"), "{said}");
        }
    }
}

/// R6.8-6: the slice of a connection id, its defaults, and its bounds, each and together.
#[test]
fn connection_ids_have_20_bytes() {
    let slice = |line: &str| {
        let line = format!("lb_algorithm='QUIC_CID'\n{line}");
        file("dedicated", "UDP", "QUIC", &line)
    };
    let read = |line: &str| parse(&slice(line), "f").unwrap().config.pools[0].cid_slice;
    let of = |keys: &str| format!("quic_cid_hash_strategy={{{keys}}}");
    assert_eq!(read(""), CidSlice { len: 3, offset: 1 });
    assert_eq!(read(&of("")), CidSlice { len: 3, offset: 1 });
    for (len, offset) in [(1, 0), (1, 19), (20, 0), (19, 1)] {
        let line = of(&format!("len={len},offset={offset}"));
        assert_eq!(read(&line), CidSlice { len, offset });
    }
    for (keys, key) in [
        ("len=0", ".len"),
        ("len=21,offset=0", ".len"),
        ("len=1,offset=20", ".offset"),
        ("len=20", ""),
        ("len=2,offset=19", ""),
    ] {
        let problem = only(&slice(&of(keys)));
        assert_eq!(problem.key, format!("pool[0].quic_cid_hash_strategy{key}"), "{keys}");
        assert_eq!(problem.row, Some("R6.8-6"), "{keys}: {problem}");
    }
}

/// R6.8-1, R6.8-2, R6.8-3, R6.8-4, R6.8-5, R3.14-2: all pairs for both flavours.
#[test]
fn pools_go_with_their_listeners() {
    let allowed = |flavor: &str, front: &str, back: &str| match (front, back) {
        ("TCP", "TCP") | ("UDP", "UDP") | ("HTTP" | "HTTPS", "HTTP") => true,
        ("UDP", "QUIC") | ("HTTPS", "HTTPS" | "GRPC") => flavor == "dedicated",
        _ => false,
    };
    let rows = [("TCP", "R6.8-1"), ("UDP", "R6.8-2"), ("HTTP", "R6.8-3"), ("HTTPS", "R6.8-4")];
    for flavor in ["dedicated", "shared"] {
        for (front, row) in rows {
            for back in ["TCP", "UDP", "QUIC", "HTTP", "HTTPS", "GRPC"] {
                let text = file(flavor, front, back, "");
                if allowed(flavor, front, back) {
                    right(&text);
                    continue;
                }
                let problem = only(&text);
                let chain = (flavor, front, back) == ("shared", "HTTPS", "HTTPS");
                let row = if chain { "R3.14-2" } else { row };
                assert_eq!(
                    (problem.key.as_str(), problem.row),
                    ("listener[0].default_pool", Some(row))
                );
            }
        }
    }
    let grpc = balancer("dedicated", "")
        + &listener("l", "dedicated", "HTTPS", "p", "http2_enable=false")
        + &pool("p", "GRPC", "")
        + CERTIFICATE;
    assert!(only(&grpc).message.contains("needs HTTP/2"));
}

/// R6.9-1
#[test]
fn specs_take_their_own_listeners_only() {
    for (spec, front, good) in [
        ("['network']", "TCP", true),
        ("['network']", "UDP", true),
        ("['network']", "HTTP", false),
        ("['network']", "HTTPS", false),
        ("['application']", "TCP", false),
        ("['application']", "UDP", false),
        ("['application']", "HTTP", true),
        ("['application']", "HTTPS", true),
        ("['network', 'application']", "UDP", true),
        ("'application'", "HTTP", true),
    ] {
        let text = balancer("dedicated", &format!("spec={spec}"))
            + &listener("l", "dedicated", front, "p", "")
            + &pool("p", if front == "HTTPS" { "HTTP" } else { front }, "")
            + CERTIFICATE;
        match good {
            true => right(&text),
            false => assert_eq!(only(&text).row, Some("R6.9-1"), "{spec} {front}"),
        }
    }
    assert_eq!(only(&balancer("shared", "spec=['network']")).row, Some("R6.9-1"));
    assert_eq!(only(&balancer("dedicated", "spec=[]")).row, Some("R6.9-1"));
    assert_eq!(only(&balancer("dedicated", "spec=['netwrk']")).key, "loadbalancer[0].spec[0]");
}

/// R6.7-1, R6.7-2, R6.7-3, R6.7-4, R6.7-5, R6.7-6, R6.7-8, R6.7-9, R6.7-10: bounds by protocol
/// and flavour, and what can't be changed.
#[test]
fn timeouts_are_bounded_by_protocol_and_flavour() {
    let cases = [
        ("TCP", "keepalive_timeout", 10, 4000),
        ("UDP", "keepalive_timeout", 10, 4000),
        ("HTTP", "keepalive_timeout", 0, 4000),
        ("HTTPS", "keepalive_timeout", 0, 4000),
        ("HTTP", "client_timeout", 1, 300),
        ("HTTP", "member_timeout", 1, 300),
        ("HTTPS", "client_timeout", 1, 300),
        ("HTTPS", "member_timeout", 1, 300),
        ("TCP", "connect_timeout", 1, 60),
    ];
    for flavor in ["dedicated", "shared"] {
        for (front, key, low, high) in cases {
            let fixed = (flavor, front) == ("shared", "UDP");
            for value in [low - 1, low, high, high + 1] {
                let text = balancer(flavor, "")
                    + &listener("l", flavor, front, "p", &format!("{key}={value}"))
                    + &pool("p", if front == "HTTPS" { "HTTP" } else { front }, "")
                    + CERTIFICATE;
                let good = (low..=high).contains(&value) && !fixed;
                let problems = wrong(&text);
                assert_eq!(
                    problems.is_empty(),
                    good,
                    "{flavor} {front} {key}={value} {problems:?}"
                );
                if fixed {
                    assert!(problems.iter().any(|problem| problem.row == Some("R6.7-8")));
                }
            }
        }
    }
    let text = file("dedicated", "TCP", "TCP", "")
        .replace("default_pool", "client_timeout=5\ndefault_pool");
    assert!(only(&text).message.contains("is a key of HTTP, HTTPS, not of TCP"));
}

/// R3.11-1, R3.11-2, R7.3-1, R7.3-2, R7.5-1, R7.5-2: members lie in the network where they have to.
#[test]
fn members_lie_in_the_network() {
    let text = |flavor: &str, lines: &str, address: &str| {
        balancer(flavor, lines)
            + &listener("l", flavor, "HTTP", "p", "")
            + &pool("p", "HTTP", &format!("members=[{{address='{address}',protocol_port=1}}]"))
    };
    let network = "network=['10.0.0.0/8', '192.168.1.0/24']";
    right(&text("shared", network, "192.168.1.255"));
    right(&text("shared", "", "172.16.0.1"));
    let problem = only(&text("shared", network, "192.168.2.0"));
    assert_eq!(
        (problem.key.as_str(), problem.row),
        ("pool[0].members[0].address", Some("R3.11-1"))
    );
    right(&text("dedicated", network, "172.16.0.1"));
    let inside = format!("{network}\nip_target_enable=false");
    assert_eq!(only(&text("dedicated", &inside, "172.16.0.1")).row, Some("R3.11-2"));
    right(&text("dedicated", &inside, "10.255.255.255"));
    assert!(
        only(&text("shared", "network=['10.0.0.1/8']", "10.0.0.1"))
            .help
            .unwrap()
            .contains("10.0.0.0/8")
    );
}

/// R3.17-1, R3.17-3, R3.17-4, R3.17-5: which family where.
#[test]
fn families_go_by_flavour_and_layer() {
    let text = |flavor: &str, vips: &str, front: &str, members: &[&str]| {
        let list: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(n, address)| format!("{{address='{address}',protocol_port={}}}", n + 1))
            .collect();
        let vips = if vips.is_empty() { String::new() } else { format!("vip_address={vips}") };
        balancer(flavor, &vips)
            + &listener("l", flavor, front, "p", "")
            + &pool("p", front, &format!("members=[{}]", list.join(",")))
    };
    for front in ["TCP", "HTTP"] {
        assert_eq!(only(&text("shared", "", front, &["2001:db8::1"])).row, Some("R3.17-1"));
    }
    assert_eq!(only(&text("shared", "'::1'", "HTTP", &["10.0.0.1"])).row, Some("R3.17-1"));
    assert_eq!(only(&balancer("shared", "source_addresses='::1'")).row, Some("R3.17-1"));
    assert_eq!(only(&balancer("shared", "network='::/0'")).row, Some("R3.17-1"));
    let v6 = text("dedicated", "", "HTTP", &["2001:db8::1"]);
    assert_eq!(only(&v6).row, Some("R3.17-4"));
    right(&(v6.clone() + "[compat]\nl7_ipv6_members=true\n"));
    assert!(parse(&(v6 + "[compat]\nl7_ipv6_members=true\n"), "f").is_ok());
    right(&text("dedicated", "", "TCP", &["10.0.0.1"]));
    right(&text("dedicated", "['10.0.0.1','2001:db8::1']", "TCP", &["10.0.0.2", "2001:db8::2"]));
    right(&text("dedicated", "['10.0.0.1','2001:db8::1']", "HTTP", &["10.0.0.2"]));
    let both = "['10.0.0.1','2001:db8::1']";
    assert_eq!(only(&text("dedicated", both, "TCP", &["10.0.0.2"])).row, Some("R3.17-3"));
    let mixed = text("dedicated", "'10.0.0.1'", "TCP", &["10.0.0.2", "2001:db8::2"]);
    assert_eq!(only(&mixed).row, Some("R3.17-5"));
}

/// R2.1-11, R3.17-5: the balancers of a pool agree on its source addresses, and there is one for
/// each family of its members.
#[test]
fn source_addresses_reach_the_members() {
    let text = |runtime: &str, back: &str, members: &str| {
        format!("[runtime]\nsource_addresses={runtime}\n[compat]\npool_per_policy='shared'\n")
            + &balancer("dedicated", "")
            + &balancer("dedicated", &format!("source_addresses={back}"))
                .replace("name='dedicated'", "name='back'")
            + &listener("a", "dedicated", "TCP", "p", "")
            + &listener("b", "back", "TCP", "p", "").replace("protocol_port=0", "protocol_port=1")
            + &pool("p", "TCP", &format!("members=[{members}]"))
    };
    let (four, six) =
        ("{address='10.0.0.9',protocol_port=1}", "{address='2001:db8::9',protocol_port=1}");
    right(&text("[]", "[]", four));
    right(&text("'10.0.0.1'", "[]", four));
    right(&text("'10.0.0.1'", "'10.0.0.1'", four));
    assert_eq!(only(&text("[]", "'10.0.0.1'", four)).row, Some("R2.1-11"));
    assert_eq!(only(&text("'10.0.0.1'", "'10.0.0.2'", four)).row, Some("R2.1-11"));
    let both = format!("{four},{six}");
    right(&text("['10.0.0.1','2001:db8::1']", "[]", &both));
    for all in ["'0.0.0.0'", "['::1','::']"] {
        let all = wrong(&text("[]", all, &both));
        let words = "stands for all addresses";
        assert!(all.iter().any(|problem| problem.message.contains(words)), "{all:#?}");
    }
    let missing = only(&text("'10.0.0.1'", "[]", &both));
    assert_eq!(
        (missing.row, missing.key.as_str()),
        (Some("R3.17-5"), "pool[0].members[1].address")
    );
}

/// R8.9-2, R8.9-4, R8.4-4: which check may serve which pool.
#[test]
fn checks_go_with_their_pools() {
    let allowed = |flavor: &str, back: &str, check: &str| match (back, check) {
        ("UDP" | "QUIC", check) => check == "UDP_CONNECT",
        (_, "TCP" | "HTTP") => true,
        (_, "HTTPS") => flavor == "dedicated",
        ("GRPC", "GRPC") => true,
        _ => false,
    };
    for flavor in ["dedicated", "shared"] {
        for back in ["TCP", "UDP", "QUIC", "HTTP", "HTTPS", "GRPC"] {
            if flavor == "shared" && matches!(back, "QUIC" | "HTTPS" | "GRPC") {
                continue; // no listener takes the pool
            }
            let front = match back {
                "QUIC" => "UDP",
                "GRPC" => "HTTPS",
                other => other,
            };
            for check in ["TCP", "UDP_CONNECT", "HTTP", "HTTPS", "GRPC"] {
                let text = file(flavor, front, back, &format!("healthmonitor={{type='{check}'}}"));
                match allowed(flavor, back, check) {
                    true => right(&text),
                    false => {
                        let problem = only(&text);
                        assert_eq!(problem.key, "pool[0].healthmonitor.type");
                        assert!(["R8.9-2", "R8.9-4", "R8.4-4"].contains(&problem.row.unwrap()));
                    }
                }
            }
        }
    }
    let https = file("shared", "HTTP", "HTTP", "healthmonitor={type='HTTPS'}");
    assert_eq!(only(&https).row, Some("R8.9-2"));
}

/// R8.1-15, R8.2-23, R8.7-1, R8.9-3, R8.1-13: numbers, paths and codes of checks.
#[test]
fn checks_have_bounds() {
    let check = |lines: &str| {
        file("dedicated", "HTTP", "HTTP", &format!("healthmonitor={{type='HTTP',{lines}}}"))
    };
    for (key, low, high) in [
        ("delay", 1, 50),
        ("timeout", 1, 50),
        ("max_retries", 1, 10),
        ("max_retries_down", 1, 10),
        ("monitor_port", 0, 65535),
    ] {
        for (value, good) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
            assert_eq!(wrong(&check(&format!("{key}={value}"))).is_empty(), good, "{key}={value}");
        }
    }
    for good in ["url_path='/a?b=c'", "expected_codes='200-204,302'", "domain_name='a.example'"] {
        right(&check(good));
    }
    let problem = only(&check("url_path='http://a.example/chat/'"));
    assert!(problem.row == Some("R8.1-15") && problem.help.unwrap().contains("\"/chat/\""));
    for bad in [
        "url_path='chat'",
        "expected_codes='2xx'",
        "expected_codes=200",
        "domain_name='a/b'",
        "http_method='PUT'",
    ] {
        assert!(only(&check(bad)).key.starts_with("pool[0].healthmonitor."), "{bad}");
    }
}

/// R8.4-4: UDP pools have checks of their own kind; R8.4-5: a short timeout is allowed, with a
/// warning.
#[test]
fn short_timeouts_of_udp_checks_are_warned_of() {
    let check = |lines| file("dedicated", "UDP", "UDP", lines);
    let is_warned = |lines| {
        let warnings = parse(&check(lines), "f").unwrap().warnings;
        let of_check = |w: &Problem| w.key == "pool[0].healthmonitor.timeout";
        warnings.iter().any(|w| of_check(w) && w.row == Some("R8.4-5"))
    };
    assert!(is_warned("healthmonitor={type='UDP_CONNECT',timeout=1}"));
    assert!(!is_warned("healthmonitor={type='UDP_CONNECT',timeout=2}"));
    assert!(!is_warned("healthmonitor={type='UDP_CONNECT'}"));
}

#[test]
fn slow_start_and_connection_ids_have_limits() {
    let on = "slow_start={enable=true}";
    right(&file("dedicated", "HTTP", "HTTP", on));
    right(&file("dedicated", "HTTPS", "GRPC", on));
    let problem = only(&file("dedicated", "TCP", "TCP", on));
    assert!(problem.message.contains("is a key of HTTP, HTTPS, GRPC, not of TCP"), "{problem}");
    right(&file("dedicated", "TCP", "TCP", "slow_start={enable=false}"));
    let least = format!("{on}\nlb_algorithm='LEAST_CONNECTIONS'");
    assert!(only(&file("dedicated", "HTTP", "HTTP", &least)).message.contains("ROUND_ROBIN only"));
    let sticky = format!("{on}\nsession_persistence={{}}");
    assert!(
        only(&file("dedicated", "HTTP", "HTTP", &sticky)).message.contains("session_persistence")
    );
    for (duration, good) in [(29, false), (30, true), (1200, true), (1201, false)] {
        let line = format!("slow_start={{duration={duration}}}");
        assert_eq!(wrong(&file("shared", "HTTP", "HTTP", &line)).is_empty(), good);
        let drain = format!("connection_drain={{timeout={}}}", if good { 10 } else { 9 });
        assert_eq!(wrong(&file("shared", "HTTP", "HTTP", &drain)).is_empty(), good);
    }
    right(&file("dedicated", "UDP", "QUIC", "lb_algorithm='QUIC_CID'"));
    assert_eq!(
        only(&file("dedicated", "UDP", "UDP", "lb_algorithm='QUIC_CID'")).row,
        Some("R6.8-6")
    );
    let long = "quic_cid_hash_strategy={len=12,offset=9}";
    assert_eq!(only(&file("dedicated", "UDP", "QUIC", long)).row, Some("R6.8-6"));
    assert_eq!(only(&file("dedicated", "UDP", "UDP", "proxy_protocol='v1'")).row, Some("R9.1-16"));
}

/// R9.1-10, R9.1-11, R13.1-3, R6.2-2, R12.2-5, R12.1-1
#[test]
fn listeners_have_only_what_their_protocol_and_flavour_bear() {
    let text = |flavor: &str, lines: &str, front: &str, line: &str| {
        balancer(flavor, lines)
            + &listener("l", flavor, front, "p", line)
            + &pool("p", if front == "HTTPS" { "HTTP" } else { front }, "")
            + CERTIFICATE
            + "[[certificate]]\nname='ca'\ntype='client'\ncertificate='ca.pem'\n"
    };
    let off = "transparent_client_ip_enable=false";
    let inside = "ip_target_enable=false";
    assert_eq!(only(&text("dedicated", inside, "TCP", off)).row, Some("R9.1-10"));
    right(&text("dedicated", "", "TCP", off));
    right(&text("shared", inside, "UDP", off));
    right(&text("shared", "", "TCP", "transparent_client_ip_enable=true"));
    assert_eq!(only(&text("dedicated", "", "TCP", "access_log=true")).row, Some("R13.1-3"));
    assert_eq!(only(&text("dedicated", "", "UDP", "access_log={path='-'}")).row, Some("R13.1-3"));
    let greeting = "proxy_protocol={accept=true,from=['10.0.0.0/8']}";
    assert_eq!(only(&text("dedicated", "", "UDP", greeting)).key, "listener[0].proxy_protocol");
    right(&text("dedicated", "", "TCP", greeting));
    right(&text("dedicated", "", "TCP", "access_log=false"));
    for line in ["default_certificate='site'", "sni_certificates=['site']", "client_ca='ca'"] {
        for front in ["TCP", "UDP", "HTTP"] {
            assert_eq!(only(&text("dedicated", "", front, line)).row, Some("R6.2-2"), "{line}");
        }
    }
    right(&text("dedicated", "", "HTTPS", "client_ca='ca'\nsni_certificates=['site']"));
    assert_eq!(only(&text("dedicated", "", "HTTPS", "client_ca='site'")).row, Some("R12.1-1"));
    assert_eq!(
        only(&text("dedicated", "", "HTTPS", "sni_certificates=['ca']")).row,
        Some("R12.1-1")
    );
    assert_eq!(
        only(&text("shared", "", "HTTPS", "sni_match_algo='wildcard'")).row,
        Some("R12.2-5")
    );
    right(&text("shared", "", "HTTPS", "sni_match_algo='longest_suffix'"));
    let bare = text("dedicated", "", "HTTPS", "").replace("default_certificate='site'", "");
    assert_eq!(only(&bare).row, Some("R12.1-1"));
    let many: Vec<_> = (0..51).map(|n| format!("'c{n}'")).collect();
    let more: String = (0..51).map(|n| CERTIFICATE.replace("'site'", &format!("'c{n}'"))).collect();
    for (count, good) in [(50, true), (51, false)] {
        let line = format!("sni_certificates=[{}]", many[..count].join(","));
        assert_eq!(wrong(&(text("dedicated", "", "HTTPS", &line) + &more)).is_empty(), good);
    }
}

/// R2.1-1: sockets, ranges and the admin listener don't overlap; TCP and UDP are worlds apart.
#[test]
fn ports_are_bound_once() {
    let one = |name: &str, front: &str, ports: &str| {
        listener(name, "dedicated", front, "p", ports).replace("protocol_port=0\n", "")
    };
    let text = |a: &str, b: &str| balancer("dedicated", "vip_address='10.0.0.1'") + a + b;
    let clash = |a: &str, b: &str| {
        let problems = wrong(&(text(a, b) + &pool("p", "TCP", "")));
        problems.iter().filter(|problem| problem.row == Some("R2.1-1")).count()
    };
    let range = one("a", "TCP", "port_ranges=['3000-3010','4000']");
    assert_eq!(clash(&range, &one("b", "TCP", "protocol_port=3010")), 1);
    assert_eq!(clash(&range, &one("b", "TCP", "protocol_port=4000")), 1);
    assert_eq!(clash(&range, &one("b", "TCP", "protocol_port=3011")), 0);
    assert_eq!(clash(&range, &one("b", "TCP", "port_ranges=['2000-3000']")), 1);
    assert_eq!(clash(&range, &one("b", "UDP", "protocol_port=3010")), 0);
    assert_eq!(
        clash(&one("a", "TCP", "protocol_port=9180"), "[admin]\nlisten='10.0.0.1:9180'\n"),
        1
    );
    assert_eq!(clash(&range, "[admin]\nlisten='0.0.0.0:3005'\n"), 1);
    let both = one("a", "TCP", "port_ranges=['1-2']\nprotocol_port=5");
    assert!(
        only(&(text(&both, "") + &pool("p", "TCP", ""))).message.contains("beside protocol_port")
    );
    let none = only(&(text(&one("a", "TCP", ""), "") + &pool("p", "TCP", "")));
    assert_eq!((none.key.as_str(), none.row), ("listener[0].protocol_port", Some("R2.1-1")));
    for bad in ["['10-1']", "['0-5']", "['1-5','5-9']", "['x']"] {
        let text =
            text(&one("a", "TCP", &format!("port_ranges={bad}")), "") + &pool("p", "TCP", "");
        assert!(!wrong(&text).is_empty(), "{bad}");
    }
    let many: Vec<_> = (1..=11).map(|n| format!("'{}'", n * 10)).collect();
    for (count, good) in [(10, true), (11, false)] {
        let line = format!("port_ranges=[{}]", many[..count].join(","));
        let text = text(&one("a", "TCP", &line), "") + &pool("p", "TCP", "");
        assert_eq!(wrong(&text).is_empty(), good);
    }
    let http = text(&one("a", "HTTP", "port_ranges=['1-2']"), "") + &pool("p", "HTTP", "");
    assert!(only(&http).message.contains("is a key of TCP, UDP, not of HTTP"));
}

/// R5.11-1, R5.11-2: cores of a balancer's own.
#[test]
fn exclusive_cores_leave_some_for_the_others() {
    let text = |runtime: &str, a: &str, b: &str| {
        format!(
            "[runtime]\ncores={runtime}\n\
             [[loadbalancer]]\nname='a'\n{a}\n[[loadbalancer]]\nname='b'\n{b}\n"
        )
    };
    right(&text("[0,1,2]", "cores='0-1'", ""));
    right(&text("[0,1,2]", "cores='0-1'", "cores=[1]"));
    right(&text("[0,1]", "cores=[0]", "cores=[1]"));
    right(&text("'auto'", "cores='0-7'", ""));
    let left = only(&text("[0,1]", "cores='0-1'", ""));
    assert_eq!((left.key.as_str(), left.row), ("loadbalancer[1].cores", Some("R5.11-2")));
    let stranger = only(&text("[0,1]", "cores=[2]", ""));
    assert!(stranger.message.contains("core 2 is not in [runtime] cores"));
    assert!(only(&text("[0,1]", "cores='auto'", "")).message.contains("names no core"));
}
