//! What the drills happen to: one `weir serve` with a listener of each kind, and its members. Owns
//! the file, as drills wish it, and the process' size.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_core::time::clock::{self, Mono};
use weir_loadgen::{OriginSpec, Origins, Speaks};

use crate::load::{Load, NAMES, Run};
use crate::process::certs::Ca;
use crate::process::line::Line;
use crate::process::moody::{Mood, Moody};
use crate::process::{RUN_DIR, address_after, count, pass_time, until};
use crate::witness::Witness;

/// Two members of each kind; their places in [`Site::origins`] and [`Wish::weights`].
pub const HTTP: [usize; 2] = [0, 1];
pub const WEBSOCKET: [usize; 2] = [2, 3];
pub const TCP: [usize; 2] = [4, 5];
pub const UDP: [usize; 2] = [6, 7];
const MEMBERS: usize = 8;
/// Nobody else's address: so no client takes a dead member's port.
const ADDRESS: [u8; 4] = [127, 0, 0, 78];
/// The shortest that there is.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Seconds without a right answer that are looked into.
const LONG_GAP: f64 = 0.3;
/// Before the first deed and after the last one.
fn quiet() -> Duration {
    Duration::from_millis(count(800, 1_500))
}

/// What the file says.
#[derive(Clone, Debug)]
pub struct Wish {
    pub weights: [u8; MEMBERS],
    /// The moody member takes part; else it isn't in the file.
    pub moody: bool,
    /// Members of HTTP that fail what clients ask are left out.
    pub outliers: bool,
    /// Sessions and flows of members that are taken out end after [`DRAIN`].
    pub drain: bool,
    pub log: Option<PathBuf>,
    /// The listener that comes and goes.
    pub side: bool,
    /// Anything that changes nothing for the loads: time limits, policies, algorithms.
    pub stir: u64,
}

pub struct Site {
    pub server: Line,
    pub origins: Origins,
    pub moody: Moody,
    pub web: SocketAddr,
    pub secure: SocketAddr,
    pub stream: SocketAddr,
    pub flows: SocketAddr,
    /// Where the side listener is when there is one.
    pub side: SocketAddr,
    pub ca: Ca,
    pub wish: Wish,
    pub folder: tempfile::TempDir,
    dice: u64,
}

/// How large the process is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub descriptors: usize,
    /// KiB.
    pub resident: u64,
    /// KiB; pages that are shared count in part.
    pub proportional: u64,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { descriptors, resident, proportional } = self;
        write!(f, "{descriptors} descriptors, {resident} KiB resident, {proportional} KiB Pss")
    }
}

fn origins(seed: u64) -> Origins {
    let spec = |at: usize| {
        let mut spec = OriginSpec::new(&format!("m{at}"));
        spec.listen = SocketAddr::from((ADDRESS, 0));
        spec.seed = seed + at as u64;
        spec.speaks = match at {
            4 | 5 => Speaks::Echo,
            6 | 7 => Speaks::Udp,
            _ => Speaks::Http,
        };
        spec
    };
    Origins::start(None, (0..MEMBERS).map(spec).collect()).unwrap()
}

/// An address with a port that is free now.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap()
}

