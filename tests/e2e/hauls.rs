//! Large answers with a length, in clear text on both sides, go from socket to socket through
//! pipes: the same bytes, nothing of the next answer, and whatever is in a pipe when somebody
//! leaves is for nobody else. With the feature off the same must hold, and nothing is spliced.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::alone;
use crate::nginx::Nginx;
use crate::process::{LIMIT, Server, config, pass_time, until};
use crate::wire::{
    Framing, Head, Pattern, PatternMember, SEED, Wire, connect_narrow, reset_on_close, write_body,
};

/// Off the boundaries of pages, leases and pipes.
const SIZES: [u64; 2] = [(1 << 20) + 3, 16 << 20];

/// Whether the server that is started has splicing on.
fn spliced_at_all() -> bool {
    weir_core::rt::Features::from_environment().unwrap().splice
}

fn spliced(server: &Server) -> f64 {
    server.sum("weir_ring_spliced_bytes_total")
}

fn ask(wire: &Wire, path: &str) {
    wire.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
}

fn take(wire: &mut Wire) -> (Head, u64) {
    let head = wire.head().unwrap().unwrap();
    assert_eq!(head.first, "HTTP/1.1 200 OK");
    let mut pattern = Pattern::new(SEED);
    let len = wire.body(&head, |data| pattern.check(data)).unwrap();
    (head, len)
}

fn hello(wire: &mut Wire) {
    ask(wire, "/");
    let head = wire.head().unwrap().unwrap();
    assert_eq!(wire.text(&head).unwrap(), "hello");
}

/// Large and small answers in turn on one connection to each side.
fn bodies_pass(server: &Server) {
    let mut wire = Wire::connect(server.web);
    for size in SIZES.into_iter().cycle().take(6) {
        ask(&wire, &format!("/length/{size}"));
        assert_eq!(take(&mut wire).1, size);
        hello(&mut wire);
    }
    assert_eq!(server.sum("weir_member_connections_total"), 1.0);
    let sent = server.sum("weir_sent_bytes_total");
    let all = 3 * SIZES.iter().sum::<u64>();
    assert!(sent > all as f64 && sent < all as f64 + 10_000.0, "{sent} bytes sent of {all}");
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}

#[test]
fn large_answers_pass_uncopied_byte_for_byte() {
    let _turn = alone();
    let member = PatternMember::start();
    let text = config("[0]", 5, 0, &[(member.addr, 1)]);
    let server = Server::start(&text);
    bodies_pass(&server);
    let all = 3 * SIZES.iter().sum::<u64>();
    let through = spliced(&server);
    println!("{through} bytes of {all} spliced");
    assert!(if spliced_at_all() { through > all as f64 / 2.0 } else { through == 0.0 });
    let server = Server::start_with(&text, |command| {
        command.env("WEIR_RING_OFF", "splice");
    });
    bodies_pass(&server);
    assert_eq!(spliced(&server), 0.0);
}

