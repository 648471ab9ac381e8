//! What files become in the model, also where this version refuses to run them yet.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::Text;
use super::keys::{self, Key, Preset, Stage};
use super::problem::{Findings, Source};
use super::{evaluate, parse};
use crate::cert::Store;
use crate::model::*;

/// The model of a text that has no mistake but being early.
fn model(text: &str) -> Config {
    let files = [Text::new(Path::new("conf/weir.toml"), text)];
    let mut findings = Findings::default();
    let (config, ..) = evaluate(&files, &mut findings, |_, _| Store::default());
    if let Err(failure) = findings.publish(&[Source { name: "f", text }]) {
        for problem in &failure {
            assert!(problem.message.contains("is not supported yet"), "{text}\n{problem}");
        }
    }
    config
}

const SITE: &str = "[[certificate]]\nname='site'\ncertificate='a'\nprivate_key='b'\n";
const OFFICE: &str = "[[ipgroup]]\nname='office'\nip_list=[]\n";

/// A file in which a line stands in the section of its key.
fn file_with(key: &Key, line: &str) -> String {
    let first = key.protocols.split(", ").next().unwrap_or_default();
    let protocol = if first.is_empty() { "HTTP" } else { first };
    let secure = if protocol == "HTTPS" { "default_certificate='site'\n" } else { "" };
    let listener =
        format!("[[listener]]\nname='l'\nprotocol='{protocol}'\nprotocol_port=0\n{secure}");
    let pool = format!("[[pool]]\nname='p'\nprotocol='{protocol}'\n");
    let section = key.section;
    let policy = "[[l7policy]]\nname='x'\nlistener='l'\n";
    match section {
        "" => format!("{line}\n"),
        "access_log" | "connection_log" => format!("[{section}]\npath='-'\n{line}\n"),
        "loadbalancer" => format!("[[loadbalancer]]\nname='x'\n{line}\n"),
        "listener" => format!("{listener}{line}\n{SITE}"),
        "listener.ipgroup" => format!("{listener}[{section}]\nname=['office']\n{line}\n{OFFICE}"),
        "listener.access_log" => format!("{listener}[{section}]\npath='-'\n{line}\n"),
        "listener.proxy_protocol" => format!("{listener}[{section}]\n{line}\n{SITE}"),
        "pool" => format!("{pool}{line}\n"),
        "pool.members" => {
            format!("{pool}[[{section}]]\naddress='10.0.0.1'\nprotocol_port=1\n{line}\n")
        }
        "pool.healthmonitor" => format!("{pool}[{section}]\ntype='{protocol}'\n{line}\n"),
        "l7policy" => format!(
            "{listener}{policy}{line}\naction='FIXED_RESPONSE'\n\
             fixed_response_config={{status_code=404}}\n"
        ),
        "l7policy.rules" => format!(
            "{listener}{policy}action='FIXED_RESPONSE'\nfixed_response_config={{status_code=404}}\n\
             [[{section}]]\ntype='PATH'\nvalue='/'\n{line}\n"
        ),
        "l7policy.redirect_pools" => format!(
            "{listener}{policy}action='REDIRECT_TO_POOL'\n[[{section}]]\npool='p'\n{line}\n{pool}"
        ),
        "l7policy.redirect_url_config" => {
            let other = if key.name == "port" { "host='h'" } else { "port='1'" };
            format!("{listener}{policy}action='REDIRECT_TO_URL'\n[{section}]\n{other}\n{line}\n")
        }
        "l7policy.fixed_response_config" => format!(
            "{listener}{policy}action='FIXED_RESPONSE'\n[{section}]\nstatus_code=404\n{line}\n"
        ),
        "certificate" => {
            format!("[[certificate]]\nname='c'\ncertificate='a'\nprivate_key='b'\n{line}\n")
        }
        "ipgroup.ip_list" => format!("[[ipgroup]]\nname='g'\n[[{section}]]\nip='::1'\n{line}\n"),
        _ if section.starts_with("pool.") => format!("{pool}[{section}]\n{line}\n"),
        _ => format!("[{section}]\n{line}\n"),
    }
}

