//! Session stickiness from outside, with real programs: the acceptance procedure of the FAQ
//! (R11.3-1, R11.3-2, C25, R11.1-1), a member that is killed (R11.2-2), a weight of 0 (C12), a
//! reload and a restart; on all shards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use process::{Client, LIMIT, Member, RUN_DIR, Server, config, run, until};

/// `python3 -m http.server` in a folder with one file; dropping it kills it.
struct Python {
    child: Child,
    addr: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Python {
    fn start(file: &str) -> Python {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), "").unwrap();
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]);
        command.arg(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // "Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ..."
        let port = line.split(" port ").nth(1).unwrap().split(' ').next().unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        Python { child, addr, _folder: folder }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

fn two_members() -> [Python; 2] {
    ["1.file", "2.file"].map(Python::start)
}

fn file(flavor: &str, persistence: &str, members: &[(&Python, u8)], run_dir: &str) -> String {
    let members: Vec<_> = members.iter().map(|(member, weight)| (member.addr, *weight)).collect();
    text_for(flavor, persistence, &members).replace(RUN_DIR, run_dir)
}

fn text_for(flavor: &str, persistence: &str, members: &[(SocketAddr, u8)]) -> String {
    let text = config("\"auto\"", 5, 0, members);
    let text = text.replace("vip_address", &format!("flavor = \"{flavor}\"\nvip_address"));
    let sticky = format!("lb_algorithm = \"ROUND_ROBIN\"\nsession_persistence = {persistence}");
    text.replace("lb_algorithm = \"ROUND_ROBIN\"", &sticky)
}

/// Which file `curl` sees listed; each run is a connection of its own, on whichever shard.
fn listed(web: SocketAddr, cookie: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20"]).args(cookie).arg(format!("http://{web}/"));
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "{err}");
    let found = ["1.file", "2.file"].into_iter().find(|name| out.contains(name));
    found.unwrap_or_else(|| panic!("no file listed:\n{out}")).to_owned()
}

const APPLICATION: &str = "{ type = \"APP_COOKIE\", cookie_name = \"name\" }";
const BALANCER: &str = "{}";

/// R11.3-1, R11.3-2, C25: two hosts that list `1.file` and `2.file`, and
/// `curl --cookie "name=abcd"`: always the same one; other values may go to the other host.
#[test]
fn the_acceptance_procedure() {
    let [one, two] = &two_members();
    let server = Server::start(&file("shared", APPLICATION, &[(one, 1), (two, 1)], RUN_DIR));
    let first = listed(server.web, &["--cookie", "name=abcd"]);
    for _ in 1..20 {
        assert_eq!(listed(server.web, &["--cookie", "name=abcd"]), first);
    }
    let others: BTreeSet<String> =
        (0..12).map(|n| listed(server.web, &["--cookie", &format!("name=efgh{n}")])).collect();
    assert_eq!(others.len(), 2, "all values went to {others:?}");
    assert_eq!(server.metric("weir_sticky_requests_total{listener=\"web\",result=\"hit\"}"), 19.0);
}

/// R11.3-1, R2.2-5, C12: the same with a jar for Weir's own cookie, over a reload that takes all
/// weight from the bound member, and over a restart.
#[test]
fn the_cookie_jar() {
    let [one, two] = &two_members();
    let folder = tempfile::tempdir().unwrap();
    let jar = folder.path().join("jar");
    let jar = jar.to_str().unwrap();
    let run_dir = folder.path().join("run");
    let text = |weights: [u8; 2]| {
        let members = [(one, weights[0]), (two, weights[1])];
        file("dedicated", BALANCER, &members, run_dir.to_str().unwrap())
    };
    let with_jar = |web| listed(web, &["-c", jar, "-b", jar]);
    let server = Server::start(&text([1, 1]));
    let first = with_jar(server.web);
    assert!((0..20).all(|_| with_jar(server.web) == first));
    assert_jar(jar);
    let anew: BTreeSet<String> = (0..20).map(|_| listed(server.web, &[])).collect();
    assert_eq!(anew.len(), 2, "without a cookie the weights decide");
    // R6.1-3, C12: weight 0 drops the binding, and the next one holds when it is taken back.
    let off = if first == "1.file" { [0, 1] } else { [1, 0] };
    for weights in [off, [1, 1]] {
        let (code, out, err) = server.reload(&text(weights));
        assert_eq!(code, Some(0), "{out}{err}");
        assert!((0..10).all(|_| with_jar(server.web) != first));
    }
    let bound = with_jar(server.web);
    server.signal("TERM");
    server.wait();
    let server = Server::start(&text([1, 1]));
    assert!((0..10).all(|_| with_jar(server.web) == bound), "the restart ended the session");
}

