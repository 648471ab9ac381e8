//! Flows of UDP over an upgrade: each keeps its member and the port that the member sees, and no
//! datagram is lost; also where the new program fails in the last moment.

use std::net::{SocketAddr, UdpSocket};

use crate::late::{heir, heir_before_weir};
use crate::process::{LIMIT, RUN_DIR, address_after, count, signal, until};
use crate::{Line, Load, echo, is_alive};

/// Flows that a client has.
const EACH: usize = 12;

/// A UDP listener `name` for each of `pools`: its name, and more lines of its pool.
pub fn text(cores: &str, pools: &[(&str, &str)], members: &[SocketAddr]) -> String {
    let mut text = format!(
        "[runtime]\ncores = {cores}\nshutdown_timeout = 1\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n"
    );
    let member =
        |m: &SocketAddr| format!("{{ address = \"{}\", protocol_port = {} }}", m.ip(), m.port());
    let members: Vec<String> = members.iter().map(member).collect();
    for (name, lines) in pools {
        text += &format!(
            "[[listener]]\nname = \"{name}\"\nloadbalancer = \"front\"\nprotocol = \"UDP\"\n\
             protocol_port = 0\ndefault_pool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nprotocol = \"UDP\"\nlb_algorithm = \"ROUND_ROBIN\"\n\
             members = [{}]\n{lines}\n",
            members.join(", ")
        );
    }
    text
}

/// Flows, each with the member that it has and the port that this one sees.
struct Flows(Vec<(UdpSocket, String)>);

impl Flows {
    fn begin(dns: SocketAddr) -> Flows {
        let begin = |_| {
            let socket = echo::socket(dns);
            let home = echo::ask(&socket, "home").unwrap();
            (socket, home)
        };
        Flows((0..EACH).map(begin).collect())
    }

    /// All are answered by who answered first, who sees the same port.
    fn go_on(&self, words: &str) -> Result<(), String> {
        for (socket, home) in &self.0 {
            let now = echo::ask(socket, words).map_err(|e| format!("lost: {e}"))?;
            if now != *home {
                return Err(format!("moved from {home} to {now}"));
            }
        }
        Ok(())
    }

    /// On a thread, again and again.
    fn load(self) -> Load {
        let mut n = 0u64;
        Load::start(move || {
            n += 1;
            self.go_on(&n.to_string())
        })
    }
}

fn metric(line: &Line, name: &str) -> f64 {
    line.server.metric(name)
}

/// A flow lives on with its member and its upstream port, silent or busy, however often the
/// program is replaced.
#[test]
fn flows_keep_member_and_port() {
    let members = [echo::member(), echo::member(), echo::member()];
    let pools = [("dns", ""), ("told", "proxy_protocol = \"v2\"")];
    let mut line = Line::start(&text("\"auto\"", &pools, &members));
    let ready = line.server.ready.clone();
    let [dns, told] = ["dns udp://", "told udp://"].map(|words| address_after(&ready, words));
    let silent = Flows::begin(dns);
    let loads = [Flows::begin(dns).load(), Flows::begin(dns).load()];
    // Whom the member is told with the first datagram it is not told again.
    let header = b"\r\n\r\n\0\r\nQUIT\n";
    let told = echo::socket(told);
    let ask = |words: &[u8]| {
        let mut buf = [0; 2_048];
        told.send(words).unwrap();
        let len = told.recv(&mut buf).unwrap();
        let head = buf[..len].windows(header.len()).any(|part| part == header);
        let home = buf[..len].split(|byte| *byte == b' ').take(2).map(<[u8]>::to_vec);
        (head, home.collect::<Vec<_>>())
    };
    let (was_told, home) = ask(b"first");
    assert!(was_told);
    for _ in 0..count(3, 50) {
        loads.iter().for_each(|load| load.goes_on(2));
        line.upgrade(&[]);
        silent.go_on("silent").unwrap();
        assert_eq!(ask(b"again"), (false, home.clone()));
    }
    loads.iter().for_each(|load| load.goes_on(5));
    let lost: Vec<String> = loads.into_iter().flat_map(Load::end).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    let open = metric(&line, "weir_active_connections{listener=\"dns\"}");
    assert_eq!(open as usize, 3 * EACH, "each flow is there once");
    let begun = metric(&line, "weir_connections_total{listener=\"dns\"}");
    assert_eq!(begun, 0.0, "each was counted where it began");
    let (last, former) = line.pids.split_last().unwrap();
    until("the former ones' ends", || !former.iter().any(|pid| is_alive(*pid)));
    assert!(is_alive(*last));
}

