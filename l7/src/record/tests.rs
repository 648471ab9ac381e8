//! Golden lines of both forms, and what any bytes of a client make of a line.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use weir_core::control::State;
use weir_core::model::{
    self, AccessLog, AccessLogFormat, Balancer, Config, Handles, Id, ListenerLog, LogTarget,
};
use weir_core::obs::{Board, Spool};
use weir_core::table::{Member, View};
use weir_core::time::clock::Mono;

use super::*;

/// Fields of the form "elb".
const FIELDS: usize = 37;

/// A listener with a log, its pool and that pool's members.
struct Scene {
    log: Rc<SiteLog>,
    pool: Rc<Pool>,
    members: Vec<Rc<Member>>,
}

fn scene(format: AccessLogFormat, name: &str) -> Scene {
    let target = LogTarget::File("/var/log/weir/access.log".into());
    let log = AccessLog { target: target.clone(), format };
    let member = |at: u128| model::Member {
        id: Id::from_u128(0xa0 + at),
        name: format!("{name}{at}"),
        address: ([127, 0, 0, 1], 9_000 + at as u16).into(),
        weight: 1,
    };
    let config = Config {
        balancers: vec![Balancer {
            id: Id::from_u128(1),
            name: "front".into(),
            ..Balancer::default()
        }],
        listeners: vec![model::Listener {
            id: Id::from_u128(2),
            name: "web".into(),
            default_pool: Some(0),
            access_log: ListenerLog::Own(log),
            ..model::Listener::default()
        }],
        pools: vec![model::Pool {
            id: Id::from_u128(3),
            name: name.into(),
            members: (1..=MAX_ATTEMPTS as u128).map(member).collect(),
            ..model::Pool::default()
        }],
        ..Config::default()
    };
    let state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
    let spools = HashMap::from([(target, Arc::new(Spool::new(2)))]);
    let board = Board::default().with_spools(spools);
    let view = View::new(1, 7);
    view.apply(&State::default().diff(&state), &board, Mono::from_nanos(0), false);
    let site = view.site(state.listeners().next().unwrap().0).unwrap();
    let pool = site.pool().unwrap();
    Scene { members: pool.members(), pool, log: site.log().unwrap() }
}

fn ms(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

impl Scene {
    /// An attempt whose member answered with, or counts as, `status`.
    fn attempt(&self, at: usize, status: u16, times: [Option<Duration>; 3]) -> Attempt {
        let begun = Mono::from_nanos(0);
        let [connected, answered, ended] = times.map(|time| time.map(|time| begun.plus(time)));
        let (member, sent, status) = (Rc::clone(&self.members[at]), connected, Some(status));
        Attempt { member, reused: false, begun, connected, sent, answered, ended, status }
    }

    /// The line of a request that was answered at the second attempt, changed by `change`.
    fn line<'a>(&'a self, attempts: &'a [Attempt], change: impl FnOnce(&mut Record<'a>)) -> String {
        let mut record = Record {
            wall: Duration::from_micros(1_764_111_251_042_999),
            stamp: b"2025-11-25T22:54:11+00:00",
            log: &self.log,
            client: b"192.0.2.7",
            port: 54_321,
            status: 200,
            asked: Some(Asked {
                method: b"GET",
                host: b"a.example",
                target: b"/x?y=1",
                protocol: b"HTTP/1.1",
            }),
            user_agent: b"curl/8.5",
            referer: b"",
            forwarded_for: b"203.0.113.9",
            request_id: b"7f3a",
            request_length: 120,
            header_length: 100,
            bytes_sent: 300,
            body_bytes_sent: 200,
            request_time: Duration::from_micros(5_012_345),
            proxy_time: Duration::from_micros(123),
            attempts,
            pool: Some(&self.pool),
            rtt_us: Some(87),
            tls: None,
            action: "forward",
            reason: "",
            sticky: Sticky::None,
            connection_requests: 3,
        };
        change(&mut record);
        let mut out = Vec::new();
        record.write(&mut out);
        assert!(out.len() <= LOG_LINE, "{}", out.len());
        let line = String::from_utf8(out).unwrap();
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(char::is_control), "{line}");
        line.to_owned()
    }
}

