//! Reloads of random configurations under load: no request is lost that should have lived, nothing
//! piles up, and in the end every shard's table is that of a fresh start with the last file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::process::{Client, LIMIT, Member, RUN_DIR, Server, count, pass_time};
use crate::{Dice, alone};

/// Members to choose from.
const MEMBERS: usize = 6;
/// Listeners that come and go beside the one that stays.
const SIDES: usize = 3;
const SEED: u64 = 0x7e1d;
/// From one new connection of a client to its next.
const PACE: Duration = Duration::from_millis(3);

/// What the clients together have seen.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    answers: AtomicU64,
    refused: AtomicU64,
    lost: Mutex<Vec<String>>,
}

impl Tally {
    fn ask(&self, who: &str, client: &mut Client, headers: &str) -> bool {
        let answer = client.try_send_with("/", headers).and_then(|()| client.answer());
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.answers.fetch_add(1, Relaxed);
                true
            }
            other => {
                self.lost.lock().unwrap().push(format!("{who}: {other:?}"));
                false
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed) || self.lost.lock().unwrap().len() > 20
    }
}

/// A random file: `web` always serves and has a usable member; all else may be there or not.
fn random(dice: &mut Dice, ports: &[u16], members: &[Member]) -> String {
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [compat]\npool_per_policy = \"shared\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n{}",
        random_cores(dice)
    );
    let pools = 1 + dice.below(4);
    let mut policies = String::new();
    for (at, port) in ports.iter().enumerate() {
        if at > 0 && dice.below(2) == 0 {
            continue;
        }
        let (pool, name) =
            (dice.below(pools), if at == 0 { "web".into() } else { format!("s{at}") });
        write!(
            text,
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"HTTP\"\n\
             protocol_port = {port}\ndefault_pool = \"p{pool}\"\nkeepalive_timeout = {}\n\
             member_timeout = {}\n",
            20 + dice.below(3),
            1 + dice.below(2)
        )
        .unwrap();
        if dice.below(2) == 0 {
            let most = 1_000 + dice.below(2);
            writeln!(text, "connection = {most}\nmax_header_bytes = {}", 8_000 + most).unwrap();
        }
        if dice.below(3) == 0 {
            let pool = dice.below(pools);
            policies += &format!(
                "[[l7policy]]\nname = \"y{at}\"\nlistener = \"{name}\"\naction = \
                 \"REDIRECT_TO_POOL\"\nredirect_pool = \"p{pool}\"\nrules = [{{ type = \
                 \"PATH\", compare_type = \"STARTS_WITH\", value = \"/\" }}]\n"
            );
        }
        if dice.below(3) == 0 {
            text += "ipgroup = { name = [\"near\"], type = \"white\" }\n";
        }
    }
    text += &policies;
    let more = ["", ", \"192.0.2.0/24\""][dice.below(2) as usize];
    writeln!(text, "[[ipgroup]]\nname = \"near\"\nip_list = [\"127.0.0.0/8\"{more}]").unwrap();
    for pool in 0..pools {
        random_pool(dice, pool, members, &mut text);
    }
    text
}

/// Mostly all cores; now and then one alone serves, and the others' sockets are closed.
fn random_cores(dice: &mut Dice) -> String {
    let cores = weir_core::net::sys::allowed_cores().unwrap();
    match dice.below(6) {
        0 => format!("cores = [{}]\n", cores[dice.below(cores.len() as u64) as usize]),
        _ => String::new(),
    }
}

/// A pool of some members, the first of which is usable.
fn random_pool(dice: &mut Dice, pool: u64, members: &[Member], text: &mut String) {
    let algorithm =
        ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"][dice.below(ALGORITHMS) as usize];
    write!(
        text,
        "[[pool]]\nname = \"p{pool}\"\nprotocol = \"HTTP\"\nlb_algorithm = \"{algorithm}\"\n"
    )
    .unwrap();
    if dice.below(2) == 0 {
        let delay = 1 + dice.below(3);
        let monitor = format!("{{ type = \"TCP\", delay = {delay}, timeout = 1 }}");
        writeln!(text, "healthmonitor = {monitor}").unwrap();
    }
    let first = dice.below(MEMBERS as u64) as usize;
    for at in 0..1 + dice.below(MEMBERS as u64) as usize {
        let member = &members[(first + at) % MEMBERS];
        let weight = if at == 0 { 1 + dice.below(9) } else { dice.below(4) };
        write!(
            text,
            "[[pool.members]]\nname = \"m{}\"\naddress = \"127.0.0.1\"\nprotocol_port = {}\n\
             weight = {weight}\n",
            (first + at) % MEMBERS,
            member.addr.port(),
        )
        .unwrap();
    }
}

