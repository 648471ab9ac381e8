//! Requests that go to another member: R6.7-6, R6.7-11 to R6.7-13, R4.4-5, C13, C14.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use support::{Member, Shard, config, eventually, listener, ok};
use weir_core::model;
use weir_core::time::clock;

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";
const SECOND: Duration = Duration::from_secs(1);

/// A member that takes requests and says nothing.
fn silent() -> Member {
    Member::start(|mut conn, _| {
        conn.request();
        let _ = conn.rest();
    })
}

/// A member that resets each connection once it has the request.
fn resetting() -> Member {
    Member::start(|mut conn, _| {
        conn.request();
        conn.reset();
    })
}

/// A port that nobody listens on, held by a bound socket.
fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener that drops SYNs: its accept queue is full.
fn deaf_port() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let full = TcpListener::from(socket);
    let address = full.local_addr().unwrap();
    let wait = Duration::from_millis(300);
    let fill = (0..4).filter_map(|_| TcpStream::connect_timeout(&address, wait).ok()).collect();
    (full, fill, address)
}

/// Limits of one second, and members of the same weight.
fn shard(change: impl FnOnce(&mut model::Listener), members: &[SocketAddr]) -> Shard {
    let mut settings = listener();
    settings.member_timeout = SECOND;
    settings.connect_timeout = SECOND;
    change(&mut settings);
    let members: Vec<_> = members.iter().map(|&address| (address, 1)).collect();
    Shard::start(config(settings, &members))
}

/// Asks `n` times on one connection; the statuses.
fn statuses(shard: &Shard, request: &str, n: usize) -> Vec<u16> {
    let mut client = shard.client();
    let mut ask = |_| {
        client.send(request);
        client.answer().status
    };
    (0..n).map(&mut ask).collect()
}

