//! The same bytes through Weir to two members that share no code with it, Debian's nginx and
//! Python's http.server: every request that a member saw was answered to the client, in its order
//! and with its body, and none was hidden in another one's body (request smuggling).

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::nginx::hold_port;
use crate::process::{LIMIT, Server, config, count, until};
use crate::{Dice, alone};

/// A member and the file that it writes a line a request to: status, method, target, body length.
struct Member {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl Member {
    fn python() -> Member {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/member.py");
        let mut command = Command::new("python3");
        command.arg(script).stdin(Stdio::null()).stdout(File::create(&log).unwrap());
        let child = command.spawn().expect("python3 (see tests/packages.sh)");
        until("the member's port", || std::fs::read_to_string(&log).unwrap().ends_with('\n'));
        let port: u16 = std::fs::read_to_string(&log).unwrap().trim().parse().unwrap();
        Member { child, addr: ([127, 0, 0, 1], port).into(), log, _folder: folder }
    }

    /// One nginx reads whole requests and passes them to another server block, which answers.
    fn nginx() -> Member {
        let folder = tempfile::tempdir().unwrap();
        let held = hold_port();
        let addr = held.local_addr().unwrap().as_socket().unwrap();
        let at = folder.path().display();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp = temp.map(|name| format!("{name}_temp_path {at}/{name};\n")).concat();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/errors;\n\
             events {{ }}\nhttp {{\n{temp}log_format line '$status $request_method $request_uri';\n\
             server {{ listen {addr} reuseport; access_log {at}/log line;\n\
             location / {{ proxy_pass http://unix:{at}/back; proxy_http_version 1.1; }} }}\n\
             server {{ listen unix:{at}/back; access_log off;\n\
             location / {{ return 200 '$request_method $request_uri $content_length'; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("nginx");
        command.env("PATH", path).stdin(Stdio::null()).arg("-c").arg(&file);
        let child = command.arg("-p").arg(folder.path()).spawn();
        let child = child.expect("nginx (see tests/packages.sh)");
        until("nginx to listen", || TcpStream::connect(addr).is_ok());
        Member { child, addr, log: folder.path().join("log"), _folder: folder }
    }

    /// Status, method and target of each request.
    fn saw(&self) -> Vec<(u16, String)> {
        let log = std::fs::read(&self.log).unwrap();
        let text = String::from_utf8_lossy(&log).into_owned();
        let line = |line: &str| {
            let (status, rest) = line.split_once(' ')?;
            let request: Vec<&str> = rest.split(' ').take(2).collect();
            Some((status.parse().ok()?, request.join(" ")))
        };
        text.lines().filter_map(line).collect()
    }
}

/// What no member may ever be asked for: it stands in bodies, or behind what is no head.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// The same where it is a request of its own for all who read by the rules; as long, so that
/// lengths stay right.
fn revealed(text: &str) -> String {
    text.replace("/smuggled", "/revealed")
}

/// Fields that make two programs disagree about where a request ends, unless both are strict.
const PROBES: &[&str] = &[
    "Content-Length: 0\r\nContent-Length: {n}\r\n",
    "Content-Length: {n}\r\nContent-Length: 0\r\n",
    "Content-Length: 0, {n}\r\n",
    "Content-Length: +{n}\r\n",
    "Content-Length : {n}\r\n",
    "Content_Length: {n}\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\nContent-Length: {n}\r\n",
    "\0Content-Length: {n}\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Connection: content-length\r\nContent-Length: {n}\r\n",
    "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\nContent-Length: {n}\r\n",
    "Host: other\r\n",
];

/// Ends of chunked bodies that some readers take for the end and others don't.
const CHUNKS: &[&str] = &[
    "0\n\n",
    "0\r\r\n",
    "00;x=\"\r\n\r\n\"\r\n",
    "0x0\r\n\r\n",
    "-0\r\n\r\n",
    "0 \r\n\r\n",
    "0;\n\r\n\r\n",
    "1\r\nZ0\r\n\r\n",
    "fffffffffffffffff0\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
];

fn chunked(body: &str, dice: &mut Dice) -> String {
    let (first, second) = body.split_at(dice.below(body.len() as u64 + 1) as usize);
    let chunk = |part: &str| match part.len() {
        0 => String::new(),
        len => format!("{len:x}\r\n{part}\r\n"),
    };
    chunk(first) + &chunk(second)
}

/// A good request, and the line that a member answers it with.
fn good(name: &str, dice: &mut Dice) -> (String, String) {
    let method = ["GET", "POST", "PUT", "DELETE"][dice.below(4) as usize];
    let body = HIDDEN.repeat(dice.below(3) as usize);
    let start = format!("{method} /{name} HTTP/1.1\r\nHost: h\r\n");
    let request = match dice.below(3) {
        0 if body.is_empty() => format!("{start}\r\n"),
        1 => format!("{start}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunked(&body, dice)),
        _ => format!("{start}Content-Length: {}\r\n\r\n{body}", body.len()),
    };
    (request, format!("{method} /{name} {}", body.len()))
}

/// One that is meant to confuse.
fn probe(name: &str, dice: &mut Dice) -> String {
    let start = format!("POST /{name} HTTP/1.1\r\nHost: h\r\n");
    if dice.below(3) == 0 {
        let end = CHUNKS[dice.below(CHUNKS.len() as u64) as usize];
        return format!(
            "{start}Transfer-Encoding: chunked\r\n\r\n{}{end}{HIDDEN}",
            chunked("ab", dice)
        );
    }
    let fields = PROBES[dice.below(PROBES.len() as u64) as usize];
    let fields = fields.replace("{n}", &HIDDEN.len().to_string());
    // Without a length that counts there is no body.
    let bodiless = fields.contains('_') || fields.contains(": identity");
    let hidden = if bodiless { revealed(HIDDEN) } else { HIDDEN.into() };
    format!("{start}{fields}\r\n{hidden}")
}

/// Everything that a client of one connection gets for `bytes`.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    // A reset is how an answer is cut; what came before counts.
    let _reset = stream.read_to_end(&mut answers);
    answers
}

/// Status and body of the answers that a member gave; Weir's own have no Server field.
fn answers(bytes: &[u8]) -> Vec<(u16, String)> {
    let mut found = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
        let length = field("content-length").map_or(0, |n| n.parse().unwrap());
        assert!(field("transfer-encoding").is_none() && behind.len() >= length, "{text}");
        let (body, more) = behind.split_at(length);
        if status >= 200 && field("server").is_some() {
            found.push((status, body.to_owned()));
        }
        rest = more;
    }
    assert_eq!(rest, "", "{text}");
    found
}

/// Each answer has its request at the member, in order; what is left over there was refused or cut.
fn agree(answered: &[(u16, String)], saw: &[(u16, String)]) -> Result<(), String> {
    let mut left = answered.iter().peekable();
    for (status, request) in saw {
        let same = |(code, body): &&(u16, String)| {
            code == status && (*code != 200 || body.starts_with(&format!("{request} ")))
        };
        if left.next_if(same).is_none() && !matches!(status, 400 | 408 | 499) {
            return Err(format!("{status} {request}: nobody asked, next is {:?}", left.peek()));
        }
        if request.contains("smuggled") {
            return Err(format!("{status} {request}: was part of another request"));
        }
    }
    left.next().map_or(Ok(()), |answer| Err(format!("no member saw {answer:?}")))
}

fn run(member: &Member) {
    let text = config("[0]", 5, 0, &[(member.addr, 1)]);
    let server = Server::start(&text);
    let mut answered = Vec::new();
    for seed in 0..count(200, 20_000) {
        let mut dice = Dice::new(seed);
        let (mut bytes, mut lines) = (Vec::new(), Vec::new());
        for at in 0..dice.below(4) {
            let (request, line) = good(&format!("s{seed}-{at}"), &mut dice);
            bytes.extend_from_slice(request.as_bytes());
            lines.push((200, line));
        }
        let whole = bytes.len();
        if dice.below(2) == 0 {
            bytes.extend_from_slice(probe(&format!("p{seed}"), &mut dice).as_bytes());
            bytes.extend_from_slice(good(&format!("q{seed}"), &mut dice).0.as_bytes());
        }
        let changed = bytes.len() > 1 && dice.below(4) == 0;
        if changed {
            bytes = revealed(&String::from_utf8(bytes).unwrap()).into_bytes();
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = b"\r\n\0 \t:;,0x\x7f\xff"[dice.below(12) as usize];
        }
        // The length is left out by nginx where there is no body.
        let mut got = answers(&exchange(server.web, &bytes));
        got.iter_mut().filter(|(_, body)| body.ends_with(' ')).for_each(|(_, body)| body.push('0'));
        if !changed {
            let good = got.get(..lines.len()).unwrap_or_default();
            assert_eq!(good, lines, "seed {seed}: {}", bytes[..whole].escape_ascii());
        }
        answered.extend(got);
    }
    let seen = || member.saw().iter().filter(|(status, _)| *status == 200).count();
    let whole = answered.iter().filter(|(status, _)| *status == 200).count();
    assert!(whole > 100, "{whole} answers");
    until("the member's log", || seen() >= whole);
    agree(&answered, &member.saw()).unwrap();
    assert!(server.metric(r#"weir_responses_total{listener="web",code="400"}"#) > 20.0);
}

/// R2.3-400a.
#[test]
fn nginx_sees_the_requests_that_weir_sees() {
    let _alone = alone();
    run(&Member::nginx());
}

/// R2.3-400a.
#[test]
fn python_sees_the_requests_that_weir_sees() {
    let _alone = alone();
    run(&Member::python());
}

/// The comparison can fail.
#[test]
fn disagreement_is_found() {
    let line = |status: u16, text: &str| (status, text.to_owned());
    let answered = [line(200, "GET /a 0"), line(200, "PUT /b 5")];
    let saw =
        |more: &[(u16, String)]| [&[line(200, "GET /a")], more, &[line(200, "PUT /b")]].concat();
    assert_eq!(agree(&answered, &saw(&[])), Ok(()));
    assert_eq!(agree(&answered, &saw(&[line(400, "POST /cut")])), Ok(()));
    assert!(agree(&answered, &saw(&[line(200, "GET /x")])).is_err());
    assert!(agree(&answered, &saw(&[line(400, "GET /smuggled")])).is_err());
    assert!(agree(&answered, &[line(200, "PUT /b"), line(200, "GET /a")]).is_err());
    assert!(agree(&answered, &[line(200, "GET /a")]).is_err());
}