/// The rows' defaults and those of the model are the same: written out, they change nothing.
#[test]
fn defaults_of_the_rows_are_those_of_the_model() {
    let mut compared = 0;
    for key in keys::all() {
        let value = match key.preset {
            Preset::Number(number) => number.to_string(),
            Preset::Text(text) => text.to_owned(),
            Preset::Required | Preset::Absent(_) => continue,
        };
        let written = file_with(key, &format!("{} = {value}", key.name));
        assert_eq!(model(&written), model(&file_with(key, "")), "{written}");
        compared += 1;
    }
    assert!(compared > 90, "only {compared} defaults");
}

/// A model object that is built without a file is what a file with its name alone gives.
#[test]
fn default_objects_are_those_of_a_plain_file() {
    let config = model(
        "[[listener]]\nname='l'\nprotocol='HTTP'\nprotocol_port=0\n[[pool]]\nname='p'\n\
         protocol='HTTP'\n",
    );
    let (listener, pool) = (&config.listeners[0], &config.pools[0]);
    let plain = Listener { id: listener.id, name: "l".to_owned(), ..Listener::default() };
    assert_eq!(*listener, plain);
    assert_eq!(*pool, Pool { id: pool.id, name: "p".to_owned(), ..Pool::default() });
    assert_eq!(config.balancers, [Balancer::default()]);
    let process = (config.runtime, config.log, config.compat, config.admin);
    assert_eq!(process, (Runtime::default(), Log::default(), Compat::default(), None));
    assert_eq!(model("[admin]").admin, Some(Admin::default()));
}