/// The same from nginx, which sends files; and HEAD and 304, which have a length but no body.
#[test]
fn large_files_of_nginx_pass_uncopied() {
    let _turn = alone();
    let nginx = Nginx::start(&["a"]);
    for size in SIZES {
        let file = File::create(nginx.files().join(format!("file{size}"))).unwrap();
        let mut pattern = Pattern::new(SEED);
        write_body(file, Framing::Length, size, &mut pattern, &AtomicU64::new(0)).unwrap();
    }
    let server = Server::start(&config("[0]", 5, 0, &[(nginx.addrs[0], 1)]));
    let mut wire = Wire::connect(server.web);
    for size in SIZES.into_iter().cycle().take(6) {
        let path = format!("/files/file{size}");
        ask(&wire, &path);
        let (head, len) = take(&mut wire);
        assert_eq!(len, size);
        wire.send(&format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
        assert_eq!(wire.head().unwrap().unwrap().first, "HTTP/1.1 200 OK");
        let etag = head.text.lines().find(|line| line.starts_with("ETag: ")).unwrap();
        let known = etag.replace("ETag", "If-None-Match");
        wire.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{known}\r\n\r\n")).unwrap();
        assert_eq!(wire.head().unwrap().unwrap().first, "HTTP/1.1 304 Not Modified");
    }
    assert_eq!(server.sum("weir_member_connections_total"), 1.0);
    let through = spliced(&server);
    println!("{through} bytes spliced");
    let all = 3 * SIZES.iter().sum::<u64>();
    assert!(if spliced_at_all() { through > all as f64 / 2.0 } else { through == 0.0 });
}

/// Requests that come while a large answer is under way are answered behind it.
#[test]
fn pipelined_requests_wait_for_large_answers() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let mut wire = Wire::connect(server.web);
    let sizes = [SIZES[0], 2_000_001, SIZES[1], 700_000];
    let all: Vec<String> = sizes
        .iter()
        .map(|size| format!("GET /length/{size} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    for together in [true, false] {
        if together {
            wire.send(&all.concat()).unwrap();
        } else {
            ask(&wire, "/length/3000000");
            let head = wire.head().unwrap().unwrap();
            wire.send(&all.concat()).unwrap();
            let mut pattern = Pattern::new(SEED);
            assert_eq!(wire.body(&head, |data| pattern.check(data)).unwrap(), 3_000_000);
        }
        for size in sizes {
            assert_eq!(take(&mut wire).1, size);
        }
        hello(&mut wire);
    }
}

/// One that reads slowly gets all; its member is held back meanwhile, and others are served.
#[test]
fn a_slow_reader_gets_all_of_a_large_answer() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let mut wire = Wire::over(connect_narrow(server.web, 16 << 10));
    let size = SIZES[1];
    ask(&wire, &format!("/length/{size}"));
    let head = wire.head().unwrap().unwrap();
    let (mut pattern, mut since) = (Pattern::new(SEED), 0);
    let got = wire.body(&head, |data| {
        since += data.len();
        if since > 1 << 20 {
            since = 0;
            pass_time(Duration::from_millis(100));
            let mut other = Wire::connect(server.web);
            hello(&mut other);
        }
        pattern.check(data)
    });
    assert_eq!(got.unwrap(), size);
    hello(&mut wire);
}

/// One that has sent more than its last request, and reads late, gets the answer's end: not
/// a reset in place of what the kernel still holds for it.
#[test]
fn bytes_behind_the_last_request_cost_no_answer() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    for narrow in [16 << 10, 64 << 10] {
        let mut wire = Wire::over(connect_narrow(server.web, narrow));
        let size = SIZES[0];
        wire.send(&format!(
            "GET /length/{size} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))
        .unwrap();
        let head = wire.head().unwrap().unwrap();
        wire.send("GET /late HTTP/1.1\r\n").unwrap();
        pass_time(Duration::from_millis(300));
        let mut pattern = Pattern::new(SEED);
        let got = wire.body(&head, |data| pattern.check(data));
        assert_eq!(got.unwrap(), size);
    }
}

/// Clients that leave in the middle of a body, in order or by a reset, while bytes for them are in
/// pipes: the others' bytes stay theirs, and pipes and connections go.
#[test]
fn bytes_of_a_client_that_left_reach_nobody() {
    let _turn = alone();
    let member = PatternMember::start();
    let server = Server::start(&config("[0]", 5, 0, &[(member.addr, 1)]));
    let web = server.web;
    bodies_pass(&server);
    let before = server.descriptors();
    for round in 0..40 {
        let narrow = if round % 2 == 0 { 16 << 10 } else { 1 << 20 };
        let mut wire = Wire::over(connect_narrow(web, narrow));
        ask(&wire, "/length/64000000");
        let head = wire.head().unwrap().unwrap();
        let mut left = 2_000_000 + round * 10_007;
        let cut = wire.body(&head, |data| {
            left -= data.len().min(left);
            if left == 0 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        assert!(cut.is_err());
        if round % 3 == 0 {
            reset_on_close(wire.stream());
        }
        drop(wire);
        let mut other = Wire::connect(web);
        ask(&other, &format!("/length/{}", SIZES[0]));
        assert_eq!(take(&mut other).1, SIZES[0]);
        hello(&mut other);
    }
    // One idle connection to the member more or less, and as many pipes as were in use at once.
    until("the descriptors to be closed", || server.descriptors() <= before + 4);
    assert_eq!(server.sum("weir_ring_task_panics_total"), 0.0);
}

/// A member on a thread: whatever is asked, `script` answers.
fn scripted(script: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let mut request = Wire::over(stream.try_clone().unwrap());
                if let Ok(Some(_)) = request.head() {
                    script(stream);
                }
            });
        }
    });
    addr
}

