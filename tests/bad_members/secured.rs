//! Members of HTTPS pools: certificates that do not hold, and peers that speak no TLS.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;
use weir_core::time::clock;
use weir_loadgen::{Length, OriginSpec, OriginTls, Origins, Plan, Reuse, Target, run};

use crate::process::alive::Alive;
use crate::process::certs::{Ca, Leaf};
use crate::process::count;
use crate::process::moody::{BlackHole, Mood, Moody};
use crate::{Plan as File, address, lines};

/// GETs at a time, each on a connection of its own; how many had each status.
fn statuses(at: SocketAddr, n: usize) -> BTreeMap<u16, u64> {
    let mut plan = Plan::new(Target::parse(&format!("https://{at}/")).unwrap());
    plan.connections = n;
    plan.reuse = Reuse::Requests(1);
    plan.length = Length::Requests(n as u64);
    plan.warmup = Duration::ZERO;
    plan.tls.insecure = true;
    run(&plan).unwrap().statuses
}

/// A member inside TLS for each certificate.
fn secured(folder: &std::path::Path, leaves: &[&Leaf]) -> Origins {
    let spec = |(at, leaf): (usize, &&Leaf)| {
        let [certificate, private_key] = leaf.write(folder, &format!("m{at}"));
        let mut spec = OriginSpec::new(&format!("m{at}"));
        spec.tls = Some(OriginTls { certificate, private_key });
        spec
    };
    Origins::start(None, leaves.iter().enumerate().map(spec).collect()).unwrap()
}

/// R10.1-4: each fault, alone and beside a good member: 502 with its reason, and 200 from the next
/// member; nothing is left behind.
#[test]
fn handshakes_that_fail_are_told_and_leave_nothing() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let past = clock::wall() - Duration::from_secs(86_400);
    let expired = ca.leaf_of(&["m.example"], 1, past, &PKCS_ECDSA_P256_SHA256);
    let (good, foreign) = (ca.leaf(&["m.example"], 2), other.leaf(&["m.example"], 3));
    let folder = tempfile::tempdir().unwrap();
    let origins = secured(folder.path(), &[&good, &expired, &foreign]);
    let [good, expired, foreign] = origins.addrs().try_into().unwrap();
    // To a member of clear text a ClientHello is nonsense: it closes.
    let [plain, ssh] = [Mood::Good, Mood::Ssh].map(Moody::start).map(|moody| moody.addr);
    // The kernel takes its connections, and nobody else.
    let idle = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = idle.local_addr().unwrap();
    let hole = BlackHole::new();
    let cases: [(&str, SocketAddr, u16, &str); 6] = [
        ("expired", expired, 502, "member's certificate has expired or is not valid yet"),
        ("foreign", foreign, 502, "member's certificate is of an unknown issuer"),
        ("plain", plain, 502, "member closed within the TLS handshake"),
        ("ssh", ssh, 502, "member speaks clear text where TLS is due"),
        ("mute", mute, 504, "connecting to the member timed out"),
        ("black-hole", hole.addr, 504, "connecting to the member timed out"),
    ];
    let mut plan = File::new();
    let front = ca.leaf(&["front.example"], 4);
    plan.0 += &format!(
        "[[certificate]]\nname = \"ca\"\ntype = \"client\"\ncertificate = '''\n{}'''\n\
         [[certificate]]\nname = \"front\"\ncertificate = '''\n{}'''\nprivate_key = '''\n{}'''\n",
        ca.pem, front.pem, front.key
    );
    let limits = "member_timeout = 2\nconnect_timeout = 1\ndefault_certificate = \"front\"";
    let tls = "tls = { verify = true, ca = \"ca\", server_name = \"m.example\" }";
    for (name, bad, ..) in cases {
        plan.pair(name, ["HTTPS", "HTTPS"], [limits, tls], &[bad]);
        plan.pair(&format!("{name}-both"), ["HTTPS", "HTTPS"], [limits, tls], &[bad, good]);
    }
    let server = plan.start();
    let before = Alive::at_rest(&server);
    let n = count(3, 50);
    let at = |name: &str| address(&server, name, "https");
    for (name, _, status, _) in cases {
        let all = n as u64;
        assert_eq!(statuses(at(name), n), BTreeMap::from([(status, all)]), "{name}");
        let both = statuses(at(&format!("{name}-both")), n);
        assert_eq!(both, BTreeMap::from([(200, all)]), "{name}");
    }
    for (name, _, status, reason) in cases {
        for line in lines(&server, name, n) {
            assert_eq!(line["status"], status, "{line}");
            assert_eq!(line["error_reason"], reason, "{line}");
            assert_eq!(line["upstream_status"], serde_json::json!([status]), "{line}");
        }
        let failures = format!("weir_member_connect_failures_total{{pool=\"{name}\"");
        let metrics = server.metrics();
        let line = metrics.lines().find(|line| line.starts_with(&failures)).unwrap();
        assert!(line.ends_with(&format!(" {n}")), "{line}");
    }
    assert_eq!(Alive::at_rest(&server), before);
}