/// Each row of a later part is refused in the reference example, once its lines for later stand.
#[test]
fn every_later_row_is_refused_in_the_reference_example() {
    let text = include_str!("../../../examples/reference.toml").replace("\n#- ", "\n");
    let failure = parse(&text, "f").unwrap_err();
    for key in keys::all().filter(|key| matches!(key.stage, Stage::Later(_))) {
        let ending = format!(".{}", key.name);
        let section = key.section.split('.').next().unwrap_or_default();
        let found = failure
            .into_iter()
            .any(|problem| problem.key.starts_with(section) && problem.key.ends_with(&ending));
        let default_only = ["ip_target_enable", "sni_match_algo"].contains(&key.name);
        assert!(found || default_only, "{}.{} is not refused", key.section, key.name);
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_process_is_modelled() {
    let config = model(
        "[runtime]\ncores='0-2'\nsmt='one-per-core'\ncontrol_core=3\nnuma_node=1\nspin='50us'\n\
         backlog=128\nmax_connections=7\nmax_skew_percent=25\nsource_addresses=['10.0.0.1','::1']\n\
         tcp_keepalive={idle=1,interval=2,count=3}\nshutdown_timeout=9\nrun_dir='/run/x'\n\
         [log]\npath='/var/log/w'\nlevel='trace'\nformat='json'\n\
         [compat]\npool_per_policy='shared'\npolicy_conflict='recover'\nl7_ipv6_members=true\n\
         [access_log]\npath='/a'\nformat='json'\n[connection_log]\npath='-'\n",
    );
    let seconds = Duration::from_secs;
    let runtime = Runtime {
        cores: CoreChoice::List(vec![0, 1, 2]),
        smt: Smt::OnePerCore,
        control_core: Some(3),
        numa_node: Some(1),
        spin: Duration::from_micros(50),
        backlog: 128,
        max_connections: 7,
        max_skew_percent: 25,
        source_addresses: ["10.0.0.1", "::1"].map(|a| a.parse::<IpAddr>().unwrap()).to_vec(),
        tcp_keepalive: TcpKeepalive { idle: seconds(1), interval: seconds(2), count: 3 },
        shutdown_timeout: seconds(9),
        run_dir: PathBuf::from("/run/x"),
    };
    assert_eq!(config.runtime, runtime);
    let target = LogTarget::File(PathBuf::from("/var/log/w"));
    assert_eq!(config.log, Log { target, level: LogLevel::Trace, format: LogFormat::Json });
    let all = Compat { shared_pools: true, policies_recover: true, l7_ipv6_members: true };
    assert_eq!(config.compat, all);
    let target = LogTarget::File(PathBuf::from("/a"));
    assert_eq!(config.access_log, Some(AccessLog { target, format: AccessLogFormat::Json }));
    assert_eq!(config.connection_log, Some(LogTarget::Standard));
}

/// R6.7-1, R6.7-2, R6.7-3, R6.7-4, R9.1-10, R9.1-11, R12.2-2, R12.2-3: what follows from protocol
/// and flavour.
#[test]
fn listeners_follow_protocol_and_flavour() {
    let config = model(&format!(
        "[[loadbalancer]]\nname='d'\nip_target_enable=false\npassthrough_fallback='none'\n\
         spec='application'\nnetwork='10.0.0.0/8'\ncores=[1]\n\
         [[loadbalancer]]\nname='e'\n[[loadbalancer]]\nname='s'\nflavor='shared'\n{SITE}{}",
        [("e", "TCP"), ("e", "UDP"), ("s", "TCP"), ("s", "UDP"), ("s", "HTTPS"), ("d", "HTTPS")]
            .map(|(balancer, protocol)| {
                let tls = if protocol == "HTTPS" { "default_certificate='site'\n" } else { "" };
                format!(
                    "[[listener]]\nname='{balancer}{protocol}'\nloadbalancer='{balancer}'\n\
                     protocol='{protocol}'\nprotocol_port=0\n{tls}"
                )
            })
            .concat()
    ));
    let idle: Vec<_> =
        config.listeners.iter().map(|listener| listener.keepalive_timeout.as_secs()).collect();
    assert_eq!(idle, [300, 300, 300, 10, 60, 60]);
    let tls: Vec<_> = config.listeners.iter().filter_map(|l| l.tls.as_ref()).collect();
    assert_eq!(tls[0].sni_match_algo, SniMatch::LongestSuffix);
    assert_eq!(*tls[1], ListenerTls::default());
    let balancer = &config.balancers[0];
    assert_eq!(balancer.spec, Spec { network: false, application: true });
    assert_eq!((balancer.passthrough_fallback, balancer.ip_target_enable), (Fallback::None, false));
    assert_eq!(balancer.cores, Some(vec![1]));
    let inside = model(
        "[[loadbalancer]]\nname='d'\nip_target_enable=false\n[[listener]]\nname='t'\n\
         loadbalancer='d'\nprotocol='TCP'\nport_ranges=['30-40', '50']\n",
    );
    assert!(inside.listeners[0].transparent_client_ip_enable);
    let ranges = [PortRange { first: 30, last: 40 }, PortRange { first: 50, last: 50 }];
    assert_eq!(inside.listeners[0].port_ranges, ranges);
    assert!(!config.listeners[0].transparent_client_ip_enable);
}

#[test]
fn a_listener_is_modelled() {
    let config = model(&format!(
        "[[listener]]\nname='l'\nprotocol='HTTPS'\nprotocol_port=443\ntunnel_timeout=7\n\
         upgrade_protocols=['a/1']\n\
         enable_member_retry=false\nmax_attempts=2\nretry_non_idempotent=true\n\
         max_header_bytes=2048\nmax_headers=5\nmax_uri_bytes=300\nmax_body_bytes=0\nconnection=1\n\
         cps=2\nconnections_per_source=3\ntrusted_proxies=['10.0.0.1']\nserver_timing=true\n\
         insert_headers={{x-real-ip=true,X-Forwarded-For-Processing-Mode='remove'}}\n\
         ipgroup={{name='office',type='black',enable=false}}\n\
         proxy_protocol={{accept=true,from=['::/0']}}\naccess_log=false\n\
         default_certificate='site'\nsni_certificates=['site']\nclient_ca='ca'\n\
         sni_match_algo='longest_suffix'\ntls_ciphers_policy='tls-1-2'\ntls_handshake_timeout=3\n\
         ssl_early_data_enable=false\nticket_keys='t'\nhttp2_enable=false\n{SITE}{OFFICE}\
         [[certificate]]\nname='ca'\ntype='client'\ncertificate='-----BEGIN X'\n",
    ));
    let expected = Listener {
        id: config.listeners[0].id,
        name: "l".to_owned(),
        protocol: Protocol::Https,
        protocol_port: 443,
        tunnel_timeout: Some(Duration::from_secs(7)),
        upgrade_protocols: vec!["a/1".to_owned()],
        enable_member_retry: false,
        max_attempts: 2,
        retry_non_idempotent: true,
        max_header_bytes: 2048,
        max_headers: 5,
        max_uri_bytes: 300,
        max_body_bytes: 0,
        connection: 1,
        cps: 2,
        connections_per_source: 3,
        trusted_proxies: vec!["10.0.0.1/32".parse().unwrap()],
        insert_headers: vec![
            ("X-Forwarded-For-Processing-Mode".to_owned(), InsertHeader::Remove),
            ("X-Real-IP".to_owned(), InsertHeader::Set(true)),
        ],
        ipgroup: Some(AccessControl { groups: vec![0], kind: AccessKind::Black, enable: false }),
        server_timing: true,
        proxy_protocol: ProxyAccept { accept: true, from: vec!["::/0".parse().unwrap()] },
        access_log: ListenerLog::Off,
        tls: Some(ListenerTls {
            default_certificate: 0,
            sni_certificates: vec![0],
            client_ca: Some(1),
            sni_match_algo: SniMatch::LongestSuffix,
            ciphers_policy: "tls-1-2".to_owned(),
            handshake_timeout: Duration::from_secs(3),
            ticket_keys: Some(PathBuf::from("conf/t")),
            http2: false,
        }),
        ..Listener::default()
    };
    assert_eq!(config.listeners[0], expected);
    let [site, ca] = &config.certificates[..] else { panic!("{:?}", config.certificates) };
    assert_eq!(site.certificate, Pem::File(PathBuf::from("conf/a")));
    assert_eq!(ca.certificate, Pem::Text("-----BEGIN X".to_owned()));
    assert_eq!((ca.kind, &ca.private_key), (CertificateKind::Client, &None));
}

#[test]
fn a_pool_is_modelled() {
    let config = model(
        "[[pool]]\nname='p'\nprotocol='HTTPS'\npool_health={minimum_healthy_member_count=1}\n\
         session_persistence={persistence_timeout=5,cookie_name='C'}\n\
         connection_drain={enable=true,timeout=20}\nmember_max_connections=4\n\
         outlier_detection={enable=true,consecutive_failures=2,base_ejection='1m',\
         max_ejected_percent=10}\nqueue_timeout='20ms'\nproxy_protocol='v2'\n\
         tls={verify=true,ca='ca',server_name='A.example'}\n\
         healthmonitor={type='HTTPS',max_retries=4,url_path='/x',http_method='HEAD',\
         expected_codes='200-204',domain_name='h.example',monitor_port=81}\n\
         [[certificate]]\nname='ca'\ntype='client'\ncertificate='c'\n",
    );
    let seconds = Duration::from_secs;
    let expected = Pool {
        id: config.pools[0].id,
        name: "p".to_owned(),
        protocol: PoolProtocol::Https,
        persistence: Some(Persistence {
            kind: PersistenceKind::HttpCookie,
            timeout: seconds(300),
            cookie_name: "C".to_owned(),
        }),
        drain: ConnectionDrain { enable: true, timeout: seconds(20) },
        monitor: Some(Monitor {
            kind: MonitorKind::Https {
                method: MonitorMethod::Head,
                path: "/x".to_owned(),
                host: "h.example".to_owned(),
                codes: Codes::new([(200, 204)]).unwrap(),
            },
            delay: seconds(5),
            timeout: seconds(3),
            rise: 4,
            fall: 4,
            port: Some(81),
        }),
        minimum_healthy_member_count: 1,
        outlier_detection: OutlierDetection {
            enable: true,
            consecutive_failures: 2,
            base_ejection: seconds(60),
            max_ejected_percent: 10,
        },
        member_max_connections: 4,
        queue_timeout: Duration::from_millis(20),
        proxy_protocol: ProxyHeader::V2,
        tls: Some(MemberTls { verify: true, ca: Some(0), server_name: "a.example".to_owned() }),
        ..Pool::default()
    };
    assert_eq!(config.pools[0], expected);
    let quic = model(
        "[[pool]]\nname='p'\nprotocol='QUIC'\nlb_algorithm='QUIC_CID'\n\
         quic_cid_hash_strategy={len=8}\nhealthmonitor={type='UDP_CONNECT'}\n",
    );
    assert_eq!(quic.pools[0].algorithm, Algorithm::QuicCid);
    assert_eq!(quic.pools[0].cid_slice, CidSlice { len: 8, offset: 1 });
    assert_eq!(quic.pools[0].monitor.as_ref().unwrap().timeout, seconds(10));
    let slow = model("[[pool]]\nname='p'\nprotocol='HTTP'\nslow_start={enable=true,duration=31}\n");
    assert_eq!(slow.pools[0].slow_start, Some(SlowStart { duration: seconds(31) }));
}

/// R8.1-22, R8.1-23, R8.2-23, R8.9-1, R8.9-2: the codes of a flavour, unless the file says.
#[test]
fn checks_have_the_codes_of_their_flavour() {
    let codes = |flavor: &str, front: &str, back: &str, check: &str| {
        let tls = if front == "HTTPS" { "default_certificate='site'\n" } else { "" };
        let config = model(&format!(
            "[[loadbalancer]]\nname='b'\nflavor='{flavor}'\n[[listener]]\nname='l'\n\
             loadbalancer='b'\nprotocol='{front}'\nprotocol_port=0\ndefault_pool='p'\n{tls}\
             [[pool]]\nname='p'\nprotocol='{back}'\nhealthmonitor={{{check}}}\n{SITE}"
        ));
        match config.pools[0].monitor.clone().unwrap().kind {
            MonitorKind::Http { codes, .. } | MonitorKind::Https { codes, .. } => codes.to_string(),
            MonitorKind::Grpc { codes, .. } => codes.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(codes("dedicated", "HTTP", "HTTP", "type='HTTP'"), "200");
    assert_eq!(codes("dedicated", "HTTP", "HTTP", "type='HTTPS'"), "200");
    assert_eq!(codes("shared", "HTTP", "HTTP", "type='HTTP'"), "200,202,401");
    assert_eq!(codes("shared", "TCP", "TCP", "type='HTTP'"), "200");
    assert_eq!(codes("dedicated", "TCP", "TCP", "type='HTTP'"), "200");
    assert_eq!(codes("dedicated", "HTTPS", "GRPC", "type='GRPC'"), "0");
    let given = "type='HTTP',expected_codes='204'";
    assert_eq!(codes("shared", "HTTP", "HTTP", given), "204");
}

#[test]
fn policies_and_groups_are_modelled() {
    let config = model(
        "[[listener]]\nname='l'\nprotocol='HTTP'\nprotocol_port=0\n\
         [[pool]]\nname='a'\nprotocol='HTTP'\n[[pool]]\nname='b'\nprotocol='HTTP'\n\
         [[l7policy]]\nname='x'\nlistener='l'\npriority=9\naction='REDIRECT_TO_POOL'\n\
         redirect_pools=[{pool='b',weight=9},{pool='a'}]\nrules=[\
         {type='HOST_NAME',value=['B.example','*.a.example']},\
         {type='HEADER',key='X-Team',compare_type='STARTS_WITH',value='r',invert=true}]\n\
         [[l7policy]]\nname='y'\nlistener='l'\naction='REDIRECT_TO_URL'\n\
         redirect_url_config={protocol='https',status_code=308}\n\
         [[ipgroup]]\nname='g'\nip_list=['10.0.0.0/8',{ip='::1',description='me'}]\n",
    );
    let [x, y] = &config.policies[..] else { panic!("{:?}", config.policies) };
    assert_eq!((x.priority, y.priority), (Some(9), None));
    assert_eq!(x.action, Action::Pools(vec![(1, 9), (0, 1)]));
    let host = Rule {
        kind: RuleKind::HostName,
        compare: Compare::EqualTo,
        values: strings(&["*.a.example", "b.example"]),
        invert: false,
    };
    let header = Rule {
        kind: RuleKind::Header("x-team".to_owned()),
        compare: Compare::StartsWith,
        values: strings(&["r"]),
        invert: true,
    };
    assert_eq!(x.rules, [host, header]);
    let url = RedirectUrl { protocol: "https".to_owned(), status_code: 308, ..Default::default() };
    assert_eq!(y.action, Action::Url(url));
    let entries: Vec<_> = config.ipgroups[0]
        .entries
        .iter()
        .map(|entry| (entry.network.to_string(), entry.description.as_str()))
        .collect();
    assert_eq!(entries, [("10.0.0.0/8".to_owned(), ""), ("::1/128".to_owned(), "me")]);
}
