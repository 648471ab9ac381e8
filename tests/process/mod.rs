//! A running `weir serve` for tests: started on free ports, watched through its stderr, ended by
//! its own process id. Also small members and clients on plain threads.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod alive;
pub mod certs;
pub mod line;
pub mod mirror;
pub mod moody;
pub mod mortal;
pub mod space;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use weir_core::time::clock;

/// Nothing in these tests takes longer on a working machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// True when the long counts are asked for (`tests/soak` does).
pub fn full() -> bool {
    std::env::var_os("WEIR_COUNTS").is_some_and(|v| v == "full")
}

/// How often, how much or how long: less every day, all of it in `tests/soak`.
pub fn count<T>(every_day: T, full_count: T) -> T {
    if full() { full_count } else { every_day }
}

/// The built program; `WEIR_BIN` names another one.
pub fn weir() -> Command {
    let built = env!("CARGO_BIN_EXE_weir").into();
    let mut command = Command::new(std::env::var_os("WEIR_BIN").unwrap_or(built));
    command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

/// Python with its libraries and a script of the project's, made by `tests/packages.sh` where it is
/// missing.
pub fn python(script: &str) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let make = ". tests/packages.sh && python_tests";
    let (code, out, err) = run(Command::new("bash").args(["-c", make]).current_dir(&root));
    assert_eq!(code, Some(0), "{out}{err}");
    let mut command = Command::new(root.join("target/tests-venv/bin/python"));
    command.arg(root.join(script));
    command
}

/// A configuration with one listener on a free port of loopback in front of `members`.
pub fn config(cores: &str, timeout: u64, port: u16, members: &[(SocketAddr, u8)]) -> String {
    let member = |(at, (addr, weight)): (usize, &(SocketAddr, u8))| {
        format!(
            "{{ name = \"m{at}\", address = \"{}\", protocol_port = {}, weight = {weight} }}",
            addr.ip(),
            addr.port()
        )
    };
    let members: Vec<String> = members.iter().enumerate().map(member).collect();
    format!(
        r#"version = 1
[runtime]
cores = {cores}
shutdown_timeout = {timeout}
run_dir = "{RUN_DIR}"
[admin]
listen = "127.0.0.1:0"
[[loadbalancer]]
name = "front"
vip_address = "127.0.0.1"
[[listener]]
name = "web"
loadbalancer = "front"
protocol = "HTTP"
protocol_port = {port}
default_pool = "app"
[[pool]]
name = "app"
protocol = "HTTP"
lb_algorithm = "ROUND_ROBIN"
members = [ {} ]
"#,
        members.join(", ")
    )
}

/// Stands in a configuration for a folder of the test's own.
pub const RUN_DIR: &str = "@RUN_DIR@";

/// A folder with a configuration file in it.
pub struct File {
    pub path: PathBuf,
    folder: tempfile::TempDir,
}

impl File {
    pub fn new(text: &str) -> File {
        let folder = tempfile::tempdir().unwrap();
        let file = File { path: folder.path().join("weir.toml"), folder };
        file.write(text);
        file
    }

    /// Replaces it.
    pub fn write(&self, text: &str) {
        let run_dir = self.run_dir();
        std::fs::write(&self.path, text.replace(RUN_DIR, run_dir.to_str().unwrap())).unwrap();
    }

    /// What stands for [`RUN_DIR`].
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }
}

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    pub log: Vec<String>,
    pub ready: String,
    pub web: SocketAddr,
    pub admin: SocketAddr,
    pub file: File,
}

impl Server {
    pub fn start(text: &str) -> Server {
        Server::start_with(text, |_| {})
    }