/// The fields of a line: split at spaces outside of quotes and brackets.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    assert!(!quoted, "a quote stays open: {line}");
    fields
}

/// R13.1-4: the ELB's fields in the ELB's order. R4.1-7: a value an attempt.
#[test]
fn a_golden_line() {
    let scene = scene(AccessLogFormat::Elb, "app");
    let attempts =
        [scene.attempt(0, 502, [None; 3]), scene.attempt(1, 200, [ms(1), ms(12), ms(13)])];
    let line = scene.line(&attempts, |_| {});
    let topic = &scene.log.topic;
    let expected = format!(
        "1764111251.042 {topic} [2025-11-25T22:54:11+00:00] elb_01 192.0.2.7:54321 200 \
         \"GET http://a.example/x?y=1 HTTP/1.1\" 120 300 200 5.012 \"502, 200\" \"-, 0.001\" \
         \"-, 0.012\" \"-, 0.013\" \"127.0.0.1:9001, 127.0.0.1:9002\" \"curl/8.5\" \"-\" \
         \"203.0.113.9\" loadbalancer_00000000-0000-0000-0000-000000000001 \
         listener_00000000-0000-0000-0000-000000000002 00000000-0000-0000-0000-000000000002 \
         pool_00000000-0000-0000-0000-000000000003 \
         \"member_00000000-0000-0000-0000-0000000000a1, \
         member_00000000-0000-0000-0000-0000000000a2\" default - \
         \"127.0.0.1:9001, 127.0.0.1:9002\" - - - - 87 - 100 forward - \"app\""
    );
    assert_eq!(line, expected);
    assert_eq!(fields(&line).len(), FIELDS);
}

/// R4.1-8, R13.1-5: what was never forwarded has one dash a field, what was no request has one too.
#[test]
fn a_line_of_a_request_that_was_no_request() {
    let scene = scene(AccessLogFormat::Elb, "app");
    let line = scene.line(&[], |record| {
        (record.client, record.port) = (b"::1", 9);
        record.status = 400;
        (record.asked, record.pool, record.rtt_us) = (None, None, None);
        (record.user_agent, record.forwarded_for) = (b"", b"");
        (record.header_length, record.action) = (0, "");
        record.reason = "malformed request head";
    });
    let fields = fields(&line);
    assert_eq!(fields.len(), FIELDS);
    assert_eq!(&fields[4..7], ["[::1]:9", "400", "-"]);
    assert!(fields[11..19].iter().all(|field| field == "-"), "{line}");
    assert_eq!(&fields[22..24], ["-", "-"]);
    assert_eq!(&fields[31..], ["-", "-", "0", "-", "malformed_request_head", "-"]);
}

/// R13.1-4: the same as JSON: numbers as numbers, arrays, and what the ELB does not have.
#[test]
fn a_golden_object() {
    let scene = scene(AccessLogFormat::Json, "app");
    let attempts =
        [scene.attempt(0, 504, [None; 3]), scene.attempt(1, 200, [ms(0), ms(12), ms(13)])];
    let line = scene.line(&attempts, |_| {});
    assert!(serde_json::from_str::<Value>(&line).is_ok());
    let topic = &scene.log.topic;
    let zeros = "00000000-0000-0000-0000-0000000000";
    let expected = [
        r#"{"msec":1764111251.042999,"access_log_topic_id":"TOPIC","#,
        r#""time_iso8601":"2025-11-25T22:54:11+00:00","log_ver":"elb_01","#,
        r#""remote_addr":"192.0.2.7","remote_port":54321,"status":200,"method":"GET","#,
        r#""scheme":"http","host":"a.example","uri":"/x?y=1","protocol":"HTTP/1.1","#,
        r#""request_length":120,"bytes_sent":300,"body_bytes_sent":200,"#,
        r#""request_time":5.012345,"upstream_status":[504,200],"#,
        r#""upstream_connect_time":[null,0.000000],"upstream_header_time":[null,0.012000],"#,
        r#""upstream_response_time":[null,0.013000],"#,
        r#""upstream_addr":["127.0.0.1:9001","127.0.0.1:9002"],"http_user_agent":"curl/8.5","#,
        r#""http_referer":null,"http_x_forwarded_for":"203.0.113.9","#,
        r#""lb_name":"loadbalancer_ID01","listener_name":"listener_ID02","#,
        r#""listener_id":"ID02","pool_name":"pool_ID03","#,
        r#""member_name":["member_IDa1","member_IDa2"],"tenant_id":"default","#,
        r#""eip_address":null,"eip_port":null,"#,
        r#""upstream_addr_priv":["127.0.0.1:9001","127.0.0.1:9002"],"#,
        r#""certificate_id":null,"ssl_protocol":null,"ssl_cipher":null,"#,
        r#""sni_domain_name":null,"tcpinfo_rtt":87,"self_defined_header":null,"#,
        r#""request_header_length":100,"actions_executed":"forward","error_reason":null,"#,
        r#""pool_usr_name":"app","lb_usr_name":"front","listener_usr_name":"web","#,
        r#""member_usr_name":["app1","app2"],"request_id":"7f3a","tls_handshake_time":null,"#,
        r#""proxy_time":0.000123,"shard":1,"connection_requests":3,"sticky":"none","#,
        r#""attempts":2}"#,
    ];
    let expected = expected.concat().replace("TOPIC", topic).replace("ID", zeros);
    assert_eq!(line, expected);
}