/// R6.7-11, R6.7-6: a silent member costs its second, then another one answers.
#[test]
fn a_silent_member_is_stepped_over() {
    let (mute, good) = (silent(), Member::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let shard = shard(|_| {}, &[mute.address, good.address]);
    let start = clock::mono();
    assert_eq!(statuses(&shard, GET, 2), [200, 200]);
    assert!(clock::mono().since(start) >= SECOND);
    assert_eq!((mute.accepted(), shard.member(0).retries.get()), (1, 1));
    assert_eq!(shard.status(200), 2);
}

/// R6.7-11: all three are silent: 504, not before three seconds, each was asked once.
#[test]
fn all_silent_is_a_504() {
    let members = [silent(), silent(), silent()];
    let shard = shard(|_| {}, &members.each_ref().map(|member| member.address));
    let start = clock::mono();
    assert_eq!(statuses(&shard, GET, 1), [504]);
    assert!(clock::mono().since(start) >= SECOND * 3);
    assert_eq!(members.each_ref().map(Member::accepted), [1, 1, 1]);
    assert_eq!(shard.status(504), 1);
    assert_eq!((0..3).map(|at| shard.member(at).retries.get()).sum::<u64>(), 2);
}

/// R6.7-13: at most `max_attempts`, and each member once.
#[test]
fn attempts_are_limited() {
    let members = [resetting(), resetting(), resetting(), resetting()];
    let addresses = members.each_ref().map(|member| member.address);
    let accepted = || members.iter().map(Member::accepted).sum::<usize>();
    for (attempts, made) in [(1, 1), (2, 2), (3, 3), (10, 4)] {
        let before = accepted();
        let shard = shard(|settings| settings.max_attempts = attempts, &addresses);
        assert_eq!(statuses(&shard, GET, 1), [502]);
        assert_eq!(accepted() - before, made, "{attempts}");
    }
    let before = accepted();
    let shard = shard(|settings| settings.enable_member_retry = false, &addresses);
    assert_eq!(statuses(&shard, GET, 1), [502]);
    assert_eq!(accepted() - before, 1);
}

/// R4.4-5, C13: nothing was sent, so that any method goes on; R2.3-504a when nobody is left.
#[test]
fn a_connect_that_fails_goes_on_with_any_method() {
    let (_queue, _fill, deaf) = deaf_port();
    let (_held, closed) = closed_port();
    let good = Member::echo();
    for bad in [deaf, closed] {
        let shard = shard(|_| {}, &[bad, good.address]);
        for request in [GET, POST] {
            assert_eq!(statuses(&shard, request, 2), [200, 200], "{request}");
        }
        let failures = shard.member(0).connect_failures.get();
        assert!(failures >= 2, "{failures}");
        assert_eq!(shard.member(0).retries.get(), failures);
    }
    let start = clock::mono();
    let shard = shard(|_| {}, &[deaf]);
    assert_eq!(statuses(&shard, GET, 1), [504]);
    assert!(clock::mono().since(start) >= SECOND);
}

/// C14, R6.7-13: what may have had an effect isn't sent twice, unless that is asked for.
#[test]
fn a_post_is_sent_once() {
    let (bad, good) = (resetting(), Member::echo());
    let members = [bad.address, good.address];
    let careful = shard(|_| {}, &members);
    let mut found = statuses(&careful, POST, 2);
    found.sort_unstable();
    assert_eq!((found, bad.accepted()), (vec![200, 502], 1));
    let bold = shard(|settings| settings.retry_non_idempotent = true, &members);
    assert_eq!(statuses(&bold, POST, 2), [200, 200]);
    assert_eq!(bad.accepted(), 2);
    // The same for silence.
    let mute = silent();
    let careful = shard(|_| {}, &[mute.address, good.address]);
    let mut found = statuses(&careful, POST, 2);
    found.sort_unstable();
    assert_eq!(found, [200, 504]);
}

/// R2.3-502b, C14: reset and end before the first byte are tried again, after it they are not.
#[test]
fn only_before_the_first_byte() {
    for (answer, status) in [
        ("", 200),
        ("HTTP/1.1 2", 502),
        ("HTTP/1.1 100 Continue\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", 502),
    ] {
        let bad = Member::start(move |mut conn, _| {
            conn.request();
            conn.send(answer);
        });
        let good = Member::echo();
        let shard = shard(|_| {}, &[bad.address, good.address]);
        let mut client = shard.client();
        let mut found = Vec::new();
        for _ in 0..2 {
            client.send(GET);
            let mut answer = client.answer();
            if answer.status == 100 {
                answer = client.answer();
            }
            found.push(answer.status);
        }
        found.sort_unstable();
        assert_eq!(found, [200, status], "{answer:?}");
        assert_eq!(bad.accepted(), 1);
    }
}

/// An answer that has begun is cut when its member falls silent, and nobody else is asked.
#[test]
fn an_answer_that_has_begun_is_not_replaced() {
    let bad = Member::start(|mut conn, _| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        let _ = conn.rest();
    });
    let good = Member::echo();
    let shard = shard(|_| {}, &[bad.address, good.address]);
    let mut cut = 0;
    for _ in 0..2 {
        let mut client = shard.client();
        client.send("GET /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
        assert_eq!(client.answer_head().status, 200);
        cut += usize::from(client.conn.rest().is_err());
    }
    assert_eq!((cut, good.accepted()), (1, 1));
}

/// R6.7-13: a body is sent again while it stands whole in the buffer: with a length or in chunks,
/// also when the client is still sending it.
#[test]
fn a_small_body_is_sent_again() {
    let put = |framing: &str, body: &str| {
        format!("PUT /a HTTP/1.1\r\nHost: w\r\n{framing}\r\n\r\n{body}")
    };
    let small = "x".repeat(50_000);
    let chunk = format!("c350\r\n{small}\r\n");
    let large = "x".repeat(200_000);
    for (request, length, status) in [
        (put("Content-Length: 5", "hello"), 5, 200),
        (put("Content-Length: 50000", &small), 50_000, 200),
        (put("Transfer-Encoding: chunked", &format!("{chunk}0\r\n\r\n")), 50_000, 200),
        (put("Content-Length: 200000", &large), 200_000, 502),
    ] {
        let (bad, good) = (resetting(), Member::echo());
        let shard = shard(|_| {}, &[bad.address, good.address]);
        let mut found = Vec::new();
        for _ in 0..2 {
            let mut client = shard.client();
            client.send(&request);
            let answer = client.answer();
            if answer.status == 200 {
                assert_eq!(answer.text(), format!("PUT /a {length}"));
            }
            found.push(answer.status);
        }
        found.sort_unstable();
        assert_eq!(found, [200, status], "{length}");
    }
    // The first member breaks off in the middle of the body.
    let bad = Member::start(|mut conn, _| {
        conn.head();
        conn.exactly(5);
        conn.reset();
    });
    let good = Member::echo();
    let shard = shard(|_| {}, &[bad.address, good.address]);
    for _ in 0..2 {
        let mut client = shard.client();
        client.send("PUT /a HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\nhello");
        let begun = || good.accepted() > 0 || shard.member(0).retries.get() > 0;
        eventually("somebody has it", begun);
        client.send("world");
        assert_eq!(client.answer().text(), "PUT /a 10");
    }
    assert_eq!(bad.accepted(), 1);
}

/// A kept connection that is dead isn't the member's failure: the same member gets the request on
/// a fresh one, also where members are not tried in turn.
#[test]
fn a_dead_kept_connection_is_no_attempt_of_its_own() {
    let member = Member::start(|mut conn, number| {
        conn.request();
        conn.send(ok(&number.to_string()));
        conn.request();
    });
    let shard = shard(|settings| settings.enable_member_retry = false, &[member.address]);
    assert_eq!(statuses(&shard, GET, 3), [200, 200, 200]);
    assert_eq!(shard.member(0).reuse_retries.get(), 2);
    assert_eq!(shard.member(0).retries.get(), 0);
}

/// A request without Host is given the member's: of each attempt its own.
#[test]
fn host_of_the_member_that_is_asked() {
    let bad = resetting();
    let good = Member::start(|mut conn, _| {
        while let Some(request) = conn.request() {
            let host = request.field("Host").unwrap().to_owned();
            conn.send(ok(&host));
        }
    });
    let shard = shard(|_| {}, &[bad.address, good.address]);
    for _ in 0..2 {
        assert_eq!(shard.once("GET / HTTP/1.0\r\n\r\n").text(), good.address.to_string());
    }
    assert_eq!(bad.accepted.load(Ordering::SeqCst), 1);
}

/// The load of a member that was given up falls at once.
#[test]
fn a_given_up_member_is_not_loaded() {
    let (mute, slow) = (silent(), silent());
    let shard = shard(|settings| settings.max_attempts = 2, &[mute.address, slow.address]);
    let mut client = shard.client();
    client.send(GET);
    let requests = |at| shard.member(at).requests.get();
    eventually("both were asked", || requests(0) + requests(1) == 2);
    let open = |at| shard.member(at).active_connections.get();
    eventually("the first was left", || open(0) + open(1) == 1);
    assert_eq!(client.answer().status, 504);
    eventually("the second was left", || open(0) + open(1) == 0);
}
