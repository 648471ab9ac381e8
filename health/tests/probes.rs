//! The prober against real sockets on loopback: what members see, and what it makes of their
//! answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_core::model::{Codes, Handle, Handles, Monitor, MonitorKind, MonitorMethod};
use weir_core::rt::{self, ShardConfig, ShardHandle};
use weir_core::time::clock;
use weir_health::limits::MAX_PROBES;
use weir_health::{Code, First, Past, Prober, ProberCounters, Target};

const SOON: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn monitor(kind: MonitorKind) -> Monitor {
    Monitor { kind, delay: SECOND, timeout: SECOND, rise: 2, fall: 2, port: None }
}

fn http(path: &str, host: &str, codes: Codes) -> Monitor {
    let (path, host) = (path.to_owned(), host.to_owned());
    monitor(MonitorKind::Http { method: MonitorMethod::Get, path, host, codes })
}

/// The handle with this number.
fn handle(number: u64) -> Handle {
    let mut handles = Handles::default();
    std::iter::repeat_with(|| handles.fresh()).find(|h| h.number() == number).unwrap()
}

fn target(key: u64, address: SocketAddr, monitor: Monitor) -> Target {
    Target {
        key: handle(key),
        pool: "app".into(),
        member: format!("m{key}").into(),
        address,
        monitor: Arc::new(monitor),
        trust: None,
        sources: Arc::default(),
        up: false,
        first: First::Soon,
    }
}

type Order = Box<dyn FnOnce(&std::rc::Rc<Prober>) + Send>;

/// A prober on a thread of its own; its changes come through a channel.
struct Desk {
    orders: Option<rt::Sender<Order>>,
    changes: Receiver<(u64, bool)>,
    counters: Arc<ProberCounters>,
    thread: Option<ShardHandle<()>>,
}

impl Desk {
    fn start(targets: Vec<Target>) -> Desk {
        Desk::with(MAX_PROBES, targets)
    }

    /// With so many probes at the same time.
    fn with(at_once: usize, targets: Vec<Target>) -> Desk {
        let (tell, changes) = channel();
        let counters = Arc::<ProberCounters>::default();
        let count = Arc::clone(&counters);
        let (orders, mut mailbox) = rt::mailbox::<Order>(16);
        let config = ShardConfig { name: "test-prober".into(), ..ShardConfig::default() };
        let thread = rt::start_shard(config, move || async move {
            let tell = move |key: Handle, up| {
                let _over = tell.send((key.number(), up));
            };
            let prober = Prober::new(7, at_once, count, tell, None);
            prober.set_targets(targets);
            while let Some(order) = mailbox.recv().await {
                order(&prober);
            }
        });
        Desk { orders: Some(orders), changes, counters, thread: Some(thread.unwrap()) }
    }

    fn set(&self, targets: Vec<Target>) {
        let order: Order = Box::new(move |prober| prober.set_targets(targets));
        assert!(self.orders.as_ref().unwrap().try_send(order).is_ok());
    }

    fn next(&self) -> (u64, bool) {
        self.changes.recv_timeout(SOON).unwrap()
    }

    fn quiet(&self, time: Duration) {
        assert_eq!(self.changes.recv_timeout(time).ok(), None);
    }

    /// What the prober's thread has used of a core, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let (tell, told) = channel();
        let order: Order = Box::new(move |_| {
            tell.send(std::fs::read_to_string("/proc/thread-self/stat").unwrap()).unwrap();
        });
        assert!(self.orders.as_ref().unwrap().try_send(order).is_ok());
        let stat = told.recv_timeout(SOON).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A member that hands every connection to `script`; counts them.
struct Member {
    address: SocketAddr,
    seen: Arc<AtomicU64>,
}

impl Member {
    fn start(script: impl Fn(TcpStream) + Send + 'static) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Relaxed);
                script(stream);
            }
        });
        Member { address, seen }
    }

    /// Reads a request's head and writes `answer`.
    fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Member {
        Member::start(move |mut stream| {
            let mut head = Vec::new();
            let mut byte = [0];
            stream.set_read_timeout(Some(SOON)).unwrap();
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let _probe_may_be_gone =
                stream.write_all(answer(&String::from_utf8(head).unwrap()).as_bytes());
        })
    }
}

