//! What the tests of HTTP forwarding share: a shard with a `Service`, scripted members and raw
//! clients, all on loopback, all with deadlines.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use weir_core::cert::Store;
use weir_core::control::State;
use weir_core::model::{self, Config, Handle, Handles};
use weir_core::obs::{Board, ListenerCounters, MemberCounters, Spool};
use weir_core::rt;
use weir_core::table::View;
use weir_core::time::clock;
use weir_l7::Service;

/// Longest wait for anything that should come at once.
pub const SOON: Duration = Duration::from_secs(10);

/// A listener's settings with test-friendly limits.
pub fn listener() -> model::Listener {
    model::Listener {
        id: model::Id::from_u128(1),
        name: "web".into(),
        default_pool: Some(0),
        keepalive_timeout: Duration::from_secs(30),
        client_timeout: Duration::from_secs(30),
        member_timeout: Duration::from_secs(30),
        ..model::Listener::default()
    }
}

/// A configuration of one listener with one pool of `members` (address, weight).
pub fn config(listener: model::Listener, members: &[(SocketAddr, u8)]) -> Config {
    let member = |(at, &(address, weight)): (usize, &(SocketAddr, u8))| model::Member {
        id: model::Id::from_u128(100 + at as u128),
        name: format!("m{at}"),
        address,
        weight,
    };
    Config {
        listeners: vec![listener],
        pools: vec![model::Pool {
            id: model::Id::from_u128(2),
            name: "app".into(),
            members: members.iter().enumerate().map(member).collect(),
            ..model::Pool::default()
        }],
        ..Config::default()
    }
}

/// What a test may ask of the shard.
pub enum Ask {
    Drain,
    /// Waits until no connection is served, then answers.
    Idle(mpsc::Sender<()>),
    Active(mpsc::Sender<usize>),
    /// Runs something on the shard.
    Run(Box<dyn FnOnce() + Send>),
    Stop,
}

/// The desired state of a configuration, and who counts what in it.
#[derive(Clone)]
pub struct Plot {
    state: State,
    board: Arc<Board>,
    /// In file order.
    members: Vec<Handle>,
}

impl Plot {
    fn new(config: &Config, store: &Store) -> Plot {
        let handles = &mut Handles::default();
        let state = State::default().next_with(config, store, &|_| vec![0], handles);
        let members: Vec<Handle> = state.members().map(|(_, member)| member.handle).collect();
        let listeners = state.listeners().map(|(handle, _)| handle);
        let board = Board::default().next(1, listeners, members.iter().copied());
        let logs = state.listeners().filter_map(|(_, listener)| listener.log.access.as_ref());
        let spool = |log: &model::AccessLog| (log.target.clone(), Arc::new(Spool::new(1)));
        let board = board.with_spools(logs.map(spool).collect());
        Plot { board: Arc::new(board), members, state }
    }

    pub fn listener(&self) -> Handle {
        self.state.listeners().next().unwrap().0
    }

    /// What the shard counts of the listener.
    pub fn counters(&self) -> &ListenerCounters {
        &self.board.listener(self.listener())[0]
    }

    /// What a shard sees of it.
    pub fn view(&self) -> View {
        let view = View::new(0, 7);
        view.apply(&State::default().diff(&self.state), &self.board, clock::mono(), false);
        view
    }
}

/// A running shard.
pub struct Shard {
    pub address: SocketAddr,
    pub ring: Arc<rt::RingStats>,
    pub plot: Plot,
    asks: rt::Sender<Ask>,
    handle: Option<rt::ShardHandle<rt::Audit>>,
}

impl Shard {
    pub fn start(config: Config) -> Shard {
        Shard::start_with(config, &Store::default())
    }

    /// With certificates.
    pub fn start_with(config: Config, store: &Store) -> Shard {
        let plot = Plot::new(&config, store);
        let ring: Arc<rt::RingStats> = Arc::default();
        let (asks, receiver) = rt::mailbox(64);
        let (tell, told) = mpsc::channel();
        let shared = plot.clone();
        let shard = rt::ShardConfig {
            name: "test-shard".into(),
            core: None,
            stats: Arc::clone(&ring),
            ..rt::ShardConfig::default()
        };
        let handle = rt::start_shard(shard, move || main(shared, receiver, tell)).unwrap();
        let address = told.recv_timeout(SOON).unwrap();
        Shard { address, ring, plot, asks, handle: Some(handle) }
    }

