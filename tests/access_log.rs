//! The access log of a running `weir serve`: what its lines say, and that no disk, pipe or client
//! can make it hurt traffic or forge a line. `rows.toml` names these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use process::{Client, Member, Server, config, get, pass_time, until};
use serde_json::Value;

/// A folder for logs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// One listener in front of `members`, logging to `path` as `format`.
fn logging(members: &[(SocketAddr, u8)], path: &Path, format: &str) -> String {
    let path = path.display();
    let text = config("[0]", 5, 0, members);
    format!("{text}[access_log]\npath = \"{path}\"\nformat = \"{format}\"\n")
}

fn server(members: &[(SocketAddr, u8)], path: &Path, format: &str) -> Server {
    Server::start(&logging(members, path, format))
}

/// Waits for `n` whole lines, and for no more than those.
fn lines(path: &Path, n: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    until("lines in the log", || read().matches('\n').count() >= n);
    let text = read();
    let found: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(found.len() == n && text.ends_with('\n'), "{n} lines are not:\n{text}");
    found
}

fn objects(path: &Path, n: usize) -> Vec<Value> {
    lines(path, n).iter().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The fields of a line of the form "elb": split at spaces outside of quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

fn seconds(object: &Value, name: &str) -> f64 {
    let value = &object[name];
    let value = if value.is_array() { &value[0] } else { value };
    value.as_f64().unwrap_or_else(|| panic!("{name} in {object}"))
}

/// A member that reads whole requests (with Content-Length) and has `answer` write the answers.
fn member(answer: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while read_request(&mut reader).is_some() {
                    answer(reader.get_mut());
                }
            });
        }
    });
    addr
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).ok()
}