/// A port on which nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// R8.1-2, R8.7-1, R7.10-1: a listening port is up after one probe, a closed one is not; TCP probes
/// end by a reset, which leaves no TIME_WAIT at the member.
#[test]
fn tcp_probes_tell_open_from_closed_and_end_by_a_reset() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ends);
    let open = Member::start(move |mut stream| {
        stream.set_read_timeout(Some(SOON)).unwrap();
        log.lock().unwrap().push(stream.read(&mut [0; 16]).map_err(|e| e.kind()));
    });
    let tcp = || monitor(MonitorKind::Tcp);
    let desk = Desk::start(vec![target(1, open.address, tcp()), target(2, closed(), tcp())]);
    let mut first = [desk.next(), desk.next()];
    first.sort_unstable();
    assert_eq!(first, [(1, true), (2, false)]);
    desk.quiet(SECOND * 2);
    // A probe that the end of the test cuts is none of them.
    let ends = ends.lock().unwrap().clone();
    drop(desk);
    assert!(!ends.is_empty());
    assert!(ends.iter().all(|end| *end == Err(std::io::ErrorKind::ConnectionReset)), "{ends:?}");
}

/// R8.1-1: a member that fails `fall` times in a row is down, after `rise` successes up again;
/// R7.1-1, R8.3-1, R8.5-1: probes come once a delay, from the one prober of the process (C27).
#[test]
fn members_go_down_and_come_back() {
    let healthy = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&healthy);
    let member = Member::answering(move |_| {
        let status = if flag.load(Relaxed) { "200 OK" } else { "503 No" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let desk = Desk::start(vec![target(5, member.address, http("/", "", Codes::one(200)))]);
    assert_eq!(desk.next(), (5, true));
    healthy.store(false, Relaxed);
    let begin = clock::mono();
    assert_eq!(desk.next(), (5, false));
    healthy.store(true, Relaxed);
    assert_eq!(desk.next(), (5, true));
    let took = clock::mono().since(begin).as_secs_f64();
    assert!(took >= 2.0, "two probes each way, a second apart: {took}");
    assert_eq!(member.seen.load(Relaxed), 5);
}

/// R8.1-11, R8.1-13, R8.1-14, R8.1-21, R8.1-22, R8.2-23: path, Host and port of the monitor are
/// used, the method is GET, and the codes decide.
#[test]
fn http_probes_ask_as_the_monitor_says() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heads);
    let member = Member::answering(move |head| {
        log.lock().unwrap().push(head.to_owned());
        let right = head.contains("\r\nHost: a.example\r\n");
        format!("HTTP/1.1 {}\r\n\r\n", if right { "202 Yes" } else { "404 No" })
    });
    let codes = Codes::new([(200, 200), (202, 202), (401, 401)]).unwrap();
    let on_port = |monitor: Monitor| Monitor { port: Some(member.address.port()), ..monitor };
    let desk = Desk::start(vec![
        target(1, closed(), on_port(http("/chat/try/", "a.example", codes.clone()))),
        target(2, closed(), on_port(http("/chat/try/", "", codes))),
        target(3, closed(), on_port(http("/chat/try/", "a.example", Codes::one(200)))),
    ]);
    let mut first = [desk.next(), desk.next(), desk.next()];
    first.sort_unstable();
    assert_eq!(first, [(1, true), (2, false), (3, false)]);
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("GET /chat/try/ HTTP/1.1\r\n")), "{heads:?}");
}

/// R8.1-24: an HTTP/1.0 answer without a length is an answer; each kind of bad member is down, and
/// the prober is done with it in time.
#[test]
fn strange_members() {
    let say = |text: &'static str| Member::answering(move |_| text.to_owned());
    let silent = Member::start(std::mem::forget);
    let endless = Member::start(|mut stream| {
        std::thread::spawn(move || {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n");
            while stream.write_all(b"X: y\r\n").is_ok() {}
        });
    });
    let drip = Member::start(|mut stream| {
        std::thread::spawn(move || {
            while stream.write_all(b"H").is_ok() {
                std::thread::park_timeout(Duration::from_millis(300));
            }
        });
    });
    let members = [
        (say("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nbody to the end"), true),
        (say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), true),
        (say("SSH-2.0-OpenSSH\r\n"), false),
        (say("HTTP/1.1 2"), false),
        (say(""), false),
        (silent, false),
        (endless, false),
        (drip, false),
    ];
    let ok = || http("/", "", Codes::one(200));
    let targets = (1..).zip(&members).map(|(key, (m, _))| target(key, m.address, ok())).collect();
    let begin = clock::mono();
    let desk = Desk::start(targets);
    let mut verdicts: Vec<(u64, bool)> = members.iter().map(|_| desk.next()).collect();
    verdicts.sort_unstable();
    let wanted: Vec<(u64, bool)> = (1..).zip(&members).map(|(key, (_, up))| (key, *up)).collect();
    assert_eq!(verdicts, wanted);
    assert!(clock::mono().since(begin) < SECOND * 8, "a second to begin, a second each");
}

/// A port whose queue of connections is full: SYNs are dropped. The queue goes with what is
/// returned.
fn overloaded() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
    let queued = std::iter::from_fn(connect).collect();
    (socket, queued, address)
}

