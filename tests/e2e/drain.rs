//! SIGTERM under load: whoever has a connection gets whole answers; new ones are refused, not cut.

use std::io::{ErrorKind, Result};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_core::time::clock;

use crate::nginx::{Nginx, PAGE};
use crate::process::{Client, Member, Server, config, count, pass_time};
use crate::{Dice, alone, core_choices};

const KEPT: usize = 64;
const IDLE: usize = 16;
/// Time from one new connection to the next: 200 a second, also while the server drains.
const PACE: Duration = Duration::from_millis(5);
/// A client whose SYN is dropped tries again after 1 s and is refused then.
const PATIENCE: Duration = Duration::from_secs(4);

/// What all clients of one round share.
#[derive(Default)]
struct Round {
    draining: AtomicBool,
    gone: AtomicBool,
    losses: Mutex<Vec<String>>,
    counts: Mutex<[u64; 4]>,
}

const ANSWERS: usize = 0;
const CLOSES: usize = 1;
const REFUSED: usize = 2;
const FRESH: usize = 3;

impl Round {
    fn lose(&self, what: String) {
        let when = if self.draining.load(SeqCst) { "draining" } else { "before" };
        self.losses.lock().unwrap().push(format!("{what} ({when})"));
    }

    fn add(&self, what: usize) {
        self.counts.lock().unwrap()[what] += 1;
    }

    /// A connection; `None` when there are to be no more.
    fn connect(&self, web: SocketAddr) -> Option<Client> {
        match TcpStream::connect_timeout(&web, PATIENCE) {
            Ok(stream) => Some(Client::over(stream)),
            Err(e) => {
                if !self.draining.load(SeqCst) {
                    self.lose(format!("connect: {e}"));
                }
                self.add(REFUSED);
                None
            }
        }
    }

    /// One exchange; whether the connection goes on.
    fn ask(&self, client: &mut Client, path: &str, len: usize, headers: &str) -> Result<bool> {
        client.try_send_with(path, headers)?;
        let answer = client.answer()?;
        if answer.status != 200 || answer.body.len() != len {
            return Err(std::io::Error::other(format!("{answer:?}")));
        }
        self.add(ANSWERS);
        Ok(!answer.head.contains("\r\nConnection: close\r\n"))
    }
}

/// A closed loop on kept connections, a new one whenever the server says that it closes.
fn keep_asking(web: SocketAddr, round: &Round) {
    while let Some(mut client) = round.connect(web) {
        let mut asked = 0;
        let path = |n: u64| if n % 8 == 7 { ("/page", PAGE) } else { ("/", 1) };
        loop {
            let (path, len) = path(asked);
            match round.ask(&mut client, path, len, "") {
                Ok(true) => asked += 1,
                Ok(false) => break,
                Err(e) => return round.lose(format!("kept connection, request {asked}: {e}")),
            }
        }
        round.add(CLOSES);
        match client.end() {
            Ok(0) => {}
            other => {
                return round.lose(format!("kept connection, after the last answer: {other:?}"));
            }
        }
    }
}

/// One new connection with one request.
fn ask_once(web: SocketAddr, round: &Round, close: bool) {
    let Some(mut client) = round.connect(web) else { return };
    let headers = if close { "Connection: close\r\n" } else { "" };
    match round.ask(&mut client, "/page", PAGE, headers) {
        Ok(_) => round.add(FRESH),
        Err(e) => round.lose(format!("new connection: {e}")),
    }
}

/// New connections at an even pace, whatever becomes of those before, until the server is gone.
fn ask_anew(web: SocketAddr, round: &Arc<Round>) {
    let start = clock::mono();
    let mut asking = Vec::new();
    for n in 0.. {
        pass_time(start.plus(PACE * n).since(clock::mono()));
        if round.gone.load(SeqCst) {
            break;
        }
        let round = round.clone();
        asking.push(std::thread::spawn(move || ask_once(web, &round, n % 2 == 0)));
    }
    asking.into_iter().for_each(|one| one.join().unwrap());
}

fn one_round(nginx: &Nginx, cores: &str, seed: u64) {
    let server = Server::start(&config(cores, 20, 0, &[(nginx.addrs[0], 1)]));
    let (web, round) = (server.web, Arc::new(Round::default()));
    let idle: Vec<Client> = (0..IDLE)
        .map(|_| {
            let mut client = round.connect(web).unwrap();
            assert!(round.ask(&mut client, "/", 1, "").unwrap());
            client
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..KEPT {
        let round = round.clone();
        clients.push(std::thread::spawn(move || keep_asking(web, &round)));
    }
    let pacing = round.clone();
    clients.push(std::thread::spawn(move || ask_anew(web, &pacing)));
    pass_time(Duration::from_millis(300 + Dice::new(seed).below(900)));
    round.draining.store(true, SeqCst);
    server.signal("TERM");
    let (status, log, took) = server.wait();
    round.gone.store(true, SeqCst);
    clients.into_iter().for_each(|one| one.join().unwrap());
    for mut client in idle {
        // A FIN, not a reset.
        if let Err(e) = client.end() {
            round.lose(format!("idle connection: {e}"));
        }
    }
    let [answers, closes, refused, fresh] = *round.counts.lock().unwrap();
    println!(
        "cores {cores}, seed {seed}: {answers} answers, {closes} told to close, {fresh} new, \
         {refused} refused, gone after {took:?}"
    );
    let losses = round.losses.lock().unwrap();
    assert!(losses.is_empty(), "{cores}, seed {seed}: {} losses: {losses:#?}", losses.len());
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(fresh > 0 && closes > 0 && refused > 0);
}

/// 64 kept connections, 16 idle ones and 200 new ones a second: nobody who was connected is reset,
/// or left without a whole answer, wherever SIGTERM falls.
#[test]
fn a_drain_at_any_moment_loses_nothing() {
    let _turn = alone();
    let nginx = Nginx::start(&["n"]);
    for cores in core_choices() {
        (0..count(3, 20)).for_each(|seed| one_round(&nginx, cores, seed));
    }
}

/// With all shards busy and requests that hang, a second SIGTERM still stops at once.
#[test]
fn a_second_signal_stops_at_once_under_load() {
    let _turn = alone();
    let member = Member::shut("never");
    let server = Server::start(&config("\"auto\"", 60, 0, &[(member.addr, 1)]));
    let mut clients: Vec<Client> = (0..KEPT).map(|_| Client::connect(server.web)).collect();
    clients.iter_mut().for_each(|client| client.send("/", ""));
    member.wait_for(KEPT as u64);
    server.signal("TERM");
    pass_time(Duration::from_millis(200));
    server.signal("TERM");
    let (status, log, took) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for mut client in clients {
        match client.answer().map_err(|e| e.kind()) {
            Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {}
            other => panic!("{other:?}"),
        }
    }
}
