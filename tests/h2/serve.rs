//! Requests and answers, by clients that behave: curl and h2load.

use std::net::SocketAddr;
use std::process::Command;

use crate::process::{RUN_DIR, count, run, until};
use crate::{Front, Origin};

const MIB: usize = 1 << 20;

/// `curl` by HTTP/2; what it prints, which is the body and, behind a space, version and status.
pub fn curl(front: &Front, path: &str, more: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args(["-sk", "--noproxy", "*", "--max-time", "60", "--http2"])
        .args(["-w", " %{http_version} %{http_code}"])
        .args(more)
        .arg(format!("https://{}{path}", front.addr));
    run(&mut command).1
}

/// `h2load`; how many of its requests succeeded.
pub fn h2load(addr: SocketAddr, path: &str, more: &[&str]) -> String {
    let mut command = Command::new("h2load");
    let (_, out, err) = run(command.args(more).arg(format!("https://{}{path}", addr)));
    let line = out.lines().find(|line| line.starts_with("requests: "));
    line.unwrap_or_else(|| panic!("{out}{err}")).to_owned()
}

/// Methods, answers without a body, error pages; the status stands in HEADERS.
#[test]
fn methods_and_pages() {
    let member = Origin::start();
    let front = Front::start(member.addr, "");
    assert_eq!(curl(&front, "/", &[]), "member 2 200");
    assert_eq!(curl(&front, "/echo", &["-d", "hello"]), "hello 2 200");
    assert_eq!(curl(&front, "/echo", &["-X", "PUT", "-d", "", "-o", "/dev/null"]), " 2 200");
    let head = curl(&front, "/bytes/1000", &["-I"]);
    assert!(head.contains("content-length: 1000\r\n") && head.ends_with(" 2 200"), "{head}");
    let long = format!("/{}", "a".repeat(30_000));
    for (path, more, wanted) in [
        (long.as_str(), &[][..], " 2 414"),
        ("/", &["-H", "Expect: tea"][..], " 2 400"),
        ("/", &["-H", "Expect: tea", "-I"], " 2 400"),
    ] {
        let out = curl(&front, path, more);
        assert!(out.ends_with(wanted), "{out}");
    }
    // Hop-by-hop fields of the member stay behind.
    let head = curl(&front, "/trailers", &["-D", "-"]);
    assert!(!head.contains("transfer-encoding") && head.contains("body"), "{head}");
}

/// Large bodies both ways; with and without their length.
#[test]
fn large_bodies() {
    let member = Origin::start();
    let front = Front::start(member.addr, "max_body_bytes = 1_073_741_824\nmember_timeout = 60");
    let size = count(16, 64) * MIB;
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    let body: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
    std::fs::write(&from, &body).unwrap();
    let file = from.to_str().unwrap();
    for upload in [&["-T", file][..], &["-T", file, "-H", "Content-Length:"]] {
        let out = curl(&front, "/echo", &[upload, &["-o", to.to_str().unwrap()]].concat());
        assert_eq!(out, " 2 200");
        assert!(std::fs::read(&to).unwrap() == body, "another body came back");
    }
}

/// Many streams at once, with all windows, and with the smallest ones.
#[test]
fn many_streams() {
    let member = Origin::start();
    let front = Front::start(member.addr, "");
    let all = |n: usize| {
        format!(
            "requests: {n} total, {n} started, {n} done, {n} succeeded, 0 failed, 0 errored, \
             0 timeout"
        )
    };
    let n = count(2_000, 20_000);
    let number = n.to_string();
    let out = h2load(front.addr, "/bytes/128", &["-n", &number, "-c", "4", "-m", "100"]);
    assert_eq!(out, all(n));
    // Windows of 1 KiB for streams, of 2 KiB for the connection.
    let out =
        h2load(front.addr, "/bytes/20000", &["-n", "100", "-m", "20", "-w", "10", "-W", "11"]);
    assert_eq!(out, all(100));
}

/// R13.1-4: a line of the log says which version it was.
#[test]
fn access_log_lines() {
    let member = Origin::start();
    let lines = format!("access_log = {{ path = \"{RUN_DIR}.log\", format = \"json\" }}");
    let front = Front::start(member.addr, &lines);
    let path = front.server.file.run_dir().with_extension("log");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(curl(&front, "/echo", &["-d", "hello", "-A", "me"]), "hello 2 200");
    until("a line", || text().lines().count() == 1);
    let line = text();
    for part in
        ["\"HTTP/2.0\"", "\"me\"", "\"POST\"", "TLSv1.3", "\"body_bytes_sent\":5", "\"status\":200"]
    {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let counted = front.server.sum("weir_requests_total");
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
}