/// The codes of the ELB as real sockets bring them about, with what was expected and what came.
/// Handshakes are seen in `tests/secured`, requests that nobody acknowledges in `tests/resources`.
#[test]
fn each_way_to_fail_has_its_code() {
    let say = |text: &'static str| Member::answering(move |_| text.to_owned());
    let reset = |read: bool| {
        Member::start(move |mut stream| {
            if read {
                stream.read_exact(&mut [0; 16]).unwrap();
            }
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
    };
    let silent = Member::start(std::mem::forget);
    let (_socket, _queued, overloaded) = overloaded();
    let members =
        [reset(true), reset(false), say("HTT"), say("SSH-2.0-x\r\n"), say("HTTP/1.1 404 No\r\n")];
    let [cut, at_once, short, ssh, missing] = [0, 1, 2, 3, 4].map(|at: usize| members[at].address);
    // Nobody may connect to all hosts of a network: the kernel says that it has no way there.
    let nowhere = "255.255.255.255:9".parse().unwrap();
    let cases: [(SocketAddr, &[Code]); 9] = [
        (overloaded, &[Code::ConnectTimeout]),
        (closed(), &[Code::ConnectRefused]),
        (nowhere, &[Code::ConnectFailed]),
        (cut, &[Code::ConnectInterrupt]),
        // Which of the two depends on whether the request was faster than the reset.
        (at_once, &[Code::ConnectInterrupt, Code::SendRequestFailed]),
        (short, &[Code::RecvResponseFailed]),
        (silent.address, &[Code::RecvResponseTimeout]),
        (ssh, &[Code::ResponseFormatError]),
        (missing, &[Code::ResponseMismatch]),
    ];
    let check = || http("/", "", Codes::one(200));
    let targets = (1..).zip(&cases).map(|(key, (at, _))| target(key, *at, check())).collect();
    let desk = Desk::start(targets);
    for _ in &cases {
        assert!(!desk.next().1);
    }
    let failing = desk.counters.failing();
    for (key, (at, codes)) in (1..).zip(&cases) {
        let reason = &failing[&handle(key)];
        assert!(codes.contains(&reason.code()), "{at}: {reason}");
    }
    let compared = failing[&handle(9)].compared();
    assert_eq!(compared, Some(("200".to_owned(), "404".to_owned())));
    assert!(desk.counters.failures().map(|(_, n)| n).sum::<u64>() >= 9);
    desk.set(Vec::new());
    let until = clock::mono().plus(SOON);
    while !desk.counters.failing().is_empty() {
        assert!(clock::mono() < until, "who is not checked any more has failed nothing");
    }
}

/// While the prober's thread stands still no time passes for members: one that answers as soon as
/// the prober looks again is well, however long ago the timeout should have been over.
#[test]
fn a_prober_that_stands_still_blames_nobody() {
    let (asked, heard) = channel();
    let (go, may_answer) = channel::<()>();
    let member = Member::answering(move |_| {
        let _over = asked.send(());
        let _at_once = may_answer.recv_timeout(SOON);
        "HTTP/1.1 200 OK\r\n\r\n".to_owned()
    });
    let check = Monitor { timeout: SECOND * 2, fall: 1, ..http("/", "", Codes::one(200)) };
    let served = Target { up: true, ..target(1, member.address, check) };
    let desk = Desk::start(vec![served]);
    heard.recv_timeout(SOON).unwrap();
    let (tell, awake) = channel();
    let order: Order = Box::new(move |_| {
        let end = clock::mono().plus(SECOND * 3);
        while clock::mono() < end {
            std::thread::park_timeout(end.since(clock::mono()));
        }
        tell.send(()).unwrap();
    });
    assert!(desk.orders.as_ref().unwrap().try_send(order).is_ok());
    awake.recv_timeout(SOON).unwrap();
    drop(go);
    assert_eq!(desk.next(), (1, true), "{:?}", desk.counters.failing());
}

/// R8.1-17: who isn't a target isn't asked; C36: who served before stays up until its checks find
/// otherwise; what changes about a target doesn't begin its check anew.
#[test]
fn targets_come_change_and_go() {
    let a = Member::start(drop);
    let tcp = || monitor(MonitorKind::Tcp);
    let desk = Desk::start(vec![target(1, a.address, tcp())]);
    assert_eq!(desk.next(), (1, true));
    let served = Target { up: true, ..target(2, closed(), tcp()) };
    desk.set(vec![target(1, a.address, Monitor { fall: 5, ..tcp() }), served]);
    assert_eq!(desk.next(), (2, true), "the first failure, of two");
    assert_eq!(desk.next(), (2, false));
    desk.set(Vec::new());
    desk.quiet(SECOND * 2);
    let seen = a.seen.load(Relaxed);
    desk.quiet(SECOND * 2);
    assert!(a.seen.load(Relaxed) <= seen, "nobody is asked any more");
}

/// What another process has found holds for those who are checked next; whoever comes later begins
/// anew.
#[test]
fn a_past_that_nobody_takes_is_forgotten() {
    let gone = closed();
    let up = move |key| Target { up: true, ..target(key, gone, monitor(MonitorKind::Tcp)) };
    let desk = Desk::start(Vec::new());
    let order: Order = Box::new(move |prober| {
        let past = |key| (handle(key), Past { known: true, against: 1 });
        prober.go_on_from([past(1), past(2)]);
        prober.set_targets(vec![up(2)]);
    });
    assert!(desk.orders.as_ref().unwrap().try_send(order).is_ok());
    assert_eq!(desk.next(), (2, false), "it had failed once");
    desk.set(vec![up(1)]);
    assert_eq!([desk.next(), desk.next()], [(1, true), (1, false)]);
}

/// R8.6-1: members that join have the whole delay for their first probe; as soon as somebody waits
/// for their verdicts they are asked within a second.
#[test]
fn who_is_waited_for_is_asked_soon() {
    let a = Member::start(drop);
    let slow = || Monitor { delay: Duration::from_secs(50), ..monitor(MonitorKind::Tcp) };
    let targets =
        |first| (1..9).map(|n| Target { first, ..target(n, a.address, slow()) }).collect();
    let desk = Desk::start(targets(First::AtRandom));
    desk.set(targets(First::Soon));
    let mut up: Vec<u64> = (1..9).map(|_| desk.next().0).collect();
    up.sort_unstable();
    assert_eq!(up, [1, 2, 3, 4, 5, 6, 7, 8]);
    desk.set(targets(First::AtRandom));
    desk.set(targets(First::Soon));
    desk.quiet(SECOND * 2);
    assert_eq!(a.seen.load(Relaxed), 8, "who has a verdict keeps its pace");
}

/// Probes beyond the bound are late and nothing else: everybody gets a verdict, in order, although
/// silent members hold their places for a second each.
#[test]
fn probes_beyond_the_bound_wait_their_turn() {
    let silent = Member::start(std::mem::forget);
    let open = Member::start(drop);
    let ok = || http("/", "", Codes::one(200));
    let slow = (1..=4).map(|key| target(key, silent.address, ok()));
    let tcp = (5..=8).map(|key| target(key, open.address, monitor(MonitorKind::Tcp)));
    let desk = Desk::with(2, slow.chain(tcp).collect());
    let mut verdicts: Vec<(u64, bool)> = (0..8).map(|_| desk.next()).collect();
    verdicts.sort_unstable();
    let wanted: Vec<(u64, bool)> = (1..=8).map(|key| (key, key > 4)).collect();
    assert_eq!(verdicts, wanted);
}

/// Many members every five seconds: what that costs of a core. Ten thousand with the full counts of
/// `tests/soak`, where the figure means something.
#[test]
fn ten_thousand_members_cost_little() {
    let full = std::env::var_os("WEIR_COUNTS").is_some_and(|v| v == "full");
    let (count, time) = if full { (10_000, 20) } else { (500, 5) };
    // As many listeners as members would be a question of descriptors: a few stand for all.
    let members: Vec<Member> = (0..64).map(|_| Member::start(drop)).collect();
    let (delay, timeout) = (Duration::from_secs(5), Duration::from_secs(3));
    let every = Monitor { delay, timeout, ..monitor(MonitorKind::Tcp) };
    let mut handles = Handles::default();
    let target = |n: usize| {
        let address = members[n % members.len()].address;
        Target { key: handles.fresh(), ..target(1, address, every.clone()) }
    };
    let desk = Desk::start((0..count).map(target).collect());
    let mut up = std::collections::HashSet::new();
    while up.len() < count {
        let (key, is_up) = desk.next();
        assert!(!is_up || up.insert(key));
    }
    let look = || {
        let seen: u64 = members.iter().map(|member| member.seen.load(Relaxed)).sum();
        (clock::mono(), desk.ticks(), seen)
    };
    let (begin, before, probes) = look();
    desk.quiet(Duration::from_secs(time));
    let (end, after, more) = look();
    let seconds = end.since(begin).as_secs_f64();
    let share = (after - before) as f64 / seconds;
    let rate = (more - probes) as f64 / seconds / (count as f64 / 5.0);
    println!(
        "{count} members every 5 s: {:.0} % of all probes, {share:.1} % of a core",
        rate * 100.0
    );
    assert!((0.5..1.3).contains(&rate), "{rate}");
    let most = if full { 10.0 } else { 50.0 };
    assert!(share <= most, "{share} % of a core, at most {most}");
}