/// R11.4-3: name and attributes as curl understood them, and no address in the value.
fn assert_jar(jar: &str) {
    let text = std::fs::read_to_string(Path::new(jar)).unwrap();
    let line = text.lines().find(|line| line.contains("LBSTICKY")).unwrap();
    assert!(line.starts_with("#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t"), "{line}");
    let value = line.rsplit('\t').next().unwrap();
    assert!(value.len() == 65 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{line}");
}

/// R11.2-2: the bound member is killed: the next request is answered by the other, and stays there.
#[test]
fn a_killed_member_loses_its_sessions() {
    for (flavor, persistence) in [("shared", APPLICATION), ("dedicated", BALANCER)] {
        let mut members = Vec::from(two_members());
        let server = {
            let list: Vec<_> = members.iter().map(|member| (member, 1)).collect();
            Server::start(&file(flavor, persistence, &list, RUN_DIR))
        };
        let folder = tempfile::tempdir().unwrap();
        let jar = folder.path().join("jar");
        let jar = jar.to_str().unwrap();
        let cookie: &[&str] = match flavor {
            "shared" => &["--cookie", "name=abcd"],
            _ => &["-c", jar, "-b", jar],
        };
        let first = listed(server.web, cookie);
        drop(members.remove(usize::from(first == "2.file")));
        for _ in 0..10 {
            assert_ne!(listed(server.web, cookie), first);
        }
        let hits = || server.counted("weir_sticky_requests_total{listener=\"web\",result=\"hit\"}");
        until("the new binding to be followed", || hits() >= 9.0);
    }
}

/// R2.2-4: who has a cookie stays at its member whatever address the balancer sees: through several
/// proxies, by their own addresses and by any that they name. (By the source's address it would
/// not: `tests/tcp/sticky.rs`.)
#[test]
fn a_cookie_holds_through_any_proxy() {
    let members = [Member::start("a"), Member::start("b"), Member::start("c")];
    let list: Vec<_> = members.iter().map(|member| (member.addr, 1)).collect();
    let proxies = "proxy_protocol = { accept = true, from = [\"127.0.3.0/24\"] }";
    for (flavor, persistence) in [("shared", APPLICATION), ("dedicated", BALANCER)] {
        let plain = text_for(flavor, persistence, &list);
        let told = plain.replace("[[pool]]", &format!("{proxies}\n[[pool]]"));
        let [plain, told] = [Server::start(&plain), Server::start(&told)];
        let through = |server: &Server, proxy: u8, header: &str, cookie: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 3, proxy], 0)).into()).unwrap();
            socket.connect_timeout(&server.web.into(), LIMIT).unwrap();
            let mut client = Client::over(socket.into());
            client.raw(header);
            client.send("/", cookie);
            client.answer().unwrap()
        };
        for (server, named) in [(&plain, false), (&told, true)] {
            let ask = |proxy: u8, cookie: &str| {
                let header = format!("PROXY TCP4 192.0.2.{proxy} 192.0.2.254 4711 80\r\n");
                through(server, proxy, if named { &header } else { "" }, cookie)
            };
            let first = ask(1, "Cookie: name=abcd\r\n");
            let set = first.head.lines().find_map(|line| line.strip_prefix("Set-Cookie: "));
            let own = set.map(|cookie| cookie.split(';').next().unwrap().to_owned());
            assert_eq!(own.is_some(), flavor == "dedicated");
            let cookie = format!("Cookie: {}\r\n", own.unwrap_or("name=abcd".to_owned()));
            let homes: BTreeSet<_> = (1..=16).map(|proxy| ask(proxy, &cookie).body).collect();
            assert_eq!(homes, BTreeSet::from([first.body]), "{flavor}");
            let anew: BTreeSet<_> = (1..=16).map(|proxy| ask(proxy, "").body).collect();
            assert!(anew.len() > 1, "without a cookie nothing binds: {anew:?}");
        }
    }
}