impl Site {
    pub fn start(seed: u64) -> Site {
        let (origins, moody) = (origins(seed), Moody::start(Mood::Good));
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("ca");
        ca.leaf(&["www.example.com"], 1).write(folder.path(), "site");
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let wish = Wish {
            weights: [1; MEMBERS],
            moody: false,
            outliers: false,
            drain: false,
            log: None,
            side: false,
            stir: seed,
        };
        let side = free();
        let text = text(&wish, folder.path(), origins.addrs(), moody.addr, side);
        let server = Line::start(&text);
        let at = |words: &str| address_after(&server.ready, words);
        Site {
            web: at("web http://"),
            secure: at("secure https://"),
            stream: at("stream tcp://"),
            flows: at("flows udp://"),
            server,
            origins,
            moody,
            side,
            ca,
            wish,
            folder,
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    /// The file of the loads' authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Reloads the file as it is wished now, and returns when every shard has it.
    pub fn reload(&self) {
        let (wish, folder) = (&self.wish, self.folder.path());
        let text = text(wish, folder, self.origins.addrs(), self.moody.addr, self.side);
        let (code, out, err) = self.server.reload(&text);
        assert_eq!(code, Some(0), "{out}{err}\n{text}");
    }

    /// Runs all loads while `deeds` are done; each notes the time of what it does. What came before
    /// is over then: the checks find every member well.
    pub fn under_load(&mut self, deeds: impl FnOnce(&mut Site, &mut Vec<Mono>)) -> Run {
        until("all members to be well", || self.all_well());
        let load = Load::start(self);
        let witness = Witness::start(self.server.last());
        pass_time(quiet());
        let mut times = Vec::new();
        deeds(self, &mut times);
        pass_time(quiet());
        let loads = load.stop(&times);
        let testimony = witness.end();
        for (name, load) in NAMES.iter().zip(&loads).filter(|(_, load)| load.gap > LONG_GAP) {
            let lasts = Duration::from_secs_f64(load.gap);
            let account = load.gap_at.and_then(|start| testimony.of(start, lasts));
            let account = account.map_or_else(|| "nobody saw it".to_owned(), |a| a.to_string());
            println!("  {name}: {:.2} s without an answer; {account}", load.gap);
        }
        Run { loads, stills: testimony.stills() }
    }

    fn all_well(&self) -> bool {
        let text = self.server.metrics();
        let is_up = |pool: &str, member: &str| {
            let series = format!("weir_member_up{{pool=\"{pool}\",member=\"{member}\"}} 1");
            text.lines().any(|line| line == series)
        };
        let pools = [("app", HTTP), ("ws", WEBSOCKET), ("tcp", TCP), ("udp", UDP)];
        pools.iter().all(|(pool, places)| places.iter().all(|at| is_up(pool, &format!("m{at}"))))
            && (!self.wish.moody || is_up("app", "moody"))
    }

    /// A number below `below` (xorshift64*).
    pub fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        (self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % below
    }

    /// The process' size, once all clients are gone and it has come to rest.
    pub fn size(&self) -> Size {
        for gauge in ["weir_active_connections", "weir_ring_leases"] {
            until(gauge, || self.server.sum(gauge) == 0.0);
        }
        let start = clock::mono();
        let mut descriptors = self.server.descriptors();
        while clock::mono().since(start) < Duration::from_secs(2) {
            descriptors = descriptors.min(self.server.descriptors());
            pass_time(Duration::from_millis(50));
        }
        let path = format!("/proc/{}/smaps_rollup", self.server.pid());
        let rollup = std::fs::read_to_string(path).unwrap();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        let proportional = pss.split_whitespace().next().unwrap().parse().unwrap();
        Size { descriptors, resident: self.server.memory("VmRSS"), proportional }
    }
}

fn text(
    wish: &Wish,
    folder: &Path,
    members: &[SocketAddr],
    moody: SocketAddr,
    side: SocketAddr,
) -> String {
    let stir = wish.stir;
    let algorithm = ["ROUND_ROBIN", "LEAST_CONNECTIONS"][stir as usize % 2];
    let limits =
        format!("client_timeout = {}\nkeepalive_timeout = {}\n", 30 + stir % 5, 20 + stir % 7);
    let mut text = format!(
        "[runtime]\ncores = \"auto\"\nshutdown_timeout = 5\nrun_dir = \"{RUN_DIR}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[loadbalancer]]\nname = \"front\"\nvip_address = \"127.0.0.1\"\n\
         [[loadbalancer]]\nname = \"beside\"\nvip_address = \"{}\"\n\
         [[certificate]]\nname = \"site\"\ncertificate = \"{1}/site.pem\"\n\
         private_key = \"{1}/site.key\"\n",
        side.ip(),
        folder.display()
    );
    if let Some(log) = &wish.log {
        text += &format!("[access_log]\npath = \"{}\"\nformat = \"json\"\n", log.display());
    }
    let quick = format!("member_timeout = 2\nconnect_timeout = 2\n{limits}");
    let secure = format!("default_certificate = \"site\"\n{quick}");
    // Else tunnels end when they are quiet for member_timeout.
    let web = format!("tunnel_timeout = 60\n{quick}");
    text += &listener("web", "HTTP", "front", 0, "app", &web);
    text += &listener("secure", "HTTPS", "front", 0, "app", &secure);
    text += &listener("stream", "TCP", "front", 0, "tcp", "");
    text += &listener("flows", "UDP", "front", 0, "udp", "keepalive_timeout = 10\n");
    if wish.side {
        text += &listener("side", "HTTP", "beside", side.port(), "app", "");
    }
    text += "[[l7policy]]\nname = \"ws\"\nlistener = \"web\"\naction = \"REDIRECT_TO_POOL\"\n\
             redirect_pool = \"ws\"\nrules = [{ type = \"PATH\", compare_type = \"STARTS_WITH\", \
             value = \"/ws\" }]\n";
    text += &stirred_policies(stir);
    for (name, protocol, check, places) in [
        ("app", "HTTP", "HTTP", HTTP),
        ("ws", "HTTP", "HTTP", WEBSOCKET),
        ("tcp", "TCP", "TCP", TCP),
        ("udp", "UDP", "UDP_CONNECT", UDP),
    ] {
        text += &format!(
            "[[pool]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nlb_algorithm = \
             \"{algorithm}\"\nhealthmonitor = {{ type = \"{check}\", delay = 1, timeout = 2, \
             max_retries = 1, max_retries_down = 1 }}\n"
        );
        if name == "app" && wish.outliers {
            text += OUTLIERS;
        }
        if wish.drain {
            let seconds = DRAIN.as_secs();
            text += &format!("connection_drain = {{ enable = true, timeout = {seconds} }}\n");
        }
        for place in places {
            text += &member(&format!("m{place}"), members[place], wish.weights[place]);
        }
        if name == "app" && wish.moody {
            text += &member("moody", moody, 1);
        }
    }
    text
}

/// Two failures in a row, as one shard sees them, are enough.
const OUTLIERS: &str =
    "outlier_detection = { enable = true, consecutive_failures = 2, base_ejection = \"5s\" }\n";

/// Policies that no request of the loads meets.
fn stirred_policies(stir: u64) -> String {
    let one = |n: u64| {
        format!(
            "[[l7policy]]\nname = \"p{n}\"\nlistener = \"web\"\naction = \"FIXED_RESPONSE\"\n\
             fixed_response_config = {{ status_code = {} }}\nrules = [{{ type = \"PATH\", \
             compare_type = \"EQUAL_TO\", value = \"/never/{n}\" }}]\n",
            400 + stir % 50
        )
    };
    (0..stir % 3).map(one).collect()
}

fn listener(name: &str, protocol: &str, of: &str, port: u16, pool: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nloadbalancer = \"{of}\"\nprotocol = \"{protocol}\"\n\
         protocol_port = {port}\ndefault_pool = \"{pool}\"\n{more}"
    )
}

fn member(name: &str, addr: SocketAddr, weight: u8) -> String {
    format!(
        "[[pool.members]]\nname = \"{name}\"\naddress = \"{}\"\nprotocol_port = {}\nweight = \
         {weight}\n",
        addr.ip(),
        addr.port()
    )
}
