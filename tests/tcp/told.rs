//! What members and operators are told of a connection: PROXY headers and the connection log.

use std::io::{Read, Write};

use std::time::Duration;

use weir_core::time::clock;

use crate::process::until;
use crate::{
    Member, Plan, address, assert_reset, connect, connect_from, log, nobody, read, talk,
    try_connect_from,
};

/// The address part of a header of version 2 for 127.0.0.1.
fn block(source: [u8; 4], port: u16, values: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    out.extend_from_slice(&(12 + values.len() as u16).to_be_bytes());
    out.extend_from_slice(&source);
    out.extend_from_slice(&[127, 0, 0, 1]);
    out.extend_from_slice(&port.to_be_bytes());
    out.extend_from_slice(&[0, 80]);
    out.extend_from_slice(values);
    out
}

/// R9.1-16: members are told the client's address, in either version, before its first byte.
#[test]
fn members_are_told_the_client() {
    let (one, two) = (Member::start(), Member::start());
    let plan = Plan::new(1)
        .listener("web", 0, "app", "")
        .listener("two", 0, "blocks", "")
        .pool("app", "proxy_protocol = \"v1\"", &[(one.addr, 1)])
        .pool("blocks", "proxy_protocol = \"v2\"", &[(two.addr, 1)]);
    let server = plan.start();
    let web = address(&server, "web");
    let mut client = connect_from("127.0.0.7:0", web);
    let mut upstream = one.accept();
    let source = client.local_addr().unwrap();
    let line = format!("PROXY TCP4 127.0.0.7 127.0.0.1 {} {}\r\n", source.port(), web.port());
    // Also where the client waits for the member to speak first.
    let mut got = vec![0; line.len()];
    upstream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), line);
    talk(&mut client, &mut upstream);

    let two_web = address(&server, "two");
    let mut client = connect_from("127.0.0.8:0", two_web);
    client.write_all(b"early").unwrap();
    let mut upstream = two.accept();
    let mut wanted = block([127, 0, 0, 8], client.local_addr().unwrap().port(), &[]);
    let at = wanted.len() - 2;
    wanted[at..].copy_from_slice(&two_web.port().to_be_bytes());
    let mut got = vec![0; wanted.len()];
    upstream.read_exact(&mut got).unwrap();
    assert_eq!(got, wanted);
    assert_eq!(read::<5>(&mut upstream), "early");
}

/// A header that a listener accepts names the client for stickiness, log and member; further values
/// go along where both sides are version 2.
#[test]
fn headers_are_passed_on() {
    let member = Member::start();
    let accept = "proxy_protocol = { accept = true, from = [\"127.0.0.0/8\"] }";
    let plan = Plan::new(1)
        .listener("web", 0, "app", accept)
        .listener("two", 0, "plain", accept)
        .pool("app", "proxy_protocol = \"v2\"", &[(member.addr, 1)])
        .pool("plain", "", &[(member.addr, 1)]);
    let server = plan.start();
    let values = [0xea, 0, 3, b'v', b'p', b'c', 4, 0, 0];
    let mut client = connect(address(&server, "web"));
    let head = block([192, 0, 2, 7], 4711, &values);
    // In two pieces.
    client.write_all(&head[..20]).unwrap();
    client.write_all(&head[20..]).unwrap();
    client.write_all(b"hello").unwrap();
    let mut upstream = member.accept();
    let mut got = vec![0; head.len()];
    upstream.read_exact(&mut got).unwrap();
    let told = |bytes: &[u8]| (bytes[..20].to_vec(), bytes[24..26].to_vec(), bytes[28..].to_vec());
    assert_eq!(told(&got), told(&head));
    assert_eq!(read::<5>(&mut upstream), "hello");
    let mut client = connect(address(&server, "two"));
    client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nhello").unwrap();
    let mut upstream = member.accept();
    assert_eq!(read::<5>(&mut upstream), "hello");
    client.write_all(b"ping").unwrap();
    assert_eq!(read::<4>(&mut upstream), "ping");
}