/// A program that fails when it has been handed everything changes nothing: flows that were held up
/// go on where they are.
#[test]
fn flows_go_on_when_the_new_program_fails_late() {
    let folder = tempfile::tempdir().unwrap();
    let members = [echo::member(), echo::member()];
    let mut line = Line::start(&text("\"auto\"", &[("dns", "")], &members));
    let dns = address_after(&line.server.ready, "dns udp://");
    let program = heir(folder.path(), "fails");
    let silent = Flows::begin(dns);
    let load = Flows::begin(dns).load();
    for round in 0..count(3, 20) {
        load.goes_on(3);
        let (code, out, err) = line.try_upgrade(&["--program", &program]);
        let words = format!("{} flows were handed over", 2 * EACH);
        assert!(code == Some(1) && err.contains(&words), "{out}{err}");
        silent.go_on(&round.to_string()).unwrap();
        load.goes_on(3);
    }
    line.upgrade(&[]);
    load.goes_on(3);
    silent.go_on("last").unwrap();
    assert_eq!(load.end(), Vec::<String>::new());
}

/// A program that can't serve by one of the sockets gives back the flows that it has by the others:
/// that is no end of theirs, and the log has each when it ends indeed.
#[test]
fn flows_that_are_given_back_have_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("[connection_log]\npath = \"{RUN_DIR}.log\"\n");
    let text = text("[0, 1]", &[("dns", "")], &[echo::member()]) + &log;
    // Flows end in a drain by themselves, when they have been silent for a moment.
    let line = Line::start(&text.replace("shutdown_timeout = 1", "shutdown_timeout = 10"));
    let dns = address_after(&line.server.ready, "dns udp://");
    let program = heir_before_weir(folder.path(), "breaks");
    let flows = Flows::begin(dns);
    for round in 0..count(3, 20) {
        let (code, out, err) = line.try_upgrade(&["--program", &program]);
        assert!(code == Some(1) && err.contains("can't serve: shard 1"), "{out}{err}");
        flows.go_on(&round.to_string()).unwrap();
    }
    let path = line.server.file.run_dir().with_file_name("run.log");
    let ended = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    assert_eq!(ended(), 0, "flows that go on are in the log");
    signal(line.pids[0], "TERM");
    until("its end", || !is_alive(line.pids[0]));
    assert_eq!(ended(), EACH);
}

/// Flows follow the socket that the kernel gives them, to whatever shard: two of a former process
/// have one here.
#[test]
fn flows_follow_their_socket_to_other_shards() {
    let members = [echo::member(), echo::member()];
    let text = |cores| text(cores, &[("dns", "")], &members);
    let mut line = Line::start(&text("[0, 1]"));
    let dns = address_after(&line.server.ready, "dns udp://");
    let (silent, load) = (Flows::begin(dns), Flows::begin(dns).load());
    for cores in ["[1]", "[0]"] {
        line.server.file.write(&text(cores));
        line.upgrade(&[]);
        load.goes_on(5);
        silent.go_on("elsewhere").unwrap();
    }
    assert_eq!(load.end(), Vec::<String>::new());
}

/// A member that the file names no more has no flows after the upgrade; those of others stay, and a
/// listener that is deleted takes its flows with it.
#[test]
fn flows_of_a_member_that_is_gone_end() {
    let (stays, goes) = (echo::member(), echo::member());
    let mut line = Line::start(&text("\"auto\"", &[("dns", ""), ("other", "")], &[stays, goes]));
    let ready = line.server.ready.clone();
    let [dns, other] = ["dns udp://", "other udp://"].map(|words| address_after(&ready, words));
    let (flows, deleted) = (Flows::begin(dns), Flows::begin(other));
    line.server.file.write(&text("\"auto\"", &[("dns", "")], &[stays]));
    line.upgrade(&[]);
    let staying = stays.port().to_string();
    for (socket, home) in &flows.0 {
        let now = echo::ask(socket, "who").unwrap();
        assert!(now.starts_with(&staying), "{now}");
        assert!(!home.starts_with(&staying) || *home == now, "{home} moved to {now}");
    }
    let gone = flows.0.iter().filter(|(_, home)| !home.starts_with(&staying)).count();
    let ended = r#"weir_ended_connections_total{listener="dns",how="drained"}"#;
    assert_eq!(line.counted(ended) as usize, gone);
    let (socket, _) = &deleted.0[0];
    let first = line.pids[0];
    until("the former process has no flow any more", || !is_alive(first));
    let _refused = socket.send(b"is anybody there?");
    socket.set_read_timeout(Some(LIMIT / 20)).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
}