    /// One listener with one pool.
    pub fn with(members: &[(SocketAddr, u8)]) -> Shard {
        Shard::start(config(listener(), members))
    }

    pub fn ask(&self, ask: Ask) {
        assert!(self.asks.try_send(ask).is_ok(), "the shard is gone");
    }

    pub fn active(&self) -> usize {
        let (tell, told) = mpsc::channel();
        self.ask(Ask::Active(tell));
        told.recv_timeout(SOON).unwrap()
    }

    pub fn wait_idle(&self) {
        let (tell, told) = mpsc::channel();
        self.ask(Ask::Idle(tell));
        told.recv_timeout(SOON).unwrap();
    }

    /// Runs `work` on the shard and returns what it returns.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.ask(Ask::Run(Box::new(move || tell.send(work()).unwrap())));
        told.recv_timeout(SOON).unwrap()
    }

    /// What the shard has logged to standard output since it was asked last.
    pub fn logged(&self) -> String {
        let spool = self.plot.board.spool(&model::LogTarget::Standard).unwrap();
        let (pipe, mut blocks) = (spool.pipe(0).unwrap(), Vec::new());
        pipe.take(&mut blocks);
        let text = blocks.iter().flat_map(|block| block.text.clone()).collect();
        blocks.into_iter().for_each(|block| pipe.give_back(block));
        String::from_utf8(text).unwrap()
    }

    pub fn counters(&self) -> &ListenerCounters {
        self.plot.counters()
    }

    pub fn member(&self, at: usize) -> &MemberCounters {
        &self.plot.board.member(self.plot.members[at])[0]
    }

    /// How often `status` was answered.
    pub fn status(&self, status: u16) -> u64 {
        self.counters().statuses.seen().find(|&(code, _)| code == status).map_or(0, |(_, n)| n)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends `request` on a connection of its own and returns the answer.
    pub fn once(&self, request: &str) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let _ = self.asks.try_send(Ask::Stop);
        let ended = self.handle.take().map(rt::ShardHandle::join);
        if !thread::panicking() {
            let audit = ended.unwrap().unwrap();
            // The main task; accepted streams and everything else must be gone.
            assert_eq!(audit.streams, 0, "{audit:?}");
            assert_eq!(audit.leases, 0, "{audit:?}");
        }
    }
}

async fn main(
    plot: Plot,
    mut asks: rt::Receiver<Ask>,
    tell: mpsc::Sender<SocketAddr>,
) -> rt::Audit {
    let options = rt::ListenOptions { backlog: 128, reuse_port: false };
    let listener = rt::TcpListener::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    tell.send(listener.local_addr().unwrap()).unwrap();
    let site = plot.view().site(plot.listener()).unwrap();
    let service = Service::start();
    let serving = Rc::clone(&service);
    let accepting = rt::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let ticket = site.admit(peer.ip(), rt::now()).unwrap();
            rt::spawn(Rc::clone(&serving).serve(ticket, stream, peer));
        }
    });
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Drain => service.begin_drain(),
            Ask::Idle(tell) => {
                let service = Rc::clone(&service);
                rt::spawn(async move {
                    service.idle().await;
                    let _ = tell.send(());
                });
            }
            Ask::Active(tell) => tell.send(service.active()).unwrap(),
            Ask::Run(work) => work(),
            Ask::Stop => break,
        }
    }
    accepting.abort();
    // Clients of a test that is over have closed, or do so now.
    let _ = rt::timeout(SOON, service.idle()).await;
    drop(service);
    // What was dropped is cancelled and closed by the ring within a few turns.
    for _ in 0..1_000 {
        let audit = rt::audit();
        if audit.streams == 0 && audit.leases == 0 {
            break;
        }
        rt::sleep(Duration::from_millis(5)).await;
    }
    rt::audit()
}