fn ok(stream: &mut TcpStream) {
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

/// An address that refuses connections: bound and closed again.
fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// R4.1-3: from the first byte of a slow upload to the last of a slow answer. The proxy's own part
/// leaves the waits out.
#[test]
fn request_time_covers_upload_and_answer() {
    let (upload, thought) = (Duration::from_millis(400), Duration::from_millis(300));
    let slow = member(move |stream| {
        pass_time(thought);
        ok(stream);
    });
    let folder = Folder::new();
    let path = folder.path("log");
    let server = server(&[(slow, 1)], &path, "json");
    let mut stream = TcpStream::connect(server.web).unwrap();
    stream.write_all(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    pass_time(upload);
    stream.write_all(b"56789").unwrap();
    assert_eq!(Client::over(stream).answer().unwrap().body, "hello");
    let line = &objects(&path, 1)[0];
    let (time, own) = (seconds(line, "request_time"), seconds(line, "proxy_time"));
    // Both waits are in it, the first one from when the server saw the first bytes.
    assert!(time >= 0.6, "{line}");
    assert!(own <= time - 0.55, "{line}");
    assert_eq!(line["request_length"], 60);
    assert_eq!(line["request_header_length"], 50);
    assert_eq!(line["body_bytes_sent"], 5);
    assert_eq!((&line["method"], &line["uri"]), (&"POST".into(), &"/up".into()));
    assert!(line["tcpinfo_rtt"].as_u64().unwrap() > 0, "R14.3-4: {line}");
    assert_eq!(line["attempts"], 1);
}

/// R4.1-4, R4.1-5, R4.1-6: connect, head and whole answer; a reused connection needs no time.
#[test]
fn upstream_times() {
    let gap = Duration::from_millis(300);
    let slow = member(move |stream| {
        pass_time(gap);
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        pass_time(gap);
        let _gone = stream.write_all(b"hello");
    });
    let folder = Folder::new();
    let path = folder.path("log");
    let server = server(&[(slow, 1)], &path, "json");
    let mut client = Client::connect(server.web);
    for _ in 0..2 {
        client.send("/", "");
        client.answer().unwrap();
    }
    let lines = objects(&path, 2);
    for line in &lines {
        let (header, response) =
            (seconds(line, "upstream_header_time"), seconds(line, "upstream_response_time"));
        assert!(header >= 0.3 && response >= header + 0.29, "{line}");
        assert!(seconds(line, "request_time") >= response, "{line}");
        assert_eq!(line["upstream_status"][0], 200);
        assert_eq!(line["upstream_addr"][0], slow.to_string());
    }
    assert!(seconds(&lines[0], "upstream_connect_time") > 0.0, "{}", lines[0]);
    assert!(seconds(&lines[1], "upstream_connect_time") == 0.0, "{}", lines[1]);
    assert_eq!(
        (&lines[0]["connection_requests"], &lines[1]["connection_requests"]),
        (&1.into(), &2.into())
    );
}

/// R4.1-7, C17: a value an attempt, in the order of attempts.
#[test]
fn a_value_an_attempt() {
    let good = Member::start("good");
    let folder = Folder::new();
    let path = folder.path("log");
    let bad = refusing();
    let server = server(&[(bad, 1), (good.addr, 1)], &path, "elb");
    (0..2).for_each(|_| assert_eq!(get(server.web, "/").status, 200));
    let lines: Vec<_> = lines(&path, 2).iter().map(|line| fields(line)).collect();
    let retried = lines.iter().find(|line| line[11].contains(',')).expect("a retried request");
    assert_eq!(retried.len(), 37);
    assert_eq!(retried[11], "502, 200");
    for at in 12..15 {
        let value = retried[at].strip_prefix("-, ").unwrap_or_else(|| panic!("{retried:?}"));
        assert!(value.parse::<f64>().is_ok() && value.split_once('.').unwrap().1.len() == 3);
    }
    assert_eq!(retried[15], format!("{bad}, {}", good.addr));
    assert_eq!(retried[23].matches("member_").count(), 2);
    // R14.2-4: what could not be had counts as the member's 502.
    let series = r#"weir_member_responses_total{pool="app",member="m0",code="502"}"#;
    assert!(server.metric(series) >= 1.0);
}

/// R4.1-8, R13.1-5, R14.2-5: what no member got is logged all the same, with dashes.
#[test]
fn requests_that_no_member_got() {
    let good = Member::start("good");
    let folder = Folder::new();
    let path = folder.path("log");
    let text = logging(&[(good.addr, 1)], &path, "elb");
    let server = Server::start(&text.replace("default_pool", "max_body_bytes = 3\ndefault_pool"));
    let mut expected = Vec::new();
    for (request, status, shown) in [
        ("\x16\x03\x01garbage\r\n\r\n", "400", "-"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400", "GET http://-/ HTTP/1.1"),
        (
            "POST /b HTTP/1.1\r\nHost: h.example\r\nContent-Length: 4\r\n\r\n",
            "413",
            "POST http://-/b HTTP/1.1",
        ),
    ] {
        let mut stream = TcpStream::connect(server.web).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let answer = Client::over(stream).answer().unwrap();
        assert_eq!(answer.status.to_string(), status);
        expected.push((status, shown));
        let line = fields(lines(&path, expected.len()).last().unwrap());
        assert_eq!(line.len(), 37, "{line:?}");
        assert_eq!(line[5], status);
        // The host may or may not be known: the head was refused.
        assert!(line[6].replace("h.example", "-") == shown, "{line:?}");
        assert!(line[11..16].iter().all(|value| value == "-"), "{line:?}");
        assert_ne!(line[35], "-", "a reason");
    }
    assert_eq!(server.sum("weir_member_responses_total"), 0.0);
    assert_eq!(server.sum("weir_local_responses_total"), 3.0);
}

/// R2.3-499, R14.3-1, R14.3-2, C26: a client that leaves, while the member thinks and while it
/// uploads. The member's connection is given up; nothing goes to the client.
#[test]
fn clients_that_leave() {
    let shut = Member::shut("late");
    let folder = Folder::new();
    let path = folder.path("log");
    let server = server(&[(shut.addr, 1)], &path, "json");
    let mut client = Client::connect(server.web);
    client.send("/wait", "");
    shut.wait_for(1);
    let open = r#"weir_member_active_connections{pool="app",member="m0"}"#;
    assert_eq!(server.metric(open), 1.0);
    let stream = client.into_stream();
    // Not right behind the request, which would be a half-close.
    pass_time(Duration::from_millis(300));
    // The end of its side alone, so that the test sees that nothing more is sent.
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _cut = Client::over(stream).into_stream().read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    until("the member's connection is closed", || server.metric(open) == 0.0);
    let line = &objects(&path, 1)[0];
    assert_eq!((&line["status"], &line["uri"]), (&499.into(), &"/wait".into()));
    assert_eq!(line["upstream_status"], serde_json::json!([null]));
    assert_eq!(line["upstream_header_time"], serde_json::json!([null]));
    assert!(line["upstream_response_time"][0].is_number(), "{line}");
    // Half an upload.
    let mut stream = TcpStream::connect(server.web).unwrap();
    stream.write_all(b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    until("it is being forwarded", || server.metric(open) == 1.0);
    pass_time(Duration::from_millis(200));
    drop(stream);
    let line = &objects(&path, 2)[1];
    assert_eq!((&line["status"], &line["uri"]), (&499.into(), &"/half".into()));
    assert!(seconds(line, "request_time") >= 0.2, "{line}");
    assert_eq!(server.metric(r#"weir_responses_total{listener="web",code="499"}"#), 2.0);
    assert_eq!(server.sum("weir_member_responses_total"), 0.0);
    shut.open();
}

/// Hostile bytes neither break a line nor forge a field, in either form.
#[test]
fn hostile_bytes_stay_in_their_field() {
    let good = Member::start("good");
    let evil = "x\" 200 \"\\\t\u{1b}[31m\u{7f}é";
    for format in ["elb", "json"] {
        let folder = Folder::new();
        let path = folder.path("log");
        let server = server(&[(good.addr, 1)], &path, format);
        let mut client = Client::connect(server.web);
        // Control characters in a value may be refused; what is taken is escaped.
        for agent in [evil, "a\" \\ é", "a\tb"] {
            let mut client = Client::connect(server.web);
            client.send("/", &format!("User-Agent: {agent}\r\nReferer: \"\"\"\r\n"));
            assert!([200, 400].contains(&client.answer().unwrap().status));
        }
        client.send("/last", "");
        client.answer().unwrap();
        let text = lines(&path, 4).join("\n");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        for line in text.lines() {
            match format {
                "elb" => assert_eq!(fields(line).len(), 37, "{line}"),
                _ => assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}"),
            }
        }
    }
}

/// A disk that takes nothing costs lines, which are counted, and no traffic.
#[test]
fn a_full_disk_costs_lines_only() {
    let good = Member::start("good");
    let mut server = server(&[(good.addr, 1)], Path::new("/dev/full"), "elb");
    let mut client = Client::connect(server.web);
    for _ in 0..50 {
        client.send("/", "");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    let dropped = r#"weir_access_log_dropped_lines_total{log="/dev/full"}"#;
    until("all lines are counted as dropped", || server.metric(dropped) == 50.0);
    let written = "weir_access_log_lines_total{log=\"/dev/full\"} 0\n";
    assert!(server.metrics().contains(written));
    server.line_with("No space left");
}

/// A file that can grow no more gets no part of a line; once it can, lines come again.
#[test]
fn no_part_of_a_line_reaches_a_full_file() {
    let good = Member::start("good");
    let folder = Folder::new();
    let path = folder.path("log");
    // A limit of 4 KiB (blocks of 512 bytes), soft, so that it can be lifted; exec keeps the pid.
    let text = logging(&[(good.addr, 1)], &path, "elb");
    let server = Server::start_with(&text, |command| limited(command, 8));
    let requests = |n: usize| {
        let mut client = Client::connect(server.web);
        for _ in 0..n {
            client.send("/", "");
            assert_eq!(client.answer().unwrap().status, 200);
        }
    };
    let series = |name: &str| format!("weir_access_log_{name}{{log=\"{}\"}}", path.display());
    let counts =
        || [server.metric(&series("lines_total")), server.metric(&series("dropped_lines_total"))];
    requests(100);
    until("every line is written or dropped", || counts().iter().sum::<f64>() == 100.0);
    let [written, dropped] = counts();
    assert!(written > 0.0 && dropped > 0.0, "{written} {dropped}");
    assert_eq!(lines(&path, written as usize).len() as f64, written);
    let pid = server.pid().to_string();
    let lifted =
        Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap();
    assert!(lifted.success());
    requests(10);
    until("lines come again", || counts()[0] == written + 10.0);
    assert!(lines(&path, written as usize + 10).iter().all(|line| fields(line).len() == 37));
}

/// Has the program run with a soft limit of file sizes.
fn limited(command: &mut Command, blocks: u32) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let script = format!("ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(program).args(args);
    shell.stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("NOTIFY_SOCKET");
    *command = shell;
}

/// A reader that has stalled: lines are dropped, traffic goes on, and what it reads later is whole.
#[test]
fn a_stalled_reader_stops_nobody() {
    let good = Member::start("good");
    let folder = Folder::new();
    let path = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let server = server(&[(good.addr, 1)], &path, "elb");
    // More than a pipe and all blocks of a shard hold (64 KiB and 2 MiB), in long lines.
    let mut client = Client::connect(server.web);
    let long = "y".repeat(15_000);
    let dropped = format!("weir_access_log_dropped_lines_total{{log=\"{}\"}}", path.display());
    let mut sent = 0;
    while server.metric(&dropped) == 0.0 {
        assert!(sent < 2_000, "nothing was dropped");
        for _ in 0..20 {
            client.send(&format!("/{long}"), "");
            assert_eq!(client.answer().unwrap().status, 200);
            sent += 1;
        }
    }
    let mut reader = BufReader::new(fs::File::open(&path).unwrap());
    let mut line = String::new();
    for _ in 0..50 {
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(fields(line.trim_end()).len(), 37, "{line}");
    }
    assert_eq!(get(server.web, "/after").status, 200);
}

/// SIGUSR1 opens the file again; no line is lost while requests go on.
#[test]
fn a_rotation_under_load() {
    let good = Member::start("good");
    let folder = Folder::new();
    let (path, old) = (folder.path("log"), folder.path("old"));
    let server = server(&[(good.addr, 1)], &path, "elb");
    let mut client = Client::connect(server.web);
    let mut request = |n: usize| {
        for _ in 0..n {
            client.send("/", "");
            assert_eq!(client.answer().unwrap().status, 200);
        }
    };
    request(50);
    lines(&path, 50);
    fs::rename(&path, &old).unwrap();
    server.signal("USR1");
    until("the new file", || {
        request(1);
        path.exists()
    });
    request(20);
    let requests = server.metric(r#"weir_requests_total{listener="web"}"#) as usize;
    let count = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    until("all lines", || count(&old) + count(&path) == requests);
    assert!(count(&path) >= 20);
}

/// R13.1-1: no target, no log; a target that can't be had is a clear error, at the start and at a
/// reload, which then changes nothing. Targets change by reload, listener by listener.
#[test]
fn targets() {
    let good = Member::start("good");
    let folder = Folder::new();
    let (one, two) = (folder.path("one"), folder.path("two"));
    let bad = logging(&[(good.addr, 1)], &folder.path("missing/log"), "elb");
    let file = process::File::new(&bad);
    let mut command = process::weir();
    let (code, _, stderr) = process::run(command.args(["serve", "--config"]).arg(&file.path));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("missing/log") && stderr.contains("must exist"), "{stderr}");

    let plain = config("[0]", 5, 0, &[(good.addr, 1)]);
    // A listener on a free port keeps it over a reload.
    let server = Server::start(&plain);
    assert_eq!(get(server.web, "/").status, 200);
    let to = |path: &Path| logging(&[(good.addr, 1)], path, "elb");
    assert_eq!(server.reload(&to(&one)).0, Some(0));
    get(server.web, "/first");
    assert!(lines(&one, 1)[0].contains("/first"));
    let (code, out, err) = server.reload(&bad);
    assert_eq!(code, Some(1), "{out} {err}");
    assert!(format!("{out}{err}").contains("missing/log"), "{out} {err}");
    get(server.web, "/second");
    assert!(lines(&one, 2)[1].contains("/second"));
    // A connection that stays goes over to the new target.
    let mut client = Client::connect(server.web);
    client.send("/third", "");
    client.answer().unwrap();
    lines(&one, 3);
    let own = format!("access_log = {{ path = \"{}\", format = \"json\" }}\n", two.display());
    let text = to(&one).replace("default_pool", &format!("{own}default_pool"));
    assert_eq!(server.reload(&text).0, Some(0));
    client.send("/fourth", "");
    client.answer().unwrap();
    assert_eq!(objects(&two, 1)[0]["uri"], "/fourth");
    let text = to(&one).replace("default_pool", "access_log = false\ndefault_pool");
    assert_eq!(server.reload(&text).0, Some(0));
    get(server.web, "/unseen");
    let (status, log, _) = {
        server.signal("TERM");
        server.wait()
    };
    assert!(status.success(), "{log}");
    assert_eq!((lines(&one, 3).len(), lines(&two, 1).len()), (3, 1));
}

/// The last lines are written before the process ends; `-` is standard output.
#[test]
fn the_last_lines_reach_standard_output() {
    let good = Member::start("good");
    let folder = Folder::new();
    let out = folder.path("stdout");
    let text = logging(&[(good.addr, 1)], Path::new("-"), "elb");
    let file = fs::File::create(&out).unwrap();
    let server = Server::start_with(&text, |command| {
        command.stdout(Stdio::from(file));
    });
    (0..5).for_each(|_| assert_eq!(get(server.web, "/").status, 200));
    server.signal("TERM");
    let (status, log, _) = server.wait();
    assert!(status.success(), "{log}");
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 5);
}

/// `server_timing`: answers tell when there was a connection, and when the member's answer began.
#[test]
fn server_timing() {
    let slow = member(|stream| {
        pass_time(Duration::from_millis(120));
        ok(stream);
    });
    let text = config("[0]", 5, 0, &[(slow, 1)]);
    let server = Server::start(&text.replace("default_pool", "server_timing = true\ndefault_pool"));
    let answer = get(server.web, "/");
    assert_eq!(answer.body, "hello");
    let line = answer.head.lines().find_map(|line| line.strip_prefix("Server-Timing: "));
    let (connect, header) = line.expect("the header").split_once(", ").unwrap();
    let ms = |text: &str, name: &str| {
        text.strip_prefix(name).and_then(|ms| ms.parse::<f64>().ok()).expect(text)
    };
    let (connect, header) = (ms(connect, "connect;dur="), ms(header, "header;dur="));
    assert!(connect >= 0.0 && header >= 120.0 && connect <= header, "{line:?}");
    // Unasked for, there is none.
    let plain = Server::start(&text);
    assert!(!get(plain.web, "/").head.contains("Server-Timing"));
}