/// A listener that expects headers resets who may not speak for others, who says something else and
/// who says nothing in time; no member hears of them, and the reasons are counted.
#[test]
fn strangers_and_bad_headers_are_refused() {
    let member = Member::start();
    let accept = "proxy_protocol = { accept = true, from = [\"127.0.0.1\"] }";
    let server =
        Plan::new(1).listener("web", 0, "app", accept).pool("app", "", &[(member.addr, 1)]).start();
    let web = address(&server, "web");
    let refused = |reason: &str| {
        let labels = format!("{{listener=\"web\",reason=\"{reason}\"}}");
        server.counted(&format!("weir_refused_connections_total{labels}"))
    };
    let begun = clock::mono();
    let mut late = [connect(web), connect(web)];
    late[1].write_all(b"PROXY TCP4 192.0.2.1").unwrap();
    for bad in [&b"hello, member\r\n"[..], b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n"] {
        let mut client = connect(web);
        client.write_all(bad).unwrap();
        assert_reset(&mut client);
    }
    // Refused before it says anything; perhaps before it knows that it was connected.
    let stranger = try_connect_from("127.0.0.2:0", web).and_then(|mut stream| {
        stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n")?;
        stream.read(&mut [0; 1])
    });
    assert!(stranger.is_err(), "{stranger:?}");
    assert_eq!((refused("proxy_header"), refused("proxy_untrusted")), (2.0, 1.0));
    late.iter_mut().for_each(assert_reset);
    assert!(clock::mono().since(begun) >= Duration::from_millis(4_900), "too early");
    until("both to be counted", || refused("proxy_timeout") == 2.0);
    assert!(member.is_quiet());
    let mut client = connect(web);
    client.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n").unwrap();
    talk(&mut client, &mut member.accept());
    assert_eq!(server.sum("weir_refused_connections_total"), 5.0);
}

/// One line a connection, when it has ended: who, where to, how much, how long, and how it ended.
#[test]
fn the_connection_log() {
    let member = Member::start();
    let sticky = "session_persistence = { type = \"SOURCE_IP\" }";
    let dead = nobody();
    let plan = Plan::new(1)
        .listener("web", 0, "app", "")
        .listener("dead", 0, "none", "")
        .pool("app", sticky, &[(member.addr, 1)])
        .pool("none", "", &[(dead, 1)])
        .logged();
    let server = plan.start();
    let mut client = connect_from("127.0.0.7:0", address(&server, "web"));
    let port = client.local_addr().unwrap().port();
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    client.write_all(b"more").unwrap();
    assert_eq!(read::<4>(&mut upstream), "more");
    drop(upstream);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    let line = &log(&server, 1)[0];
    assert_eq!(line["remote_addr"], "127.0.0.7");
    assert_eq!(line["remote_port"], port);
    assert_eq!(line["listener_usr_name"], "web");
    assert_eq!(line["pool_usr_name"], "app");
    assert_eq!(line["upstream_addr"], member.addr.to_string());
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&8.into(), &4.into()));
    assert_eq!(line["upstream_bytes_sent"], 8);
    // Two with data each way at least: "ping", "more", the answer and the FIN.
    let packets = ["packets_received", "packets_sent"].map(|name| line[name].as_u64().unwrap());
    assert!(packets.iter().all(|count| (2..20).contains(count)), "{packets:?}");
    assert_eq!(line["ended"], "member_fin");
    assert_eq!(line["sticky"], "new");
    assert_eq!(line["attempts"], 1);
    let (whole, connect_time) = (&line["duration"], &line["upstream_connect_time"]);
    assert!(whole.as_f64().unwrap() >= connect_time.as_f64().unwrap());
    assert!(line["tcpinfo_rtt"].as_u64().unwrap() > 0);
    crate::assert_refused(address(&server, "dead"));
    let line = &log(&server, 2)[1];
    assert_eq!((&line["ended"], &line["attempts"]), (&"connect_failed".into(), &1.into()));
    assert_eq!(line["upstream_addr"], dead.to_string(), "the last one that was tried");
    assert!(line["upstream_connect_time"].is_null());
    // What the process' end cuts is told, too.
    let mut client = connect(address(&server, "web"));
    let mut upstream = member.accept();
    talk(&mut client, &mut upstream);
    let path = server.file.run_dir().with_file_name("run.log");
    let keep = path.with_file_name("kept.log");
    std::fs::hard_link(&path, &keep).unwrap();
    server.signal("TERM");
    assert_reset(&mut client);
    until("the last line", || std::fs::read_to_string(&keep).unwrap().contains("\"shutdown\""));
}