    /// Starts it and waits for the ready line.
    pub fn start_with(text: &str, prepare: impl FnOnce(&mut Command)) -> Server {
        let file = File::new(text);
        let mut command = weir();
        command.args(["serve", "--config"]).arg(&file.path).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _test_is_over = sender.send(line);
            }
        });
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut server = Server {
            child,
            lines,
            log: Vec::new(),
            ready: String::new(),
            web: nowhere,
            admin: nowhere,
            file,
        };
        server.ready = server.line_with("weir: ready: ");
        if server.ready.contains("web http://") {
            server.web = address_after(&server.ready, "web http://");
        }
        server.admin = address_after(&server.ready, "admin http://");
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Shards that it runs on.
    pub fn shards(&self) -> usize {
        let (before, _) = self.ready.split_once(" shard").unwrap();
        before.rsplit_once('(').unwrap().1.parse().unwrap()
    }

    /// Ends it; the lines of its connection log, whose path is [`RUN_DIR`] with `.log` behind it.
    pub fn connection_log(self) -> Vec<serde_json::Value> {
        let path = self.file.run_dir().with_file_name("run.log");
        // The folder goes with the server.
        let mut log = std::fs::File::open(path).unwrap();
        self.signal("TERM");
        self.wait();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Has it reload this configuration; exit code, stdout and stderr of `weir reload`.
    pub fn reload(&self, text: &str) -> (Option<i32>, String, String) {
        self.file.write(text);
        let mut command = weir();
        command.args(["reload", "--config"]).arg(&self.file.path);
        run(&mut command)
    }

    /// Waits for a line of stderr that contains `words`.
    pub fn line_with(&mut self, words: &str) -> String {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(e) => panic!("no line with `{words}` ({e}); stderr:\n{}", self.log.join("\n")),
            }
        }
    }

    /// A line of /proc/PID/status in KiB ("VmRSS", "VmHWM").
    pub fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let number = found.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// User and system time so far, in ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold anything; the fields are counted behind it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Sends a signal by name ("TERM").
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end; the exit status, all of stderr, and how long that took.
    pub fn wait(mut self) -> (ExitStatus, String, Duration) {
        let start = clock::mono();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still runs:\n{}", self.log.join("\n")),
            }
        }
        let status = self.child.wait().unwrap();
        (status, self.log.join("\n"), clock::mono().since(start))
    }

    /// The metrics' text.
    pub fn metrics(&self) -> String {
        let answer = get(self.admin, "/metrics");
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// The value of one series, which has to be there.
    pub fn metric(&self, series: &str) -> f64 {
        metric(&self.metrics(), series)
    }

    /// The value of one series of a family whose series appear with the first count, like answers
    /// by their code: 0 when there is none. The family has to be there.
    pub fn counted(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        check_family(&metrics, series);
        value(&metrics, series).unwrap_or(0.0)
    }

    /// All series of one family added up; none are 0, but the family has to be there.
    pub fn sum(&self, family: &str) -> f64 {
        sum(&self.metrics(), family)
    }
}

/// Sends a signal by name ("TERM") to a process.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid.to_string()]).status();
    assert!(done.unwrap().success());
}

/// Runs a command to its end; its exit code, stdout and stderr.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// The value of one series in `metrics`, which has to be there.
pub fn metric(metrics: &str, series: &str) -> f64 {
    value(metrics, series).unwrap_or_else(|| {
        let family = check_family(metrics, series);
        let known = metrics.lines().filter(|line| line.starts_with(family)).collect::<Vec<_>>();
        panic!("there is no series {series}; of its family there are:\n{}", known.join("\n"))
    })
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    let value = metrics.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// The family that a series, or a part of one, belongs to; it has to be there, even without series.
fn check_family<'a>(metrics: &str, series: &'a str) -> &'a str {
    let family = series.split('{').next().unwrap();
    // Those of a histogram have endings of their own.
    let endings = ["", "_count", "_sum", "_bucket"];
    let mut names = endings.iter().filter_map(|ending| family.strip_suffix(ending));
    let is_there = names.any(|name| metrics.contains(&format!("\n# TYPE {name} ")));
    assert!(is_there, "there is no family {family}");
    family
}