/// How many of the three algorithms take part.
const ALGORITHMS: u64 = 3;

/// Requests on one connection that stays open over all reloads.
fn keep_asking(web: SocketAddr, tally: &Tally) {
    let mut client = Client::connect(web);
    while !tally.is_over() && tally.ask("kept", &mut client, "") {}
}

/// A new connection for each request.
fn ask_anew(web: SocketAddr, tally: &Tally) {
    while !tally.is_over() {
        match TcpStream::connect_timeout(&web, LIMIT) {
            Ok(stream) => {
                tally.ask("new", &mut Client::over(stream), "Connection: close\r\n");
            }
            Err(e) => tally.lost.lock().unwrap().push(format!("new: connect: {e}")),
        }
        pass_time(PACE);
    }
}

/// Connections to a listener that comes and goes: it may refuse, but whom it took it serves, also
/// after it was removed.
fn ask_side(side: SocketAddr, tally: &Tally) {
    while !tally.is_over() {
        match TcpStream::connect_timeout(&side, LIMIT) {
            Ok(stream) => {
                let mut client = Client::over(stream);
                for _ in 0..20 {
                    if tally.is_over() || !tally.ask("side", &mut client, "") {
                        break;
                    }
                    pass_time(PACE);
                }
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                tally.refused.fetch_add(1, Relaxed);
                pass_time(PACE);
            }
            Err(e) => tally.lost.lock().unwrap().push(format!("side: connect: {e}")),
        }
    }
}

/// What each shard's table says.
fn tables(server: &Server) -> BTreeMap<usize, Vec<String>> {
    let mut stream = UnixStream::connect(server.file.run_dir().join("control.sock")).unwrap();
    stream.write_all(b"{\"command\":\"tables\"}\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Descriptors and resident KiB once closed listeners have served their queues.
fn settled(server: &Server) -> (usize, u64) {
    let looks = (0..20).map(|_| {
        pass_time(Duration::from_millis(100));
        server.descriptors()
    });
    (looks.min().unwrap(), server.memory("VmRSS"))
}

/// R3.8-1, R6.3-2, R7.14-1, R5.12-1: reloads under load.
#[test]
fn random_reloads_lose_nothing() {
    let _turn = alone();
    let members: Vec<Member> =
        ["a", "b", "c", "d", "e", "f"].into_iter().map(Member::start).collect();
    let held: Vec<TcpListener> =
        (0..=SIDES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
    drop(held);
    let mut dice = Dice::new(SEED);
    let mut text = random(&mut dice, &ports, &members);
    let server = Server::start(&text);
    let tally = Arc::new(Tally::default());
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    type Load = fn(SocketAddr, &Tally);
    let mut loads: Vec<(u16, Load)> =
        vec![(ports[0], keep_asking), (ports[0], keep_asking), (ports[0], ask_anew)];
    loads.extend(ports[1..].iter().map(|&port| (port, ask_side as Load)));
    let clients: Vec<_> = loads
        .into_iter()
        .map(|(port, load)| {
            let tally = Arc::clone(&tally);
            std::thread::spawn(move || load(at(port), &tally))
        })
        .collect();
    let rounds = count(60, 1_000);
    let mut early = (0, 0);
    for round in 0..rounds {
        text = random(&mut dice, &ports, &members);
        let (code, out, err) = server.reload(&text);
        assert_eq!(code, Some(0), "reload {round}: {out}{err}\n{text}");
        assert!(!tally.is_over(), "reload {round}: {:?}", tally.lost.lock().unwrap());
        if round == rounds / 5 {
            early = settled(&server);
        }
    }
    let late = settled(&server);
    tally.over.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let lost = tally.lost.lock().unwrap();
    assert!(lost.is_empty(), "{lost:?}");
    println!(
        "{rounds} reloads: {} answers, {} refused by removed listeners, none lost; descriptors \
         {} → {}, resident {} → {} KiB",
        tally.answers.load(Relaxed),
        tally.refused.load(Relaxed),
        early.0,
        late.0,
        early.1,
        late.1
    );
    assert!(late.0 <= early.0 + 60, "descriptors: {early:?} → {late:?}");
    assert!(late.1 <= early.1 + 8 * 1024, "resident KiB: {early:?} → {late:?}");
    let reloaded = tables(&server);
    server.signal("TERM");
    server.wait();
    let fresh = tables(&Server::start(&text));
    assert!(!fresh.is_empty());
    assert_eq!(reloaded, fresh, "{text}");
}