/// A scripted member: every connection is handed to the script, in a thread of its own.
pub struct Member {
    pub address: SocketAddr,
    /// Connections accepted.
    pub accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Member {
    /// `script` is given each connection and its number, from 0.
    pub fn start(script: impl Fn(Conn, usize) + Send + Sync + 'static) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&accepted));
        let script = Arc::new(script);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                thread::spawn(move || script(Conn::new(stream), number));
            }
        });
        Member { address, accepted, stop, thread: Some(thread) }
    }

    /// Answers every request with 200 and `METHOD target body-length` as body.
    pub fn echo() -> Member {
        Member::start(|mut conn, _| {
            while let Some(request) = conn.request() {
                let body = format!("{} {}", request.line(), request.body.len());
                conn.send(ok(&body));
            }
        })
    }

    /// Answers every request with the same bytes.
    pub fn fixed(answer: &'static str) -> Member {
        Member::start(move |mut conn, _| {
            while conn.request().is_some() {
                conn.send(answer);
            }
        })
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A 200 with a length.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request as a member saw it.
#[derive(Debug)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// "METHOD target".
    pub fn line(&self) -> &str {
        self.head.split(" HTTP/").next().unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// An answer as a client saw it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn closes(&self) -> bool {
        self.field("Connection") == Some("close")
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The reading and writing end of either side.
pub struct Conn {
    pub reader: BufReader<TcpStream>,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Conn { reader: BufReader::new(stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends; a broken connection is for the reader to find.
    pub fn send(&mut self, data: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(data.as_ref());
    }

    pub fn finish(&mut self) {
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Makes the close that follows a reset.
    pub fn reset(self) {
        let stream = self.reader.into_inner();
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next head, its last empty line included; `None` at the end of the stream.
    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let before = head.len();
            match self.reader.read_line(&mut head) {
                Ok(0) | Err(_) => return None,
                Ok(_) if head.len() == before + 2 && head.ends_with("\r\n") => return Some(head),
                Ok(_) => assert!(head.ends_with("\r\n"), "bare LF in {head:?}"),
            }
        }
    }

    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.try_exactly(n).expect("so many bytes")
    }

    fn try_exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        let mut data = vec![0; n];
        self.reader.read_exact(&mut data).ok()?;
        Some(data)
    }

    fn try_chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            if line.is_empty() {
                return None;
            }
            let size = usize::from_str_radix(line.trim_end_matches("\r\n"), 16).unwrap();
            body.extend(self.try_exactly(size)?);
            assert_eq!(self.try_exactly(2)?, b"\r\n");
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// The body that `head` announces, an empty one if it announces none; `None` when it is cut.
    fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        if let Some(length) = field(head, "Content-Length") {
            return self.try_exactly(length.parse().unwrap());
        }
        if field(head, "Transfer-Encoding").is_some() { self.try_chunked() } else { Some(vec![]) }
    }

    /// The next whole request; `None` when the balancer has closed.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some(Request { head, body })
    }

    /// Everything until the end of the stream; an error (reset, timeout) is handed back.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut data = Vec::new();
        self.reader.read_to_end(&mut data).map(|_| data)
    }
}

/// A raw client.
pub struct Client {
    pub conn: Conn,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client { conn: Conn::new(TcpStream::connect(address).unwrap()) }
    }

    pub fn send(&mut self, data: impl AsRef<[u8]>) {
        self.conn.send(data);
    }

    /// The next answer, to anything but HEAD.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head();
        let bodiless = answer.status < 200 || answer.status == 204 || answer.status == 304;
        let delimited = answer.field("Content-Length").or(answer.field("Transfer-Encoding"));
        if !bodiless {
            answer.body = match delimited {
                Some(_) => self.conn.body(&answer.head).expect("a whole body"),
                None => self.conn.rest().expect("a clean end"),
            };
        }
        answer
    }

    /// The next answer's head only.
    pub fn answer_head(&mut self) -> Answer {
        let head = self.conn.head().expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        Answer { status, head, body: Vec::new() }
    }

    /// Asserts that nothing but the end of the stream follows.
    pub fn expect_end(&mut self) {
        assert_eq!(self.conn.rest().expect("a clean end"), b"");
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = clock::mono();
    while !condition() {
        assert!(clock::mono().since(start) < SOON, "never: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}
