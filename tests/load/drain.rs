//! SIGTERM while requests come: who was connected gets a whole answer, nobody is reset.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::count;
use crate::process::{Client, Member, Server, config};

/// Connections that were complete before the drain get whole answers; nothing is reset.
#[test]
fn a_drain_under_load_loses_nothing() {
    const KEPT: usize = 64;
    for round in 0..count(20, 4) {
        let member = Member::start("whole");
        let cores = if round % 2 == 0 { "\"auto\"" } else { "[0]" };
        let server = Server::start(&config(cores, 10, 0, &[(member.addr, 1)]));
        let web = server.web;
        let kept: Vec<_> =
            (0..KEPT).map(|_| std::thread::spawn(move || keep_asking(web))).collect();
        let fresh = std::thread::spawn(move || ask_anew(web));
        member.wait_for(1_000 + round * 317);
        server.signal("TERM");
        let (status, log, _) = server.wait();
        assert_eq!(status.code(), Some(0), "round {round}: {log}");
        for client in kept {
            let answers = client.join().unwrap();
            assert!(answers > 0, "round {round}: a client was never served");
        }
        assert!(fresh.join().unwrap() > 0);
    }
}

/// Asks on one connection without a pause until an answer says `Connection: close`; the number of
/// answers. Anything else than a whole answer to each request is a loss.
fn keep_asking(web: SocketAddr) -> u64 {
    let mut client = Client::connect(web);
    let mut answers = 0;
    loop {
        // A connection that is never idle is never closed without having been told so.
        client.try_send("/").unwrap();
        match client.answer() {
            Ok(answer) => {
                assert_eq!((answer.status, answer.body.as_str()), (200, "whole"));
                answers += 1;
                if answer.head.to_ascii_lowercase().contains("connection: close") {
                    return answers;
                }
            }
            Err(e) => panic!("request {answers} of a kept connection got no answer: {e}"),
        }
    }
}

/// A connection for each request, 200 a second, until none is accepted any more.
fn ask_anew(web: SocketAddr) -> u64 {
    let mut answers = 0;
    // Nobody sends: waiting for a message is the pace.
    let (_silent, pace) = channel::<()>();
    while let Ok(stream) = TcpStream::connect_timeout(&web, Duration::from_millis(300)) {
        let mut client = Client::over(stream);
        client.send("/", "Connection: close\r\n");
        assert_eq!(client.answer().unwrap().status, 200);
        answers += 1;
        let _always_late = pace.recv_timeout(Duration::from_millis(5));
    }
    answers
}