const PROMISED: usize = 8_000_000;

fn head_and(mut stream: &TcpStream, bytes: usize) {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {PROMISED}\r\n\r\n").unwrap();
    // One that has gone is for the test to judge.
    let _gone = stream.write_all(&vec![b'x'; bytes]);
}

/// A member that ends in the middle, in order or by a reset: the client sees that its answer is
/// cut, and the log says why.
#[test]
fn an_answer_that_ends_short_is_seen_to_be_cut() {
    let _turn = alone();
    let ends = scripted(|stream| head_and(&stream, PROMISED / 2));
    is_cut(ends, "member_closed_the_connection");
    let breaks = scripted(|stream| {
        head_and(&stream, PROMISED / 2);
        reset_on_close(&stream);
    });
    is_cut(breaks, "member_reset_the_connection");
}

fn is_cut(member: SocketAddr, reason: &str) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let access = format!("[access_log]\npath = \"{}\"\nformat = \"elb\"\n", log.display());
    let server = Server::start(&(config("[0]", 5, 0, &[(member, 1)]) + &access));
    let mut client = TcpStream::connect(server.web).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let ended = client.read_to_end(&mut got);
    assert!(ended.is_err(), "no reset behind {} bytes", got.len());
    assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n") && got.len() < PROMISED, "{}", got.len());
    until("its line", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(reason)));
}

/// More than the answer, right behind it, is not taken for the next one's: the member's connection
/// ends. (Of small answers l7/tests/failures.rs shows it.)
#[test]
fn what_stands_behind_a_large_answer_is_for_nobody() {
    let _turn = alone();
    let member = scripted(|stream| {
        // In one piece with the end.
        let mut body = vec![b'x'; PROMISED];
        body.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        head_and(&stream, 0);
        let _gone = (&stream).write_all(&body);
        // Open until the balancer closes it.
        let _rest = (&stream).read_to_end(&mut Vec::new());
    });
    let server = Server::start(&config("[0]", 5, 0, &[(member, 1)]));
    let mut wire = Wire::connect(server.web);
    for round in 1..=5 {
        ask(&wire, "/");
        // The next request is there before the end of the answer.
        ask(&wire, "/");
        for _ in 0..2 {
            let head = wire.head().unwrap().unwrap();
            assert_eq!(wire.body(&head, |_| Ok(())).unwrap(), PROMISED as u64);
        }
        assert_eq!(server.sum("weir_member_connections_total"), f64::from(2 * round));
    }
}

/// A member that pauses in the middle: the pipe goes back, the rest comes by other means; one that
/// pauses for too long is given up, not before its limit.
#[test]
fn a_pause_gives_the_pipe_back() {
    let _turn = alone();
    let member = scripted(|stream| {
        head_and(&stream, PROMISED / 2);
        pass_time(Duration::from_millis(2_500));
        let _gone = (&stream).write_all(&vec![b'x'; PROMISED - PROMISED / 2]);
    });
    for (limit, whole) in [(20, true), (2, false)] {
        let text = config("[0]", 5, 0, &[(member, 1)]);
        let limits = format!("default_pool = \"app\"\nmember_timeout = {limit}\n");
        let server = Server::start(&text.replacen("default_pool = \"app\"\n", &limits, 1));
        let idle = server.descriptors();
        let mut client = TcpStream::connect(server.web).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let start = weir_core::time::clock::mono();
        let mut got = Vec::new();
        let ended = client.read_to_end(&mut got);
        if whole {
            assert!(ended.is_ok() && got.len() > PROMISED, "{ended:?}: {}", got.len());
        } else {
            assert!(ended.is_err() && got.len() < PROMISED);
            let took = weir_core::time::clock::mono().since(start);
            assert!(took >= Duration::from_secs(2), "{took:?}");
        }
        // A pipe stays, for the next body.
        until("the connections to close", || server.descriptors() <= idle + 2);
    }
}
