//! Weir's own error pages: small, with the request's id, a right length, nothing of the request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::HashSet;

use support::{Answer, Member, Shard, config, listener, ok};
use weir_core::model;

/// The id that a page names.
fn id(answer: &Answer) -> String {
    let length: usize = answer.field("Content-Length").unwrap().parse().unwrap();
    assert_eq!((length, answer.field("Content-Type")), (answer.body.len(), Some("text/plain")));
    assert!(length < 200, "{}", answer.text());
    let (line, id) = answer.text().split_once("\nrequest ").unwrap();
    assert!(line.starts_with(&format!("{} ", answer.status)), "{line}");
    let id = id.strip_suffix('\n').unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    id.to_owned()
}

/// R2.3-404, R2.3-400a: every request has an id of its own, also one that could not be read.
#[test]
fn pages_name_the_request() {
    let nowhere = model::Listener { default_pool: None, ..listener() };
    let shard = Shard::start(config(nowhere, &[]));
    let mut ids = HashSet::new();
    let mut client = shard.client();
    for _ in 0..3 {
        client.send("GET /secret-word HTTP/1.1\r\nHost: w\r\nX-Request-ID: secret-word\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.status, 404);
        assert!(!answer.head.contains("secret-word") && !answer.text().contains("secret-word"));
        assert!(ids.insert(id(&answer)));
    }
    // HEAD: the same head, no body, and the connection goes on.
    client.send("HEAD / HTTP/1.1\r\nHost: w\r\n\r\n");
    let head = client.answer_head();
    assert!(head.field("Content-Length").unwrap().parse::<usize>().unwrap() > 40);
    client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
    assert!(ids.insert(id(&client.answer())));
    for (request, status) in [
        ("GET /secret-word HTTP/9.9\r\nHost: w\r\n\r\n", 400),
        ("CONNECT secret-word:1 HTTP/1.1\r\nHost: w\r\n\r\n", 501),
    ] {
        let answer = shard.once(request);
        assert!(answer.status == status && answer.closes(), "{}", answer.head);
        assert!(!answer.text().contains("secret-word"));
        assert!(ids.insert(id(&answer)), "an id twice");
    }
}

/// RFC 9110, 6.6.1: an answer without Date gets one, Weir's own have one, a member's own stays, and
/// interim answers have none.
#[test]
fn answers_tell_the_time() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let member = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            match request.line() {
                "GET /own" => conn
                    .send(format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\nContent-Length: 0\r\n\r\n")),
                _ => {
                    conn.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                    conn.send(ok("x"));
                }
            }
        }
    });
    let shard = Shard::with(&[(member.address, 1)]);
    let dates = |head: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let dates = lines.filter(|(name, _)| name.eq_ignore_ascii_case("date"));
        dates.map(|(_, date)| date.to_owned()).collect::<Vec<_>>()
    };
    let fresh = |head: &str| {
        let dates = dates(head);
        assert!(dates.len() == 1 && dates[0] != DATE, "{head}");
        assert!(dates[0].len() == DATE.len() && dates[0].ends_with(" GMT"), "{head}");
    };
    let mut client = shard.client();
    client.send("GET /own HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!(dates(&client.answer().head), [DATE]);
    client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
    let interim = client.answer();
    assert!(interim.status == 103 && dates(&interim.head).is_empty());
    fresh(&client.answer().head);
    fresh(&shard.once("GET / HTTP/1.1\r\n\r\n").head);
}