/// All series of one family in `metrics` added up; none are 0, but the family has to be there.
pub fn sum(metrics: &str, family: &str) -> f64 {
    check_family(metrics, family);
    let value = |line: &str| {
        let rest = line.strip_prefix(family)?;
        rest.starts_with(['{', ' '])
            .then(|| rest.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
    };
    metrics.lines().filter_map(value).sum()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

pub fn address_after(line: &str, words: &str) -> SocketAddr {
    let rest = line.split_once(words).unwrap_or_else(|| panic!("no {words}in {line}")).1;
    let end = rest.find([' ', ',', ';']).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

/// An answer as a client sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One GET on a connection of its own.
pub fn get(addr: SocketAddr, path: &str) -> Answer {
    let mut client = Client::connect(addr);
    client.send(path, "Connection: close\r\n");
    client.answer().unwrap()
}

/// A client with a connection that it may keep.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::over(TcpStream::connect_timeout(&addr, LIMIT).unwrap())
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(BufReader::new(stream))
    }

    pub fn try_send(&mut self, path: &str) -> std::io::Result<()> {
        self.try_send_with(path, "")
    }

    /// Sends these bytes.
    pub fn raw(&mut self, request: &str) {
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    pub fn try_send_with(&mut self, path: &str, headers: &str) -> std::io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes())
    }

    pub fn send(&mut self, path: &str, headers: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The next answer, read by its Content-Length; an error when the connection ends before.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
        let length = head
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, value)| value.trim().parse().unwrap());
        let mut body = Vec::new();
        match length {
            Some(n) => {
                body.resize(n, 0);
                self.0.read_exact(&mut body)?;
            }
            None => {
                self.0.read_to_end(&mut body)?;
            }
        }
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// Waits for the end of the stream; the bytes that still came, or the error (a reset).
    pub fn end(&mut self) -> std::io::Result<usize> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest)
    }

    /// The connection itself; what was read ahead is lost.
    pub fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

/// A member on threads: answers every request with its name, once `gate` is open.
pub struct Member {
    pub addr: SocketAddr,
    pub requests: Arc<AtomicU64>,
    gate: Arc<Gate>,
}

/// Holds threads back until it is opened.
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn new(open: bool) -> Gate {
        Gate { open: Mutex::new(open), changed: Condvar::new() }
    }

    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Waits for it, at most `LIMIT`.
    pub fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_timeout_while(open, LIMIT, |open| !*open).unwrap());
    }
}

impl Member {
    pub fn start(name: &'static str) -> Member {
        Member::new(name, true)
    }

    /// A member that holds its answers back.
    pub fn shut(name: &'static str) -> Member {
        Member::new(name, false)
    }

    fn new(name: &'static str, open: bool) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Gate::new(open));
        let shared = (requests.clone(), gate.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, gate) = shared.clone();
                std::thread::spawn(move || serve(&stream, name, &requests, &gate));
            }
        });
        Member { addr, requests, gate }
    }

    pub fn open(&self) {
        self.gate.open();
    }

    /// Waits until it has seen `n` requests.
    pub fn wait_for(&self, n: u64) {
        until("requests at the member", || self.requests.load(Relaxed) >= n);
    }
}

fn serve(stream: &TcpStream, name: &str, requests: &AtomicU64, gate: &Gate) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line != "\r\n" => continue,
            Ok(_) => {}
        }
        requests.fetch_add(1, Relaxed);
        gate.pass();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        let mut out = stream;
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Lets `time` pass; only for measuring over a time and for pacing, never for waiting on something.
pub fn pass_time(time: Duration) {
    let end = clock::mono().plus(time);
    while clock::mono() < end {
        std::thread::park_timeout(end.since(clock::mono()));
    }
}

/// Waits for a condition; fails after [`LIMIT`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = clock::mono().plus(LIMIT);
    while !condition() {
        assert!(clock::mono() < end, "waited in vain for: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
