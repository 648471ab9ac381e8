//! Weir's own error pages: small, with the request's id, a right length, nothing of the request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::HashSet;

use support::{Answer, Shard, config, listener};
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