/// The longest line that there can be fits.
#[test]
fn the_longest_line() {
    for format in [AccessLogFormat::Elb, AccessLogFormat::Json] {
        let long = vec![1_u8; 100_000];
        let scene = scene(format, &"\u{1f980}".repeat(254));
        let attempts: Vec<Attempt> =
            (0..MAX_ATTEMPTS).map(|at| scene.attempt(at, 599, [Some(Duration::MAX); 3])).collect();
        scene.line(&attempts, |record| {
            let asked = Asked { method: &long, host: &long, target: &long, protocol: &long };
            record.asked = Some(asked);
            record.request_id = &long;
            (record.user_agent, record.referer, record.forwarded_for) = (&long, &long, &long);
        });
    }
}

proptest! {
    /// Any bytes give one line, which has all its fields.
    #[test]
    fn any_bytes_make_one_line_that_parses(texts in proptest::array::uniform8(any::<Vec<u8>>())) {
        let [method, host, target, protocol, agent, referer, forwarded, id] = &texts;
        for format in [AccessLogFormat::Elb, AccessLogFormat::Json] {
            let scene = scene(format, "a \"pool\" \\ of us");
            let attempts = [scene.attempt(0, 200, [None; 3])];
            let record = Record {
                wall: Duration::ZERO,
                stamp: b"1970-01-01T00:00:00+00:00",
                log: &scene.log,
                client: b"127.0.0.1",
                port: 1,
                status: 200,
                asked: Some(Asked { method, host, target, protocol }),
                user_agent: agent,
                referer,
                forwarded_for: forwarded,
                request_id: id,
                request_length: 0,
                header_length: 0,
                bytes_sent: 0,
                body_bytes_sent: 0,
                request_time: Duration::ZERO,
                proxy_time: Duration::ZERO,
                attempts: &attempts,
                pool: Some(&scene.pool),
                rtt_us: None,
                tls: None,
                action: "forward",
                reason: "",
                sticky: Sticky::None,
                connection_requests: 1,
            };
            let mut out = Vec::new();
            record.write(&mut out);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            prop_assert!(!out.iter().any(u8::is_ascii_control));
            let line = String::from_utf8(out).unwrap();
            if format == AccessLogFormat::Elb {
                prop_assert_eq!(fields(&line).len(), FIELDS);
            } else {
                let object: Value = serde_json::from_str(&line).unwrap();
                let text = |raw: &[u8]| match raw {
                    [] => Value::Null,
                    raw => Value::from(String::from_utf8_lossy(raw)),
                };
                prop_assert_eq!(&object["http_user_agent"], &text(agent));
                prop_assert_eq!(&object["uri"], &text(target));
                prop_assert_eq!(object["pool_usr_name"].as_str(), Some("a \"pool\" \\ of us"));
            }
        }
    }
}
