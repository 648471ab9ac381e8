//! A large installation: 1,000 listeners and 10,000 members, checked and put into effect. The
//! figures are for release code (`tests/soak`); the limits here catch what grows with the square.

use std::fmt::Write;
use std::time::Duration;

use weir_core::time::clock;

use crate::alone;
use crate::process::{RUN_DIR, Server, config, count, get, run, weir};

const LISTENERS: usize = 1_000;
const MEMBERS: usize = 10;

/// Listener `web` as it is, and the others; each with a pool of its own.
fn large(small: &str, weight: u8) -> String {
    let mut text = small.to_owned();
    for n in 0..LISTENERS {
        write!(
            text,
            "[[listener]]\nname = \"l{n}\"\nloadbalancer = \"front\"\nprotocol = \"HTTP\"\n\
             protocol_port = 0\ndefault_pool = \"p{n}\"\n\
             [[pool]]\nname = \"p{n}\"\nprotocol = \"HTTP\"\n"
        )
        .unwrap();
        for m in 0..MEMBERS {
            let address = format!("10.{}.{}.{}", m, n / 250, 1 + n % 250);
            write!(
                text,
                "[[pool.members]]\naddress = \"{address}\"\nprotocol_port = 80\nweight = {weight}\n"
            )
            .unwrap();
        }
    }
    text
}

/// Milliseconds in the answer of a reload.
fn effective(answer: &str) -> f64 {
    let (_, rest) = answer.rsplit_once("effective on all shards after ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_large_file_takes_effect_soon() {
    let _turn = alone();
    let small = config("\"auto\"", 5, 0, &[]);
    assert!(small.contains(RUN_DIR));
    let server = Server::start(&small);
    server.file.write(&large(&small, 1));
    let begin = clock::mono();
    let (code, _, err) = run(weir().args(["check", "--config"]).arg(&server.file.path));
    let checked = clock::mono().since(begin);
    assert_eq!(code, Some(0), "{err}");
    let (code, out, err) = server.reload(&large(&small, 1));
    assert_eq!(code, Some(0), "{err}");
    let added = effective(&out);
    let (code, out, err) = server.reload(&large(&small, 2));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.matches("weight 1 → 2").count(), LISTENERS * MEMBERS);
    let changed = effective(&out);
    let (code, out, err) = server.reload(&small);
    assert_eq!(code, Some(0), "{err}");
    let removed = effective(&out);
    println!(
        "{LISTENERS} listeners, {} members: checked in {:.0} ms; added in {added:.0} ms, all \
         weights changed in {changed:.0} ms, removed in {removed:.0} ms, file read included",
        LISTENERS * MEMBERS,
        checked.as_secs_f64() * 1e3
    );
    let limits = count([30, 60], [5, 10]);
    assert!(checked < Duration::from_secs(limits[0]), "{checked:?}");
    for took in [added, changed, removed] {
        assert!(took < limits[1] as f64 * 1e3, "{took} ms");
    }
    assert_eq!(get(server.web, "/").status, 502, "no member, and still there");
}
