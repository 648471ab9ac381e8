//! What befalls one stream harms no other (`streams.py`), and what the log says of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::process::{RUN_DIR, Server, address_after, python, run, until};
use crate::serve::curl;
use crate::{Front, Origin};

/// Runs a case of the script.
fn case(addr: SocketAddr, name: &str) {
    let port = addr.port().to_string();
    let (code, out, err) = run(python("tests/h2/streams.py").args([&port, name]));
    assert_eq!((code, out.trim()), (Some(0), "all well"), "{name}: {err}");
}

/// A member that answers `/cut` with half of what it promised.
fn cutting_member() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; 2_048];
                let len = stream.read(&mut request).unwrap();
                let cut = request[..len].starts_with(b"GET /cut ");
                let body =
                    if cut { "10\r\n\r\nhalf" } else { "5\r\nConnection: close\r\n\r\nwhole" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}");
                let _client_may_be_gone = stream.write_all(answer.as_bytes());
            });
        }
    });
    addr
}

fn log(front: &Front) -> String {
    let path = front.server.file.run_dir().with_extension("log");
    std::fs::read_to_string(path).unwrap_or_default()
}

/// R2.3-499: an answer that breaks off, a stream that the client resets, and a client that leaves.
#[test]
fn broken_off() {
    let front = Front::start(cutting_member(), "");
    case(front.addr, "cut");
    let member = Origin::start();
    let lines = format!("access_log = {{ path = \"{RUN_DIR}.log\", format = \"json\" }}");
    for name in ["given_up", "left"] {
        let front = Front::start(member.addr, &lines);
        case(front.addr, name);
        until("the line of who has left", || log(&front).contains("\"status\":499"));
        assert_eq!(log(&front).matches("\"status\":499").count(), 1, "{}", log(&front));
    }
}

/// R6.7-4, R6.7-5: each stream has its own times, a connection without streams those of an idle
/// one.
#[test]
fn slow_clients() {
    let member = Origin::start();
    let front = Front::start(member.addr, "client_timeout = 2\nkeepalive_timeout = 2");
    for name in ["slow_body", "shut_window", "finished_and_shut", "idle", "silent", "many"] {
        case(front.addr, name);
    }
}

/// A member that is not there costs no stream its answer.
#[test]
fn other_members_are_tried() {
    let member = Origin::start();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = Front::text(member.addr, "").replace(
        "members = [ ",
        &format!("members = [ {{ address = \"127.0.0.1\", protocol_port = {} }}, ", dead.port()),
    );
    let server = Server::start(&text);
    let addr = address_after(&server.ready, "secure https://");
    let front = Front { server, addr };
    for _ in 0..6 {
        assert_eq!(curl(&front, "/echo", &["-d", "hello"]), "hello 2 200");
    }
    case(front.addr, "many");
}
